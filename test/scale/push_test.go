package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/status"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/xdsserver"
	"weft.mesh/weft/model"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// rig is a control plane's way from World to wire, and three proxies in two namespaces
// whose services nobody else sees.
type rig struct {
	t     *testing.T
	world *snapshot.World
	snap  *translate.Snapshot
	ads   *xdsserver.Server
	all   fleet

	tracker *status.Tracker
}

func objectMeta(kind model.Kind, ns, name string) model.Meta {
	return model.Meta{Key: model.Key{Kind: kind, Namespace: ns, Name: name}}
}

func serviceIn(ns string, exportTo ...string) *model.Service {
	return &model.Service{Meta: objectMeta(model.KindService, ns, "web"), Host: "web." + ns + ".svc.cluster.local", Resolution: model.ResolveStatic, ExportTo: exportTo,
		Ports: []model.Port{{Number: 80, Name: "http", Protocol: model.ProtocolHTTP, TargetPort: 8080}}, Selector: map[string]string{"app": "web"}}
}

func podIn(ns, name, ip string, ready bool) *model.Workload {
	m := objectMeta(model.KindPod, ns, name)
	m.Labels = map[string]string{"app": "web"}
	return &model.Workload{Meta: m, Addresses: []netip.Addr{netip.MustParseAddr(ip)}, ServiceAccount: "web", Ready: ready, HasSidecar: true}
}

func newRig(t *testing.T) *rig {
	tracker := status.New()
	return &rig{t: t, tracker: tracker, world: snapshot.Empty(model.Mesh{}), ads: xdsserver.New(xdsserver.Settings{
		Authenticate: func(context.Context) (spiffe.ID, error) { return spiffe.ID{}, nil },
		Authorize:    func(spiffe.ID, *xds.Node) error { return nil }, Observer: tracker, Log: slog.New(slog.DiscardHandler)})}
}

// settled waits until the control plane has all acknowledgements.
func (r *rig) settled() {
	r.await("all acknowledgements", func(int, *proxy) bool {
		all := r.tracker.Proxies()
		return len(all) == len(r.all.proxies) && !slices.ContainsFunc(all, func(p admin.ProxyStatus) bool { return p.World != r.snap.Version() })
	})
}

func (r *rig) apply(objects ...model.Object) {
	var changes []snapshot.Change
	for _, o := range objects {
		changes = append(changes, snapshot.Change{Key: o.ObjectMeta().Key, Objects: []model.Object{o}})
	}
	r.world = snapshot.Build(r.world, changes, time.Unix(1e9, 0))
	if r.snap == nil {
		r.snap = translate.New(r.world, r.world.Mesh())
	} else {
		r.snap = r.snap.Next(r.world)
	}
	r.ads.Publish(r.snap)
}

func (r *rig) connect(pods ...*model.Workload) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	g := grpc.NewServer()
	r.ads.Register(g)
	var wg sync.WaitGroup
	wg.Go(func() { g.Serve(l) })
	for _, p := range pods {
		n := sidecar(p.Addresses[0].String(), p.Name, p.Namespace, p.ServiceAccount, p.Labels)
		r.all.proxies = append(r.all.proxies, newProxy(n, l.Addr().String(), insecure.NewCredentials(), &traffic{}))
	}
	r.all.start(r.t.Context())
	r.t.Cleanup(func() { r.all.close(); g.Stop(); wg.Wait() })
	r.await("all configuration", func(_ int, p *proxy) bool { return p.complete() })
}

func (r *rig) await(what string, ok func(int, *proxy) bool) {
	r.t.Helper()
	if err := r.all.await(r.t.Context(), what, time.Minute, ok); err != nil {
		r.t.Fatal(err)
	}
}

// changed applies objects and waits until the proxies from from to to hold something else under a name.
func (r *rig) changed(typeURL, name string, from, to int, objects ...model.Object) {
	r.t.Helper()
	before := make([]string, len(r.all.proxies))
	for i, p := range r.all.proxies {
		before[i], _ = p.version(typeURL, name)
	}
	r.apply(objects...)
	r.await("the change of "+name, func(i int, p *proxy) bool {
		v, _ := p.version(typeURL, name)
		return i < from || i >= to || v != before[i]
	})
}

// An endpoint change reaches the proxies that use the service, and only the assignment that changed goes over the wire.
func TestAnEndpointChangeIsSentToWhoUsesItOnly(t *testing.T) {
	r := newRig(t)
	shared := serviceIn("shared")
	a1, a2, b1 := podIn("a", "web-1", "10.0.0.1", true), podIn("a", "web-2", "10.0.0.2", true), podIn("b", "web-1", "10.0.1.1", true)
	r.apply(serviceIn("a", "."), serviceIn("b", "."), shared, a1, a2, b1, podIn("b", "web-2", "10.0.1.2", true), podIn("shared", "web-1", "10.0.2.1", true))
	r.connect(a1, a2, b1)

	of := func(ns string) string { return xds.OutboundCluster(80, "", "web."+ns+".svc.cluster.local") }
	before := make([]totals, len(r.all.proxies))
	for i, p := range r.all.proxies {
		before[i] = p.traffic.now()
	}
	r.changed(xds.EndpointType, of("a"), 0, 2, podIn("a", "web-2", "10.0.0.2", false))
	r.changed(xds.EndpointType, of("b"), 2, 3, podIn("b", "web-2", "10.0.1.2", false)) // after which the other change would have come
	for i, p := range r.all.proxies {
		got := p.traffic.now().since(before[i])
		if got.responses != 1 || got.resources != 1 {
			t.Errorf("proxy %d got %d responses with %d resources, want the one assignment that changed", i, got.responses, got.resources)
		}
		if got.bytes > 1000 {
			t.Errorf("proxy %d got %d bytes for one endpoint of two", i, got.bytes)
		}
	}
	// What all see goes to all.
	r.changed(xds.EndpointType, of("shared"), 0, 3, podIn("shared", "web-1", "10.0.2.1", false))
}

// A VirtualService is one host of a table that has all hosts of the mesh; what is sent is in proportion to the host.
func TestARouteChangeIsSentAsAPatchOfTheTable(t *testing.T) {
	r := newRig(t)
	var objects []model.Object
	for i := range 60 {
		objects = append(objects, serviceIn(fmt.Sprint("ns-", i)))
	}
	a, b := podIn("ns-1", "web-1", "10.0.0.1", true), podIn("ns-2", "web-1", "10.0.1.1", true)
	r.apply(append(objects, a, b)...)
	r.connect(a, b)
	r.settled() // before, a table would go whole
	host := "web.ns-9.svc.cluster.local"
	for _, timeout := range []time.Duration{time.Second, 2 * time.Second} {
		before := make([]totals, len(r.all.proxies))
		for i, p := range r.all.proxies {
			before[i] = p.traffic.now()
		}
		r.changed(xds.RouteType, "80", 0, 2, &model.RouteSet{Meta: objectMeta(model.KindVirtualService, "ns-9", "web"), Hosts: []string{host}, Gateways: []string{snapshot.GatewayMesh},
			HTTP: []model.Route{{Timeout: &timeout, Forward: []model.Destination{{Host: host, Weight: 1}}}}})
		for i, p := range r.all.proxies {
			if got := p.traffic.now().since(before[i]); got.responses != 1 || got.resources != 1 || got.bytes > 1200 {
				t.Errorf("proxy %d got %d responses with %d resources in %d bytes for one host of 60, want one in 1200 at most", i, got.responses, got.resources, got.bytes)
			}
		}
	}
	for i, p := range r.all.proxies { // and what the patches make is what the control plane has
		rs, err := r.snap.Resources(&xds.Node{Type: xds.Sidecar, Namespace: fmt.Sprint("ns-", i+1), Name: "web-1", WeftProxy: true}, xds.RouteType, []string{"80"})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := p.version(xds.RouteType, "80"); got != rs[0].Version || len(rs[0].Body) < 10_000 {
			t.Errorf("proxy %d has version %s, want %s of a table of %d bytes", i, got, rs[0].Version, len(rs[0].Body))
		}
	}
}

func TestSizes(t *testing.T) {
	s, err := parseSize("10x25x12", 3)
	if err != nil {
		t.Fatal(err)
	}
	if s.Namespaces != 3 || s.Routes != 1 || len(s.pods()) != 25 {
		t.Errorf("size %+v", s)
	}
	endpoints := 0
	for i := range s.Services {
		endpoints += s.replicas(i)
	}
	if endpoints != 25 {
		t.Errorf("%d endpoints in slices, want 25", endpoints)
	}
	for _, bad := range []string{"", "1x1", "2x1x1", "1x1x2", "0x1x1", "ax1x1", "1x1x1x1"} {
		if _, err := parseSize(bad, 1); err == nil {
			t.Errorf("size %q is taken", bad)
		}
	}
}
