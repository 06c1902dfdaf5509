package translate

import (
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// routed tells whether a port takes part in the routing by Host of its number.
func (p servicePort) routed() bool {
	proto := portProtocol(p.port)
	return proto.IsHTTP() || proto == model.ProtocolAuto
}

// ownTable tells whether a port has a route table of its own: reached by addresses of
// the service alone, and sniffed or routed by these.
func (p servicePort) ownTable() bool {
	return p.routed() && len(p.vips) > 0 && (p.front || portProtocol(p.port) == model.ProtocolAuto)
}

// byHost tells whether the table of the port's number has the service: not where only its
// addresses lead to it. An allocated address is not known to all clients.
func (p servicePort) byHost() bool {
	return p.routed() && !(p.front && len(p.service.VIPs) > 0)
}

// wantsShared tells whether the port is a reason to have a table of its number: others only appear in it.
func (p servicePort) wantsShared() bool {
	return p.byHost() && (p.front || !p.ownTable())
}

// isFrontend tells whether a route set is one of the addresses of its service, and routes requests to a port.
func isFrontend(rs *model.RouteSet, port uint16) bool {
	return rs != nil && rs.Frontend && slices.ContainsFunc(rs.HTTP, func(h model.Route) bool {
		return len(h.Matches) == 0 || slices.ContainsFunc(h.Matches, func(m model.HTTPMatch) bool { return m.Port == 0 || m.Port == port })
	})
}

func (p servicePort) table() string {
	return p.service.Host + ":" + strconv.Itoa(int(p.port.Number))
}

// tableNames lists the route tables of the scope's listeners, sorted.
func (c *scope) tableNames() []string {
	var out []string
	for port, sps := range c.byPort {
		if slices.ContainsFunc(sps, servicePort.wantsShared) {
			out = append(out, strconv.Itoa(int(port)))
		}
		for _, p := range sps {
			if p.ownTable() {
				out = append(out, p.table())
			}
		}
	}
	slices.Sort(out)
	return out
}

// route returns a route table; nil if the scope has none of that name.
func (c *scope) route(name string) *xds.Resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.routes[name]; ok {
		return r
	}
	r := c.makeRoute(name)
	c.routes[name] = r
	return r
}

func (c *scope) makeRoute(name string) *xds.Resource {
	if _, ok := slices.BinarySearch(c.tables(), name); !ok {
		return nil
	}
	host, digits, own := strings.Cut(name, ":")
	if !own {
		host, digits = "", name
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil { // it is one of our names
		return nil
	}
	port := uint16(n)
	var sps []servicePort
	for _, p := range c.byPort[port] {
		if own && p.ownTable() && p.service.Host == host || !own && p.byHost() {
			sps = append(sps, p)
		}
	}
	return c.parts.table(name, c.tables()).update(c, sps, routeTableName{name, port, own, !own && c.byAddress(port)})
}

// byAddress tells whether the table of a port's number lacks services that only their addresses lead to. Such a host may be named
// on the way to another service, which takes the request; an Envoy passes it on to the address as it is.
func (c *scope) byAddress(port uint16) bool {
	return c.key.weft && slices.ContainsFunc(c.byPort[port], func(p servicePort) bool { return p.routed() && !p.byHost() })
}

// tableKey finds the last version of a scope's route table for gRPC.
type tableKey struct{ scope, table string }

// tableInputs are what routes to services are made from: these, the route sets of
// their hosts, and the services and rules of what those lead to.
func (c *scope) tableInputs(sps []servicePort, port uint16) inputs {
	in := make(inputs, 0, 3*len(sps))
	r := c.router(port)
	for _, p := range sps {
		rs := c.s.world.Routes(c.namespace, p.service.Host)
		in = append(in, p.service, rs, c.s.world.Rule(c.namespace, c.labels, p.service.Key))
		if rs == nil {
			continue
		}
		routeHosts(rs, func(d *model.Destination, _ *model.Route) { r.rule(r.service(d.Host)) })
	}
	return append(in, r.used...)
}

func (c *scope) router(port uint16) *router {
	cl := c.client
	cl.port = port
	return &router{world: c.s.world, client: cl}
}

func (s *Snapshot) catchAll() *routev3.VirtualHost {
	if s.mesh.RegistryOnly {
		return blockAll()
	}
	return passAny()
}

// hostRoutes are the routes of the host's route set, where it has any for this
// client, else the one to the service itself.
func (c *scope) hostRoutes(r *router, p servicePort) []*routev3.Route {
	if rs := c.s.world.Routes(c.namespace, p.service.Host); rs != nil {
		if routes := r.httpRoutes(rs); len(routes) > 0 {
			return routes
		}
	}
	return []*routev3.Route{r.defaultRoute(p.service, p.port.Number)}
}

func newTable(name string) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: name, ValidateClusters: boolean(false), IgnorePortInHostMatching: true, MaxDirectResponseBodySizeBytes: u32(maxDirectBody),
	}
}

// routeHosts tells which services a route set leads to, and by which HTTP route (nil: TCP or TLS).
func routeHosts(rs *model.RouteSet, each func(*model.Destination, *model.Route)) {
	for i := range rs.HTTP {
		h := &rs.HTTP[i]
		for j := range h.Forward {
			each(&h.Forward[j], h)
		}
		for j := range h.Mirrors {
			each(&h.Mirrors[j].Destination, h)
		}
	}
	for _, l4 := range slices.Concat(rs.TLS, rs.TCP) {
		for j := range l4.Forward {
			each(&l4.Forward[j], nil)
		}
	}
}
