package traffic

import (
	"sync/atomic"
	"time"
)

// Unknown is Istio's word where a label has no value.
const Unknown = "unknown"

// Workload is one end of an edge.
type Workload struct {
	Namespace string
	Name      string
	App       string // canonical service
	Version   string // canonical revision
}

// Known says whether the proxy knew who it was.
func (w Workload) Known() bool { return w.Name != "" && w.Name != Unknown }

// Service is what was called.
type Service struct {
	Namespace string
	Name      string
	Host      string // full name
}

// Edge is who calls what, and which workload answered.
type Edge struct {
	Source   Workload
	Service  Service
	Dest     Workload
	Protocol string // http, grpc, tcp
}

// edge is an Edge that is kept.
type edge struct {
	Edge
	last time.Time   // when something last happened; the store's mu protects it
	gone atomic.Bool // taken out of the table; a series that moves again makes a new one
}

// field says what a line counts.
type field uint8

const (
	fieldNone field = iota
	fieldRequests
	fieldBucket
	fieldSent
	fieldReceived
	fieldOpened
	fieldClosed
)

// series is one line of one proxy: what it counts, and its last value.
type series struct {
	edge    *edge
	field   field
	bucket  uint8
	called  bool // reported by the called side
	failed  bool
	refused bool
	mtls    bool
	value   float64
}

// apply adds what the counter went up by.
func (s *series) apply(d *delta, n float32) {
	h := &d.caller
	if s.called {
		h = &d.called
	}
	switch s.field {
	case fieldRequests:
		h.requests += n
		if s.failed {
			h.failed += n
		}
		if s.refused {
			h.refused += n
		}
		s.security(d, n)
	case fieldBucket:
		h.buckets[s.bucket] += n
	case fieldSent:
		h.sent += n
	case fieldReceived:
		h.received += n
	case fieldOpened:
		h.opened += n
		s.security(d, n)
	}
}

func (s *series) security(d *delta, n float32) {
	if !s.called {
		return
	}
	d.known += n
	if s.mtls {
		d.secured += n
	}
}

// gauge adds to the number of open connections, which is the difference of two counters.
func (s *series) gauge(d *delta, value float64) {
	h := &d.caller
	if s.called {
		h = &d.called
	}
	switch s.field {
	case fieldOpened:
		h.open += float32(value)
	case fieldClosed:
		h.open -= float32(value)
	}
}
