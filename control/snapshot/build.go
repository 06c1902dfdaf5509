package snapshot

import (
	"net/netip"
	"reflect"
	"slices"
	"time"

	"weft.mesh/weft/model"
)

// Build makes the next World from changes; the last change of a key counts.
// Changes that change nothing are dropped; if none is left, prev is returned.
// now only goes into the version.
func Build(prev *World, changes []Change, now time.Time) *World {
	b := newBuilder(prev)
	b.applyAll(changes)
	if len(b.keys) == 0 {
		return prev
	}
	return b.finish(now)
}

// builder holds the next World while it is made.
type builder struct {
	prev *World
	next *World
	keys map[model.Key]bool
	host map[string]bool

	objects     *editor[model.Key, []model.Object]
	namespaces  *editor[string, *model.Namespace]
	services    *editor[ServiceKey, *Service]
	hosts       *editor[string, []*Service]
	nsServices  *editor[string, []*Service]
	selectors   *editor[labelKey, []*Service]
	endpoints   *editor[ServiceKey, *Endpoints]
	identities  *editor[ServiceKey, *Identities]
	workloads   *editor[model.Key, *model.Workload]
	byIP        *editor[netip.Addr, []*model.Workload]
	byLabel     *editor[labelKey, []*model.Workload]
	deployments *editor[labelKey, []*model.Deployment]
	vips, autos *vipEditor
	sliced      *sliceEditor

	serviceObjects map[ServiceKey]bool // to be merged again
	affected       map[ServiceKey]bool // endpoints and identities to be computed again
	kinds          map[model.Kind]bool // changed
	movedNodes     map[string]bool     // whose locality changed
}

func newBuilder(prev *World) *builder {
	next := *prev
	return &builder{
		prev: prev, next: &next, keys: map[model.Key]bool{}, host: map[string]bool{},
		objects: edit(prev.objects), namespaces: edit(prev.namespaces), services: edit(prev.services), hosts: edit(prev.hosts),
		nsServices: edit(prev.nsServices), selectors: edit(prev.selectors), endpoints: edit(prev.endpoints),
		identities: edit(prev.identities), workloads: edit(prev.workloads), byIP: edit(prev.byIP), byLabel: edit(prev.byLabel),
		deployments: edit(prev.deployments), vips: prev.vips.edit(), autos: prev.autos.edit(), sliced: prev.sliced.edit(),
		serviceObjects: map[ServiceKey]bool{}, affected: map[ServiceKey]bool{}, kinds: map[model.Kind]bool{},
		movedNodes: map[string]bool{},
	}
}

func (b *builder) applyAll(changes []Change) {
	last := make(map[model.Key]int, len(changes))
	for i, c := range changes {
		last[c.Key] = i
	}
	for i, c := range changes {
		if last[c.Key] != i {
			continue
		}
		old := b.objects.at(c.Key)
		if len(old) == 0 && len(c.Objects) == 0 || reflect.DeepEqual(old, c.Objects) {
			continue
		}
		b.keys[c.Key] = true
		for _, o := range old {
			b.remove(o)
		}
		for _, o := range c.Objects {
			b.add(o)
		}
		if len(c.Objects) == 0 {
			b.objects.delete(c.Key)
		} else {
			b.objects.set(c.Key, c.Objects)
		}
	}
}

func (b *builder) add(o model.Object) {
	switch o := o.(type) {
	case *model.Namespace:
		b.namespaces.set(o.Name, o)
	case *model.Workload:
		b.addWorkload(o)
		return
	case *model.EndpointSlice:
		b.addSlice(o)
		return
	case *model.Node:
		b.setNode(o.Name, o)
		return
	case *model.Deployment:
		b.eachLabel(o.Namespace, o.PodLabels, func(k labelKey) {
			b.deployments.set(k, append(slices.Clip(b.deployments.at(k)), o))
		})
		b.affect(o.Namespace, o.PodLabels)
	case *model.Service:
		b.serviceObjects[ServiceKey{o.Host, o.Namespace}] = true
		b.addServiceObject(o)
	}
	b.kinds[o.ObjectMeta().Kind] = true
}

func (b *builder) remove(o model.Object) {
	switch o := o.(type) {
	case *model.Namespace:
		b.namespaces.delete(o.Name)
	case *model.Workload:
		b.removeWorkload(o)
		return
	case *model.EndpointSlice:
		b.removeSlice(o)
		return
	case *model.Node:
		b.setNode(o.Name, nil)
		return
	case *model.Deployment:
		b.eachLabel(o.Namespace, o.PodLabels, func(k labelKey) {
			b.deployments.set(k, without(b.deployments.at(k), o))
		})
		b.affect(o.Namespace, o.PodLabels)
	case *model.Service:
		b.serviceObjects[ServiceKey{o.Host, o.Namespace}] = true
		b.removeServiceObject(o)
	}
	b.kinds[o.ObjectMeta().Kind] = true
}

func (b *builder) eachLabel(ns string, labels map[string]string, f func(labelKey)) {
	for k, v := range labels {
		f(labelKey{ns, k, v})
	}
}

func (b *builder) addWorkload(x *model.Workload) {
	b.kinds[model.KindPod] = true
	b.workloads.set(x.Key, x)
	for _, a := range x.Addresses {
		b.byIP.set(a.Unmap(), append(slices.Clip(b.byIP.at(a.Unmap())), x))
	}
	b.eachLabel(x.Namespace, x.Labels, func(k labelKey) {
		l := b.byLabel.at(k)
		i, _ := slices.BinarySearchFunc(l, x, func(a, b *model.Workload) int { return model.CompareKeys(a.Key, b.Key) })
		b.byLabel.set(k, slices.Insert(slices.Clone(l), i, x))
	})
	b.affect(x.Namespace, x.Labels)
	b.affectSliced(x)
}

func (b *builder) removeWorkload(x *model.Workload) {
	b.kinds[model.KindPod] = true
	if b.workloads.at(x.Key) == x {
		b.workloads.delete(x.Key)
	}
	for _, a := range x.Addresses {
		if l := without(b.byIP.at(a.Unmap()), x); len(l) > 0 {
			b.byIP.set(a.Unmap(), l)
		} else {
			b.byIP.delete(a.Unmap())
		}
	}
	b.eachLabel(x.Namespace, x.Labels, func(k labelKey) {
		b.byLabel.set(k, without(b.byLabel.at(k), x))
	})
	b.affect(x.Namespace, x.Labels)
	b.affectSliced(x)
}

// affect marks the services that select these labels, as they are known now;
// services that change in this build are marked anyhow.
func (b *builder) affect(ns string, labels map[string]string) {
	for _, s := range servicesSelecting(b.selectors.at, ns, labels) {
		b.affected[s.Key] = true
	}
}

// without returns a copy of l without x; nil if nothing is left.
func without[T comparable](l []T, x T) []T {
	i := slices.Index(l, x)
	if i < 0 {
		return l
	}
	if len(l) == 1 {
		return nil
	}
	return slices.Delete(slices.Clone(l), i, i+1)
}
