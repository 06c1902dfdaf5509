package translate

import (
	"slices"
	"strconv"
	"strings"
	"time"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"

	"weft.mesh/weft/model"
)

// corsPolicy is a route's CORS configuration.
func corsPolicy(c *model.CORS) *corsv3.CorsPolicy {
	p := &corsv3.CorsPolicy{
		AllowMethods: corsList(c.Methods), AllowHeaders: corsList(c.Headers), ExposeHeaders: corsList(c.Expose),
		FilterEnabled: runtimeFraction(100), ForwardNotMatchingPreflights: boolean(c.ForwardUnmatched),
	}
	if c.Credentials {
		p.AllowCredentials = boolean(true)
		if p.ExposeHeaders == "*" {
			p.ExposeHeaders = "" // with credentials browsers take it for a name
		}
	}
	if c.MaxAge > 0 {
		p.MaxAge = strconv.FormatInt(int64(c.MaxAge/time.Second), 10)
	}
	for _, o := range c.Origins {
		if m := stringMatch(o); m != nil {
			p.AllowOriginStringMatch = append(p.AllowOriginStringMatch, m)
		}
	}
	return p
}

// corsList joins names; a wildcard among them is all of them.
func corsList(names []string) string {
	if slices.Contains(names, "*") {
		return "*"
	}
	return strings.Join(names, ",")
}
