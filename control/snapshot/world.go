package snapshot

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weft.mesh/weft/model"
)

// World is one version of the whole mesh. It is immutable and safe for
// concurrent use. Two Worlds of one line share what did not change, so equal
// pointers mean equal content.
type World struct {
	mesh    model.Mesh
	seq     uint64
	version string
	revs    Revisions
	changes *Changes
	began   time.Time // see Began

	objects     table[model.Key, []model.Object]
	namespaces  table[string, *model.Namespace]
	services    table[ServiceKey, *Service]
	hosts       table[string, []*Service]   // candidates for a host, preferred first
	nsServices  table[string, []*Service]   // by namespace, sorted by host
	selectors   table[labelKey, []*Service] // by one pair of each selector
	endpoints   table[ServiceKey, *Endpoints]
	identities  table[ServiceKey, *Identities]
	workloads   table[model.Key, *model.Workload]
	byIP        table[netip.Addr, []*model.Workload] // more than one only while an address moves
	byLabel     table[labelKey, []*model.Workload]
	deployments table[labelKey, []*model.Deployment] // by each label of its pods
	sliced      sliceIndex                           // of Kubernetes
	vips        vips                                 // of Services
	autos       vips                                 // of hosts of ServiceEntries, by autoKey
	routes      *routeIndex
	rules       *ruleIndex
	gateways    []*model.Gateway // oldest first
	authn       map[string][]*model.PeerAuthentication
	authz       map[string][]*model.AuthorizationPolicy

	derived derived
}

// Revisions are the sequence numbers of the Worlds that last changed an
// aspect: two Worlds of one line with equal numbers agree on it.
type Revisions struct {
	Services   uint64 // definitions, ports, addresses, visibility
	Identities uint64 // service accounts behind services
	Endpoints  uint64 // any endpoint
	Addresses  uint64 // what of endpoints listeners or clusters hold: headless services, DNS, whether all take mTLS
	Workloads  uint64
	Routes     uint64
	Rules      uint64
	Gateways   uint64
	Authn      uint64
	Authz      uint64
	Namespaces uint64
	Secrets    uint64
}

// labelKey is a label pair in a namespace.
type labelKey struct{ namespace, key, value string }

// Defaults fills in what a Mesh leaves empty, with Istio's defaults where it has
// any. A negative TraceSampling means none.
func Defaults(m model.Mesh) model.Mesh {
	set := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	set(&m.TrustDomain, "cluster.local")
	set(&m.Domain, "cluster.local")
	set(&m.RootNamespace, "weft-system")
	set(&m.ClusterID, "Kubernetes")
	if m.ConnectTimeout == 0 {
		m.ConnectTimeout = 10 * time.Second
	}
	if m.TraceSampling == 0 {
		m.TraceSampling = 1
	}
	if !m.ServiceCIDR.IsValid() {
		m.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")
	}
	return m
}

// Empty is a World without objects.
func Empty(mesh model.Mesh) *World {
	mesh = Defaults(mesh)
	vips := newVIPs(mesh.ServiceCIDR)
	vips.given = mesh.EndpointSlices
	return &World{
		mesh: mesh, version: "0", changes: &Changes{}, vips: vips, autos: newVIPs(autoCIDR),
		routes: newRouteIndex(nil), rules: newRuleIndex(nil, nil), derived: newDerived(),
	}
}

// Mesh is the mesh-wide settings with their defaults filled in.
func (w *World) Mesh() model.Mesh { return w.mesh }

// Version names this World and grows with every change.
func (w *World) Version() string { return w.version }

// Sequence counts the Worlds of this line from 0.
func (w *World) Sequence() uint64 { return w.seq }

// Revisions tells which World last changed each aspect.
func (w *World) Revisions() Revisions { return w.revs }

// Changes is what differs from the World before this one.
func (w *World) Changes() *Changes { return w.changes }

// Began is when the first of those changes came to the store; zero for a World that no store made.
func (w *World) Began() time.Time { return w.began }

// Objects returns the model objects of a key; nil if there are none.
func (w *World) Objects(k model.Key) []model.Object { return w.objects.at(k) }

// Len is the number of keys.
func (w *World) Len() int { return w.objects.len() }

// Keys returns all keys, sorted by kind, namespace and name.
func (w *World) Keys() []model.Key {
	ks := make([]model.Key, 0, w.objects.len())
	for k := range w.objects.all() {
		ks = append(ks, k)
	}
	slices.SortFunc(ks, model.CompareKeys)
	return ks
}

// Namespace returns a namespace object; nil if none was declared.
func (w *World) Namespace(name string) *model.Namespace { return w.namespaces.at(name) }

// Workload returns a workload by its key; nil if there is none.
func (w *World) Workload(k model.Key) *model.Workload { return w.workloads.at(k) }

// WorkloadByIP returns the workload that has the address; nil if there is none.
// Of several (an address that moves from a dead pod to a new one) a ready one
// counts, then the youngest.
func (w *World) WorkloadByIP(ip netip.Addr) *model.Workload {
	return bestWorkload(w.byIP.at(ip.Unmap()))
}

func bestWorkload(all []*model.Workload) *model.Workload {
	var best *model.Workload
	for _, x := range all {
		if best == nil || x.Ready && !best.Ready || x.Ready == best.Ready && older(&x.Meta, &best.Meta) > 0 {
			best = x
		}
	}
	return best
}

// Pod returns the workload of a pod or WorkloadEntry by name; nil if there is none.
func (w *World) Pod(namespace, name string) *model.Workload {
	if x := w.workloads.at(model.Key{Kind: model.KindPod, Namespace: namespace, Name: name}); x != nil {
		return x
	}
	return w.workloads.at(model.Key{Kind: model.KindWorkloadEntry, Namespace: namespace, Name: name})
}

// Workloads returns the workloads of a namespace that have all the labels,
// sorted by name. With no labels there are none: an empty selector of a service
// selects nothing.
func (w *World) Workloads(namespace string, labels map[string]string) []*model.Workload {
	if len(labels) == 0 {
		return nil
	}
	return selectWorkloads(w.byLabel.at, namespace, labels)
}

// AllWorkloads returns all workloads sorted by key.
func (w *World) AllWorkloads() []*model.Workload {
	out := make([]*model.Workload, 0, w.workloads.len())
	for _, x := range w.workloads.all() {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b *model.Workload) int { return model.CompareKeys(a.Key, b.Key) })
	return out
}

func selectWorkloads(at func(labelKey) []*model.Workload, namespace string, labels map[string]string) []*model.Workload {
	var best []*model.Workload
	first := true
	for k, v := range labels {
		if c := at(labelKey{namespace, k, v}); first || len(c) < len(best) {
			best, first = c, false
		}
	}
	var out []*model.Workload
	for _, x := range best {
		if Matches(labels, x.Labels) {
			out = append(out, x)
		}
	}
	return out
}

// Matches tells whether labels hold all pairs of the selector. An empty selector matches all.
func Matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// older orders by creation time, ties by namespace and name (Istio's rule for
// "the oldest wins").
func older(a, b *model.Meta) int {
	if c := a.Created.Compare(b.Created); c != 0 {
		return c
	}
	if c := cmpString(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return cmpString(a.Name, b.Name)
}

// versionOf is "<time>/<sequence>", as Istio writes push versions.
func versionOf(now time.Time, seq uint64) string {
	return fmt.Sprintf("%s/%d", now.UTC().Format(time.RFC3339), seq)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
