// Package outlier takes failing endpoints out of rotation for a while.
//
// It decides; it does not dial, count requests, log or know any time but what it is told.
// Callers report every result with [Detector.Report], call [Detector.Tick]
// once per interval, and ask [Host.Ejected] while picking. The rules are
// Envoy's outlier_detection: consecutive 5xx answers, consecutive gateway
// errors (502, 503, 504), consecutive failures of local origin, an ejection
// time that grows with each ejection and shrinks while the endpoint behaves,
// and a bound on the share of ejected endpoints. Statistical detection
// (success rate, failure percentage) is not done.
// Safe for concurrent use. It starts no goroutine.
package outlier

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/config"
)

// Defaults of Envoy where the configuration has zero.
const (
	DefaultInterval     = 10 * time.Second
	defaultBaseEjection = 30 * time.Second
	defaultMaxEjection  = 300 * time.Second
)

// Result is the outcome of one exchange.
type Result struct {
	Status  int  // of the response; 0 if there was none
	Local   bool // failure of local origin: connect failure, reset, time-out before a response
	Timeout bool
}

// Cause says why an endpoint was ejected.
type Cause string

// Causes as Envoy names them.
const (
	Consecutive5xx     Cause = "consecutive_5xx"
	ConsecutiveGateway Cause = "consecutive_gateway_failure"
	ConsecutiveLocal   Cause = "consecutive_local_origin_failure"
)

// Host is the state of one endpoint. The zero value is healthy and in no detector.
type Host struct {
	ejected atomic.Bool

	// Consecutive failures. Races between concurrent reports only blur the count.
	n5xx, nGateway, nLocal atomic.Uint32

	// The detector's mutex protects the following.
	since   time.Time // of the last ejection
	backoff int64     // multiplier of the ejection time
	times   uint64    // ejections so far
	cause   Cause
}

// Ejected tells whether the endpoint is out of rotation.
func (h *Host) Ejected() bool { return h.ejected.Load() }

// Detector watches the endpoints of one cluster.
type Detector struct {
	cfg atomic.Pointer[config.Outlier] // defaults filled in

	mu sync.Mutex
	// mu protects the following.
	hosts map[*Host]struct{}
	out   int // ejected now
	total uint64
}

// New makes a detector.
func New(c config.Outlier) *Detector {
	d := &Detector{hosts: make(map[*Host]struct{})}
	d.Reset(c)
	return d
}

func withDefaults(c config.Outlier) *config.Outlier {
	if c.Interval <= 0 {
		c.Interval = DefaultInterval
	}
	if c.BaseEjection <= 0 {
		c.BaseEjection = defaultBaseEjection
	}
	if c.MaxEjection <= 0 {
		c.MaxEjection = defaultMaxEjection
	}
	c.MaxEjection = max(c.MaxEjection, c.BaseEjection)
	return &c
}

// Reset makes d follow other settings; endpoints stay as they are.
func (d *Detector) Reset(c config.Outlier) { d.cfg.Store(withDefaults(c)) }

// Interval is the time between two calls of Tick.
func (d *Detector) Interval() time.Duration { return d.cfg.Load().Interval }

// SetHosts says which endpoints the cluster has now. One that left is forgotten, and no longer ejected.
func (d *Detector) SetHosts(hosts []*Host) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := make(map[*Host]struct{}, len(hosts))
	for _, h := range hosts {
		now[h] = struct{}{}
	}
	for h := range d.hosts {
		if _, ok := now[h]; !ok && h.ejected.Load() {
			d.release(h)
		}
	}
	d.hosts = now
}

// Report takes one result into account and tells whether it ejected the endpoint.
func (d *Detector) Report(h *Host, r Result, now time.Time) (ejected bool) {
	c := d.cfg.Load()
	if r.Local && c.SplitLocal {
		return reached(&h.nLocal, c.ConsecutiveLocal) && d.eject(h, ConsecutiveLocal, now)
	}
	if c.SplitLocal {
		store(&h.nLocal)
	}
	status := r.Status
	if r.Local { // counts as what the caller will be told
		status = 503
		if r.Timeout {
			status = 504
		}
	}
	if !isError(c, status) {
		store(&h.n5xx)
		store(&h.nGateway)
		return false
	}
	if status == 502 || status == 503 || status == 504 {
		if reached(&h.nGateway, c.ConsecutiveGateway) && d.eject(h, ConsecutiveGateway, now) {
			ejected = true
		}
	} else {
		store(&h.nGateway)
	}
	if reached(&h.n5xx, c.Consecutive5xx) && d.eject(h, Consecutive5xx, now) {
		ejected = true
	}
	return ejected
}

// store zeroes a counter without dirtying its cache line when it is zero anyway.
func store(a *atomic.Uint32) {
	if a.Load() != 0 {
		a.Store(0)
	}
}

func isError(c *config.Outlier, status int) bool {
	if len(c.ErrorCodes) > 0 {
		return slices.Contains(c.ErrorCodes, status)
	}
	return status >= 500
}

func (d *Detector) eject(h *Host, why Cause, now time.Time) bool {
	c := d.cfg.Load()
	d.mu.Lock()
	defer d.mu.Unlock()
	h.n5xx.Store(0)
	h.nGateway.Store(0)
	h.nLocal.Store(0)
	if _, ok := d.hosts[h]; !ok || h.ejected.Load() {
		return false
	}
	if 100*(d.out+1) > int(c.MaxEjectionPercent)*len(d.hosts) {
		return false
	}
	if h.backoff < int64(c.MaxEjection/c.BaseEjection) {
		h.backoff++
	}
	h.since, h.cause = now, why
	h.times++
	h.ejected.Store(true)
	d.out++
	d.total++
	return true
}

// Tick runs once per interval. It lets endpoints back whose time is over, and
// reports whether there were any.
func (d *Detector) Tick(now time.Time) (changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for h := range d.hosts {
		if !h.ejected.Load() {
			h.backoff = max(h.backoff-1, 0)
			continue
		}
		if now.Sub(h.since) >= d.ejectionTime(h) {
			d.release(h)
			changed = true
		}
	}
	return changed
}

func (d *Detector) ejectionTime(h *Host) time.Duration {
	c := d.cfg.Load()
	return min(c.BaseEjection*time.Duration(h.backoff), c.MaxEjection)
}

func (d *Detector) release(h *Host) {
	h.ejected.Store(false)
	h.n5xx.Store(0)
	h.nGateway.Store(0)
	h.nLocal.Store(0)
	d.out--
}

// Stats of a detector.
type Stats struct {
	Active int    // ejected now
	Total  uint64 // ejections so far
}

// Stats returns the counts.
func (d *Detector) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Stats{d.out, d.total}
}

// Ejections tells how often the endpoint was ejected, since when it is, and why.
func (d *Detector) Ejections(h *Host) (times uint64, since time.Time, why Cause) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return h.times, h.since, h.cause
}

// reached counts one more and tells whether the limit is met; limit 0 is off.
func reached(n *atomic.Uint32, limit uint32) bool {
	return n.Add(1) >= limit && limit > 0
}
