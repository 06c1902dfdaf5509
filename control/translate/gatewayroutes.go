package translate

import (
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// gatewayHost gathers the routes of one host at a gateway.
type gatewayHost struct {
	host     string
	routes   []*routev3.Route
	sets     []*model.RouteSet // whose routes these are
	redirect bool              // all of its servers send clients to https
}

// table makes the route table of some servers of a listener. Route sets for the
// same host are merged, the older first; a host that no set routes is 404.
func (b *gatewayBuilder) table(name string, servers []serverRef, p *gatewayPort) {
	if b.routes[name] != nil {
		return
	}
	t := newTable(name)
	t.IgnorePortInHostMatching = true
	for _, h := range b.hosts(servers, p) {
		vh := &routev3.VirtualHost{
			Name: hostPort(h.host, servers[0].Port), Domains: []string{h.host}, Routes: h.routes, IncludeRequestAttemptCount: true,
		}
		switch {
		case !h.redirect:
		case b.v.weft:
			vh.Routes = append([]*routev3.Route{httpsRedirect()}, h.routes...)
		default:
			vh.RequireTls = routev3.VirtualHost_ALL
		}
		t.VirtualHosts = append(t.VirtualHosts, vh)
	}
	t.VirtualHosts = append(t.VirtualHosts, misdirected(servers, t.VirtualHosts)...)
	if len(t.VirtualHosts) == 0 {
		t.VirtualHosts = []*routev3.VirtualHost{notFound(servers[0].Port)}
	}
	b.routes[name] = b.s.resource(xds.RouteType, name, t)
}

// hosts lists the hosts of the servers with their routes, sorted by name.
func (b *gatewayBuilder) hosts(servers []serverRef, p *gatewayPort) []*gatewayHost {
	byHost := map[string]*gatewayHost{}
	host := func(name string) *gatewayHost {
		h := byHost[name]
		if h == nil {
			h = &gatewayHost{host: name}
			byHost[name] = h
		}
		return h
	}
	for _, rs := range b.routeSets(servers) {
		for _, sv := range servers {
			if !slices.Contains(rs.Gateways, sv.key()) {
				continue
			}
			for _, name := range sv.matching(rs) {
				h := host(name)
				h.redirect = h.redirect || sv.redirects()
				b.addRoutes(h, rs, sv, p)
			}
		}
	}
	// A server that redirects does so for all its hosts, routed or not.
	for _, sv := range servers {
		if sv.redirects() {
			for _, name := range sv.hostNames() {
				host(name).redirect = true
			}
		}
	}
	out := make([]*gatewayHost, 0, len(byHost))
	for _, name := range sorted(byHost) {
		if h := byHost[name]; h.redirect || len(h.routes) > 0 {
			out = append(out, h)
		}
	}
	return out
}

// routeSets are those bound to the gateways of the servers, oldest first, each once.
func (b *gatewayBuilder) routeSets(servers []serverRef) []*model.RouteSet {
	var out []*model.RouteSet
	for _, sv := range servers {
		for _, rs := range b.world.GatewayRoutes(sv.key(), b.v.namespace) {
			if !slices.Contains(out, rs) {
				out = append(out, rs)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *model.RouteSet) int { return a.Created.Compare(b.Created) })
	return out
}

// addRoutes appends a set's routes to a host, unless an earlier set's last
// route takes everything already or the set was added by another server.
func (b *gatewayBuilder) addRoutes(h *gatewayHost, rs *model.RouteSet, sv serverRef, p *gatewayPort) {
	if n := len(h.routes); n > 0 && (catchAll(h.routes[n-1].Match) || slices.Contains(h.sets, rs)) {
		return
	}
	h.sets = append(h.sets, rs)
	r := b.router(sv.Port, sv.key())
	h.routes = append(h.routes, r.httpRoutes(rs)...)
	routeHosts(rs, func(d *model.Destination, of *model.Route) { b.addTarget(r, d, of.IsGRPC()) })
}

func (r serverRef) redirects() bool { return r.TLS != nil && r.TLS.HTTPSRedirect && !r.terminates() }

// httpsRedirect sends clients to https with 301 that did not come that way, to us
// or to a proxy that we trust; the port of the Host header stays. Envoy has require_tls for it.
func httpsRedirect() *routev3.Route {
	m := routeMatch(nil)
	notHTTPS := headerMatcher("x-forwarded-proto", exact("https"))
	notHTTPS.InvertMatch, notHTTPS.TreatMissingHeaderAsEmpty = true, true
	m.Headers = append(m.Headers, notHTTPS)
	return &routev3.Route{
		Match:  m,
		Action: &routev3.Route_Redirect{Redirect: &routev3.RedirectAction{SchemeRewriteSpecifier: &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true}}},
	}
}

// notFound answers a port that nothing is routed on.
func notFound(port uint16) *routev3.VirtualHost {
	return &routev3.VirtualHost{
		Name: hostPort("blackhole", port), Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Name: "default", Match: routeMatch(nil),
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 404}},
		}},
	}
}

// misdirected answers 421 for hosts that other servers of the port have: a client that reuses its connection for
// them (RFC 9110 section 7.4) shall make another one. Hosts that are routed here go first.
func misdirected(servers []serverRef, routed []*routev3.VirtualHost) []*routev3.VirtualHost {
	var out []*routev3.VirtualHost
	taken := map[string]bool{}
	for _, v := range routed {
		for _, d := range v.Domains {
			taken[d] = true
		}
	}
	for _, sv := range servers {
		for _, host := range sv.Misdirected {
			if taken[host] {
				continue
			}
			taken[host] = true
			out = append(out, &routev3.VirtualHost{
				Name: "misdirected:" + hostPort(host, sv.Port), Domains: []string{host},
				Routes: []*routev3.Route{{
					Name: "misdirected", Match: routeMatch(nil),
					Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 421}},
				}},
			})
		}
	}
	return out
}
