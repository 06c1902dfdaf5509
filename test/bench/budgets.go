package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// budget is one row of the design's table that concerns the proxy.
type budget struct {
	what  string
	limit float64
	unit  string
	see   func(o *output) (seen, bool)
}

// seen is a figure with how far it moved from round to round.
type seen struct{ value, least, most float64 }

const (
	times     = "×"
	weftName  = "weft"
	envoyName = "envoy"
)

// budgets are the design's, which `make bench` reports on. A ratio is weft-proxy's figure to the peer's in the same round.
var budgets = []budget{
	{"HTTP/1.1 CPU, saturated, to HAProxy", 0.95, times, cpuTo("h1.saturated", base)},
	{"HTTP/1.1 CPU at 1,000/s, to HAProxy", 0.9, times, cpuTo("h1.rate", base)},
	{"mTLS pair CPU, saturated, to HAProxy", 0.85, times, cpuTo("mtls.saturated", base)},
	{"mTLS pair CPU at 1,000/s, to HAProxy", 0.7, times, cpuTo("mtls.rate", base)},
	{"HTTP/2 unary CPU, 1 stream a connection, to HAProxy", 0.85, times, cpuTo("h2.m1", base)},
	{"HTTP/2 unary CPU, 8 streams a connection, to HAProxy", 0.6, times, cpuTo("h2.m8", base)},
	{"TCP bulk CPU per GB, to HAProxy", 0.5, times, cpuTo("tcp.bulk", base)},
	{"TCP ping-pong CPU, to HAProxy", 1.2, times, cpuTo("tcp.ping", base)},
	{"HTTP/1.1 CPU, saturated, to Envoy", 0.4, times, cpuTo("h1.saturated", envoyName)},
	{"mTLS pair CPU, saturated, to Envoy", 0.4, times, cpuTo("mtls.saturated", envoyName)},
	{"HTTP/2 unary CPU, 1 stream a connection, to Envoy", 0.5, times, cpuTo("h2.m1", envoyName)},
	{"HTTP/2 unary CPU, 8 streams a connection, to Envoy", 0.3, times, cpuTo("h2.m8", envoyName)},
	{"TCP bulk CPU per GB, to Envoy", 0.5, times, cpuTo("tcp.bulk", envoyName)},
	{"HTTP/1.1 at 1,000/s, added median latency, to Envoy", 0.6, times, addedTo("h1.rate", envoyName, p50)},
	{"HTTP/1.1 at 1,000/s, added p99 latency, to Envoy", 0.8, times, addedTo("h1.rate", envoyName, p99)},
	{"mTLS pair at 1,000/s, added median latency, to Envoy", 0.6, times, addedTo("mtls.rate", envoyName, p50)},
	{"mTLS pair at 1,000/s, added p99 latency, to Envoy", 0.8, times, addedTo("mtls.rate", envoyName, p99)},
	{"HTTP/2 unary at 1,000/s, added median latency, to Envoy", 0.6, times, addedTo("h2.rate", envoyName, p50)},
	{"HTTP/2 unary at 1,000/s, added p99 latency, to Envoy", 0.8, times, addedTo("h2.rate", envoyName, p99)},
	{"idle sidecar's RSS with 100 services known", 20, " MB", idleOf(kindH1, 1e6, func(r *idleResult) int64 { return r.Start })},
	{"an idle connection, plain", 6, " KB", idleOf(kindH1, 1e3, func(r *idleResult) int64 { return r.Idle })},
	{"an idle connection, plain, parked", 1.5, " KB", idleOf(kindH1, 1e3, func(r *idleResult) int64 { return r.Idle })},
	{"an idle connection, mTLS", 26, " KB", idleOf(kindTLS, 1e3, func(r *idleResult) int64 { return r.Idle })},
	{"the same 10 s after a burst, plain", 9, " KB", idleOf(kindH1, 1e3, func(r *idleResult) int64 { return r.Burst })},
	{"the same 10 s after a burst, mTLS", 39, " KB", idleOf(kindTLS, 1e3, func(r *idleResult) int64 { return r.Burst })},
	{"allocations for an HTTP/1.1 request", 0.1, "", allocsOf("h1.saturated", 1)},
	{"allocations for an HTTP/1.1 request, each end of an mTLS pair", 0.1, "", allocsOf("mtls.saturated", 2)},
	{"allocations for a gRPC message (two to a call), 1 stream", 2, "", allocsOf("h2.m1", 2)},
	{"allocations for a gRPC message, 8 streams", 2, "", allocsOf("h2.m8", 2)},
	{"allocations for a gRPC message, each end of an mTLS pair", 2, "", allocsOf("grpc.m8", 4)},
	{"sidecar's start to its first answer", 200, " ms", startOf(kindH1)},
}

func p50(x round) time.Duration { return x.P50 }
func p99(x round) time.Duration { return x.P99 }

func (o *output) result(id string) *result {
	for i := range o.Results {
		if o.Results[i].ID == id {
			return &o.Results[i]
		}
	}
	return &result{}
}

// spread summarizes a figure of several rounds.
func spread(v []float64) (seen, bool) {
	if len(v) == 0 {
		return seen{}, false
	}
	return seen{median(v), slices.Min(v), slices.Max(v)}, true
}

func cpuTo(id, peer string) func(*output) (seen, bool) {
	return func(o *output) (seen, bool) {
		return spread(o.result(id).ratios(weftName, peer, func(x round) float64 { return float64(x.CPU) }))
	}
}

// addedTo compares what two proxies add to the latency without any, of the medians over all rounds: a
// difference of two small times is too noisy within one.
func addedTo(id, peer string, of func(round) time.Duration) func(*output) (seen, bool) {
	return func(o *output) (seen, bool) {
		r := o.result(id)
		direct := median(pick(r.Rounds[directName], of))
		mine, theirs := median(pick(r.Rounds[weftName], of))-direct, median(pick(r.Rounds[peer], of))-direct
		if direct == 0 || len(r.Rounds[weftName]) == 0 || len(r.Rounds[peer]) == 0 || theirs <= 0 {
			return seen{}, false
		}
		return spread([]float64{float64(mine) / float64(theirs)})
	}
}

// idleOf looks at starts (mTLS and plain) first, then at connections: whichever has the figure.
func idleOf(kind string, unit float64, of func(*idleResult) int64) func(*output) (seen, bool) {
	return func(o *output) (seen, bool) {
		for i := range o.Idle {
			r := &o.Idle[i]
			if v := of(r); r.Peer == weftName && r.Kind == kind && v != 0 {
				return spread([]float64{float64(v) / unit})
			}
		}
		return seen{}, false
	}
}

func startOf(kind string) func(*output) (seen, bool) {
	return func(o *output) (seen, bool) {
		for _, r := range o.Idle {
			if r.Peer == weftName && r.Kind == kind && len(r.Ready) > 0 {
				v := make([]float64, len(r.Ready))
				for i, d := range r.Ready {
					v[i] = float64(d) / 1e6
				}
				return spread(v)
			}
		}
		return seen{}, false
	}
}

func allocsOf(id string, parts float64) func(*output) (seen, bool) {
	return func(o *output) (seen, bool) {
		var v []float64
		for _, x := range o.result(id).Rounds[weftName] {
			if x.Allocs >= 0 {
				v = append(v, x.Allocs/parts)
			}
		}
		return spread(v)
	}
}

// notJudged is the verdict on a budget that the run's cases and peers say nothing about.
const notJudged = "not measured"

// verdict is a budget with what a run saw; it is in the JSON too.
type verdict struct {
	What  string  `json:"what"`
	Limit float64 `json:"at_most"`
	Unit  string  `json:"unit,omitempty"`
	Seen  float64 `json:"seen"`
	Least float64 `json:"least"`
	Most  float64 `json:"most"`
	Met   string  `json:"met"` // yes, no, or not measured
}

func (o *output) verdicts() []verdict {
	var out []verdict
	for _, b := range budgets {
		v := verdict{What: b.what, Limit: b.limit, Unit: strings.TrimSpace(b.unit), Met: notJudged}
		if s, ok := b.see(o); ok {
			v.Seen, v.Least, v.Most, v.Met = s.value, s.least, s.most, "no"
			if s.value <= b.limit {
				v.Met = "yes"
			}
		}
		out = append(out, v)
	}
	return out
}

func (o *output) budgetTable() string {
	var b strings.Builder
	b.WriteString("| budget | at most | seen [least–most of the rounds] | met |\n| --- | --- | --- | --- |\n")
	var missing []string
	for i, v := range o.verdicts() {
		if v.Met == notJudged {
			missing = append(missing, v.What)
			continue
		}
		unit := budgets[i].unit
		saw := figure(v.Seen) + unit
		if v.Least != v.Most {
			saw += fmt.Sprintf(" [%s–%s]", figure(v.Least), figure(v.Most))
		}
		met := v.Met
		if met == "no" {
			met = "**no**"
		}
		fmt.Fprintf(&b, "| %s | %s%s | %s | %s |\n", v.What, figure(v.Limit), unit, saw, met)
	}
	if len(missing) > 0 {
		fmt.Fprintf(&b, "\nNot measured in this run: %s.\n", strings.Join(missing, "; "))
	}
	return b.String()
}

// figure has two digits after the point where they say something.
func figure(v float64) string {
	if v >= 100 || v == float64(int(v)) {
		return fmt.Sprintf("%.0f", v)
	}
	if v >= 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
