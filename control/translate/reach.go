package translate

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// reach is what sidecars with one key can reach: services, clusters and endpoints. It is
// the part of a scope that routes do not change.
type reach struct {
	s    *Snapshot // that it was made from
	key  scopeKey
	name string // of the scope, independent of revisions, to find what was made before
	client

	services []*snapshot.Service
	targets  map[string]*target // by cluster name
	parts    *routeTables       // of the scope's route tables; every reach of a line has the same

	clusters func() []*xds.Resource
	// prioritised lists the labels of clients that order the endpoints of some cluster, sorted.
	prioritised func() []string
	eds         func() *edsTargets
	asked       atomic.Pointer[[]string] // names that were asked for last and are those of all endpoints
}

// edsTargets are the clusters whose endpoints come over EDS, sorted by name. Reaches with the same ones have the same edsTargets: what
// sidecars of a thousand services see of endpoints differs by their place, and seldom by their namespace.
type edsTargets struct {
	names     []string
	targets   []*target
	byService map[snapshot.ServiceKey][]int
}

// reachRevisions are those of everything that clusters are made from.
func reachRevisions(r snapshot.Revisions) snapshot.Revisions {
	return snapshot.Revisions{Services: r.Services, Identities: r.Identities, Addresses: r.Addresses, Rules: r.Rules}
}

// reachKey finds the last reach of a scope.
type reachKey struct{ scopeKey }

func (s *Snapshot) reachOf(k scopeKey, v *view) *reach {
	return latestFrom(s.cache, reachKey{k}, inputs{reachRevisions(s.world.Revisions())}, func(before *reach) *reach { return s.newReach(k, v, before) })
}

func (s *Snapshot) newReach(k scopeKey, v *view, before *reach) *reach {
	c := &reach{
		s: s, key: k, name: strings.Join([]string{k.namespace, k.signature, weftName(k.weft), dnsName(k.dns)}, "|"),
		client:   client{namespace: k.namespace, labels: v.labels, gateways: []string{snapshot.GatewayMesh}},
		services: s.world.Visible(k.namespace), targets: map[string]*target{},
	}
	for _, svc := range c.services {
		rule := s.world.Rule(k.namespace, v.labels, svc.Key)
		for _, p := range svc.Ports {
			if p.Protocol == model.ProtocolUDP {
				continue
			}
			c.addTarget(newTarget(svc, p, "", rule))
			if rule != nil {
				for _, sub := range rule.Subsets {
					c.addTarget(newTarget(svc, p, sub.Name, rule))
				}
			}
		}
	}
	if before != nil {
		c.parts = before.parts
	} else {
		c.parts = &routeTables{byName: map[string]*routeTable{}}
	}
	c.clusters = sync.OnceValue(c.makeClusters)
	c.prioritised = sync.OnceValue(c.priorityLabels)
	c.eds = sync.OnceValue(c.edsTargets)
	return c
}

// near tells places apart as far as any of the clusters does.
func (c *reach) near(at *place) string {
	key := at.locality
	for _, l := range c.prioritised() {
		key += "|" + at.label(l)
	}
	return key
}

func (c *reach) priorityLabels() []string {
	var out []string
	for _, t := range c.targets {
		if set := c.s.localitySetting(t); set != nil {
			for _, l := range set.FailoverPriority {
				if !strings.Contains(l, "=") {
					out = append(out, l)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (c *reach) edsTargets() *edsTargets {
	e := &edsTargets{byService: map[snapshot.ServiceKey][]int{}}
	for n, t := range c.targets {
		if t.isEDS() {
			e.names = append(e.names, n)
		}
	}
	slices.Sort(e.names)
	e.targets = make([]*target, len(e.names))
	for i, n := range e.names {
		t := c.targets[n]
		e.targets[i] = t
		e.byService[t.service.Key] = append(e.byService[t.service.Key], i)
	}
	return c.s.cache.reached.one(e)
}

// same tells that the endpoints of all clusters are made from the same, whatever the place.
func (e *edsTargets) same(o *edsTargets) bool {
	return slices.EqualFunc(e.targets, o.targets, func(a, b *target) bool {
		return a.service == b.service && a.port.Number == b.port.Number && a.subset == b.subset && a.rule == b.rule && a.name == b.name
	})
}

// reached finds edsTargets of reaches of late. Safe for concurrent use.
type reached struct {
	mu   sync.Mutex // protects the following
	last [32]weak.Pointer[edsTargets]
	next int // is overwritten
}

// one returns those that there are and are the same as e, which may be e.
func (r *reached) one(e *edsTargets) *edsTargets {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.last {
		if have := p.Value(); have != nil && have.same(e) {
			return have
		}
	}
	r.last[r.next] = weak.Make(e)
	r.next = (r.next + 1) % len(r.last)
	return e
}

func (c *reach) addTarget(t *target) { c.targets[t.name] = t }

// makeClusters lists the outbound clusters and the two fixed ones, sorted.
func (c *reach) makeClusters() []*xds.Resource {
	out := make([]*xds.Resource, 0, len(c.targets)+2)
	for _, t := range c.targets {
		out = append(out, c.s.outboundCluster(t, c.key.weft))
	}
	out = append(out, c.s.passthroughCluster(), c.s.blackHoleCluster())
	sortResources(out)
	return out
}

// endpointSetKey finds the last endpoints of clusters.
type endpointSetKey struct {
	of   *edsTargets
	near string
}

// endpointSet is the endpoints of all clusters of a scope as sidecars of one place see them.
type endpointSet struct {
	mu    sync.Mutex      // protects the following
	world *snapshot.World // nil: there is no list yet
	list  []*xds.Resource // in the order of the targets
}

// scopeEndpoints are the endpoints of all clusters of a scope, sorted by name. They are
// worked out once for all its sidecars that are at places which no cluster tells apart; after
// a change only those of the services that it is about are made again.
func (s *Snapshot) scopeEndpoints(c *reach, at *place) []*xds.Resource {
	e := c.eds()
	set := remember(s.cache, endpointSetKey{e, c.near(at)}, func() *endpointSet { return &endpointSet{} })
	set.mu.Lock()
	defer set.mu.Unlock()
	switch {
	case set.world == nil:
		set.list = make([]*xds.Resource, len(e.targets))
		for i, t := range e.targets {
			set.list[i] = s.endpoints(t, at)
		}
	case set.world.Revisions().Endpoints == s.world.Revisions().Endpoints:
		return set.list
	default:
		set.list = s.changedEndpoints(set, e, at)
	}
	set.world = s.world
	return set.list
}

// changedEndpoints is the set's list with what differs in the Snapshot's World; the same list if nothing does.
func (s *Snapshot) changedEndpoints(set *endpointSet, e *edsTargets, at *place) []*xds.Resource {
	list, own := set.list, false
	for k := range s.world.EndpointsSince(set.world) {
		for _, i := range e.byService[k] {
			r := s.endpoints(e.targets[i], at)
			if r == list[i] {
				continue
			}
			if !own {
				list, own = slices.Clone(list), true
			}
			list[i] = r
		}
	}
	return list
}
