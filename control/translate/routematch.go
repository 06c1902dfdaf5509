package translate

import (
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
)

// client is who routes are made for: a sidecar's workload, or a gateway.
type client struct {
	namespace string
	labels    map[string]string
	gateways  []string // "mesh", or namespace/name of the gateways that a listener serves
	port      uint16   // of the listener
}

// applies tells whether a match block holds for every request of this client,
// as far as who and where it is decides. At a gateway the client is the gateway:
// sourceLabels and sourceNamespace are compared with its own, as Istio does.
func (c *client) applies(port uint16, labels map[string]string, namespace string, gateways []string) bool {
	switch {
	case port != 0 && port != c.port:
		return false
	case len(gateways) > 0 && !slices.ContainsFunc(gateways, func(g string) bool { return slices.Contains(c.gateways, g) }):
		return false
	case namespace != "" && namespace != c.namespace:
		return false
	}
	return snapshot.Matches(labels, c.labels)
}

func (c *client) mesh() bool { return slices.Contains(c.gateways, snapshot.GatewayMesh) }

// routeMatch translates the conditions on a request. nil matches everything.
func routeMatch(m *model.HTTPMatch) *routev3.RouteMatch {
	out := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	if m == nil {
		return out
	}
	if u := m.URI; u != nil {
		switch {
		case u.Exact != nil:
			out.PathSpecifier = &routev3.RouteMatch_Path{Path: *u.Exact}
		case u.Prefix != nil:
			out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: *u.Prefix}
		case u.Regex != nil:
			out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(*u.Regex)}
		}
	}
	if m.PathPrefix != "" {
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: m.PathPrefix}
	}
	if m.IgnoreURICase {
		out.CaseSensitive = boolean(false)
	}
	for _, name := range sorted(m.Headers) {
		out.Headers = append(out.Headers, headerMatch(name, m.Headers[name]))
	}
	for _, name := range sorted(m.WithoutHeaders) {
		h := headerMatch(name, m.WithoutHeaders[name])
		h.InvertMatch = true
		if _, presence := h.HeaderMatchSpecifier.(*routev3.HeaderMatcher_PresentMatch); !presence {
			h.TreatMissingHeaderAsEmpty = true // a header that is not there is not that value
		}
		out.Headers = append(out.Headers, h)
	}
	for _, p := range []struct {
		name  string
		match *model.StringMatch
	}{{":method", m.Method}, {":authority", m.Authority}, {":scheme", m.Scheme}} {
		if p.match != nil {
			out.Headers = append(out.Headers, headerMatch(p.name, *p.match))
		}
	}
	for _, name := range sorted(m.Query) {
		out.QueryParameters = append(out.QueryParameters, queryMatch(name, m.Query[name]))
	}
	return out
}

// catchAll tells whether a match takes every request, so that what follows it is never reached.
func catchAll(m *routev3.RouteMatch) bool {
	p, ok := m.PathSpecifier.(*routev3.RouteMatch_Prefix)
	return ok && p.Prefix == "/" && len(m.Headers) == 0 && len(m.QueryParameters) == 0
}

// stringMatch is nil for a match without a value, which means presence.
func stringMatch(m model.StringMatch) *matcherv3.StringMatcher {
	switch {
	case m.Exact != nil:
		return exact(*m.Exact)
	case m.Prefix != nil:
		return prefix(*m.Prefix)
	case m.Regex != nil:
		return matchesRegex(*m.Regex)
	}
	return nil
}

func headerMatch(name string, m model.StringMatch) *routev3.HeaderMatcher {
	h := &routev3.HeaderMatcher{Name: name}
	switch sm := stringMatch(m); {
	case sm == nil, sm.GetPrefix() == "" && m.Prefix != nil, sm.GetExact() == "" && m.Exact != nil:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
	default:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: sm}
	}
	return h
}

func queryMatch(name string, m model.StringMatch) *routev3.QueryParameterMatcher {
	q := &routev3.QueryParameterMatcher{Name: name}
	if sm := stringMatch(m); sm != nil && (m.Prefix == nil || *m.Prefix != "") {
		q.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: sm}
	} else {
		q.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
	}
	return q
}
