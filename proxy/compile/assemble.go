package compile

import (
	"maps"
	"slices"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/xds"
)

// clusterMemo is a resolved cluster and all it was made of.
type clusterMemo struct {
	from      *cluster
	endpoints *entry[[]*config.Endpoint]
	warm      bool // endpoints are known, or known to be none
	cold      bool // they are still waited for
	secrets   []*config.Secret
	made      *config.Cluster
}

type listenerMemo struct {
	from    *listener
	secrets []*config.Secret
	made    *config.Listener
}

// wait is a name that something cannot do without.
type wait struct {
	until   time.Time
	expired bool
}

// assemble builds the next View from what is accepted. It costs a lookup for
// each cluster and listener; only what changed is built anew.
func (c *Compiler) assemble(now time.Time) {
	needed := map[waitKey]bool{}
	secrets := share(c.view.Secrets, valuesOf(c.secrets.byName))
	next := &config.View{Version: c.view.Version + 1, Secrets: secrets}
	next.Clusters = share(c.view.Clusters, c.assembleClusters(secrets, needed, now))
	next.Routes = share(c.view.Routes, c.assembleRoutes())
	next.Listeners = share(c.view.Listeners, c.assembleListeners(secrets, needed, now))
	c.prune()
	maps.DeleteFunc(c.waits, func(k waitKey, _ wait) bool { return !needed[k] })
	if sameMap(next.Secrets, c.view.Secrets) && sameMap(next.Clusters, c.view.Clusters) &&
		sameMap(next.Listeners, c.view.Listeners) && sameMap(next.Routes, c.view.Routes) && c.view.Version > 0 {
		return
	}
	c.view = next
}

func valuesOf[T any](m map[string]*entry[T]) map[string]T {
	out := make(map[string]T, len(m))
	for k, e := range m {
		out[k] = e.made
	}
	return out
}

// share returns old if next says the same, so that readers can compare maps by identity.
func share[T comparable](old, next map[string]T) map[string]T {
	if old != nil && maps.Equal(old, next) {
		return old
	}
	return next
}

func sameMap[T comparable](a, b map[string]T) bool { return len(a) == len(b) && maps.Equal(a, b) }

// missing tells whether name must still be waited for, and notes the wait.
func (c *Compiler) missing(typeURL, name string, there bool, d time.Duration, needed map[waitKey]bool, now time.Time) bool {
	k := waitKey{typeURL, name}
	if there || c.absent[k] {
		return false
	}
	needed[k] = true
	w, ok := c.waits[k]
	if !ok {
		w = wait{until: now.Add(d)}
		c.waits[k] = w
	}
	return !w.expired
}

func (c *Compiler) missingSecrets(names []string, needed map[waitKey]bool, now time.Time) bool {
	waiting := false
	for _, n := range names {
		if c.missing(xds.SecretType, n, c.secrets.byName[n] != nil, DefaultFetchTimeout, needed, now) {
			waiting = true
		}
	}
	return waiting
}

func (c *Compiler) assembleClusters(secrets map[string]*config.Secret, needed map[waitKey]bool, now time.Time) map[string]*config.Cluster {
	out := make(map[string]*config.Cluster, len(c.clusters.byName))
	memo := make(map[string]clusterMemo, len(c.clusters.byName))
	for name, e := range c.clusters.byName {
		k := e.made
		m := clusterMemo{from: k, warm: true, secrets: pick(secrets, k.secrets())}
		waiting := c.missingSecrets(k.secrets(), needed, now)
		if k.eds != "" {
			m.endpoints = c.assignments.byName[k.eds]
			if c.missing(xds.EndpointType, k.eds, m.endpoints != nil, k.wait, needed, now) {
				waiting, m.warm, m.cold = true, false, true
			}
		}
		old, had := c.memoC[name]
		switch {
		case had && waiting && old.from != k:
			m = old // the old one serves until the new one is warm
		case had && m.same(old):
			m = old
		default:
			var eps []*config.Endpoint
			if m.endpoints != nil {
				eps = m.endpoints.made
			}
			m.made = k.resolve(eps, m.warm, secrets)
		}
		memo[name], out[name] = m, m.made
	}
	c.memoC = memo
	return out
}

func (m clusterMemo) same(o clusterMemo) bool {
	return m.from == o.from && m.endpoints == o.endpoints && m.warm == o.warm && slices.Equal(m.secrets, o.secrets)
}

func pick(secrets map[string]*config.Secret, names []string) []*config.Secret {
	if len(names) == 0 {
		return nil
	}
	out := make([]*config.Secret, len(names))
	for i, n := range names {
		out[i] = secrets[n]
	}
	return out
}

// assembleRoutes publishes tables whose clusters are warm. Until then the table's
// previous version serves: traffic moves to a new cluster when it has endpoints.
func (c *Compiler) assembleRoutes() map[string]*route.Table {
	out := make(map[string]*route.Table, len(c.tables.byName))
	memo := make(map[string]*table, len(c.tables.byName))
	for name, e := range c.tables.byName {
		t := e.made
		if old := c.memoT[name]; t != old && c.anyCold(t.clusters) {
			if old == nil {
				continue
			}
			t = old
		}
		memo[name], out[name] = t, t.made
	}
	c.memoT = memo
	return out
}

// anyCold tells whether one of the clusters exists and waits for its endpoints.
func (c *Compiler) anyCold(names []string) bool {
	for _, n := range names {
		if m, ok := c.memoC[n]; ok && m.cold {
			return true
		}
	}
	return false
}

func (c *Compiler) assembleListeners(secrets map[string]*config.Secret, needed map[waitKey]bool, now time.Time) map[string]*config.Listener {
	out := make(map[string]*config.Listener, len(c.listeners.byName))
	memo := make(map[string]listenerMemo, len(c.listeners.byName))
	for name, e := range c.listeners.byName {
		l := e.made
		waiting := c.missingSecrets(l.secrets(), needed, now)
		for rds, d := range l.routes {
			accepted := c.tables.byName[rds] != nil
			if c.missing(xds.RouteType, rds, accepted, d, needed, now) || accepted && c.memoT[rds] == nil {
				waiting = true
			}
		}
		if c.anyCold(l.clusters) {
			waiting = true
		}
		old, had := c.memoL[name]
		if waiting {
			if !had {
				continue
			}
			l = old.from
		}
		m := listenerMemo{from: l, secrets: pick(secrets, l.secrets())}
		if had && old.from == l && slices.Equal(old.secrets, m.secrets) {
			m = old
		} else {
			m.made = l.resolve(secrets)
		}
		memo[name], out[name] = m, m.made
	}
	c.memoL = memo
	return out
}

// Wanted lists, sorted, the names of a type that accepted resources refer to:
// what to subscribe to. Clusters and listeners are wildcards and yield nil.
func (c *Compiler) Wanted(typeURL string) []string {
	set := map[string]bool{}
	add := func(names ...string) {
		for _, n := range names {
			set[n] = true
		}
	}
	switch typeURL {
	case xds.EndpointType:
		for _, e := range c.clusters.byName {
			if e.made.eds != "" {
				add(e.made.eds)
			}
		}
	case xds.RouteType:
		for _, e := range c.listeners.byName {
			add(slices.Collect(maps.Keys(e.made.routes))...)
		}
		for _, m := range c.memoL { // what serves while its successor warms
			add(slices.Collect(maps.Keys(m.from.routes))...)
		}
	case xds.SecretType:
		for _, e := range c.listeners.byName {
			add(e.made.secrets()...)
		}
		for _, m := range c.memoL {
			add(m.from.secrets()...)
		}
		for _, e := range c.clusters.byName {
			add(e.made.secrets()...)
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// prune drops resources, and what is known of names, that nothing refers to any more; the server does not tell.
func (c *Compiler) prune() {
	wanted := map[string][]string{}
	for _, t := range []string{xds.EndpointType, xds.RouteType, xds.SecretType} {
		wanted[t] = c.Wanted(t)
	}
	drop(c.assignments.byName, wanted[xds.EndpointType])
	drop(c.tables.byName, wanted[xds.RouteType])
	drop(c.secrets.byName, wanted[xds.SecretType])
	maps.DeleteFunc(c.absent, func(k waitKey, _ bool) bool {
		_, ok := slices.BinarySearch(wanted[k.typeURL], k.name)
		return !ok
	})
}

func drop[T any](m map[string]*entry[T], wanted []string) {
	if len(m) == 0 {
		return
	}
	maps.DeleteFunc(m, func(name string, _ *entry[T]) bool {
		_, ok := slices.BinarySearch(wanted, name)
		return !ok
	})
}

// Pending lists what is waited for as "RDS 80", sorted: for logs and readiness.
func (c *Compiler) Pending() []string {
	var out []string
	for k, w := range c.waits {
		if !w.expired {
			out = append(out, xds.ShortName(k.typeURL)+" "+k.name)
		}
	}
	slices.Sort(out)
	return out
}

// Deadline is when the next wait ends; ok is false if there is none.
func (c *Compiler) Deadline() (at time.Time, ok bool) {
	for _, w := range c.waits {
		if !w.expired && (!ok || w.until.Before(at)) {
			at, ok = w.until, true
		}
	}
	return at, ok
}

// Expire ends the waits that have run out: listeners go on without their
// routes (404), clusters without endpoints (503). It returns the View to publish.
func (c *Compiler) Expire(now time.Time) *config.View {
	any := false
	for k, w := range c.waits {
		if !w.expired && !now.Before(w.until) {
			w.expired = true
			c.waits[k] = w
			any = true
		}
	}
	if any {
		c.assemble(now)
	}
	return c.view
}
