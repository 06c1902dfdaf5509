package translatetest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// Random is a small mesh of random objects that convert would take, with a
// sidecar and a gateway to translate it for. Equal seeds are equal meshes.
func Random(seed uint64) Case {
	r := &random{rand.New(rand.NewPCG(seed, 7))}
	c := Case{Name: fmt.Sprint("random ", seed), Mesh: snapshot.Defaults(model.Mesh{RegistryOnly: seed%2 == 0}), Types: Types}
	var changes []snapshot.Change
	for range 60 {
		o := r.object()
		changes = append(changes, snapshot.Change{Key: o.ObjectMeta().Key, Objects: []model.Object{o}})
	}
	c.World = snapshot.Build(snapshot.Empty(c.Mesh), changes, time.Unix(0, 0))
	for _, kind := range []xds.NodeType{xds.Sidecar, xds.Router} {
		c.Nodes = append(c.Nodes, Node{Kind: string(kind), Node: &xds.Node{
			ID: string(kind), Type: kind, IP: netip.MustParseAddr("10.9.9.9"), Name: "node", Namespace: "a", WeftProxy: true,
			Metadata: xds.Metadata{Labels: map[string]string{"app": "web", "version": "v1"}},
		}})
	}
	return c
}

type random struct{ *rand.Rand }

func pick[T any](r *random, s ...T) T { return s[r.IntN(len(s))] }

func (r *random) namespace() string { return pick(r, "a", "b", "weft-system") }
func (r *random) app() string       { return pick(r, "web", "api", "db") }
func (r *random) port() uint16      { return pick[uint16](r, 80, 81, 443, 3306) }

func (r *random) host() string {
	if r.IntN(4) == 0 {
		return pick(r, "one.test", "two.test", "*.wild.test")
	}
	return r.app() + "." + r.namespace() + ".svc.cluster.local"
}

func (r *random) meta(kind model.Kind) model.Meta {
	return model.Meta{
		Key:     model.Key{Kind: kind, Namespace: r.namespace(), Name: fmt.Sprint(r.app(), r.IntN(3))},
		Created: time.Unix(int64(r.IntN(3)), 0),
	}
}

func (r *random) labels() map[string]string {
	return pick(r, nil, map[string]string{"app": r.app()}, map[string]string{"version": pick(r, "v1", "v2")})
}

func (r *random) object() model.Object {
	switch r.IntN(12) {
	case 0, 1, 2:
		w := &model.Workload{
			Meta: r.meta(model.KindPod), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(r.IntN(20))})},
			Ready: r.IntN(4) > 0, Terminating: r.IntN(6) == 0, HasSidecar: r.IntN(3) > 0, ServiceAccount: r.app(),
		}
		w.Labels = map[string]string{"app": r.app(), "version": pick(r, "v1", "v2")}
		return w
	case 3, 4, 5:
		return r.service()
	case 6, 7:
		return r.routes()
	case 8:
		return r.rule()
	case 9:
		return r.gateway()
	case 10:
		return &model.PeerAuthentication{
			Meta: r.meta(model.KindPeerAuthentication), Selector: r.labels(), Mode: r.mtls(), Ports: map[uint16]string{8080: r.mtls(), r.port(): r.mtls()},
		}
	}
	return r.policy()
}

func (r *random) mtls() string {
	return pick(r, model.MTLSUnset, model.MTLSStrict, model.MTLSPermissive, model.MTLSDisable)
}

func (r *random) service() *model.Service {
	s := &model.Service{Meta: r.meta(model.KindService), Resolution: model.ResolveStatic, ExportTo: pick(r, nil, []string{"."}, []string{"*"})}
	s.Host = r.app() + "." + s.Namespace + ".svc.cluster.local"
	for i, n := range []uint16{80, 81, 443, 3306} {
		if r.IntN(2) == 0 {
			s.Ports = append(s.Ports, model.Port{
				Number: n, Name: fmt.Sprint("p", i), TargetPort: pick[uint16](r, 0, 8080, 8443),
				Protocol: pick(r, model.ProtocolAuto, model.ProtocolHTTP, model.ProtocolGRPC, model.ProtocolTCP, model.ProtocolTLS, model.ProtocolUDP),
			})
		}
	}
	if r.IntN(3) > 0 {
		s.Selector, s.Headless = map[string]string{"app": r.app()}, r.IntN(4) == 0
		return s
	}
	s.Entry, s.Kind, s.Host, s.External = true, model.KindServiceEntry, r.host(), r.IntN(2) == 0
	s.Resolution = pick(r, model.ResolveStatic, model.ResolveNone, model.ResolveDNS, model.ResolveDNSRoundRobin)
	if s.Host[0] == '*' {
		s.Resolution = model.ResolveNone
	}
	if r.IntN(3) == 0 {
		s.Addresses = []netip.Prefix{netip.MustParsePrefix(pick(r, "192.0.2.1/32", "192.0.2.2/32", "198.51.100.0/24"))}
	}
	if s.Resolution == model.ResolveStatic {
		s.Endpoints = []model.Endpoint{{Address: "172.16.0.1"}, {Address: "172.16.0.2", Labels: map[string]string{"version": "v1"}}}
	}
	return s
}

func (r *random) destinations() []model.Destination {
	var out []model.Destination
	for range 1 + r.IntN(3) {
		out = append(out, model.Destination{Host: r.host(), Port: pick(r, 0, r.port()), Subset: pick(r, "", "v1", "gone"), Weight: uint32(1 + r.IntN(3))})
	}
	return out
}

func (r *random) routes() *model.RouteSet {
	rs := &model.RouteSet{Meta: r.meta(model.KindVirtualService), Hosts: []string{r.host(), pick(r, "*", "one.test", "*.test")}, Gateways: []string{pick(r, "mesh", "a/web0", "b/web0")}}
	for range r.IntN(4) {
		prefix := pick(r, "/", "/x")
		h := model.Route{Forward: r.destinations()}
		for range r.IntN(3) {
			h.Matches = append(h.Matches, model.HTTPMatch{URI: &model.StringMatch{Prefix: &prefix}, Port: pick(r, 0, r.port()), SourceLabels: r.labels()})
		}
		if r.IntN(5) == 0 {
			h.Forward, h.Redirect = nil, &model.Redirect{URI: "/y"}
		}
		rs.HTTP = append(rs.HTTP, h)
	}
	for range r.IntN(2) {
		rs.TCP = append(rs.TCP, model.L4Route{Matches: []model.L4Match{{Port: pick(r, 0, r.port()), SourceLabels: r.labels()}}, Forward: r.destinations()})
		rs.TLS = append(rs.TLS, model.L4Route{Matches: []model.L4Match{{SNIHosts: []string{pick(r, "one.test", "*.wild.test")}}}, Forward: r.destinations()})
	}
	return rs
}

func (r *random) rule() *model.DestinationRule {
	d := &model.DestinationRule{Meta: r.meta(model.KindDestinationRule), Host: pick(r, r.host(), "*.local"), Selector: pick(r, nil, r.labels())}
	for _, n := range []string{"v1", "v2"} {
		d.Subsets = append(d.Subsets, model.Subset{Name: n, Labels: map[string]string{"version": n}})
	}
	d.Policy.TLS = pick(r, nil, &model.ClientTLS{Mode: model.TLSDisable}, &model.ClientTLS{Mode: model.TLSIstioMutual}, &model.ClientTLS{Mode: model.TLSSimple})
	d.Policy.LB = pick(r, nil, &model.LoadBalancer{Policy: model.LBPassthrough}, &model.LoadBalancer{Policy: model.LBConsistent, Hash: &model.ConsistentHash{SourceIP: true}})
	d.Policy.Pool = pick(r, nil, &model.ConnectionPool{MaxConnections: 3, H2Upgrade: "UPGRADE", HTTPIdleTimeout: time.Second})
	return d
}

func (r *random) gateway() *model.Gateway {
	g := &model.Gateway{Meta: r.meta(model.KindGateway), Selector: pick(r, nil, map[string]string{"app": "web"})}
	for range 1 + r.IntN(4) {
		sv := model.Server{
			Port: r.port(), Name: fmt.Sprint("s", len(g.Servers)), Protocol: pick(r, model.ProtocolHTTP, model.ProtocolTCP),
			Hosts: []model.GatewayHost{{Namespace: pick(r, "*", "."), Host: pick(r, "*", "one.test", "*.test")}},
		}
		switch r.IntN(4) {
		case 0:
			sv.Protocol, sv.TLS = model.ProtocolHTTPS, &model.ServerTLS{Mode: model.TLSSimple, CertFile: "/certs/c.crt", KeyFile: "/certs/c.key"}
		case 1:
			sv.Protocol, sv.TLS = model.ProtocolTLS, &model.ServerTLS{Mode: model.TLSPassthrough}
		}
		g.Servers = append(g.Servers, sv)
	}
	return g
}

func (r *random) policy() *model.AuthorizationPolicy {
	p := &model.AuthorizationPolicy{Meta: r.meta(model.KindAuthorizationPolicy), Selector: r.labels(), Action: pick(r, model.AuthzAllow, model.AuthzDeny)}
	for range r.IntN(3) {
		p.Rules = append(p.Rules, model.AuthzRule{
			From: pick(r, nil, []model.AuthzSource{{Namespaces: []string{"a"}}, {NotPrincipals: []string{"*"}}}),
			To:   pick(r, nil, []model.AuthzOperation{{Ports: []uint16{80}}}, []model.AuthzOperation{{Paths: []string{"/x*"}, NotMethods: []string{"GET"}}}),
			When: pick(r, nil, []model.AuthzCondition{{Key: "source.ip", Values: []string{"10.0.0.0/8"}}}),
		})
	}
	return p
}
