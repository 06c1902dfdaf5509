package translate

import (
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// inboundSet is a sidecar's listener for what others send to its workload, and
// the clusters behind it.
type inboundSet struct {
	listener *xds.Resource
	clusters []*xds.Resource
}

// inboundPort is a port of the workload that services lead to.
type inboundPort struct {
	number   uint16 // of the workload
	protocol model.Protocol
	services []servicePort // the first names the port
	mtls     string        // mode
}

// inboundKey finds the last version of a node's inbound side.
type inboundKey struct {
	namespace, name, ip string
	weft                bool
}

func (v *view) inboundKey() inboundKey {
	return inboundKey{v.namespace, v.node.Name, v.node.IP.String(), v.weft}
}

// inboundInputs are what the inbound side is made from.
func (s *Snapshot) inboundInputs(v *view) inputs {
	m := s.world.PeerAuthentication(v.namespace, v.labels)
	in := inputs{m.Mode, fmt.Sprint(m.Ports)} // fmt prints maps sorted
	for _, svc := range s.world.ServicesSelecting(v.namespace, v.labels) {
		in = append(in, svc)
	}
	for _, p := range s.world.AuthorizationPolicies(v.namespace, v.labels) {
		in = append(in, p)
	}
	if v.known {
		in = append(in, fmt.Sprint(v.workload.Ports, v.workload.Addresses))
	}
	return in
}

func (s *Snapshot) inbound(v *view) *inboundSet {
	return latest(s.cache, v.inboundKey(), s.inboundInputs(v), func() *inboundSet { return s.makeInbound(v) })
}

func (s *Snapshot) makeInbound(v *view) *inboundSet {
	ports := s.inboundPorts(v)
	l := s.virtualInbound(v, ports)
	set := &inboundSet{listener: s.resource(xds.ListenerType, l.Name, l)}
	set.clusters = append(set.clusters, s.inboundPassthrough())
	for i := range ports {
		set.clusters = append(set.clusters, s.inboundCluster(&ports[i]))
	}
	sortResources(set.clusters)
	return set
}

// inboundPorts lists the workload's ports that services lead to, sorted. Of
// several services for one port the oldest names it and says its protocol.
func (s *Snapshot) inboundPorts(v *view) []inboundPort {
	mtls := s.world.PeerAuthentication(v.namespace, v.labels)
	services := slices.Clone(s.world.ServicesSelecting(v.namespace, v.labels))
	slices.SortStableFunc(services, func(a, b *snapshot.Service) int { return a.Created.Compare(b.Created) })
	byPort := map[uint16]*inboundPort{}
	for _, svc := range services {
		for _, p := range svc.Ports {
			if p.Protocol == model.ProtocolUDP {
				continue
			}
			n, ok := snapshot.TargetPort(v.workload, p)
			if !ok || n == portInbound {
				continue
			}
			if byPort[n] == nil {
				byPort[n] = &inboundPort{number: n, protocol: portProtocol(p), mtls: mtls.Of(n)}
			}
			byPort[n].services = append(byPort[n].services, servicePort{service: svc, port: p})
		}
	}
	out := make([]inboundPort, 0, len(byPort))
	for _, n := range sortedPorts(byPort) {
		out = append(out, *byPort[n])
	}
	return out
}

// inboundCluster leads to the workload's own port at the address that the
// connection was for.
func (s *Snapshot) inboundCluster(p *inboundPort) *xds.Resource {
	name := xds.InboundCluster(p.number)
	c := s.originalDst(name)
	c.UpstreamBindConfig = bindInbound()
	c.TypedExtensionProtocolOptions = nil
	applyPool(c, model.TrafficPolicy{}, p.protocol) // the workload's own protocol, whatever the peers speak between them
	var list []any
	for _, sp := range p.services {
		list = append(list, map[string]any{"host": sp.service.Host, "name": sp.service.Name, "namespace": sp.service.Namespace})
	}
	m, err := structpb.NewStruct(map[string]any{"services": list})
	if err != nil { // names are valid UTF-8
		panic("translate: metadata of " + name + ": " + err.Error())
	}
	c.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{xds.MetadataIstio: m}}
	return s.resource(xds.ClusterType, name, c)
}

// inboundRoutes sends everything on a port to the workload. What the workload
// did not begin to read may be sent again.
func inboundRoutes(cluster, vhost, operation string) *routev3.RouteConfiguration {
	a := &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}
	setTimeout(a, nil)
	a.RetryPolicy = &routev3.RetryPolicy{RetryOn: "reset-before-request", NumRetries: u32(defaultRetries)}
	return &routev3.RouteConfiguration{
		Name: cluster, ValidateClusters: boolean(false),
		VirtualHosts: []*routev3.VirtualHost{{
			Name: vhost, Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Name: "default", Match: routeMatch(nil), Action: &routev3.Route_Route{Route: a},
				Decorator: &routev3.Decorator{Operation: operation},
			}},
		}},
	}
}

// virtualInbound takes all captured connections to the workload. Ports that no
// service leads to, too, go through mTLS and authorization.
func (s *Snapshot) virtualInbound(v *view, ports []inboundPort) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name: xds.ListenerVirtualInbound, Address: socketAddress(anyAddress, portInbound),
		TrafficDirection: corev3.TrafficDirection_INBOUND, AccessLog: accessLogs(s.mesh),
		ListenerFiltersTimeout: duration(0), ContinueOnListenerFiltersTimeout: true,
	}
	authz := s.authorization(s.world.AuthorizationPolicies(v.namespace, v.labels))
	l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
		Name: "virtualInbound-blackhole", FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: u32(portInbound)},
		Filters: s.forwardTo(xds.ClusterBlackHole, v.weft),
	})
	rest := inboundPort{mtls: s.world.PeerAuthentication(v.namespace, v.labels).Mode}
	l.FilterChains = append(l.FilterChains, s.inboundChains(v, &rest, authz)...)
	var noTLS, noHTTP []uint16
	for i := range ports {
		p := &ports[i]
		l.FilterChains = append(l.FilterChains, s.inboundChains(v, p, authz)...)
		if p.mtls == model.MTLSDisable && p.protocol != model.ProtocolAuto {
			noTLS = append(noTLS, p.number)
		}
		if p.protocol != model.ProtocolAuto {
			noHTTP = append(noHTTP, p.number)
		}
	}
	// A port-level mode for a port that no service leads to still holds there.
	for _, n := range sortedPorts(s.world.PeerAuthentication(v.namespace, v.labels).Ports) {
		if slices.ContainsFunc(ports, func(p inboundPort) bool { return p.number == n }) {
			continue
		}
		p := inboundPort{number: n, mtls: s.world.PeerAuthentication(v.namespace, v.labels).Of(n)}
		l.FilterChains = append(l.FilterChains, s.inboundChains(v, &p, authz)...)
	}
	l.ListenerFilters = []*listenerv3.ListenerFilter{originalDst(), tlsInspector(noTLS...), httpInspector(noHTTP...)}
	return l
}

// operation is the host that a port's statistics and spans name.
func (p *inboundPort) operation() string {
	if len(p.services) == 0 {
		return ":0/*"
	}
	sp := p.services[0]
	return hostPort(sp.service.Host, sp.port.Number) + "/*"
}
