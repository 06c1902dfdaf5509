package translate

import (
	"cmp"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"weft.mesh/weft/model"
)

// tlsChains are the chains of a server with TLS: one that ends it and routes
// requests, or chains by server name that pass bytes on.
func (b *gatewayBuilder) tlsChains(p *gatewayPort, sv serverRef, sni map[string]bool) []*listenerv3.FilterChain {
	names := freshNames(sni, sv.hostNames())
	if len(names) == 0 {
		return nil
	}
	if !sv.terminates() {
		return b.passthroughChains(sv)
	}
	socket := b.secrets.serverTLS(sv.TLS, sv.isHTTP(), b.v.weft)
	if socket == nil { // without its certificate nobody is served; others of the port are
		return nil
	}
	if sv.isHTTP() {
		table := b.tlsTable(sv)
		b.table(table, []serverRef{sv}, p)
		return []*listenerv3.FilterChain{terminate(&listenerv3.FilterChain{Filters: []*listenerv3.Filter{b.manager(p, table)}}, names, socket)}
	}
	var out []*listenerv3.FilterChain
	for _, c := range b.passthroughChains(sv) { // TLS routes choose by name, also where TLS ends here
		out = append(out, terminate(c, c.FilterChainMatch.ServerNames, socket))
	}
	for _, c := range b.tcpChains(sv) {
		out = append(out, terminate(c, names, socket))
	}
	return out
}

// tlsTable names the route table of a server that ends TLS. Servers with equal
// names get a number, so that none takes another's routes.
func (b *gatewayBuilder) tlsTable(sv serverRef) string {
	base := "https." + strconv.Itoa(int(sv.Port)) + "." + cmp.Or(sv.PortName, sv.Name, "default")
	owner := "." + sv.gateway.Name + "." + sv.gateway.Namespace
	name := base + owner
	for i := 2; b.routes[name] != nil; i++ {
		name = base + "-" + strconv.Itoa(i) + owner
	}
	return name
}

// terminate makes a chain end TLS for some server names.
func terminate(c *listenerv3.FilterChain, names []string, socket *corev3.TransportSocket) *listenerv3.FilterChain {
	c.FilterChainMatch, c.TransportSocket, c.TransportSocketConnectTimeout = sniMatch(names), socket, duration(handshakeTimeout)
	return c
}

// freshNames keeps the server names that no earlier server took.
func freshNames(taken map[string]bool, names []string) []string {
	var out []string
	for _, n := range names {
		if !taken[n] {
			taken[n] = true
			out = append(out, n)
		}
	}
	return out
}

// sniMatch matches TLS by server name; "*" is all TLS.
func sniMatch(names []string) *listenerv3.FilterChainMatch {
	return &listenerv3.FilterChainMatch{ServerNames: envoyServerNames(names), TransportProtocol: transportTLS}
}

// hostNames are the server's hosts without their namespaces.
func (r serverRef) hostNames() []string {
	var out []string
	for _, h := range r.Hosts {
		out = append(out, h.Host)
	}
	return out
}

func (b *gatewayBuilder) router(port uint16, gateways ...string) *router {
	return &router{world: b.world, client: client{namespace: b.v.namespace, labels: b.v.labels, gateways: gateways, port: port}}
}

// passthroughChains lead TLS by server name to where TLS routes say.
func (b *gatewayBuilder) passthroughChains(sv serverRef) []*listenerv3.FilterChain {
	var out []*listenerv3.FilterChain
	r := b.router(sv.Port, sv.key())
	for _, rs := range b.world.GatewayRoutes(sv.key(), b.v.namespace) {
		if len(sv.matching(rs)) == 0 {
			continue
		}
		chains, _ := r.l4Routes(rs.TLS)
		for _, x := range chains {
			out = append(out, &listenerv3.FilterChain{FilterChainMatch: x.match(), Filters: b.forward(r, rs, x.forward)})
		}
	}
	return out
}

// tcpChains lead all connections of a server to where TCP routes say.
func (b *gatewayBuilder) tcpChains(sv serverRef) []*listenerv3.FilterChain {
	r := b.router(sv.Port, sv.key())
	for _, rs := range b.world.GatewayRoutes(sv.key(), b.v.namespace) {
		if len(sv.matching(rs)) == 0 {
			continue
		}
		chains, _ := r.l4Routes(rs.TCP)
		if len(chains) > 0 {
			return []*listenerv3.FilterChain{{Filters: b.forward(r, rs, chains[0].forward)}}
		}
	}
	return nil
}

// forward ends a TCP chain, with the gateway's policies, and notes where it leads.
func (b *gatewayBuilder) forward(r *router, rs *model.RouteSet, dests []model.Destination) []*listenerv3.Filter {
	routeHosts(rs, func(d *model.Destination, of *model.Route) { b.addTarget(r, d, of.IsGRPC()) })
	deny, allow := b.authz.tcp()
	return append(networkRBAC(deny, allow), b.s.forwardTCP(r, b.v.weft, dests)...)
}
