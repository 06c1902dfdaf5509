package traffic

import (
	"math"
	"sort"
)

// bounds are the upper bounds in milliseconds of Istio's duration histogram;
// what a proxy with others reports goes to the next higher one.
var bounds = [...]float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000, math.Inf(1)}

// slot is the bucket of an upper bound.
func slot(bound float64) int {
	return min(sort.SearchFloat64s(bounds[:], bound), len(bounds)-1)
}

// Counts is what happened in some span of time.
type Counts struct {
	Requests float64
	Failed   float64 // 5xx, no answer at all, or a gRPC status that is the server's fault
	Refused  float64 // 4xx: the caller's fault, or a policy's refusal
	Secured  float64 // over mTLS, of Known
	Known    float64 // calls whose security the called side told
	Sent     float64 // bytes of TCP streams to the caller
	Received float64 // bytes of TCP streams from the caller
	Opened   float64 // TCP connections
	Open     float64 // TCP connections open now
	Buckets  [len(bounds)]float64
}

// Add adds o to c.
func (c *Counts) Add(o *Counts) {
	c.Requests += o.Requests
	c.Failed += o.Failed
	c.Refused += o.Refused
	c.Secured += o.Secured
	c.Known += o.Known
	c.Sent += o.Sent
	c.Received += o.Received
	c.Opened += o.Opened
	c.Open += o.Open
	for i, n := range o.Buckets {
		c.Buckets[i] += n
	}
}

// Idle says that nothing happened.
func (c *Counts) Idle() bool {
	return c.Requests == 0 && c.Opened == 0 && c.Sent == 0 && c.Received == 0
}

// Success is the share of requests that did not fail; NaN without requests.
func (c *Counts) Success() float64 { return share(c.Requests-c.Failed, c.Requests) }

// MTLS is the share of calls that came over mTLS; NaN if nobody can tell.
func (c *Counts) MTLS() float64 { return share(c.Secured, c.Known) }

func share(part, whole float64) float64 {
	if whole <= 0 {
		return math.NaN()
	}
	return min(1, max(0, part/whole))
}

// Quantile of the duration in milliseconds, interpolated within a bucket as
// PromQL's histogram_quantile does; NaN without requests.
func (c *Counts) Quantile(q float64) float64 {
	total := c.Buckets[len(bounds)-1]
	if total <= 0 {
		return math.NaN()
	}
	rank, low, below := q*total, 0.0, 0.0
	for i, n := range c.Buckets {
		if n >= rank && n > below {
			if math.IsInf(bounds[i], 1) {
				return low
			}
			return low + (bounds[i]-low)*(rank-below)/(n-below)
		}
		low, below = bounds[i], max(n, below)
	}
	return low
}

// half is one side's report of an edge in one tick; float32 halves the ring.
type half struct {
	requests, failed, refused float32
	sent, received, opened    float32
	open                      float32
	buckets                   [len(bounds)]float32 // cumulative
}

// delta is both sides' reports of an edge in one tick.
type delta struct {
	caller, called half
	secured, known float32
}

// sums gathers deltas of one edge until it is known whose report counts.
type sums struct {
	caller, called Counts
	secured, known float64
}

// add adds one tick. last is the newest: how many connections are open is asked of that one.
func (s *sums) add(d *delta, last bool) {
	addHalf(&s.caller, &d.caller)
	addHalf(&s.called, &d.called)
	if last {
		s.caller.Open, s.called.Open = float64(d.caller.open), float64(d.called.open)
	}
	s.secured += float64(d.secured)
	s.known += float64(d.known)
}

func addHalf(c *Counts, h *half) {
	c.Requests += float64(h.requests)
	c.Failed += float64(h.failed)
	c.Refused += float64(h.refused)
	c.Sent += float64(h.sent)
	c.Received += float64(h.received)
	c.Opened += float64(h.opened)
	for i, n := range h.buckets {
		c.Buckets[i] += float64(n)
	}
}

// counts is the report that counts, with the called side's word on mTLS.
func (s *sums) counts() Counts {
	c := s.called
	if !s.caller.Idle() || s.caller.Open > s.called.Open {
		c = s.caller
	}
	c.Secured, c.Known = s.secured, s.known
	return c
}
