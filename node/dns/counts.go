package dns

import (
	"sync/atomic"
	"time"
)

// Bounds are the upper bounds of the histogram of [Counts], in seconds: those of Istio's agent.
var Bounds = [...]float64{0.001, 0.005, 0.01, 0.1, 1, 5}

// Counts is what a server did since it was made.
type Counts struct {
	Requests  uint64 // queries that were read, whoever answered them
	Forwarded uint64 // of these, what the upstreams were asked
	Failed    uint64 // of these, what none of them answered
	// Took counts what was forwarded by how long the upstreams took together, up to each of Bounds and beyond the last;
	// TookSum is all of it.
	Took    [len(Bounds) + 1]uint64
	TookSum time.Duration
}

// Counts is what the server did so far.
func (s *Server) Counts() Counts {
	c := Counts{Requests: s.counts.requests.Load(), Forwarded: s.counts.forwarded.Load(), Failed: s.counts.failed.Load(), TookSum: time.Duration(s.counts.nanos.Load())}
	for i := range c.Took {
		c.Took[i] = s.counts.took[i].Load()
	}
	return c
}

// counters are the counts of a server that runs.
type counters struct {
	requests, forwarded, failed atomic.Uint64
	took                        [len(Bounds) + 1]atomic.Uint64
	nanos                       atomic.Int64
}

// forward counts one query that the upstreams were asked.
func (c *counters) forward(took time.Duration, answered bool) {
	c.forwarded.Add(1)
	if !answered {
		c.failed.Add(1)
	}
	i := 0
	for i < len(Bounds) && took.Seconds() > Bounds[i] {
		i++
	}
	c.took[i].Add(1)
	c.nanos.Add(int64(took))
}
