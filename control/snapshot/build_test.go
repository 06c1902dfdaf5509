package snapshot

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/model"
)

var epoch = time.Unix(0, 0)

func meta(kind model.Kind, ns, name string) model.Meta {
	return model.Meta{Key: model.Key{Kind: kind, Namespace: ns, Name: name}}
}

func put(objects ...model.Object) []Change {
	var out []Change
	for _, o := range objects {
		out = append(out, Change{Key: o.ObjectMeta().Key, Objects: []model.Object{o}})
	}
	return out
}

func drop(objects ...model.Object) []Change {
	var out []Change
	for _, o := range objects {
		out = append(out, Change{Key: o.ObjectMeta().Key})
	}
	return out
}

// world builds one World of all objects.
func world(objects ...model.Object) *World {
	return Build(Empty(model.Mesh{}), put(objects...), epoch)
}

func host(ns, name string) string { return name + "." + ns + ".svc.cluster.local" }

func service(ns, name string, edits ...func(*model.Service)) *model.Service {
	s := &model.Service{
		Meta: meta(model.KindService, ns, name), Host: host(ns, name), Resolution: model.ResolveStatic,
		Ports: []model.Port{{Number: 80, Name: "http", Protocol: model.ProtocolHTTP, TargetPort: 8080}}, Selector: map[string]string{"app": name},
	}
	for _, e := range edits {
		e(s)
	}
	return s
}

func entry(ns, name, hostname string, edits ...func(*model.Service)) *model.Service {
	s := service(ns, name, edits...)
	s.Kind, s.Host, s.Entry, s.Selector = model.KindServiceEntry, hostname, true, nil
	for _, e := range edits {
		e(s)
	}
	return s
}

func pod(ns, name, ip, app string, edits ...func(*model.Workload)) *model.Workload {
	w := &model.Workload{
		Meta: meta(model.KindPod, ns, name), Addresses: []netip.Addr{netip.MustParseAddr(ip)}, ServiceAccount: app, WorkloadName: app,
		Ready: true, HasSidecar: true, Weight: 1,
	}
	w.Labels = map[string]string{"app": app, "version": "v1"}
	for _, e := range edits {
		e(w)
	}
	return w
}

func addresses(eps []Endpoint) []string {
	var out []string
	for _, e := range eps {
		a := e.Hostname
		if e.Addr.IsValid() {
			a = e.Addr.String()
		}
		a = fmt.Sprintf("%s:%d", a, e.Port)
		if e.Draining {
			a += " draining"
		}
		if !e.MTLS {
			a += " plain"
		}
		out = append(out, a)
	}
	return out
}

func TestEndpointsOfAService(t *testing.T) {
	key := ServiceKey{host("default", "web"), "default"}
	tests := []struct {
		name    string
		objects []model.Object
		want    []string
	}{
		{"pods that its selector takes, sorted", []model.Object{service("default", "web"), pod("default", "b", "10.0.0.2", "web"), pod("default", "a", "10.0.0.1", "web")},
			[]string{"10.0.0.1:8080", "10.0.0.2:8080"}},
		{"not those of other namespaces or labels", []model.Object{service("default", "web"), pod("other", "a", "10.0.0.1", "web"), pod("default", "b", "10.0.0.2", "api")}, nil},
		{"not those that are not ready", []model.Object{service("default", "web"), pod("default", "a", "10.0.0.1", "web", func(w *model.Workload) { w.Ready = false })}, nil},
		{"those that terminate only drain", []model.Object{service("default", "web"), pod("default", "a", "10.0.0.1", "web", func(w *model.Workload) { w.Ready, w.Terminating = false, true })},
			[]string{"10.0.0.1:8080 draining"}},
		{"those without a sidecar take no mTLS", []model.Object{service("default", "web"), pod("default", "a", "10.0.0.1", "web", func(w *model.Workload) { w.HasSidecar = false })},
			[]string{"10.0.0.1:8080 plain"}},
		{"one whose namespace disables mTLS takes none", []model.Object{peer("default", "n", model.MTLSDisable, 0, nil, nil), service("default", "web"), pod("default", "a", "10.0.0.1", "web")},
			[]string{"10.0.0.1:8080 plain"}},
		{"nor one whose mesh does", []model.Object{peer("weft-system", "n", model.MTLSDisable, 0, nil, nil), service("default", "web"), pod("default", "a", "10.0.0.1", "web")},
			[]string{"10.0.0.1:8080 plain"}},
		{"nor one whose port does", []model.Object{peer("default", "n", model.MTLSStrict, 0, map[string]string{"app": "web"}, map[uint16]string{8080: model.MTLSDisable}),
			service("default", "web"), pod("default", "a", "10.0.0.1", "web")}, []string{"10.0.0.1:8080 plain"}},
		{"one of another port still does", []model.Object{peer("default", "n", model.MTLSStrict, 0, map[string]string{"app": "web"}, map[uint16]string{80: model.MTLSDisable}),
			service("default", "web"), pod("default", "a", "10.0.0.1", "web")}, []string{"10.0.0.1:8080"}},
		{"a named target port is the pod's own", []model.Object{
			service("default", "web", func(s *model.Service) { s.Ports[0].TargetPort, s.Ports[0].TargetName = 0, "main" }),
			pod("default", "a", "10.0.0.1", "web", func(w *model.Workload) { w.Ports = map[string]uint16{"main": 9000} }),
			pod("default", "b", "10.0.0.2", "web")}, []string{"10.0.0.1:9000"}},
		{"a service without a selector has none", []model.Object{service("default", "web", func(s *model.Service) { s.Selector = nil }), pod("default", "a", "10.0.0.1", "web")}, nil},
		{"WorkloadEntries, with ports by the service's port name", []model.Object{service("default", "web"),
			pod("default", "vm", "10.9.0.1", "web", func(w *model.Workload) {
				w.Kind, w.Entry, w.Ports = model.KindWorkloadEntry, true, map[string]uint16{"http": 7000}
			})}, []string{"10.9.0.1:7000"}},
		{"a ServiceEntry of the same host adds its own", []model.Object{service("default", "web"), pod("default", "a", "10.0.0.1", "web"),
			entry("default", "more", host("default", "web"), func(s *model.Service) { s.Endpoints = []model.Endpoint{{Address: "172.16.0.1"}} })},
			[]string{"10.0.0.1:8080", "172.16.0.1:8080 plain"}},
		{"a ServiceEntry of another namespace does not", []model.Object{service("default", "web"), pod("default", "a", "10.0.0.1", "web"),
			entry("other", "more", host("default", "web"), func(s *model.Service) { s.Endpoints = []model.Endpoint{{Address: "172.16.0.1"}} })},
			[]string{"10.0.0.1:8080"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if d := cmp.Diff(want, addresses(world(tt.objects...).Endpoints(key).Of(80))); d != "" {
				t.Errorf("at once (-want +got):\n%s", d)
			}
			w := Empty(model.Mesh{})
			for _, o := range slices.Backward(tt.objects) {
				w = Build(w, put(o), epoch)
			}
			if d := cmp.Diff(want, addresses(w.Endpoints(key).Of(80))); d != "" {
				t.Errorf("one by one, backwards (-want +got):\n%s", d)
			}
		})
	}
}

func TestIdentitiesDoNotChangeWithReadiness(t *testing.T) {
	d := &model.Deployment{Meta: meta(model.KindDeployment, "default", "web"), PodLabels: map[string]string{"app": "web"}, ServiceAccount: "future"}
	p := pod("default", "a", "10.0.0.1", "web")
	w := world(service("default", "web"), p, d)
	key := ServiceKey{host("default", "web"), "default"}
	want := []string{"spiffe://cluster.local/ns/default/sa/future", "spiffe://cluster.local/ns/default/sa/web"}
	if d := cmp.Diff(want, w.Identities(key).IDs); d != "" {
		t.Errorf("identities (-want +got):\n%s", d)
	}
	unready := *p
	unready.Ready = false
	next := Build(w, put(&unready), epoch)
	if next.Identities(key) != w.Identities(key) {
		t.Error("identities were made anew though only readiness changed")
	}
	if !next.Changes().EndpointsOnly || !next.Changes().Hosts[key.Host] {
		t.Errorf("changes %+v, want endpoints only, of %s", next.Changes(), key.Host)
	}
}

func TestAddressesOfServices(t *testing.T) {
	headless := service("default", "headless", func(s *model.Service) { s.Headless = true })
	given := service("default", "given", func(s *model.Service) { s.Addresses = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32")} })
	external := entry("default", "ext", "api.example.com", func(s *model.Service) { s.External = true })
	w := world(headless, given, external, service("default", "plain"))
	for name, want := range map[string]int{"headless": 0, "given": 1, "plain": 1} {
		if got := w.Service(host("default", name), "default").VIPs; len(got) != want {
			t.Errorf("%s: addresses %v, want %d", name, got, want)
		}
	}
	if got := w.Service("api.example.com", "default").VIPs; len(got) != 0 {
		t.Errorf("external: addresses %v, want none", got)
	}
	vip := w.Service(host("default", "plain"), "default").VIPs[0]
	if !w.Mesh().ServiceCIDR.Contains(vip) {
		t.Errorf("address %v is not of %v", vip, w.Mesh().ServiceCIDR)
	}
	if got := world(service("default", "plain")).Service(host("default", "plain"), "default").VIPs[0]; got != vip {
		t.Errorf("address %v in another mesh, want the same %v", got, vip)
	}
	taker := service("default", "taker", func(s *model.Service) { s.Addresses = []netip.Prefix{netip.PrefixFrom(vip, 32)} })
	w = Build(w, put(taker), epoch)
	if got := w.Service(host("default", "plain"), "default").VIPs[0]; got == vip {
		t.Errorf("two services have %v", vip)
	}
}

func TestAllocatedAddressesAreDistinctAndStay(t *testing.T) {
	mesh := model.Mesh{ServiceCIDR: netip.MustParsePrefix("10.200.0.0/24")}
	w := Empty(mesh)
	first := map[string]netip.Addr{}
	for i := range 200 { // of 224: many collide
		w = Build(w, put(service("default", fmt.Sprint("s", i))), epoch)
		seen := map[netip.Addr]string{}
		for _, s := range w.Services() {
			a := s.VIPs[0]
			if other := seen[a]; other != "" {
				t.Fatalf("%s and %s have %v", s.Host, other, a)
			}
			seen[a] = s.Host
			if was, ok := first[s.Host]; ok && was != a {
				t.Fatalf("%s moved from %v to %v", s.Host, was, a)
			}
			first[s.Host] = a
		}
	}
}

func TestWhichServiceAClientReaches(t *testing.T) {
	private := entry("a", "one", "shared.test", func(s *model.Service) { s.ExportTo = []string{"."} })
	public := entry("b", "two", "shared.test")
	granted := entry("c", "three", "granted.test", func(s *model.Service) { s.ExportTo = []string{"a", "~"} })
	w := world(private, public, granted, service("default", "web"))
	tests := []struct{ name, host, client, want string }{
		{"its own namespace's before another's", "shared.test", "a", "a"},
		{"the public one elsewhere", "shared.test", "z", "b"},
		{"one exported to it by name", "granted.test", "a", "c"},
		{"none that is not exported to it", "granted.test", "z", ""},
		{"everything is exported by default", host("default", "web"), "z", "default"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if s := w.Service(tt.host, tt.client); s != nil {
				got = s.Namespace
			}
			if got != tt.want {
				t.Errorf("service of namespace %q, want %q", got, tt.want)
			}
			visible := slices.ContainsFunc(w.Visible(tt.client), func(s *Service) bool { return s.Host == tt.host && s.Namespace == got })
			if visible != (tt.want != "") {
				t.Errorf("listed as visible: %v", visible)
			}
		})
	}
}

func TestNames(t *testing.T) {
	headless := service("default", "db", func(s *model.Service) { s.Headless = true })
	w := world(headless, pod("default", "db-0", "10.0.0.5", "db"), pod("default", "db-1", "10.0.0.6", "db", func(w *model.Workload) { w.Ready = false }),
		service("default", "web"), entry("default", "wild", "*.example.com", func(s *model.Service) { s.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")} }))
	vip := w.Service(host("default", "web"), "default").VIPs[0].String()
	tests := []struct{ name, from, ask, want string }{
		{"short", "default", "web", vip}, {"with namespace", "other", "web.default", vip}, {"with svc", "other", "web.default.svc", vip},
		{"full, absolute, other case", "other", "WEB.default.svc.cluster.local.", vip}, {"short from elsewhere", "other", "web", ""},
		{"headless: ready pods", "default", "db", "10.0.0.5"}, {"a pod of a headless service", "default", "db-0.db", "10.0.0.5"},
		{"wildcard", "default", "a.b.example.com", "192.0.2.1"}, {"not the wildcard's own name", "default", "example.com", ""},
	}
	table := w.NameTable()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if a, ok := table.Lookup(tt.from, tt.ask); ok && len(a) == 1 {
				got = a[0].String()
			}
			if got != tt.want {
				t.Errorf("%s from %s: %q, want %q", tt.ask, tt.from, got, tt.want)
			}
		})
	}
}

func TestAnUnchangedObjectMakesNoWorld(t *testing.T) {
	w := world(service("default", "web"))
	if next := Build(w, put(service("default", "web")), epoch); next != w {
		t.Errorf("a new World %s for an equal object", next.Version())
	}
	if next := Build(w, drop(service("default", "other")), epoch); next != w {
		t.Error("a new World for the removal of what is not there")
	}
}

func TestHostsOfServiceEntriesHaveAnAddressForThoseWhoAskTheMesh(t *testing.T) {
	external := func(ns, name, host string, f func(*model.Service)) model.Object {
		return entry(ns, name, host, func(s *model.Service) {
			s.External = true
			if f != nil {
				f(s)
			}
		})
	}
	w := world(
		external("a", "api", "api.example.com", nil),
		external("b", "api", "api.example.com", nil), // one host, so one address
		entry("a", "internal", "vm.internal"),
		external("a", "none", "as-it-is.example.com", func(s *model.Service) { s.Resolution = model.ResolveNone }),
		external("a", "wild", "*.example.com", nil),
		external("a", "given", "given.example.com", func(s *model.Service) {
			s.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}
		}),
		external("a", "out", "out.example.com", func(s *model.Service) {
			s.Labels = map[string]string{"networking.istio.io/enable-autoallocate-ip": "false"}
		}),
	)
	for host, want := range map[string]bool{
		"api.example.com": true, "vm.internal": true, "as-it-is.example.com": false, "*.example.com": false, "given.example.com": false, "out.example.com": false,
	} {
		s := w.Service(host, "a")
		if s.Auto.IsValid() != want || want && !netip.MustParsePrefix("240.240.0.0/16").Contains(s.Auto) {
			t.Errorf("%s: address %v, want one: %t", host, s.Auto, want)
		}
		if a, ok := w.NameTable().Auto[host]; ok != want || a != s.Auto {
			t.Errorf("%s: name %v, want %v", host, a, s.Auto)
		}
		if _, ok := w.NameTable().Names[host]; ok != (host == "given.example.com") {
			t.Errorf("%s is told to everybody: %t", host, ok)
		}
	}
	api := w.Service("api.example.com", "a").Auto
	if other := w.Service("api.example.com", "b").Auto; other != api {
		t.Errorf("one host has %v and %v", api, other)
	}
	// One of the two goes: the other keeps it. The other goes too: it is free.
	w = Build(w, []Change{{Key: model.Key{Kind: model.KindServiceEntry, Namespace: "a", Name: "api"}}}, epoch)
	if got := w.NameTable().Auto["api.example.com"]; got != api {
		t.Errorf("the address became %v, want %v", got, api)
	}
	w = Build(w, []Change{{Key: model.Key{Kind: model.KindServiceEntry, Namespace: "b", Name: "api"}}}, epoch)
	if _, ok := w.autos.taken.get(api); ok {
		t.Error("the address of a host that is gone is not free")
	}
	// Somebody brings the address of another: that one moves.
	vm := w.Service("vm.internal", "a").Auto
	w = Build(w, put(external("a", "taker", "taker.example.com", func(s *model.Service) {
		s.Addresses = []netip.Prefix{netip.PrefixFrom(vm, 32)}
	})), epoch)
	if got := w.Service("vm.internal", "a").Auto; got == vm || !got.IsValid() {
		t.Errorf("vm.internal has %v, which another brings", got)
	}
}
