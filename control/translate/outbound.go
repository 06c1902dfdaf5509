package translate

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

const (
	transportTLS    = "tls"
	transportPlain  = "raw_buffer"
	anyAddress      = "0.0.0.0"
	chainPassAny    = "PassthroughFilterChain"
	chainBlockAll   = "BlackHoleFilterChain"
	chainBlackHole  = "virtualOutbound-blackhole"
	chainCatchAll   = "virtualOutbound-catchall-tcp"
	portOutbound    = 15001
	portInbound     = 15006
	statOutboundFmt = "outbound_"
)

// binding gathers what shares an outbound listener.
type binding struct {
	addr  string // an IP, or 0.0.0.0
	port  uint16
	table string        // HTTP: name of the route table
	web   bool          // HTTP: some service speaks gRPC-Web
	plain []servicePort // TCP, the rest of the connections
	tls   []servicePort // told apart by server name
	cidrs []servicePort // told apart by destination
}

// makeListeners lists the outbound listeners of the scope, sorted by name.
// None is bound: virtualOutbound hands connections to them by original destination.
func (c *scope) makeListeners() []*xds.Resource {
	out := []*xds.Resource{c.s.virtualOutbound(c.key.weft)}
	for _, port := range sortedPorts(c.byPort) {
		for _, b := range c.bindings(port) {
			r := c.router(port)
			l := c.listener(r, b)
			out = append(out, c.s.resource(xds.ListenerType, l.Name, l))
		}
	}
	sortResources(out)
	return slices.CompactFunc(out, func(a, b *xds.Resource) bool { return a.Name == b.Name })
}

func sortedPorts[V any](m map[uint16]V) []uint16 {
	out := make([]uint16, 0, len(m))
	for p := range m {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

// bindings sorts the services of a port into listeners: HTTP that is routed by host and what has no
// address of its own share 0.0.0.0, everything else has its addresses.
func (c *scope) bindings(port uint16) []*binding {
	byAddr := map[string]*binding{}
	at := func(addr string) *binding {
		b := byAddr[addr]
		if b == nil {
			b = &binding{addr: addr, port: port}
			byAddr[addr] = b
		}
		return b
	}
	for _, p := range c.oldestFirst(port) {
		proto := portProtocol(p.port)
		if p.wantsShared() {
			b := at(anyAddress)
			b.table, b.web = strconv.Itoa(int(port)), b.web || proto == model.ProtocolGRPCWeb
		}
		if proto.IsHTTP() {
			if p.ownTable() {
				for _, a := range p.vips {
					b := at(a.String())
					b.table, b.web = p.table(), proto == model.ProtocolGRPCWeb
				}
			}
			continue
		}
		for _, a := range c.ownAddresses(p) {
			b := at(a.String())
			b.plain = append(b.plain, p)
			if p.ownTable() {
				b.table = p.table()
			}
		}
		switch {
		case len(p.service.Prefixes) > 0:
			at(anyAddress).cidrs = append(at(anyAddress).cidrs, p)
		case len(p.service.VIPs) > 0, p.service.Headless:
		case proto.IsTLS():
			// Also where there is an allocated address: a client may know another,
			// from before there was one or from another source of names.
			at(anyAddress).tls = append(at(anyAddress).tls, p)
		case len(p.vips) > 0: // its allocated address tells it apart
		case !p.service.Wildcard():
			at(anyAddress).plain = append(at(anyAddress).plain, p)
		}
	}
	out := make([]*binding, 0, len(byAddr))
	for _, b := range byAddr {
		if b.table != "" || len(b.plain)+len(b.tls)+len(b.cidrs) > 0 {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *binding) int { return cmp.Compare(a.addr, b.addr) })
	return out
}

// oldestFirst orders services so that of two with one claim the older wins.
func (c *scope) oldestFirst(port uint16) []servicePort {
	sps := slices.Clone(c.byPort[port])
	slices.SortStableFunc(sps, func(a, b servicePort) int { return a.service.Created.Compare(b.service.Created) })
	return sps
}

// ownAddresses are what only this service is reached by: its addresses, or of a
// headless TCP service those of its pods.
func (c *scope) ownAddresses(p servicePort) []netip.Addr {
	if !p.service.Headless || portProtocol(p.port) == model.ProtocolAuto {
		return p.vips
	}
	var out []netip.Addr
	for _, e := range c.s.world.Endpoints(p.service.Key).Of(p.port.Number) {
		if e.Addr.IsValid() && !slices.Contains(out, e.Addr) {
			out = append(out, e.Addr)
		}
	}
	return out
}

func (c *scope) listener(r *router, b *binding) *listenerv3.Listener {
	l := c.s.unbound(b.addr, b.port)
	l.FilterChains = c.l4FilterChains(r, b, l)
	if b.table != "" {
		l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
			FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: transportPlain, ApplicationProtocols: alpnPlainHTTP},
			Filters: []*listenerv3.Filter{c.s.httpManager(manager{
				direction: outbound, statPrefix: statOutboundFmt + l.Name, routeName: b.table, grpcWeb: b.web,
			}, c.key.weft)},
		})
		l.ListenerFilters = append(l.ListenerFilters, httpInspector())
	}
	if len(l.ListenerFilters) > 0 {
		l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = duration(0), true
	}
	if l.DefaultFilterChain == nil {
		l.DefaultFilterChain = c.s.fallThrough(c.key.weft)
	}
	return l
}

// l4FilterChains builds the chains that forward bytes; the one that takes
// everything becomes the listener's default.
func (c *scope) l4FilterChains(r *router, b *binding, l *listenerv3.Listener) []*listenerv3.FilterChain {
	var chains []l4Chain
	for _, p := range b.plain {
		chains = append(chains, c.portChains(r, p, false)...)
	}
	for _, p := range b.tls {
		chains = append(chains, c.portChains(r, p, true)...)
	}
	for _, p := range b.cidrs {
		for _, x := range c.portChains(r, p, portProtocol(p.port).IsTLS()) {
			if len(x.prefixes) == 0 {
				x.prefixes = p.service.Prefixes
			}
			chains = append(chains, x)
		}
	}
	var out []*listenerv3.FilterChain
	inspect := false
	for _, x := range distinct(chains) {
		fc := &listenerv3.FilterChain{FilterChainMatch: x.match(), Filters: c.s.forwardTCP(r, c.key.weft, x.forward)}
		if len(x.sni) == 0 && len(x.prefixes) == 0 {
			fc.FilterChainMatch = nil
			l.DefaultFilterChain = fc
			continue
		}
		inspect = inspect || len(x.sni) > 0
		out = append(out, fc)
	}
	if inspect {
		l.ListenerFilters = append(l.ListenerFilters, tlsInspector())
	}
	return out
}

// unbound is a listener that only takes what virtualOutbound hands to it.
func (s *Snapshot) unbound(addr string, port uint16) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name: addr + "_" + strconv.Itoa(int(port)), Address: socketAddress(addr, uint32(port)), BindToPort: boolean(false),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
	}
}

// fallThrough is where connections go that nothing of the mesh takes.
func (s *Snapshot) fallThrough(weft bool) *listenerv3.FilterChain {
	if s.mesh.RegistryOnly {
		return &listenerv3.FilterChain{Name: chainBlockAll, Filters: s.forwardTo(xds.ClusterBlackHole, weft)}
	}
	return &listenerv3.FilterChain{Name: chainPassAny, Filters: s.forwardTo(xds.ClusterPassthrough, weft)}
}

type virtualOutboundKey struct{ weft bool }

// virtualOutbound takes all captured connections. Those to its own port would go round for ever.
func (s *Snapshot) virtualOutbound(weft bool) *xds.Resource {
	return remember(s.cache, virtualOutboundKey{weft}, func() *xds.Resource {
		rest := s.fallThrough(weft)
		rest.Name = chainCatchAll
		return s.resource(xds.ListenerType, xds.ListenerVirtualOutbound, &listenerv3.Listener{
			Name: xds.ListenerVirtualOutbound, Address: socketAddress(anyAddress, portOutbound), UseOriginalDst: boolean(true),
			TrafficDirection: corev3.TrafficDirection_OUTBOUND,
			FilterChains: []*listenerv3.FilterChain{{
				Name: chainBlackHole, FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: u32(portOutbound)},
				Filters: s.forwardTo(xds.ClusterBlackHole, weft),
			}},
			DefaultFilterChain: rest, AccessLog: accessLogs(s.mesh),
		})
	})
}
