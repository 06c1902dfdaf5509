package convert

import (
	"slices"
	"strconv"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"weft.mesh/weft/model"
)

// corsPolicy reads a CORS policy. What is left out of unmatchedPreflights means FORWARD, as in Istio.
func (c *conv) corsPolicy(path string, p *networking.CorsPolicy) *model.CORS {
	if p == nil {
		return nil
	}
	out := &model.CORS{
		Methods: p.AllowMethods, Headers: p.AllowHeaders, Expose: p.ExposeHeaders, Credentials: p.AllowCredentials.GetValue(),
		ForwardUnmatched: p.UnmatchedPreflights != networking.CorsPolicy_IGNORE,
	}
	if len(p.AllowOrigins) == 0 {
		c.missing(path+".allowOrigins", "name the origins whose pages may ask, like {exact: https://shop.example.com}; {exact: \"*\"} is any")
	}
	for i, o := range p.AllowOrigins {
		if m := c.stringMatch(idx(path+".allowOrigins", i), o, false); m != nil {
			out.Origins = append(out.Origins, *m)
		}
	}
	for i, m := range p.AllowMethods {
		if m != "*" && !isHeaderName(m) { // a method is a token too
			c.fail(CodeInvalidValue, idx(path+".allowMethods", i), m, "this is not a method", "write one like GET or PUT, or * for any")
		}
	}
	c.corsHeaders(path+".allowHeaders", p.AllowHeaders)
	c.corsHeaders(path+".exposeHeaders", p.ExposeHeaders)
	if out.Credentials && slices.Contains(p.ExposeHeaders, "*") {
		c.fail(CodeInvalidValue, path+".exposeHeaders", "*", "browsers take * for a header's name where credentials are allowed", "name the headers, or remove allowCredentials")
	}
	if p.MaxAge != nil {
		out.MaxAge = c.duration(path+".maxAge", p.MaxAge)
		if out.MaxAge%time.Second != 0 {
			c.fail(CodeInvalidDuration, path+".maxAge", out.MaxAge.String(), "browsers count whole seconds", "write "+strconv.Itoa(int(out.MaxAge.Round(time.Second).Seconds()))+"s")
		}
	}
	return out
}

func (c *conv) corsHeaders(path string, names []string) {
	for i, n := range names {
		if n != "*" && !isHeaderName(n) {
			c.fail(CodeInvalidName, idx(path, i), n, "this is not a header name", "use letters, digits and '-', or * for any")
		}
	}
}
