package snapshot

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/model"
)

// mesh is a random set of objects that changes step by step.
type randomMesh struct {
	r       *rand.Rand
	objects map[model.Key][]model.Object
}

func (m *randomMesh) pick(s ...string) string { return s[m.r.IntN(len(s))] }

func (m *randomMesh) object() (model.Key, []model.Object) {
	ns, app, n := m.pick("a", "b", "weft-system"), m.pick("web", "api", "db"), m.r.IntN(3)
	name := fmt.Sprint(app, n)
	one := func(o model.Object) (model.Key, []model.Object) {
		if m.r.IntN(4) == 0 {
			return o.ObjectMeta().Key, nil
		}
		return o.ObjectMeta().Key, []model.Object{o}
	}
	switch m.r.IntN(9) {
	case 0, 1, 2:
		return one(pod(ns, name, fmt.Sprintf("10.0.%d.%d", len(ns), m.r.IntN(6)), app, func(w *model.Workload) {
			w.Ready, w.Terminating, w.HasSidecar = m.r.IntN(4) > 0, m.r.IntN(5) == 0, m.r.IntN(3) > 0
			w.Labels["version"] = m.pick("v1", "v2")
			w.ServiceAccount = m.pick("x", "y")
		}))
	case 3:
		return one(service(ns, app, func(s *model.Service) {
			s.Headless = m.r.IntN(5) == 0
			s.ExportTo = [][]string{nil, {"."}, {"a"}}[m.r.IntN(3)]
			if m.r.IntN(4) == 0 {
				s.Addresses = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 96, byte(m.r.IntN(2)), byte(m.r.IntN(255))}), 32)}
			}
			if m.r.IntN(3) == 0 {
				s.Selector["version"] = "v1"
			}
		}))
	case 4: // a ServiceEntry with several hosts
		key := model.Key{Kind: model.KindServiceEntry, Namespace: ns, Name: name}
		var hosts []model.Object
		for _, h := range []string{host(ns, "web"), "ext.test", "more.test"}[:m.r.IntN(4)] {
			hosts = append(hosts, entry(ns, name, h, func(s *model.Service) {
				s.Endpoints = []model.Endpoint{{Address: fmt.Sprint("172.16.0.", m.r.IntN(3)), ServiceAccount: m.pick("", "z")}}
			}))
		}
		return key, hosts
	case 5:
		return one(rule(ns, name, host(m.pick("a", "b"), app), exported(m.pick("*", ".")), age(m.r.IntN(3)), func(d *model.DestinationRule) {
			d.Subsets = []model.Subset{{Name: m.pick("v1", "v2")}}
		}))
	case 6:
		return one(routes(ns, name, m.r.IntN(3), host(m.pick("a", "b"), app), m.pick("*", "*.local", "x.test")))
	case 7:
		return one(peer(ns, name, m.pick(model.MTLSStrict, model.MTLSUnset, model.MTLSDisable), m.r.IntN(3), nil, nil))
	}
	return one(&model.Deployment{Meta: meta(model.KindDeployment, ns, name), PodLabels: map[string]string{"app": app}, ServiceAccount: m.pick("x", "q")})
}

// TestRandomChangesMakeTheWorldOfTheirObjects changes a mesh at random and
// compares the World with one that is built of the same objects at once.
func TestRandomChangesMakeTheWorldOfTheirObjects(t *testing.T) {
	for seed := range uint64(20) {
		m := &randomMesh{rand.New(rand.NewPCG(seed, 1)), map[model.Key][]model.Object{}}
		w := Empty(model.Mesh{})
		for step := range 60 {
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
			if step%6 == 5 {
				compareWithFresh(t, m, w)
			}
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
	}
}

// checkInvariants holds between any World and the next.
func checkInvariants(t *testing.T, prev, next *World) {
	t.Helper()
	if next == prev {
		return
	}
	if next.Sequence() != prev.Sequence()+1 {
		t.Errorf("sequence %d after %d", next.Sequence(), prev.Sequence())
	}
	taken := map[netip.Addr]string{}
	for _, s := range next.Services() {
		if next.Endpoints(s.Key) == nil || next.Identities(s.Key) == nil {
			t.Errorf("%v has no endpoints or identities", s.Key)
		}
		if len(s.Addresses) == 0 {
			for _, a := range s.VIPs {
				if other := taken[a]; other != "" {
					t.Errorf("%s and %s have %v", other, s.Host, a)
				}
				taken[a] = s.Host
			}
		}
		changed := next.Changes().Hosts[s.Host]
		if prev.ServiceByKey(s.Key) != s && !changed {
			t.Errorf("%v is new, and not among the changed hosts", s.Key)
		}
		if prev.Endpoints(s.Key) != next.Endpoints(s.Key) && !changed {
			t.Errorf("endpoints of %v changed, and it is not among the changed hosts", s.Key)
		}
		if next.Changes().EndpointsOnly && prev.ServiceByKey(s.Key) != s {
			t.Errorf("%v changed in a change of endpoints only", s.Key)
		}
	}
	for _, x := range next.AllWorkloads() {
		if got := next.WorkloadByIP(x.Addresses[0]); got == nil || got.Addresses[0] != x.Addresses[0] {
			t.Errorf("no workload at %v", x.Addresses[0])
		}
	}
}

// view is what a World says, without allocated addresses and sequence numbers.
func view(w *World) map[string]any {
	out := map[string]any{}
	for _, s := range w.Services() {
		k := s.Key.Host + "/" + s.Key.Namespace
		out["service "+k] = s.Service
		out["extra "+k] = s.Extra
		for _, p := range s.Ports {
			out[fmt.Sprint("endpoints ", k, p.Number)] = addresses(w.Endpoints(s.Key).Of(p.Number))
		}
		out["identities "+k] = w.Identities(s.Key)
		for _, ns := range []string{"a", "b"} {
			out["reached "+k+ns] = w.Service(s.Host, ns) == s
			if r := w.Rule(ns, nil, s.Key); r != nil {
				out["rule "+k+ns] = r.From
			}
			if r := w.Routes(ns, s.Host); r != nil {
				out["routes "+k+ns] = r.Key
			}
		}
	}
	for _, x := range w.AllWorkloads() {
		var hosts []string
		for _, s := range w.ServicesOfWorkload(x) {
			hosts = append(hosts, s.Host)
		}
		out["services of "+x.Key.String()] = hosts
		out["at "+x.Addresses[0].String()] = w.WorkloadByIP(x.Addresses[0]).Key
		out["accepts "+x.Key.String()] = w.PeerAuthentication(x.Namespace, x.Labels)
	}
	out["keys"] = w.Keys()
	return out
}

func compareWithFresh(t *testing.T, m *randomMesh, w *World) {
	t.Helper()
	compareWithFreshOf(t, m, w, model.Mesh{})
}

func compareWithFreshOf(t *testing.T, m *randomMesh, w *World, mesh model.Mesh) {
	t.Helper()
	var all []Change
	for k, objects := range m.objects {
		all = append(all, Change{k, objects})
	}
	fresh := Build(Empty(mesh), all, epoch)
	if d := cmp.Diff(view(fresh), view(w), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("the World differs from one built at once (-at once +step by step):\n%s", d)
	}
}
