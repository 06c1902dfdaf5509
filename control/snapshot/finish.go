package snapshot

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"weft.mesh/weft/model"
)

// addServiceObject reserves the addresses that the service brings.
func (b *builder) addServiceObject(o *model.Service) {
	k := ServiceKey{o.Host, o.Namespace}
	for _, a := range singles(o) {
		if moved, ok := b.vips.reserve(a, k); ok {
			b.serviceObjects[moved] = true
		}
		if moved, ok := b.autos.reserve(a, k); ok {
			for _, s := range b.hosts.at(moved.Host) {
				b.serviceObjects[s.Key] = true
			}
		}
	}
}

func (b *builder) removeServiceObject(o *model.Service) {
	for _, a := range singles(o) {
		b.vips.unreserve(a, ServiceKey{o.Host, o.Namespace})
		b.autos.unreserve(a, ServiceKey{o.Host, o.Namespace})
	}
}

func singles(o *model.Service) []netip.Addr {
	var out []netip.Addr
	for _, p := range o.Addresses {
		if p.IsSingleIP() {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// finish builds the indexes that depend on what changed.
func (b *builder) finish(now time.Time) *World {
	n := b.next
	n.seq = b.prev.seq + 1
	n.version = versionOf(now, n.seq)
	n.objects = b.objects.done()
	b.mergeServices()
	b.rebuildAuthn()
	b.affectMoved()
	b.computeAffected()
	b.rebuildKinds()
	n.namespaces, n.services, n.hosts, n.nsServices = b.namespaces.done(), b.services.done(), b.hosts.done(), b.nsServices.done()
	n.selectors, n.endpoints, n.identities = b.selectors.done(), b.endpoints.done(), b.identities.done()
	n.workloads, n.byIP, n.byLabel, n.deployments = b.workloads.done(), b.byIP.done(), b.byLabel.done(), b.deployments.done()
	n.vips, n.autos, n.sliced = b.vips.done(), b.autos.done(), b.sliced.done()
	b.carryDerived()
	n.changes = b.changeSet()
	return n
}

// mergeServices builds the services whose objects changed.
func (b *builder) mergeServices() {
	if len(b.serviceObjects) == 0 {
		return
	}
	b.next.revs.Services = b.next.seq
	parts := b.serviceParts()
	for _, k := range slices.SortedFunc(maps.Keys(b.serviceObjects), compareServiceKeys) {
		b.replaceService(k, parts[k])
	}
}

func compareServiceKeys(a, b ServiceKey) int {
	if c := cmpString(a.Host, b.Host); c != 0 {
		return c
	}
	return cmpString(a.Namespace, b.Namespace)
}

// serviceParts finds all model services of the keys to be built: those of the
// old service that are still there, and the changed ones.
func (b *builder) serviceParts() map[ServiceKey][]*model.Service {
	parts := map[ServiceKey][]*model.Service{}
	add := func(k ServiceKey, m *model.Service) {
		if b.serviceObjects[k] && !slices.Contains(parts[k], m) && slices.Contains(b.objects.at(m.Key), model.Object(m)) {
			parts[k] = append(parts[k], m)
		}
	}
	for k := range b.serviceObjects {
		if s := b.services.at(k); s != nil {
			for m := range s.parts {
				add(k, m)
			}
		}
	}
	for key := range b.keys {
		for _, o := range b.objects.at(key) {
			if m, ok := o.(*model.Service); ok {
				add(ServiceKey{m.Host, m.Namespace}, m)
			}
		}
	}
	return parts
}

func (b *builder) replaceService(k ServiceKey, parts []*model.Service) {
	b.host[k.Host] = true
	b.affected[k] = true
	old := b.services.at(k)
	if old != nil {
		b.unindexService(old)
	}
	if len(parts) == 0 {
		b.vips.release(k)
		b.releaseAuto(k.Host)
		b.services.delete(k)
		return
	}
	s := mergeService(k, parts, func(m *model.Service) []netip.Addr { return b.vips.addresses(k, m) })
	if wantsAuto(s.Service) {
		s.Auto = b.autos.allocate(autoKey(k.Host))
	} else {
		b.releaseAuto(k.Host)
	}
	b.services.set(k, s)
	b.indexService(s)
}

// releaseAuto frees a host's address when no service of the host has it any more.
func (b *builder) releaseAuto(host string) {
	if !slices.ContainsFunc(b.hosts.at(host), func(s *Service) bool { return s.Auto.IsValid() }) {
		b.autos.release(autoKey(host))
	}
}

func (b *builder) unindexService(s *Service) {
	for _, lk := range s.selectorKeys() {
		if l := without(b.selectors.at(lk), s); len(l) > 0 {
			b.selectors.set(lk, l)
		} else {
			b.selectors.delete(lk)
		}
	}
	if l := without(b.hosts.at(s.Host), s); len(l) > 0 {
		b.hosts.set(s.Host, l)
	} else {
		b.hosts.delete(s.Host)
	}
	if l := without(b.nsServices.at(s.Namespace), s); len(l) > 0 {
		b.nsServices.set(s.Namespace, l)
	} else {
		b.nsServices.delete(s.Namespace)
	}
}

func (b *builder) indexService(s *Service) {
	for _, lk := range s.selectorKeys() {
		b.selectors.set(lk, append(slices.Clip(b.selectors.at(lk)), s))
	}
	h := append(slices.Clone(b.hosts.at(s.Host)), s)
	slices.SortFunc(h, preferred)
	b.hosts.set(s.Host, h)
	l := b.nsServices.at(s.Namespace)
	i, _ := slices.BinarySearchFunc(l, s, func(a, b *Service) int { return cmpString(a.Host, b.Host) })
	b.nsServices.set(s.Namespace, slices.Insert(slices.Clone(l), i, s))
}

// rebuildAuthn builds the index of what workloads accept, and marks the services
// whose endpoints it is about: mTLS is not offered to one that does not take it.
func (b *builder) rebuildAuthn() {
	if !b.kinds[model.KindPeerAuthentication] {
		return
	}
	n := b.next
	n.authn = authnIndex(objectsOf[*model.PeerAuthentication](n))
	n.revs.Authn = n.seq
	for key := range b.keys {
		if key.Kind != model.KindPeerAuthentication {
			continue
		}
		if n.mesh.IsRoot(key.Namespace) {
			for k := range b.services.t.all() {
				b.affected[k] = true
			}
			return
		}
		for _, s := range b.nsServices.at(key.Namespace) {
			b.affected[s.Key] = true
		}
	}
}

// accepts is what a workload's policies let it accept.
func (b *builder) accepts(x *model.Workload) MTLS {
	return b.next.PeerAuthentication(x.Namespace, x.Labels)
}

// computeAffected builds endpoints and identities of the affected services and
// keeps the old values where nothing differs.
func (b *builder) computeAffected() {
	n := b.next
	for k := range b.affected {
		s := b.services.at(k)
		oldEps, oldIDs := b.endpoints.at(k), b.identities.at(k)
		if s == nil && oldEps == nil && oldIDs == nil {
			continue // slices of a Service that is not known (yet)
		}
		if s == nil {
			b.endpoints.delete(k)
			b.identities.delete(k)
			n.revs.Endpoints, n.revs.Identities = n.seq, n.seq
			continue
		}
		if eps := b.computeEndpoints(s); !equalEndpoints(oldEps, eps) {
			b.endpoints.set(k, eps)
			b.host[k.Host] = true
			n.revs.Endpoints = n.seq
			if s.Headless || s.Resolution == model.ResolveDNS || s.Resolution == model.ResolveDNSRoundRobin ||
				oldEps.MTLS() != eps.MTLS() {
				n.revs.Addresses = n.seq
			}
		}
		if ids := b.computeIdentities(s); !equalIdentities(oldIDs, ids) {
			b.identities.set(k, ids)
			b.host[k.Host] = true
			n.revs.Identities = n.seq
		}
	}
}

// rebuildKinds builds the indexes of kinds that are few and change seldom.
func (b *builder) rebuildKinds() {
	n := b.next
	if b.kinds[model.KindVirtualService] {
		n.routes = newRouteIndex(objectsOf[*model.RouteSet](n))
		n.revs.Routes = n.seq
	}
	if b.kinds[model.KindDestinationRule] {
		n.rules = newRuleIndex(objectsOf[*model.DestinationRule](n), b.prev.rules)
		n.revs.Rules = n.seq
	}
	if b.kinds[model.KindGateway] {
		n.gateways = objectsOf[*model.Gateway](n)
		slices.SortFunc(n.gateways, func(a, b *model.Gateway) int { return older(&a.Meta, &b.Meta) })
		n.revs.Gateways = n.seq
	}
	if b.kinds[model.KindAuthorizationPolicy] {
		n.authz = authzIndex(objectsOf[*model.AuthorizationPolicy](n))
		n.revs.Authz = n.seq
	}
	if b.kinds[model.KindSecret] {
		n.revs.Secrets = n.seq
	}
	if b.kinds[model.KindNamespace] {
		n.revs.Namespaces = n.seq
	}
	if b.kinds[model.KindPod] {
		n.revs.Workloads = n.seq
	}
}

func objectsOf[T model.Object](w *World) []T {
	var out []T
	for _, os := range w.objects.all() {
		for _, o := range os {
			if t, ok := o.(T); ok {
				out = append(out, t)
			}
		}
	}
	return out
}

// carryDerived keeps the answers whose inputs did not change.
func (b *builder) carryDerived() {
	fresh, p, n := newDerived(), b.prev.revs, b.next.revs
	if p.Services != n.Services {
		b.next.derived.visible = fresh.visible
	}
	if p.Rules != n.Rules {
		b.next.derived.rules = fresh.rules
	}
	if p.Routes != n.Routes {
		b.next.derived.routeSet = fresh.routeSet
	}
}

func (b *builder) changeSet() *Changes {
	c := &Changes{Keys: slices.SortedFunc(maps.Keys(b.keys), model.CompareKeys), Hosts: b.host, Namespaces: map[string]bool{}}
	for k := range b.keys {
		ns := k.Namespace
		if k.Kind == model.KindNamespace {
			ns = k.Name
		}
		c.Namespaces[ns] = true
	}
	p, n := b.prev.revs, b.next.revs
	p.Endpoints, p.Workloads = n.Endpoints, n.Workloads
	c.EndpointsOnly = p == n
	return c
}
