package translate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// Snapshot is a World as nodes can ask for it. It is immutable and safe for
// concurrent use; resources are made when they are first asked for.
type Snapshot struct {
	world *snapshot.World
	mesh  model.Mesh
	cache *cache
	diff  atomic.Pointer[difference] // from the World that was asked about last
}

var _ xds.Snapshot = (*Snapshot)(nil)

// New makes a Snapshot that shares nothing with others.
func New(world *snapshot.World, mesh model.Mesh) *Snapshot {
	return &Snapshot{world: world, mesh: snapshot.Defaults(mesh), cache: newCache()}
}

// Next makes the Snapshot of a later World of the same line. What did not
// change is the same pointers.
func (s *Snapshot) Next(world *snapshot.World) *Snapshot {
	s.cache.next()
	return &Snapshot{world: world, mesh: s.mesh, cache: s.cache}
}

// World is what the Snapshot is made from.
func (s *Snapshot) World() *snapshot.World { return s.world }

// Version is the World's.
func (s *Snapshot) Version() string { return s.world.Version() }

// Began is when the first of the changes came that made the World.
func (s *Snapshot) Began() time.Time { return s.world.Began() }

// Resources returns what a node gets of a type, sorted by name: all of it
// (names nil), or those of the names that exist.
func (s *Snapshot) Resources(n *xds.Node, typeURL string, names []string) ([]*xds.Resource, error) {
	if n.Generator != "" && n.Generator != generatorGRPC {
		return nil, fmt.Errorf("node %q: generator %q: want none or %q", n.ID, n.Generator, generatorGRPC)
	}
	v := s.view(n)
	var all []*xds.Resource
	switch {
	case n.Generator == generatorGRPC:
		return s.grpcResources(v, typeURL, names), nil
	case typeURL == xds.NameTableType:
		all = s.nameTable(v)
	case n.Type == xds.Sidecar:
		if typeURL == xds.EndpointType || typeURL == xds.RouteType {
			return s.sidecarNamed(v, typeURL, names), nil
		}
		all = s.sidecarAll(v, typeURL)
	case n.Type == xds.Router:
		all = s.routerAll(v, typeURL)
	default:
		return nil, fmt.Errorf("node %q: type %q: want %s or %s", n.ID, n.Type, xds.Sidecar, xds.Router)
	}
	return pick(all, names), nil
}

// pick keeps the named resources; all is sorted.
func pick(all []*xds.Resource, names []string) []*xds.Resource {
	if names == nil {
		return all
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	out := make([]*xds.Resource, 0, len(names))
	for _, n := range names {
		i, ok := slices.BinarySearchFunc(all, n, func(r *xds.Resource, n string) int { return compare(r.Name, n) })
		if ok {
			out = append(out, all[i])
		}
	}
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// view is a node with what the World knows of its workload, which counts more
// than what the node says of itself.
type view struct {
	node      *xds.Node
	workload  *model.Workload // never nil
	known     bool            // the workload is in the World
	namespace string
	labels    map[string]string
	weft      bool
	dns       bool // it gets its names from the mesh
	locality  string
}

func (s *Snapshot) view(n *xds.Node) *view {
	v := &view{node: n, namespace: n.Namespace, weft: n.WeftProxy, dns: n.Metadata.DNSCapture}
	w := s.world.Pod(n.Namespace, n.Name)
	if w == nil {
		if byIP := s.world.WorkloadByIP(n.IP); byIP != nil && byIP.Namespace == n.Namespace {
			w = byIP
		}
	}
	if w != nil {
		v.workload, v.known, v.labels = w, true, w.Labels
		v.locality = cmp.Or(s.world.Locality(w), n.Locality)
		return v
	}
	v.labels, v.locality = n.Metadata.Labels, n.Locality
	v.workload = &model.Workload{
		Meta:           model.Meta{Key: model.Key{Kind: model.KindPod, Namespace: n.Namespace, Name: n.Name}, Labels: v.labels},
		ServiceAccount: n.Metadata.ServiceAccount, WorkloadName: n.Metadata.WorkloadName,
	}
	if n.IP.IsValid() {
		v.workload.Addresses = append(v.workload.Addresses, n.IP)
	}
	return v
}

// sidecarAll lists a sidecar's listeners or clusters. As long as neither side changes it is the same list.
func (s *Snapshot) sidecarAll(v *view, typeURL string) []*xds.Resource {
	switch typeURL {
	case xds.ListenerType:
		in, out := s.inbound(v), s.scopeOf(v).listeners()
		return latest(s.cache, mergedKey{v.inboundKey(), typeURL}, inputs{in, &out[0]}, func() []*xds.Resource { return merge(out, in.listener) })
	case xds.ClusterType:
		in, out := s.inbound(v), s.reachOf(s.scopeKeyOf(v), v).clusters()
		return latest(s.cache, mergedKey{v.inboundKey(), typeURL}, inputs{in, &out[0]}, func() []*xds.Resource { return merge(out, in.clusters...) })
	}
	return nil // secrets are the workload's own; other types we do not serve
}

// Common is the part of a sidecar's clusters that all sidecars of its scope have, as the same list; nil for other types and nodes.
func (s *Snapshot) Common(n *xds.Node, typeURL string) []*xds.Resource {
	if n.Generator != "" || n.Type != xds.Sidecar || typeURL != xds.ClusterType {
		return nil
	}
	v := s.view(n)
	return s.reachOf(s.scopeKeyOf(v), v).clusters()
}

// mergedKey finds what a sidecar has of both directions.
type mergedKey struct {
	inboundKey
	typeURL string
}

// sidecarNamed lists a sidecar's route tables or endpoints. Who asks for all that
// there is, as weft-proxy does, gets the list that others get.
func (s *Snapshot) sidecarNamed(v *view, typeURL string, names []string) []*xds.Resource {
	if typeURL == xds.RouteType {
		c := s.scopeOf(v)
		if names == nil || slices.Equal(names, c.tables()) {
			return c.allRoutes()
		}
		return each(names, c.route)
	}
	c := s.reachOf(s.scopeKeyOf(v), v)
	all := s.scopeEndpoints(c, s.placeOf(v))
	if names == nil || c.asksForAll(names) {
		return all
	}
	return pick(all, names)
}

// asksForAll tells whether names are those of all endpoints. Thousands of nodes ask with the same list after each change.
func (c *reach) asksForAll(names []string) bool {
	e := c.eds().names
	if len(names) != len(e) || len(e) == 0 {
		return len(names) == len(e)
	}
	if last := c.asked.Load(); last != nil && &(*last)[0] == &names[0] {
		return true
	}
	if !slices.Equal(names, e) {
		return false
	}
	c.asked.Store(&names)
	return true
}

// each looks up sorted, distinct names.
func each(names []string, get func(string) *xds.Resource) []*xds.Resource {
	if !slices.IsSorted(names) {
		names = slices.Sorted(slices.Values(names))
	}
	out := make([]*xds.Resource, 0, len(names))
	for i, n := range names {
		if i > 0 && names[i-1] == n {
			continue
		}
		if r := get(n); r != nil {
			out = append(out, r)
		}
	}
	return out
}

// merge joins two sorted lists, which are not changed.
func merge(sorted []*xds.Resource, more ...*xds.Resource) []*xds.Resource {
	out := make([]*xds.Resource, 0, len(sorted)+len(more))
	i := 0
	for _, m := range more {
		for i < len(sorted) && sorted[i].Name < m.Name {
			out = append(out, sorted[i])
			i++
		}
		out = append(out, m)
	}
	return append(out, sorted[i:]...)
}

// Unchanged tells that a node gets the same of a type as from prev. It compares
// what the answers depend on, without making them. It is asked of every node after every change:
// what is not about a node must cost it next to nothing.
func (s *Snapshot) Unchanged(prev xds.Snapshot, n *xds.Node, typeURL string) bool {
	p, ok := prev.(*Snapshot)
	if !ok || p.cache != s.cache {
		return false
	}
	if p.world == s.world {
		return true
	}
	d := s.since(p)
	if !d.others && typeURL != xds.EndpointType {
		return true
	}
	if typeURL == xds.NameTableType && n.Generator == "" {
		return !d.names
	}
	if d.reach {
		return false
	}
	sidecar := n.Generator == "" && n.Type == xds.Sidecar
	if d.routes && (!sidecar || typeURL != xds.ClusterType && typeURL != xds.EndpointType) {
		return false
	}
	if sidecar && typeURL == xds.EndpointType && d.endpoints {
		return false
	}
	if sidecar && !d.workloads && (typeURL == xds.EndpointType || typeURL == xds.RouteType || !d.inbound) {
		return true
	}
	was, is := p.view(n), s.view(n)
	if !was.alike(is) {
		return false
	}
	switch {
	case n.Generator == generatorGRPC:
		return typeURL != xds.EndpointType || !d.endpoints
	case n.Type == xds.Router:
		return !d.router && (typeURL != xds.EndpointType || s.sameEndpoints(p, is))
	case typeURL == xds.EndpointType, typeURL == xds.RouteType:
		return true
	}
	return !d.inbound && was.workload == is.workload || p.inboundInputs(was).equal(s.inboundInputs(is))
}

// difference is what changed between two Worlds, by what depends on it. It is worked out once for thousands of nodes.
type difference struct {
	prev *snapshot.World

	names     bool // what name tables are made from
	reach     bool // what clusters are made from
	router    bool // what gateways get
	routes    bool
	endpoints bool
	others    bool // anything but endpoints
	workloads bool
	inbound   bool // policies; and services, see reach
}

// since is the difference from p.
func (s *Snapshot) since(p *Snapshot) *difference {
	if d := s.diff.Load(); d != nil && d.prev == p.world {
		return d
	}
	a, b := p.world.Revisions(), s.world.Revisions()
	d := &difference{
		prev: p.world, names: nameRevisions(a) != nameRevisions(b), reach: reachRevisions(a) != reachRevisions(b), router: routerRevisions(a) != routerRevisions(b),
		routes: a.Routes != b.Routes, endpoints: a.Endpoints != b.Endpoints, workloads: a.Workloads != b.Workloads, inbound: a.Authn != b.Authn || a.Authz != b.Authz,
	}
	a.Endpoints = b.Endpoints
	d.others = a != b
	s.diff.Store(d)
	return d
}

// Follows tells that sidecars which got the same list of endpoints from prev get the same from this Snapshot: the lists are those of
// a scope and a place, and nothing that decides on a sidecar's has changed.
func (s *Snapshot) Follows(prev xds.Snapshot, n *xds.Node, typeURL string) bool {
	p, ok := prev.(*Snapshot)
	return ok && n.Generator == "" && n.Type == xds.Sidecar && typeURL == xds.EndpointType && s.OnlyEndpoints(p)
}

// OnlyEndpoints tells that nothing but endpoints is new since prev.
func (s *Snapshot) OnlyEndpoints(prev xds.Snapshot) bool {
	p, ok := prev.(*Snapshot)
	return ok && p.cache == s.cache && !s.since(p).others
}

// sameEndpoints tells that the endpoints of all of a gateway's clusters are the same.
func (s *Snapshot) sameEndpoints(prev *Snapshot, v *view) bool {
	for _, t := range s.gatewaySet(v).targets {
		if s.world.Endpoints(t.service.Key) != prev.world.Endpoints(t.service.Key) {
			return false
		}
	}
	return true
}

// alike tells that what the World knows of a workload is the same in what
// decides on its configuration.
func (v *view) alike(o *view) bool {
	if v.known && v.workload == o.workload {
		return v.locality == o.locality
	}
	return v.known == o.known && v.locality == o.locality && maps.Equal(v.labels, o.labels) && maps.Equal(v.workload.Ports, o.workload.Ports) && v.workload.Topology == o.workload.Topology
}

func hostPort(host string, port uint16) string { return host + ":" + strconv.Itoa(int(port)) }
