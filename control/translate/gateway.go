package translate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// gatewayKey says which gateway workloads are configured alike: those with the
// same labels in a namespace.
type gatewayKey struct {
	namespace, labels string
	ports             string // named ports of the workload
	topology          model.Topology
	weft              bool
}

// gatewaySet is all that a gateway workload gets.
type gatewaySet struct {
	listeners []*xds.Resource
	routes    []*xds.Resource
	clusters  []*xds.Resource
	secrets   []*xds.Resource
	granted   []*xds.Resource // those of secrets that a workload needs no right to read Secrets for
	targets   map[string]*target
}

// serverRef is a server of a gateway, with its gateway.
type serverRef struct {
	gateway *model.Gateway
	*model.Server
}

// key is how route sets name the gateway.
func (r serverRef) key() string { return r.gateway.Namespace + "/" + r.gateway.Name }

// gatewayPort is what one listener of a gateway serves.
type gatewayPort struct {
	bind    string
	number  uint16 // that it listens on
	servers []serverRef
}

// routerAll lists a gateway's resources of a type.
func (s *Snapshot) routerAll(v *view, typeURL string) []*xds.Resource {
	g := s.gatewaySet(v)
	switch typeURL {
	case xds.ListenerType:
		return g.listeners
	case xds.RouteType:
		return g.routes
	case xds.ClusterType:
		return g.clusters
	case xds.SecretType:
		switch {
		case !v.mayHaveKeys():
			return nil
		case !v.node.ReadsSecrets:
			return g.granted
		}
		return g.secrets
	case xds.EndpointType:
		var out []*xds.Resource
		for _, t := range g.targets {
			if t.isEDS() {
				out = append(out, s.endpoints(t, s.placeOf(v)))
			}
		}
		sortResources(out)
		return out
	}
	return nil
}

func (s *Snapshot) gatewaySet(v *view) *gatewaySet {
	k := gatewayKey{namespace: v.namespace, labels: labelText(v.labels), ports: fmt.Sprint(v.workload.Ports), topology: v.workload.Topology, weft: v.weft}
	return latest(s.cache, k, inputs{routerRevisions(s.world.Revisions())}, func() *gatewaySet { return s.makeGateway(v) })
}

// routerRevisions are those of everything that a gateway is made from.
func routerRevisions(r snapshot.Revisions) snapshot.Revisions {
	out := outboundRevisions(r)
	out.Gateways, out.Authz, out.Secrets = r.Gateways, r.Authz, r.Secrets
	return out
}

func labelText(m map[string]string) string {
	var b strings.Builder
	for _, k := range sorted(m) {
		b.WriteString(strconv.Quote(k) + strconv.Quote(m[k]))
	}
	return b.String()
}

// gatewayBuilder makes the configuration of one kind of gateway workload.
type gatewayBuilder struct {
	s       *Snapshot
	v       *view
	authz   *authorization
	targets map[string]*target
	routes  map[string]*xds.Resource
	secrets *secrets
	world   *snapshot.World
}

func (s *Snapshot) makeGateway(v *view) *gatewaySet {
	b := &gatewayBuilder{
		s: s, v: v, authz: s.authorization(s.world.AuthorizationPolicies(v.namespace, v.labels)),
		targets: map[string]*target{}, routes: map[string]*xds.Resource{}, world: s.world,
		secrets: &secrets{s: s, namespace: v.namespace, made: map[string]*xds.Resource{}, rooted: map[string]bool{}},
	}
	set := &gatewaySet{targets: b.targets}
	for _, p := range b.ports() {
		if l := b.listener(p); l != nil {
			set.listeners = append(set.listeners, s.resource(xds.ListenerType, l.Name, l))
		}
	}
	sortResources(set.listeners)
	set.routes = slices.Collect(maps.Values(b.routes))
	sortResources(set.routes)
	for _, t := range b.targets {
		set.clusters = append(set.clusters, s.outboundCluster(t, v.weft))
	}
	set.secrets = slices.Collect(maps.Values(b.secrets.made))
	sortResources(set.secrets)
	set.granted = slices.DeleteFunc(slices.Clone(set.secrets), b.secrets.needsRight)
	set.clusters = append(set.clusters, s.blackHoleCluster(), s.passthroughCluster())
	sortResources(set.clusters)
	return set
}

// ports groups the servers of all gateways that select the workload by what
// they listen on, in order of the gateways' age.
func (b *gatewayBuilder) ports() []*gatewayPort {
	services := b.world.ServicesSelecting(b.v.namespace, b.v.labels)
	type at struct {
		bind string
		port uint16
	}
	byAddr := map[at]*gatewayPort{}
	var out []*gatewayPort
	for _, g := range b.world.Gateways(b.v.namespace, b.v.labels) {
		for i := range g.Servers {
			sv := serverRef{g, &g.Servers[i]}
			for _, n := range b.listenPorts(services, sv.Port) {
				k := at{cmp.Or(sv.Bind, anyAddress), n}
				p := byAddr[k]
				if p == nil {
					p = &gatewayPort{bind: k.bind, number: n}
					byAddr[k] = p
					out = append(out, p)
				}
				p.servers = append(p.servers, sv)
			}
		}
	}
	return out
}

// listenPorts maps a server's port to what the workload listens on: the target
// ports of the workload's services that have the port, or the port itself if
// none has.
func (b *gatewayBuilder) listenPorts(services []*snapshot.Service, port uint16) []uint16 {
	var out []uint16
	for _, svc := range services {
		p, ok := svc.Port(port)
		if !ok {
			continue
		}
		if n, ok := snapshot.TargetPort(b.v.workload, p); ok && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return []uint16{port}
	}
	return out
}

// isHTTP tells whether the server routes requests: plain HTTP, or TLS that ends here.
func (r serverRef) isHTTP() bool {
	return r.Protocol.IsHTTP() || r.Protocol == model.ProtocolHTTPS && r.terminates()
}

func (r serverRef) terminates() bool {
	return r.TLS != nil && r.TLS.Mode != "" && r.TLS.Mode != model.TLSPassthrough
}

// listener builds the listener of a port. Plain HTTP servers merge into one
// chain; each server with TLS has its own chain by server name; the oldest
// plain TCP server takes what is left.
func (b *gatewayBuilder) listener(p *gatewayPort) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name: p.bind + "_" + strconv.Itoa(int(p.number)), Address: socketAddress(p.bind, uint32(p.number)),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND, AccessLog: accessLogs(b.s.mesh),
	}
	var plain []serverRef
	sni := map[string]bool{}
	for _, sv := range p.servers {
		switch {
		case sv.TLS != nil && sv.Protocol.IsTLS():
			l.FilterChains = append(l.FilterChains, b.tlsChains(p, sv, sni)...)
		case sv.Protocol.IsHTTP():
			plain = append(plain, sv)
		case sv.Protocol == model.ProtocolTCP && sv.terminates():
			l.FilterChains = append(l.FilterChains, b.tlsChains(p, sv, sni)...)
		default:
			l.FilterChains = append(l.FilterChains, b.tcpChains(sv)...)
		}
	}
	if len(plain) > 0 {
		l.FilterChains = slices.Insert(l.FilterChains, 0, b.httpChain(p, plain))
	}
	if len(l.FilterChains) == 0 {
		return nil
	}
	if b.v.workload.Topology.ProxyProtocol {
		l.ListenerFilters = append(l.ListenerFilters, proxyProtocol())
	}
	if len(sni) > 0 {
		l.ListenerFilters = append(l.ListenerFilters, tlsInspector())
	}
	l.FilterChains = dropRepeated(l.FilterChains)
	return l
}

// dropRepeated keeps the first of chains that match the same, server name by
// server name: Envoy refuses the listener otherwise, and the older gateway wins.
func dropRepeated(chains []*listenerv3.FilterChain) []*listenerv3.FilterChain {
	seen := map[string]bool{}
	var out []*listenerv3.FilterChain
	for _, c := range chains {
		m := &listenerv3.FilterChainMatch{}
		if c.FilterChainMatch != nil {
			m = proto.CloneOf(c.FilterChainMatch)
		}
		names := m.ServerNames
		if len(names) == 0 {
			names = []string{""}
		}
		m.ServerNames = nil
		rest := string(marshal(m))
		m.ServerNames = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return seen[n+"|"+rest] })
		if len(m.ServerNames) == 0 {
			continue
		}
		for _, n := range m.ServerNames {
			seen[n+"|"+rest] = true
		}
		if m.ServerNames[0] == "" {
			m.ServerNames = nil
		}
		if c.FilterChainMatch != nil {
			c.FilterChainMatch = m
		}
		out = append(out, c)
	}
	return out
}

func (b *gatewayBuilder) httpChain(p *gatewayPort, servers []serverRef) *listenerv3.FilterChain {
	name := "http." + strconv.Itoa(int(p.number))
	if p.bind != anyAddress {
		name += "." + p.bind
	}
	b.table(name, servers, p)
	return &listenerv3.FilterChain{Filters: []*listenerv3.Filter{b.manager(p, name)}}
}

func (b *gatewayBuilder) manager(p *gatewayPort, table string) *listenerv3.Filter {
	deny, allow := b.authz.http()
	return b.s.httpManager(manager{
		direction: gateway, statPrefix: "outbound_" + p.bind + "_" + strconv.Itoa(int(p.number)), routeName: table, deny: deny, allow: allow, topology: b.v.workload.Topology,
		grpcWeb: slices.ContainsFunc(p.servers, func(r serverRef) bool { return r.Protocol == model.ProtocolGRPCWeb }),
	}, b.v.weft)
}

// addTarget notes the cluster of a destination, if there is such a service and subset.
func (b *gatewayBuilder) addTarget(r *router, d *model.Destination, grpc bool) {
	if d.Unresolved {
		return
	}
	svc := r.service(d.Host)
	if svc == nil {
		return
	}
	name, _ := r.cluster(d)
	_, n, _, _, _ := xds.ParseCluster(name)
	port, ok := svc.Port(n)
	rule := r.rule(svc)
	if _, known := rule.Subset(d.Subset); !ok || d.Subset != "" && !known {
		return
	}
	t := newTarget(svc, port, d.Subset, rule)
	t.atGateway()
	if was := b.targets[name]; grpc || was != nil && was.grpc {
		t.grpc = true
	}
	if t.backend = b.world.BackendTLS(svc.Key, n); t.backend != nil && !t.backend.Refuse {
		t.credential = b.backendCredential(r)
	}
	if tls := t.policy().TLS; t.backend == nil && tls != nil && tls.Credential != "" {
		if t.roots = b.secrets.roots(tls.Credential); tls.Mode == model.TLSMutual && b.secrets.certificate(tls.Credential) {
			t.credential = tls.Credential
		}
	}
	b.targets[name] = t
}

// backendCredential is the certificate that the gateway of a route presents to Services with a BackendTLSPolicy: the first that can be used.
func (b *gatewayBuilder) backendCredential(r *router) string {
	for _, g := range b.world.Gateways(b.v.namespace, b.v.labels) {
		if c := g.BackendCredential; c != "" && slices.Contains(r.gateways, g.Namespace+"/"+g.Name) && b.secrets.certificate(c) {
			return c
		}
	}
	return ""
}

// matching returns the hosts of a route set that the server serves: those that
// both name, the more specific of the two, if the set's namespace is allowed.
func (r serverRef) matching(rs *model.RouteSet) []string {
	var out []string
	for _, h := range rs.Hosts {
		for _, gh := range r.Hosts {
			ns := gh.Namespace
			if ns == "." {
				ns = r.gateway.Namespace
			}
			if ns != "*" && ns != "" && ns != rs.Namespace {
				continue
			}
			var host string
			switch {
			case snapshot.HostCovers(gh.Host, h):
				host = h
			case snapshot.HostCovers(h, gh.Host):
				host = gh.Host
			default:
				continue
			}
			if !slices.Contains(out, host) {
				out = append(out, host)
			}
		}
	}
	return out
}
