package snapshot

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/model"
)

var slicedMesh = model.Mesh{EndpointSlices: true}

func sliceOf(ns, name, service string, port uint16, endpoints ...model.SliceEndpoint) *model.EndpointSlice {
	return &model.EndpointSlice{
		Meta: meta(model.KindEndpointSlice, ns, name), Service: service,
		Ports: []model.SlicePort{{Name: "http", Number: port}}, Endpoints: endpoints,
	}
}

func ready(pod string, ips ...string) model.SliceEndpoint {
	e := model.SliceEndpoint{Ready: true, Serving: true, Pod: pod}
	for _, ip := range ips {
		e.Addresses = append(e.Addresses, netip.MustParseAddr(ip))
	}
	return e
}

func node(name, region, zone string) *model.Node {
	return &model.Node{Meta: meta(model.KindNode, "", name), Region: region, Zone: zone}
}

func slicedWorld(objects ...model.Object) *World {
	return Build(Empty(slicedMesh), put(objects...), epoch)
}

func TestEndpointsOfAServiceWithSlices(t *testing.T) {
	key := ServiceKey{host("default", "web"), "default"}
	web := service("default", "web", func(s *model.Service) {
		s.Addresses = []netip.Prefix{netip.MustParsePrefix("10.96.0.5/32")}
	})
	a, b := pod("default", "a", "10.0.0.1", "web"), pod("default", "b", "10.0.0.2", "web")
	with := func(e model.SliceEndpoint, edit func(*model.SliceEndpoint)) model.SliceEndpoint {
		edit(&e)
		return e
	}
	unready := func(e *model.SliceEndpoint) { e.Ready, e.Serving = false, false }
	lost := pod("default", "a", "10.0.0.1", "web", func(w *model.Workload) { w.Ready, w.NodeLost = false, true })
	tests := []struct {
		name    string
		objects []model.Object
		want    []string
	}{
		{"pods that the selector takes but no slice has are none", []model.Object{web, a, b}, nil},
		{"all slices count, on the port of the slice", []model.Object{web, a, b, sliceOf("default", "x", "web", 8080, ready("a", "10.0.0.1")), sliceOf("default", "y", "web", 9090, ready("b", "10.0.0.2"))},
			[]string{"10.0.0.1:8080", "10.0.0.2:9090"}},
		{"one that two slices have counts once", []model.Object{web, a, sliceOf("default", "x", "web", 8080, ready("a", "10.0.0.1")), sliceOf("default", "y", "web", 8080, ready("a", "10.0.0.1"))},
			[]string{"10.0.0.1:8080"}},
		{"a pod that is not known yet is held back: it may want mTLS", []model.Object{web, a, sliceOf("default", "x", "web", 8080, ready("a", "10.0.0.1"), ready("b", "10.0.0.2"))},
			[]string{"10.0.0.1:8080"}},
		{"one that is not ready is left out", []model.Object{web, a, sliceOf("default", "x", "web", 8080, with(ready("a", "10.0.0.1"), func(e *model.SliceEndpoint) { e.Ready, e.Serving = false, false }))}, nil},
		{"whose nodes are lost serve on where nobody else is ready", []model.Object{web, lost, pod("default", "b", "10.0.0.2", "web", func(w *model.Workload) { w.Ready = false }),
			sliceOf("default", "x", "web", 8080, with(ready("a", "10.0.0.1"), unready), with(ready("b", "10.0.0.2"), unready))}, []string{"10.0.0.1:8080"}},
		{"beside one that drains", []model.Object{web, lost, b, sliceOf("default", "x", "web", 8080, with(ready("a", "10.0.0.1"), unready),
			with(ready("b", "10.0.0.2"), func(e *model.SliceEndpoint) { e.Ready, e.Terminating = false, true }))}, []string{"10.0.0.1:8080", "10.0.0.2:8080 draining"}},
		{"but not beside one that is ready", []model.Object{web, lost, b, sliceOf("default", "x", "web", 8080, with(ready("a", "10.0.0.1"), unready), ready("b", "10.0.0.2"))},
			[]string{"10.0.0.2:8080"}},
		{"one that terminates drains", []model.Object{web, a, sliceOf("default", "x", "web", 8080, with(ready("a", "10.0.0.1"), func(e *model.SliceEndpoint) { e.Ready, e.Terminating = false, true }))},
			[]string{"10.0.0.1:8080 draining"}},
		{"ready while it terminates: publishNotReadyAddresses", []model.Object{web, a, sliceOf("default", "x", "web", 8080, with(ready("a", "10.0.0.1"), func(e *model.SliceEndpoint) { e.Terminating = true }))},
			[]string{"10.0.0.1:8080"}},
		{"an address that somebody wrote is plain", []model.Object{web, sliceOf("default", "x", "web", 8080, ready("", "192.0.2.7"))}, []string{"192.0.2.7:8080 plain"}},
		{"unless it is a pod's, whose policies count", []model.Object{web, b, sliceOf("default", "x", "web", 8080, ready("", "10.0.0.2"))}, []string{"10.0.0.2:8080"}},
		{"a pod whose policy disables mTLS", []model.Object{web, a, peer("default", "n", model.MTLSDisable, 0, nil, nil), sliceOf("default", "x", "web", 8080, ready("a", "10.0.0.1"))},
			[]string{"10.0.0.1:8080 plain"}},
		{"the pod of the name, where two have the address", []model.Object{web, pod("default", "host", "10.0.0.9", "web", func(w *model.Workload) { w.HasSidecar = false }), pod("default", "other", "10.0.0.9", "web"),
			sliceOf("default", "x", "web", 8080, ready("host", "10.0.0.9"))}, []string{"10.0.0.9:8080 plain"}},
		{"another service's slice", []model.Object{web, a, sliceOf("default", "x", "api", 8080, ready("a", "10.0.0.1"))}, nil},
		{"another namespace's slice", []model.Object{web, pod("x", "a", "10.0.0.1", "web"), sliceOf("x", "x", "web", 8080, ready("a", "10.0.0.1"))}, nil},
		{"a slice without the port", []model.Object{web, a, &model.EndpointSlice{Meta: meta(model.KindEndpointSlice, "default", "x"), Service: "web", Ports: []model.SlicePort{{Name: "grpc", Number: 1}},
			Endpoints: []model.SliceEndpoint{ready("a", "10.0.0.1")}}}, nil},
		{"a port without a number is the service's", []model.Object{web, a, sliceOf("default", "x", "web", 0, ready("a", "10.0.0.1"))}, []string{"10.0.0.1:80"}},
		{"IPv6 beside IPv4", []model.Object{web, a, sliceOf("default", "x", "web", 8080, ready("a", "10.0.0.1")), sliceOf("default", "y", "web", 8080, ready("a", "fd00::1"))},
			[]string{"10.0.0.1:8080", "fd00::1:8080"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, addresses(slicedWorld(tt.objects...).Endpoints(key).Of(80))); d != "" {
				t.Error(d)
			}
		})
	}
}

// Scaled to zero, clients verify what they did before: a Deployment's or StatefulSet's template tells.
func TestAServiceScaledToZeroKeepsItsIdentities(t *testing.T) {
	key := ServiceKey{host("default", "web"), "default"}
	web := service("default", "web", func(*model.Service) {})
	of := func(kind model.Kind, name, account string) model.Object {
		return &model.Deployment{Meta: meta(kind, "default", name), PodLabels: map[string]string{"app": "web"}, ServiceAccount: account}
	}
	w := slicedWorld(web, of(model.KindDeployment, "x", "a"), of(model.KindStatefulSet, "x", "b"))
	want := []string{"spiffe://cluster.local/ns/default/sa/a", "spiffe://cluster.local/ns/default/sa/b"}
	if got := w.Identities(key).IDs; !slices.Equal(got, want) {
		t.Errorf("without pods: %q, want %q", got, want)
	}
}

func TestAnEndpointIsWhereItsNodeIs(t *testing.T) {
	web := service("default", "web", func(s *model.Service) { s.Headless = true })
	key := ServiceKey{web.Host, "default"}
	e := ready("a", "10.0.0.1")
	e.Node, e.Zone = "n1", "z9"
	w := slicedWorld(web, pod("default", "a", "10.0.0.1", "web", func(w *model.Workload) { w.Node = "n1" }), sliceOf("default", "x", "web", 8080, e))
	want := func(locality string) {
		t.Helper()
		if got := w.Endpoints(key).Of(80)[0].Locality; got != locality {
			t.Errorf("locality %q, want %q", got, locality)
		}
	}
	want("/z9")
	w = Build(w, put(node("n1", "eu", "z1")), epoch)
	want("eu/z1")
	if got := w.Locality(w.Pod("default", "a")); got != "eu/z1" {
		t.Errorf("the pod is at %q", got)
	}
	before := w
	w = Build(w, put(&model.Node{Meta: meta(model.KindNode, "", "n1"), Region: "eu", Zone: "z1", Subzone: "rack"}), epoch)
	want("eu/z1/rack")
	if !w.Changes().Hosts[key.Host] || before.Endpoints(key) == w.Endpoints(key) {
		t.Error("nobody hears that the node moved")
	}
	w = Build(w, put(pod("default", "a", "10.0.0.1", "web", func(w *model.Workload) { w.Node, w.Locality = "n1", "us/x" })), epoch)
	want("us/x")
}

func TestAChangedSliceLeavesOtherServicesAlone(t *testing.T) {
	w := slicedWorld(service("default", "web"), service("default", "api"), pod("default", "a", "10.0.0.1", "web"), pod("default", "b", "10.0.0.2", "web"), pod("default", "c", "10.0.0.3", "api"),
		sliceOf("default", "x", "web", 8080, ready("a", "10.0.0.1")), sliceOf("default", "y", "api", 8080, ready("c", "10.0.0.3")))
	web, api := ServiceKey{host("default", "web"), "default"}, ServiceKey{host("default", "api"), "default"}
	next := Build(w, put(sliceOf("default", "x", "web", 8080, ready("a", "10.0.0.1"), ready("b", "10.0.0.2"))), epoch)
	if c := next.Changes(); !c.EndpointsOnly || len(c.Hosts) != 1 || !c.Hosts[web.Host] {
		t.Errorf("changes %+v, want endpoints of %s only", c, web.Host)
	}
	if next.Endpoints(api) != w.Endpoints(api) || next.ServiceByKey(web) != w.ServiceByKey(web) || next.Identities(web) != w.Identities(web) {
		t.Error("something that did not change was made anew")
	}
	same := Build(next, put(sliceOf("default", "x", "web", 8080, ready("a", "10.0.0.1"), ready("b", "10.0.0.2"))), epoch)
	if same != next {
		t.Error("an unchanged slice makes another World")
	}
	early := Build(next, put(sliceOf("default", "z", "later", 80, ready("a", "10.0.0.1"))), epoch)
	if c := early.Changes(); !c.EndpointsOnly || len(c.Hosts) != 0 || early.Revisions().Endpoints != next.Revisions().Endpoints {
		t.Errorf("a slice of a Service that is not there changes %+v", c)
	}
	if w := Build(early, put(service("default", "later")), epoch); len(w.Endpoints(ServiceKey{host("default", "later"), "default"}).Of(80)) != 1 {
		t.Error("a Service that comes after its slice has no endpoint")
	}
}

func TestAServiceWithoutAnAddressGetsNoneOnKubernetes(t *testing.T) {
	w := slicedWorld(service("default", "web"))
	if vips := w.ServiceByKey(ServiceKey{host("default", "web"), "default"}).VIPs; len(vips) > 0 {
		t.Errorf("allocated %v, where nobody routes it", vips)
	}
}

// slicedRandomMesh adds slices and nodes to a random mesh.
type slicedRandomMesh struct{ randomMesh }

func (m *slicedRandomMesh) object() (model.Key, []model.Object) {
	var o model.Object
	switch m.r.IntN(5) {
	case 0, 1:
		ns := m.pick("a", "b")
		x := sliceOf(ns, m.pick("s1", "s2", "s3"), m.pick("web", "api", "db", ""), uint16(8080+m.r.IntN(2)))
		for range m.r.IntN(4) {
			e := ready(m.pick("", "web0", "web1", "api0", "gone"), fmt.Sprintf("10.0.%d.%d", len(ns), m.r.IntN(6)))
			e.Ready, e.Terminating, e.Node, e.Zone = m.r.IntN(4) > 0, m.r.IntN(4) == 0, m.pick("n1", "n2", ""), m.pick("", "z")
			x.Endpoints = append(x.Endpoints, e)
		}
		o = x
	case 2:
		o = node(m.pick("n1", "n2"), m.pick("eu", "us"), m.pick("z1", "z2", ""))
	default:
		return m.randomMesh.object()
	}
	if m.r.IntN(4) == 0 {
		return o.ObjectMeta().Key, nil
	}
	return o.ObjectMeta().Key, []model.Object{o}
}

// slowEndpoints works out the endpoints of a Service's port from nothing but the objects.
func (m *slicedRandomMesh) slowEndpoints(w *World, s *Service) []string {
	seen := map[string]string{}
	for _, objects := range m.objects {
		x, ok := objects[0].(*model.EndpointSlice)
		if !ok || x.Namespace != s.Namespace || x.Service == "" || s.Host != host(x.Namespace, x.Service) {
			continue
		}
		for _, e := range x.Endpoints {
			if !e.Ready && !e.Terminating {
				continue
			}
			var p *model.Workload
			if e.Pod != "" {
				if o := m.objects[model.Key{Kind: model.KindPod, Namespace: x.Namespace, Name: e.Pod}]; o != nil {
					p = o[0].(*model.Workload)
				} else {
					continue
				}
			} else {
				p = w.WorkloadByIP(e.Addresses[0])
			}
			nodeName, locality := e.Node, ""
			if nodeName == "" && p != nil {
				nodeName = p.Node
			}
			if o := m.objects[model.Key{Kind: model.KindNode, Name: nodeName}]; o != nil {
				locality = o[0].(*model.Node).Locality()
			} else if e.Zone != "" {
				locality = "/" + e.Zone
			}
			at := fmt.Sprint(e.Addresses[0], ":", x.Ports[0].Number)
			text := fmt.Sprint(at, " mtls ", p != nil && p.HasSidecar && w.PeerAuthentication(p.Namespace, p.Labels).Of(x.Ports[0].Number) != model.MTLSDisable, " at ", locality)
			if e.Pod != "" {
				text += " " + e.Pod
			}
			if prev, dup := seen[at]; dup && prev != text {
				text = "either" // two slices that contradict each other: any of the two will do
			}
			seen[at] = text
		}
	}
	var out []string
	for at, text := range seen {
		if text == "either" {
			text = at
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}

// TestRandomSlicesMakeTheEndpointsOfTheirObjects changes a mesh with slices at
// random, and compares each World with one built at once, and its endpoints
// with those worked out the slow way.
func TestRandomSlicesMakeTheEndpointsOfTheirObjects(t *testing.T) {
	found := 0
	for seed := range uint64(20) {
		m := &slicedRandomMesh{randomMesh{rand.New(rand.NewPCG(seed, 7)), map[model.Key][]model.Object{}}}
		w := Empty(slicedMesh)
		for step := range 150 {
			var changes []Change
			for range 1 + m.r.IntN(4) {
				k, objects := m.object()
				changes = append(changes, Change{k, objects})
				delete(m.objects, k)
				if len(objects) > 0 {
					m.objects[k] = objects
				}
			}
			next := Build(w, changes, epoch)
			checkInvariants(t, w, next)
			w = next
			found += m.compareEndpoints(t, w)
			if step%8 == 7 {
				compareWithFreshOf(t, &m.randomMesh, w, slicedMesh)
			}
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
	}
	if found < 1000 {
		t.Errorf("only %d endpoints were compared: the test says little", found)
	}
}

func (m *slicedRandomMesh) compareEndpoints(t *testing.T, w *World) (found int) {
	t.Helper()
	for _, s := range w.Services() {
		if s.Entry || len(s.Extra) > 0 {
			continue
		}
		want := m.slowEndpoints(w, s)
		eps := w.Endpoints(s.Key).Of(80)
		var got []string
		for _, e := range eps {
			at := fmt.Sprint(e.Addr, ":", e.Port)
			text := fmt.Sprint(at, " mtls ", e.MTLS, " at ", e.Locality)
			if slices.Contains(want, at) {
				text = at
			} else if named := text + " " + nameOf(e.Workload); slices.Contains(want, named) {
				text = named
			}
			got = append(got, text)
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("endpoints of %v (-slow +World):\n%s", s.Key, d)
		}
		found += len(got)
	}
	return found
}

func nameOf(x *model.Workload) string {
	if x == nil {
		return ""
	}
	return x.Name
}

func BenchmarkOneSlice(b *testing.B) {
	const n = 1000
	var objects []model.Object
	for i := range n {
		ns, name := fmt.Sprint("ns", i%20), fmt.Sprint("svc", i)
		objects = append(objects, service(ns, name, func(s *model.Service) { s.Headless = false }))
		var eps []model.SliceEndpoint
		for j := range 10 {
			ip, p := fmt.Sprintf("10.%d.%d.%d", i/250, i%250, j), fmt.Sprint(name, "-", j)
			objects = append(objects, pod(ns, p, ip, name))
			eps = append(eps, ready(p, ip))
		}
		objects = append(objects, sliceOf(ns, name+"-x", name, 8080, eps...))
	}
	w := Build(Empty(slicedMesh), put(objects...), epoch)
	full := objects[len(objects)-1].(*model.EndpointSlice)
	less := *full
	less.Endpoints = slices.Clone(full.Endpoints)
	less.Endpoints[3].Ready = false
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w = Build(w, put([]model.Object{&less, full}[i%2]), epoch)
	}
}
