package snapshot

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"weft.mesh/weft/model"
)

// sliceRef is what an endpoint of a slice is looked up by: its pod's name, or
// where it names none, its address.
type sliceRef struct {
	namespace, pod string
	addr           netip.Addr
}

// sliceIndex knows the EndpointSlices of each Service and what they refer to.
type sliceIndex struct {
	byService table[ServiceKey, []*model.EndpointSlice] // sorted by name
	byRef     table[sliceRef, []ServiceKey]             // a Service once for each of its slices that has the reference
	nodes     table[string, *model.Node]
}

type sliceEditor struct {
	byService *editor[ServiceKey, []*model.EndpointSlice]
	byRef     *editor[sliceRef, []ServiceKey]
	nodes     *editor[string, *model.Node]
}

func (x sliceIndex) edit() *sliceEditor {
	return &sliceEditor{edit(x.byService), edit(x.byRef), edit(x.nodes)}
}

func (e *sliceEditor) done() sliceIndex {
	return sliceIndex{e.byService.done(), e.byRef.done(), e.nodes.done()}
}

// sliceService is the Service that a slice belongs to.
func (b *builder) sliceService(x *model.EndpointSlice) ServiceKey {
	return ServiceKey{x.Service + "." + x.Namespace + ".svc." + b.next.mesh.Domain, x.Namespace}
}

// refs visits what the endpoints of a slice are looked up by.
func refs(x *model.EndpointSlice, f func(sliceRef)) {
	for i := range x.Endpoints {
		e := &x.Endpoints[i]
		if e.Pod != "" {
			f(sliceRef{namespace: x.Namespace, pod: e.Pod})
			continue
		}
		for _, a := range e.Addresses {
			f(sliceRef{addr: a.Unmap()})
		}
	}
}

func (b *builder) addSlice(x *model.EndpointSlice) {
	if x.Service == "" {
		return
	}
	k := b.sliceService(x)
	l := b.sliced.byService.at(k)
	i, _ := slices.BinarySearchFunc(l, x, compareSlices)
	b.sliced.byService.set(k, slices.Insert(slices.Clone(l), i, x))
	refs(x, func(r sliceRef) {
		b.sliced.byRef.set(r, append(slices.Clip(b.sliced.byRef.at(r)), k))
	})
	b.affected[k] = true
}

func (b *builder) removeSlice(x *model.EndpointSlice) {
	if x.Service == "" {
		return
	}
	k := b.sliceService(x)
	if l := without(b.sliced.byService.at(k), x); len(l) > 0 {
		b.sliced.byService.set(k, l)
	} else {
		b.sliced.byService.delete(k)
	}
	refs(x, func(r sliceRef) {
		if l := without(b.sliced.byRef.at(r), k); len(l) > 0 {
			b.sliced.byRef.set(r, l)
		} else {
			b.sliced.byRef.delete(r)
		}
	})
	b.affected[k] = true
}

func compareSlices(a, b *model.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) }

// affectSliced marks the Services whose slices refer to a pod.
func (b *builder) affectSliced(x *model.Workload) {
	mark := func(r sliceRef) {
		for _, k := range b.sliced.byRef.at(r) {
			b.affected[k] = true
		}
	}
	mark(sliceRef{namespace: x.Namespace, pod: x.Name})
	for _, a := range x.Addresses {
		mark(sliceRef{addr: a.Unmap()})
	}
}

// setNode notes where a node is; nil: it is gone. A node that moves is so rare
// that looking through all slices is cheaper than an index of them would be.
func (b *builder) setNode(name string, n *model.Node) {
	b.movedNodes[name] = true
	if n == nil {
		b.sliced.nodes.delete(name)
	} else {
		b.sliced.nodes.set(name, n)
	}
}

// affectMoved marks the Services with endpoints on nodes that are elsewhere now.
func (b *builder) affectMoved() {
	maps.DeleteFunc(b.movedNodes, func(name string, _ bool) bool {
		return b.prev.sliced.nodes.at(name).Locality() == b.sliced.nodes.at(name).Locality()
	})
	if len(b.movedNodes) == 0 {
		return
	}
	b.next.revs.Workloads = b.next.seq
	for k, l := range b.sliced.byService.t.all() {
		if slices.ContainsFunc(l, func(x *model.EndpointSlice) bool {
			return slices.ContainsFunc(x.Endpoints, func(e model.SliceEndpoint) bool { return b.movedNodes[e.Node] })
		}) {
			b.affected[k] = true
		}
	}
}

// fromSlices tells whether a service's endpoints come from EndpointSlices: a
// Service's on Kubernetes do; a ServiceEntry has its own, or selects, and what
// an ExternalName stands for is a name.
func (b *builder) fromSlices(m *model.Service) bool {
	return b.next.mesh.EndpointSlices && !m.Entry && m.Resolution == model.ResolveStatic
}

// slicedEndpoints lists the endpoints of one port from a Service's slices. Where not one is ready, those serve on
// that only their nodes' silence has made unready: after an outage of the API server Kubernetes takes
// all nodes for lost until each has reported, and a Service would have nobody.
func (b *builder) slicedEndpoints(eps []Endpoint, k ServiceKey, p model.Port) []Endpoint {
	first := len(eps)
	eps = b.appendSlices(eps, k, p, func(e *model.SliceEndpoint, _ *model.Workload) bool { return e.Ready || e.Terminating })
	if slices.ContainsFunc(eps[first:], func(e Endpoint) bool { return !e.Draining }) {
		return eps
	}
	return b.appendSlices(eps, k, p, func(e *model.SliceEndpoint, x *model.Workload) bool {
		return !e.Ready && !e.Terminating && x != nil && x.NodeLost
	})
}

// appendSlices adds those endpoints of one port from a Service's slices that are wanted.
func (b *builder) appendSlices(eps []Endpoint, k ServiceKey, p model.Port, want func(*model.SliceEndpoint, *model.Workload) bool) []Endpoint {
	for _, x := range b.sliced.byService.at(k) {
		number, ok := slicePort(x, p)
		if !ok {
			continue
		}
		for i := range x.Endpoints {
			eps = b.appendSliced(eps, x.Namespace, &x.Endpoints[i], number, want)
		}
	}
	return eps
}

// slicePort is where a Service's port leads to in a slice: the port of its name.
func slicePort(x *model.EndpointSlice, p model.Port) (uint16, bool) {
	for _, sp := range x.Ports {
		if sp.Name == p.Name && sp.UDP == (p.Protocol == model.ProtocolUDP) {
			return cmp.Or(sp.Number, p.Number), true
		}
	}
	return 0, false
}

// appendSliced adds one endpoint of a slice, with what its pod says of itself.
func (b *builder) appendSliced(eps []Endpoint, ns string, e *model.SliceEndpoint, port uint16, want func(*model.SliceEndpoint, *model.Workload) bool) []Endpoint {
	for _, a := range e.Addresses {
		a = a.Unmap()
		x, ok := b.slicedPod(ns, e, a)
		if !ok || !want(e, x) {
			continue
		}
		out := Endpoint{Addr: a, Port: port, Weight: 1, Draining: e.Terminating && !e.Ready, Workload: x}
		node := e.Node
		if x != nil {
			out.Labels, out.Weight = x.Labels, max(x.Weight, 1)
			out.MTLS = x.HasSidecar && b.accepts(x).Of(port) != model.MTLSDisable
			out.Locality, node = x.Locality, cmp.Or(node, x.Node)
		}
		out.Locality = cmp.Or(out.Locality, b.sliced.nodes.at(node).Locality(), zoneOnly(e.Zone))
		eps = append(eps, out)
	}
	return eps
}

// zoneOnly is a locality of which the zone alone is known.
func zoneOnly(zone string) string {
	if zone == "" {
		return ""
	}
	return "/" + zone
}

// slicedPod finds the pod behind an address; ok is false if the slice names one
// that is not known yet. An address without a pod's name need not be a pod's.
func (b *builder) slicedPod(ns string, e *model.SliceEndpoint, a netip.Addr) (x *model.Workload, ok bool) {
	if e.Pod != "" {
		x = b.workloads.at(model.Key{Kind: model.KindPod, Namespace: ns, Name: e.Pod})
		return x, x != nil
	}
	return bestWorkload(b.byIP.at(a)), true
}

// slicedWorkloads visits the pods behind a Service's slices.
func (b *builder) slicedWorkloads(k ServiceKey, f func(*model.Workload)) {
	for _, s := range b.sliced.byService.at(k) {
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			for _, a := range e.Addresses {
				if x, _ := b.slicedPod(s.Namespace, e, a.Unmap()); x != nil {
					f(x)
				}
			}
		}
	}
}

// EndpointSlices returns a Service's slices, sorted by name.
func (w *World) EndpointSlices(k ServiceKey) []*model.EndpointSlice {
	return w.sliced.byService.at(k)
}

// Locality is where a workload is: what its own labels say, else where its node is.
func (w *World) Locality(x *model.Workload) string {
	return cmp.Or(x.Locality, w.sliced.nodes.at(x.Node).Locality())
}
