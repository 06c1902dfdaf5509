// Package cors answers browsers' questions about requests from other origins
// (the CORS protocol of the Fetch standard), as Envoy's cors filter.
//
// A route's configuration says which origins may ask; a route without any is left
// alone, and costs one look-up. A preflight (OPTIONS with Origin and
// Access-Control-Request-Method) of an allowed origin is answered here and goes to no
// upstream; one of another origin is passed on or answered without permission, as
// configured. Other requests pass, and their responses say that the origin may read them.
//
// It permits, it does not protect: a request of a foreign origin that is no preflight
// reaches the upstream, and the browser keeps the answer from the page. Shadow mode and
// private network access are refused.
package cors

import (
	"math/rand/v2"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// Name of the filter in Envoy's configuration.
const Name = "envoy.filters.http.cors"

// Filter has no configuration of its own: routes have. Safe for concurrent use.
type Filter struct{}

var _ filter.HTTP = (*Filter)(nil)

// Policy is one route's compiled configuration. Immutable.
type Policy struct {
	origins     []route.StringMatch
	methods     string // value of Access-Control-Allow-Methods; "": left out
	headers     string
	expose      string
	maxAge      string
	credentials bool
	forward     bool            // preflights of other origins go to the upstream
	share       *route.Fraction // of requests that the policy holds for; nil: all
}

// latch is what the response needs to know of the request, which header operations of the route may change.
type latch struct {
	policy *Policy
	origin string
}

// Name implements [filter.HTTP].
func (f *Filter) Name() string { return Name }

// Request implements [filter.HTTP].
func (f *Filter) Request(s *filter.Stream) filter.Verdict {
	if len(s.PerRoute) == 0 {
		return filter.Continue
	}
	p, ok := s.PerRoute[Name].(*Policy)
	if !ok || p.share != nil && !p.share.Hit(rand.Uint64()) {
		return filter.Continue
	}
	origin := s.Req.Fields.Get("origin")
	if len(origin) == 0 {
		return filter.Continue
	}
	allowed := p.allows(origin)
	if allowed {
		keep(s, &latch{p, string(origin)})
	}
	method := s.Req.Fields.Get("access-control-request-method")
	switch {
	case string(s.Req.Method) != "OPTIONS" || len(method) == 0: // not a preflight
		return filter.Continue
	case allowed:
		return filter.End(p.preflight(s.Req, method))
	case p.forward:
		return filter.Continue
	}
	return filter.End(&filter.Reply{Status: 200, Details: "cors_response", Bare: true}) // and no permission
}

// allows tells whether pages of the origin may ask. A matcher of "*" alone is anyone.
func (p *Policy) allows(origin []byte) bool {
	for i := range p.origins {
		m := &p.origins[i]
		if m.Kind == route.StringExact && m.Value == "*" || m.Matches(origin) {
			return true
		}
	}
	return false
}

// preflight is the answer to an allowed origin; the origin itself and what holds for every response comes in Response.
func (p *Policy) preflight(req *stream.Request, method []byte) *filter.Reply {
	r := &filter.Reply{Status: 200, Details: "cors_response", Bare: true}
	add := func(name, value string) {
		if value != "" {
			r.Headers = append(r.Headers, filter.Header{Name: name, Value: value})
		}
	}
	add("access-control-allow-methods", literal(p.methods, method))
	add("access-control-allow-headers", literal(p.headers, req.Fields.Get("access-control-request-headers")))
	add("access-control-max-age", p.maxAge)
	return r
}

// literal replaces the wildcard by what was asked for: where credentials are allowed, browsers
// read "*" as a name (Fetch, section 3.3.4).
func literal(value string, asked []byte) string {
	if value == "*" {
		return string(asked)
	}
	return value
}

// Response implements [filter.HTTP]. What an upstream says of these headers is replaced.
func (f *Filter) Response(s *filter.Stream) {
	if len(s.PerRoute) == 0 {
		return
	}
	l := kept(s)
	if l == nil {
		return
	}
	h := &s.Resp.Fields
	h.Set("access-control-allow-origin", l.origin)
	if l.policy.credentials {
		h.Set("access-control-allow-credentials", "true")
	}
	if l.policy.expose != "" {
		h.Set("access-control-expose-headers", l.policy.expose)
	}
}

// keep puts the latch into a slot of the exchange that no filter uses.
func keep(s *filter.Stream, l *latch) {
	for i := range s.State {
		if s.State[i] == nil {
			s.State[i] = l
			return
		}
	}
}

func kept(s *filter.Stream) *latch {
	for _, v := range s.State {
		if l, ok := v.(*latch); ok {
			return l
		}
	}
	return nil
}
