package cors

import (
	"fmt"
	"strconv"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"

	"weft.mesh/weft/proxy/filter/matcher"
	"weft.mesh/weft/proxy/route"
)

// maxOrigins bounds the matchers of one policy: they are tried one by one.
const maxOrigins = 1024

// New makes the filter.
func New(c *corsv3.Cors) (*Filter, error) {
	if err := matcher.Known(c); err != nil {
		return nil, fmt.Errorf("cors: %w", err)
	}
	return &Filter{}, nil
}

// Route compiles a route's configuration.
func Route(c *corsv3.CorsPolicy) (*Policy, error) {
	p, err := compile(c)
	if err != nil {
		return nil, fmt.Errorf("cors: %w", err)
	}
	return p, nil
}

func compile(c *corsv3.CorsPolicy) (*Policy, error) {
	if err := matcher.Known(c); err != nil {
		return nil, err
	}
	if err := matcher.Only(c, "allow_origin_string_match", "allow_methods", "allow_headers", "expose_headers", "max_age",
		"allow_credentials", "filter_enabled", "forward_not_matching_preflights"); err != nil {
		return nil, err
	}
	p := &Policy{
		methods: c.GetAllowMethods(), headers: c.GetAllowHeaders(), expose: c.GetExposeHeaders(), maxAge: c.GetMaxAge(),
		credentials: c.GetAllowCredentials().GetValue(),
		forward:     c.GetForwardNotMatchingPreflights() == nil || c.GetForwardNotMatchingPreflights().GetValue(),
	}
	if n := len(c.GetAllowOriginStringMatch()); n > maxOrigins {
		return nil, fmt.Errorf("allow_origin_string_match: %d matchers: at most %d", n, maxOrigins)
	}
	for i, m := range c.GetAllowOriginStringMatch() {
		s, err := matcher.String(m)
		if err != nil {
			return nil, fmt.Errorf("allow_origin_string_match[%d]: %w", i, err)
		}
		p.origins = append(p.origins, s)
	}
	if p.maxAge != "" {
		if _, err := strconv.ParseInt(p.maxAge, 10, 64); err != nil { // negative: do not cache (Fetch)
			return nil, fmt.Errorf("max_age: %q: want a number of seconds", p.maxAge)
		}
	}
	for _, v := range []struct{ name, value string }{{"allow_methods", p.methods}, {"allow_headers", p.headers}, {"expose_headers", p.expose}} {
		if !fieldValue(v.value) {
			return nil, fmt.Errorf("%s: %q: has characters that no header may have", v.name, v.value)
		}
	}
	return p, p.compileShare(c)
}

// compileShare reads filter_enabled, of which runtime keys are refused.
func (p *Policy) compileShare(c *corsv3.CorsPolicy) error {
	e := c.GetFilterEnabled()
	if e == nil {
		return nil
	}
	if err := matcher.Only(e, "default_value"); err != nil {
		return fmt.Errorf("filter_enabled: %w", err)
	}
	f, err := matcher.Fraction(e.GetDefaultValue())
	if err != nil {
		return fmt.Errorf("filter_enabled: %w", err)
	}
	if f == nil {
		f = &route.Fraction{Numerator: 0, Denominator: 100}
	}
	if f.Numerator < f.Denominator {
		p.share = f
	}
	return nil
}

func fieldValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
