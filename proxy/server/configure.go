package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"weft.mesh/weft/proxy/admin"
	"weft.mesh/weft/proxy/compile"
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/xdsclient"
	"weft.mesh/weft/xds"
)

// bindRetry is how soon listeners are tried again that could not be opened.
const bindRetry = time.Second

// linger is how long a cluster stays after no configuration refers to it: a
// request that chose it a moment ago must still find it.
const linger = 5 * time.Second

// configurator is the way of a resource into the running proxy: it takes
// updates from the xDS client, has them compiled, and publishes.
type configurator struct {
	log  *slog.Logger
	live *config.Live
	// clusters makes the clusters of a View current.
	clusters func(v *config.View)
	// listeners makes its listeners current; an error (a port is taken) leaves them as they were.
	listeners func(v *config.View) error
	settled   func() // called after each publication, to give memory back
	wake      chan struct{}

	mu sync.Mutex
	// mu protects the following.
	compiler *compile.Compiler
	taken    map[string]bool // types of which something was taken
	refused  map[string]map[string]admin.Refused
	first    bool // a first complete configuration was published
	failed   error
	retryAt  time.Time
	dropAt   time.Time // when clusters that are gone are let go; zero: none is
}

var _ xdsclient.Sink = (*configurator)(nil)

func newConfigurator(c *compile.Compiler, live *config.Live, log *slog.Logger) *configurator {
	live.Publish(c.View())
	return &configurator{log: log, live: live, compiler: c, wake: make(chan struct{}, 1),
		taken: map[string]bool{}, refused: map[string]map[string]admin.Refused{}}
}

// Apply implements [xdsclient.Sink].
func (c *configurator) Apply(u xdsclient.Update) (refused []string, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	_, rs := c.compiler.Apply(compile.Update{TypeURL: u.TypeURL, Set: u.Set, Removed: u.Removed}, now)
	c.taken[u.TypeURL] = true
	m := c.refused[u.TypeURL]
	if m == nil {
		m = map[string]admin.Refused{}
		c.refused[u.TypeURL] = m
	}
	for _, r := range u.Set {
		delete(m, r.Name)
	}
	for _, n := range u.Removed {
		delete(m, n)
	}
	for _, r := range rs {
		refused = append(refused, r.Name)
		m[r.Name] = admin.Refused{Name: r.Name, Reason: r.Reason, At: now}
	}
	return refused, compile.NACK(rs)
}

// Wanted implements [xdsclient.Sink].
func (c *configurator) Wanted(typeURL string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.compiler.Wanted(typeURL)
}

// Accepted implements [xdsclient.Sink].
func (c *configurator) Accepted(typeURL string) []*xds.Resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*xds.Resource
	for _, a := range c.compiler.Resources(typeURL) {
		out = append(out, a.Resource)
	}
	return out
}

// Commit implements [xdsclient.Sink].
func (c *configurator) Commit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commit(time.Now())
}

// commit publishes the compiler's View if it is new or could not be published before; mu is held.
func (c *configurator) commit(now time.Time) {
	v := c.compiler.View()
	if v != c.live.View() || c.failed != nil {
		// Make before break: clusters are there before routes and listeners refer to
		// them, and those that went stay for what found them in the View before.
		c.clusters(withGone(v, c.live.View()))
		if len(c.live.View().Clusters) > 0 {
			c.dropAt = now.Add(linger)
		}
		c.live.Publish(v)
		c.failed, c.retryAt = c.listeners(v), time.Time{}
		if c.failed != nil {
			c.retryAt = now.Add(bindRetry)
			c.log.Error("listeners not changed", "cause", c.failed)
		}
		if c.settled != nil {
			c.settled()
		}
	}
	if !c.first && c.failed == nil && c.taken[xds.ClusterType] && c.taken[xds.ListenerType] && len(c.compiler.Pending()) == 0 {
		c.first = true
		c.log.Info("first configuration is complete", "listeners", len(v.Listeners), "clusters", len(v.Clusters), "routes", len(v.Routes))
	}
	select {
	case c.wake <- struct{}{}: // the next deadline may be another
	default:
	}
}

// withGone is v with the clusters that only old has.
func withGone(v, old *config.View) *config.View {
	var all map[string]*config.Cluster
	for name, k := range old.Clusters {
		if v.Clusters[name] == nil {
			if all == nil {
				all = maps.Clone(v.Clusters)
			}
			all[name] = k
		}
	}
	if all == nil {
		return v
	}
	o := *v
	o.Clusters = all
	return &o
}

// next is the time of the next thing to do; mu is held.
func (c *configurator) next() time.Duration {
	at, ok := c.compiler.Deadline()
	for _, t := range []time.Time{c.retryAt, c.dropAt} {
		if !t.IsZero() && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	if !ok {
		return time.Hour
	}
	return max(time.Until(at), 0)
}

// run ends waits that run out and tries again what could not be opened.
func (c *configurator) run(ctx context.Context) {
	for {
		c.mu.Lock()
		t := time.NewTimer(c.next())
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-c.wake:
			t.Stop()
			continue
		case <-t.C:
		}
		c.mu.Lock()
		c.due(time.Now())
		c.mu.Unlock()
	}
}

// due does what is due; mu is held.
func (c *configurator) due(now time.Time) {
	if !c.dropAt.IsZero() && !now.Before(c.dropAt) {
		c.dropAt = time.Time{}
		c.clusters(c.live.View())
	}
	if at, ok := c.compiler.Deadline(); ok && !now.Before(at) {
		c.log.Warn("going on without resources that did not come in time", "waiting", c.compiler.Pending())
		c.compiler.Expire(now)
	}
	if c.failed == nil || !now.Before(c.retryAt) {
		c.commit(now)
	}
}

// ready tells whether a first complete configuration serves, and why not.
func (c *configurator) ready() (bool, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.first:
		return true, ""
	case c.failed != nil:
		return false, c.failed.Error()
	case !c.taken[xds.ClusterType] || !c.taken[xds.ListenerType]:
		return false, "no configuration from the control plane yet"
	}
	return false, fmt.Sprintf("waiting for %q", c.compiler.Pending())
}

// resources and refusals are for the admin interface.
func (c *configurator) resources(typeURL string) []admin.Resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []admin.Resource
	for _, a := range c.compiler.Resources(typeURL) {
		out = append(out, admin.Resource{Resource: a.Resource, At: a.At})
	}
	return out
}

func (c *configurator) refusals(typeURL string) []admin.Refused {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.refused[typeURL]
	out := make([]admin.Refused, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[name])
	}
	return out
}

// counts are for metrics.
func (c *configurator) counts() (pending, refused int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.refused {
		refused += len(m)
	}
	return len(c.compiler.Pending()), refused
}
