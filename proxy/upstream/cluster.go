package upstream

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream/lb"
	"weft.mesh/weft/proxy/upstream/outlier"
)

// Cluster is an upstream at run time.
type Cluster struct {
	m        *Manager // set at creation
	name     string   // set at creation
	cur      atomic.Pointer[state]
	detector atomic.Pointer[outlier.Detector] // nil: off

	// Circuit breakers count here.
	conns, pending, requests, retries atomic.Int64

	Stats ClusterStats

	mu sync.Mutex
	// mu protects the following.
	hosts    map[hostKey]*Host
	resolved map[string][]netip.Addr // DNS answers by host name
	due      time.Time               // of the next outlier detection interval
	retired  bool
}

// ClusterStats counts overflows of the circuit breakers and failed picks.
type ClusterStats struct {
	CxOverflow, PendingOverflow, RqOverflow, RetryOverflow, NoneHealthy atomic.Uint64
}

type hostKey struct {
	addr netip.AddrPort
	conn string // connKey
	name string // of endpoints that share an address
}

// state is an immutable view of a cluster for picking.
type state struct {
	cfg   *config.Cluster
	key   string // connKey of original destinations
	prios []priority
	all   []*Host
}

// priority is the endpoints of one priority level.
type priority struct {
	share  uint32 // of requests, percent, added up over the levels before
	picker lb.Picker
	hosts  hosts // what picker picks from
}

type hosts []*Host

// Load implements lb.Loads.
func (h hosts) Load(i int) int64 { return h[i].Stats.RqActive.Load() }

func newCluster(m *Manager, cfg *config.Cluster) *Cluster {
	c := &Cluster{m: m, name: cfg.Name, hosts: make(map[hostKey]*Host)}
	c.configure(cfg)
	return c
}

// Name of the cluster.
func (c *Cluster) Name() string { return c.name }

// Config is the cluster as configured now.
func (c *Cluster) Config() *config.Cluster { return c.cur.Load().cfg }

// Service names the destination service, for metrics.
func (c *Cluster) Service() stream.Service { return c.cur.Load().cfg.Service }

func (c *Cluster) configure(cfg *config.Cluster) {
	if s := c.cur.Load(); s != nil && s.cfg == cfg {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.configureOutlier(cfg)
	c.update(cfg)
}

func (c *Cluster) configureOutlier(cfg *config.Cluster) {
	d := c.detector.Load()
	switch {
	case cfg.Outlier == nil:
		if d != nil {
			d.SetHosts(nil) // nobody stays ejected
			c.detector.Store(nil)
		}
	case d == nil:
		d = outlier.New(*cfg.Outlier)
		c.due = time.Now().Add(d.Interval())
		c.detector.Store(d)
	default:
		d.Reset(*cfg.Outlier)
	}
}

// update makes hosts those of cfg and publishes a new state. mu is held.
func (c *Cluster) update(cfg *config.Cluster) {
	eps := c.endpoints(cfg)
	seen := make(map[hostKey]*Host, len(eps))
	list := make([]*Host, 0, len(eps))
	for _, ep := range eps {
		tls, proxy := tlsFor(cfg, ep)
		k := hostKey{ep.Addr, connKey(cfg, tls, proxy), ep.Hostname}
		if seen[k] != nil {
			continue // listed twice
		}
		h := c.hosts[k]
		if h == nil {
			h = &Host{cluster: c, tls: tls, proxy: proxy}
			h.pool.host = h
		}
		h.ep.Store(ep)
		seen[k] = h
		list = append(list, h)
	}
	old := c.hosts
	if passThrough(cfg) { // hosts come by use; connections made with other settings must go
		key := connKey(cfg, cfg.TLS, cfg.ProxyProtocol)
		for k, h := range old {
			if k.conn == key {
				seen[k] = h
				list = append(list, h)
			}
		}
	}
	c.hosts = seen
	if d := c.detector.Load(); d != nil {
		d.SetHosts(outlierHosts(list))
	}
	c.publish(cfg, list)
	for k, h := range old {
		if seen[k] != h {
			h.drain()
		}
	}
}

func outlierHosts(list []*Host) []*outlier.Host {
	out := make([]*outlier.Host, len(list))
	for i, h := range list {
		out[i] = &h.outlier
	}
	return out
}

// rebuild publishes a new state after the health of an endpoint changed.
func (c *Cluster) rebuild() {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.cur.Load()
	c.publish(s.cfg, s.all)
}

func (c *Cluster) publish(cfg *config.Cluster, list []*Host) {
	s := &state{cfg: cfg, all: list}
	if passThrough(cfg) {
		s.key = connKey(cfg, cfg.TLS, cfg.ProxyProtocol)
	} else {
		s.prios = prioritise(cfg, list)
	}
	c.cur.Store(s)
}

// retire ends a cluster that left the configuration.
func (c *Cluster) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
	for _, h := range c.hosts {
		h.drain()
	}
}

// tick runs outlier detection if its interval is over and returns the time to the next.
func (c *Cluster) tick(now time.Time) (time.Duration, bool) {
	d := c.detector.Load()
	if d == nil {
		return 0, false
	}
	c.mu.Lock()
	wait := c.due.Sub(now)
	if wait > 0 {
		c.mu.Unlock()
		return wait, true
	}
	wait = d.Interval()
	c.due = now.Add(wait)
	c.mu.Unlock()
	if d.Tick(now) {
		c.rebuild()
	}
	return wait, true
}

func (c *Cluster) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		h.closeIdle()
	}
}

// clean closes connections that idled too long and forgets original destinations that are not used any more.
func (c *Cluster) clean(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.cur.Load()
	gone := false
	for k, h := range c.hosts {
		h.clean(s.cfg, now)
		if passThrough(s.cfg) && h.unused(now) {
			delete(c.hosts, k)
			h.drain()
			gone = true
		}
	}
	if gone {
		list := make([]*Host, 0, len(c.hosts))
		for _, h := range c.hosts {
			list = append(list, h)
		}
		if d := c.detector.Load(); d != nil {
			d.SetHosts(outlierHosts(list))
		}
		c.publish(s.cfg, list)
	}
}
