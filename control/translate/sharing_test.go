package translate_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

var epoch = time.Unix(0, 0)

func meta(kind model.Kind, ns, name string) model.Meta {
	return model.Meta{Key: model.Key{Kind: kind, Namespace: ns, Name: name}}
}

func service(ns, name string) *model.Service {
	return &model.Service{
		Meta: meta(model.KindService, ns, name), Host: name + "." + ns + ".svc.cluster.local", Resolution: model.ResolveStatic,
		Ports: []model.Port{{Number: 80, Name: "http", Protocol: model.ProtocolHTTP, TargetPort: 8080}}, Selector: map[string]string{"app": name},
	}
}

func pod(ns, name, ip, app string) *model.Workload {
	w := &model.Workload{
		Meta: meta(model.KindPod, ns, name), Addresses: []netip.Addr{netip.MustParseAddr(ip)}, ServiceAccount: app, Ready: true, HasSidecar: true,
	}
	w.Labels = map[string]string{"app": app}
	return w
}

func changes(objects ...model.Object) []snapshot.Change {
	var out []snapshot.Change
	for _, o := range objects {
		out = append(out, snapshot.Change{Key: o.ObjectMeta().Key, Objects: []model.Object{o}})
	}
	return out
}

func sidecar(ns, name, ip string) *xds.Node {
	return &xds.Node{ID: name, Type: xds.Sidecar, IP: netip.MustParseAddr(ip), Name: name, Namespace: ns, WeftProxy: true}
}

// line is a mesh and its Snapshots, one after the other.
type line struct {
	t     testing.TB
	world *snapshot.World
	snap  *translate.Snapshot
}

func newLine(t testing.TB, objects ...model.Object) *line {
	w := snapshot.Build(snapshot.Empty(model.Mesh{}), changes(objects...), epoch)
	return &line{t, w, translate.New(w, w.Mesh())}
}

// change applies objects and returns the Snapshots before and after.
func (l *line) change(objects ...model.Object) (before, after *translate.Snapshot) {
	before = l.snap
	l.world = snapshot.Build(l.world, changes(objects...), epoch)
	l.snap = l.snap.Next(l.world)
	return before, l.snap
}

func get(t testing.TB, s *translate.Snapshot, n *xds.Node, typ string, names ...string) []*xds.Resource {
	t.Helper()
	rs, err := s.Resources(n, typ, names)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(rs, func(a, b *xds.Resource) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	}) {
		t.Errorf("%s is not sorted by name", xds.ShortName(typ))
	}
	return rs
}

func named(t testing.TB, rs []*xds.Resource, name string) *xds.Resource {
	t.Helper()
	for _, r := range rs {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("no resource %q", name)
	return nil
}

const (
	webCluster = "outbound|80||web.default.svc.cluster.local"
	apiCluster = "outbound|80||api.default.svc.cluster.local"
)

func small() []model.Object {
	return []model.Object{
		service("default", "web"), service("default", "api"), service("other", "far"),
		pod("default", "web-1", "10.0.0.1", "web"), pod("default", "api-1", "10.0.0.2", "api"), pod("other", "far-1", "10.0.0.3", "far"),
	}
}

func TestProxiesShareResources(t *testing.T) {
	l := newLine(t, small()...)
	a, b, far := sidecar("default", "web-1", "10.0.0.1"), sidecar("default", "api-1", "10.0.0.2"), sidecar("other", "far-1", "10.0.0.3")
	tests := []struct {
		name, typ, resource string
		with                *xds.Node
	}{
		{"clusters, also across namespaces", xds.ClusterType, webCluster, far},
		{"endpoints, also across namespaces", xds.EndpointType, webCluster, far},
		{"route tables in a namespace", xds.RouteType, "80", b},
		{"outbound listeners in a namespace", xds.ListenerType, "0.0.0.0_80", b},
		{"the outbound catch-all", xds.ListenerType, xds.ListenerVirtualOutbound, far},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, y := named(t, get(t, l.snap, a, tt.typ), tt.resource), named(t, get(t, l.snap, tt.with, tt.typ), tt.resource)
			if x != y {
				t.Errorf("two resources %q with versions %s and %s", tt.resource, x.Version, y.Version)
			}
		})
	}
	if x, y := named(t, get(t, l.snap, a, xds.RouteType), "80"), named(t, get(t, l.snap, far, xds.RouteType), "80"); x.Version == y.Version {
		t.Error("namespaces have the same short names in their tables")
	}
}

func TestAnEndpointChangeTouchesEndpointsOnly(t *testing.T) {
	l := newLine(t, small()...)
	n := sidecar("default", "api-1", "10.0.0.2")
	old := map[string][]*xds.Resource{}
	for _, typ := range translatetest.Types {
		old[typ] = get(t, l.snap, n, typ)
	}
	before, after := l.change(pod("default", "web-2", "10.0.0.9", "web"))
	for _, typ := range translatetest.Types {
		if got, want := after.Unchanged(before, n, typ), typ != xds.EndpointType; got != want {
			t.Errorf("%s unchanged: %v, want %v", xds.ShortName(typ), got, want)
		}
		for i, r := range get(t, after, n, typ) {
			same := r == old[typ][i]
			if want := r.TypeURL != xds.EndpointType || r.Name != webCluster; same != want {
				t.Errorf("%s %s is the same: %v, want %v", xds.ShortName(typ), r.Name, same, want)
			}
		}
	}
}

func TestWhatAChangeTouches(t *testing.T) {
	routes := &model.RouteSet{Meta: meta(model.KindVirtualService, "default", "web"), Hosts: []string{"web.default.svc.cluster.local"}, Gateways: []string{"mesh"},
		HTTP: []model.Route{{Forward: []model.Destination{{Host: "api.default.svc.cluster.local", Weight: 1}}}}}
	rule := &model.DestinationRule{Meta: meta(model.KindDestinationRule, "default", "web"), Host: "web.default.svc.cluster.local",
		Policy: model.TrafficPolicy{LB: &model.LoadBalancer{Policy: model.LBRandom}}}
	strict := &model.PeerAuthentication{Meta: meta(model.KindPeerAuthentication, "other", "strict"), Mode: model.MTLSStrict}
	deny := &model.AuthorizationPolicy{Meta: meta(model.KindAuthorizationPolicy, "default", "deny"), Action: model.AuthzDeny,
		Selector: map[string]string{"app": "web"}, Rules: []model.AuthzRule{{}}}
	gateway := &model.Gateway{Meta: meta(model.KindGateway, "default", "gw"), Selector: map[string]string{"app": "in"}}
	far := pod("other", "far-1", "10.0.0.3", "far")
	far.Labels["version"] = "v2"
	tests := []struct {
		name    string
		object  model.Object
		node    *xds.Node
		changed []string // resources of the node, by name
	}{
		{"routes: the table", routes, sidecar("default", "api-1", "10.0.0.2"), []string{"80"}},
		{"a rule: the cluster, not others nor tables", rule, sidecar("default", "api-1", "10.0.0.2"), []string{webCluster}},
		{"mTLS: the inbound side of its namespace", strict, sidecar("other", "far-1", "10.0.0.3"), []string{xds.ListenerVirtualInbound}},
		{"mTLS: nothing elsewhere", strict, sidecar("default", "api-1", "10.0.0.2"), nil},
		{"authorization: the inbound side of the workload", deny, sidecar("default", "web-1", "10.0.0.1"), []string{xds.ListenerVirtualInbound}},
		{"authorization: nothing of others", deny, sidecar("default", "api-1", "10.0.0.2"), nil},
		{"a gateway: nothing of sidecars", gateway, sidecar("default", "api-1", "10.0.0.2"), nil},
		{"another pod's labels: its endpoints", far, sidecar("default", "api-1", "10.0.0.2"), []string{"outbound|80||far.other.svc.cluster.local"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLine(t, small()...)
			old := map[string]*xds.Resource{}
			for _, typ := range translatetest.Types {
				for _, r := range get(t, l.snap, tt.node, typ) {
					old[typ+r.Name] = r
				}
			}
			before, after := l.change(tt.object)
			var changed []string
			for _, typ := range translatetest.Types {
				differs := false
				for _, r := range get(t, after, tt.node, typ) {
					was := old[typ+r.Name]
					if was == nil || was.Version != r.Version {
						changed, differs = append(changed, r.Name), true
					} else if was != r && (typ == xds.ClusterType || typ == xds.EndpointType) {
						t.Errorf("%s %s was made again, though it is the same", xds.ShortName(typ), r.Name)
					}
				}
				if differs && after.Unchanged(before, tt.node, typ) {
					t.Errorf("%s is said to be unchanged", xds.ShortName(typ))
				}
			}
			if !slices.Equal(changed, tt.changed) {
				t.Errorf("changed %q, want %q", changed, tt.changed)
			}
		})
	}
}

func TestUnchangedIsNotSaidOfAnotherLine(t *testing.T) {
	n := sidecar("default", "web-1", "10.0.0.1")
	a, b := newLine(t, small()...), newLine(t, small()...)
	if a.snap.Unchanged(b.snap, n, xds.ClusterType) {
		t.Error("Snapshots of two lines are said to be the same")
	}
	if !a.snap.Unchanged(a.snap, n, xds.ClusterType) {
		t.Error("a Snapshot is not the same as itself")
	}
}

func TestAWorkloadThatIsNotKnownIsTakenAtItsWord(t *testing.T) {
	l := newLine(t, small()...)
	n := sidecar("default", "web-new", "10.0.0.77")
	n.Metadata.Labels = map[string]string{"app": "web"}
	named(t, get(t, l.snap, n, xds.ClusterType), "inbound|8080||")
	before, after := l.change(pod("default", "web-new", "10.0.0.77", "web"))
	if after.Unchanged(before, n, xds.ListenerType) {
		t.Error("the workload became known, and nothing is said to have changed")
	}
	known := sidecar("default", "api-1", "10.0.0.2")
	known.Metadata.Labels = map[string]string{"app": "web"} // a lie
	for _, r := range get(t, l.snap, known, xds.ClusterType) {
		if r.Name == "inbound|8080||" {
			if want := "api.default.svc.cluster.local"; !strings.Contains(string(r.Body), want) {
				t.Errorf("the inbound cluster does not name %s: what the node says of its labels counted", want)
			}
		}
	}
}

func TestNodesThatCannotBeServedAreRefused(t *testing.T) {
	l := newLine(t, small()...)
	for _, n := range []*xds.Node{{ID: "x", Type: "ztunnel"}, {ID: "y", Type: xds.Sidecar, Generator: "api"}} {
		if _, err := l.snap.Resources(n, xds.ClusterType, nil); err == nil {
			t.Errorf("node %+v is served", n)
		}
	}
}

func TestNamesAskedFor(t *testing.T) {
	l := newLine(t, small()...)
	n := sidecar("default", "web-1", "10.0.0.1")
	tests := []struct {
		typ   string
		names []string
		want  []string
	}{
		{xds.RouteType, []string{"80", "no", "80"}, []string{"80"}},
		{xds.RouteType, []string{}, nil},
		{xds.EndpointType, []string{webCluster, apiCluster, "outbound|81||web.default.svc.cluster.local", "x"}, []string{apiCluster, webCluster}},
		{xds.ClusterType, []string{webCluster, "none"}, []string{webCluster}},
		{xds.SecretType, []string{"default"}, nil},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(xds.ShortName(tt.typ), tt.names), func(t *testing.T) {
			rs, err := l.snap.Resources(n, tt.typ, tt.names)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range rs {
				got = append(got, r.Name)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func router() *xds.Node {
	return &xds.Node{ID: "gw", Type: xds.Router, IP: netip.MustParseAddr("10.0.0.50"), Name: "gw-1", Namespace: "weft-system", WeftProxy: true}
}

// withGateway is the small mesh with a gateway that leads to web only.
func withGateway() []model.Object {
	gw := pod("weft-system", "gw-1", "10.0.0.50", "gw")
	gw.Gateway = true
	return append(small(), gw,
		&model.Gateway{Meta: meta(model.KindGateway, "default", "main"), Selector: map[string]string{"app": "gw"}, Servers: []model.Server{{
			Port: 80, Protocol: model.ProtocolHTTP, Hosts: []model.GatewayHost{{Namespace: "*", Host: "*"}},
		}}},
		&model.RouteSet{Meta: meta(model.KindVirtualService, "default", "web"), Hosts: []string{"web.test"}, Gateways: []string{"default/main"},
			HTTP: []model.Route{{Forward: []model.Destination{{Host: "web.default.svc.cluster.local", Weight: 1}}}}},
	)
}

func TestAGatewayHasWhatItsRoutesLeadTo(t *testing.T) {
	l := newLine(t, withGateway()...)
	var got []string
	for _, r := range get(t, l.snap, router(), xds.ClusterType) {
		got = append(got, r.Name)
	}
	if want := []string{xds.ClusterBlackHole, xds.ClusterPassthrough, webCluster}; !slices.Equal(got, want) {
		t.Errorf("clusters %q, want %q", got, want)
	}
	before, after := l.change(pod("default", "api-2", "10.0.0.9", "api"))
	if !after.Unchanged(before, router(), xds.EndpointType) {
		t.Error("endpoints of a service that it does not lead to are said to matter")
	}
	before, after = l.change(pod("default", "web-2", "10.0.0.10", "web"))
	if after.Unchanged(before, router(), xds.EndpointType) {
		t.Error("endpoints of its service are said not to matter")
	}
	if !after.Unchanged(before, router(), xds.ClusterType) {
		t.Error("a change of endpoints is said to change clusters")
	}
	before, after = l.change(&model.Gateway{Meta: meta(model.KindGateway, "default", "main"), Selector: map[string]string{"app": "none"}})
	for _, typ := range translatetest.Types {
		if after.Unchanged(before, router(), typ) {
			t.Errorf("%s is said to be unchanged after the gateway went to others", xds.ShortName(typ))
		}
	}
}

// TestSnapshotsAreSafeForConcurrentUse asks old and new Snapshots at once; the
// race detector watches.
func TestSnapshotsAreSafeForConcurrentUse(t *testing.T) {
	l := newLine(t, withGateway()...)
	nodes := []*xds.Node{sidecar("default", "web-1", "10.0.0.1"), sidecar("default", "api-1", "10.0.0.2"), sidecar("other", "far-1", "10.0.0.3"), router()}
	var wg sync.WaitGroup
	for i := range 20 {
		p := pod("default", "web-2", "10.0.0.20", "web")
		p.Ready = i%2 == 0
		r := &model.RouteSet{Meta: meta(model.KindVirtualService, "default", "api"), Hosts: []string{"api.default.svc.cluster.local"}, Gateways: []string{"mesh"},
			HTTP: []model.Route{{Name: fmt.Sprint(i), Forward: []model.Destination{{Host: "web.default.svc.cluster.local", Weight: 1}}}}}
		before, after := l.change(p, r)
		for _, n := range nodes {
			wg.Go(func() {
				for _, typ := range translatetest.Types {
					after.Unchanged(before, n, typ)
					for _, s := range []*translate.Snapshot{before, after} {
						if _, err := s.Resources(n, typ, nil); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
	}
	wg.Wait()
}

func TestOldAnswersAreDropped(t *testing.T) {
	l := newLine(t, small()...)
	n := sidecar("default", "web-1", "10.0.0.1")
	for i := range 3000 {
		p := pod("default", "web-2", fmt.Sprintf("10.1.%d.%d", i/250, i%250), "web")
		_, after := l.change(p)
		get(t, after, n, xds.EndpointType)
	}
	if got := translate.CacheLen(l.snap); got > 5000 {
		t.Errorf("%d answers kept after 3000 changes of one endpoint", got)
	}
}
