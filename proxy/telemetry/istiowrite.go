package telemetry

import (
	"cmp"
	"slices"
	"unsafe"
)

// alias views bytes as a string for as long as they live unchanged; what is kept is cloned.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// sum is the copies of a series added up.
type sum struct {
	requests, reqMsgs, respMsgs    uint64
	sent, received, opened, closed uint64
	duration, in, out              histSum
}

func (s *series) sum() (out sum) {
	for i := range s.cells {
		c := s.cells[i].Load()
		if c == nil {
			continue
		}
		out.requests += c.requests.Load()
		out.reqMsgs += c.reqMsgs.Load()
		out.respMsgs += c.respMsgs.Load()
		out.sent += c.sent.Load()
		out.received += c.received.Load()
		out.opened += c.opened.Load()
		out.closed += c.closed.Load()
		out.duration.add(&c.duration)
		out.in.add(&c.in)
		out.out.add(&c.out)
	}
	return out
}

// standard lists the metrics: name, help, which series have them, what they show.
var standard = []struct {
	name, help string
	kind       Kind
	has        func(protocol) bool
	count      func(*sum) uint64
	hist       func(*sum) *histSum
}{
	{"istio_requests_total", "Requests handled by the proxy.", KindCounter, isHTTP, func(s *sum) uint64 { return s.requests }, nil},
	{"istio_request_duration_milliseconds", "Duration of requests in milliseconds.", KindHistogram, isHTTP, nil, func(s *sum) *histSum { return &s.duration }},
	{"istio_request_bytes", "Size of request bodies in bytes.", KindHistogram, isHTTP, nil, func(s *sum) *histSum { return &s.in }},
	{"istio_response_bytes", "Size of response bodies in bytes.", KindHistogram, isHTTP, nil, func(s *sum) *histSum { return &s.out }},
	{"istio_request_messages_total", "gRPC messages sent by clients.", KindCounter, isGRPC, func(s *sum) uint64 { return s.reqMsgs }, nil},
	{"istio_response_messages_total", "gRPC messages sent by servers.", KindCounter, isGRPC, func(s *sum) uint64 { return s.respMsgs }, nil},
	{"istio_tcp_sent_bytes_total", "Bytes sent in responses over TCP connections.", KindCounter, isTCP, func(s *sum) uint64 { return s.sent }, nil},
	{"istio_tcp_received_bytes_total", "Bytes received in requests over TCP connections.", KindCounter, isTCP, func(s *sum) uint64 { return s.received }, nil},
	{"istio_tcp_connections_opened_total", "TCP connections opened.", KindCounter, isTCP, func(s *sum) uint64 { return s.opened }, nil},
	{"istio_tcp_connections_closed_total", "TCP connections closed.", KindCounter, isTCP, func(s *sum) uint64 { return s.closed }, nil},
}

func isHTTP(p protocol) bool { return p != protoTCP }
func isGRPC(p protocol) bool { return p == protoGRPC }
func isTCP(p protocol) bool  { return p == protoTCP }

// write is the exposition. Families without a series are left out, as Envoy does.
func (t *Istio) write(e *Encoder) {
	type row struct {
		s   *series
		sum sum
	}
	t.mu.RLock()
	rows := make([]row, 0, len(t.m))
	for _, s := range t.m {
		rows = append(rows, row{s: s})
	}
	t.mu.RUnlock()
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.s.labels, b.s.labels) })
	for i := range rows {
		rows[i].sum = rows[i].s.sum()
	}
	for _, m := range standard {
		begun := false
		for i := range rows {
			if !m.has(rows[i].s.proto) {
				continue
			}
			if !begun {
				e.Family(m.name, m.help, m.kind)
				begun = true
			}
			if m.hist != nil {
				m.hist(&rows[i].sum).write(e, rows[i].s.labels)
			} else {
				e.line("", rows[i].s.labels, "", float64(m.count(&rows[i].sum)))
			}
		}
	}
}
