package telemetry

import (
	"strconv"
	"sync/atomic"
)

// bounds are the upper bounds of Envoy's Prometheus histograms, for milliseconds
// and for bytes alike, times 1000 so that durations can be counted in microseconds.
var bounds = [...]uint64{
	500, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
	10_000_000, 30_000_000, 60_000_000, 300_000_000, 600_000_000, 1_800_000_000, 3_600_000_000,
}

// boundNames are the le labels.
var boundNames = func() (out [len(bounds) + 1]string) {
	for i, b := range bounds {
		out[i] = strconv.FormatFloat(float64(b)/1000, 'f', -1, 64)
	}
	out[len(bounds)] = "+Inf"
	return out
}()

// hist is one copy of a histogram. Values are in thousandths.
type hist struct {
	buckets [len(bounds) + 1]atomic.Uint64 // not cumulative
	sum     atomic.Uint64
}

func (h *hist) observe(milli uint64) {
	lo, hi := 0, len(bounds)
	for lo < hi {
		if mid := (lo + hi) / 2; milli <= bounds[mid] {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	h.buckets[lo].Add(1)
	h.sum.Add(milli)
}

// histSum adds up copies for exposition.
type histSum struct {
	buckets [len(bounds) + 1]uint64
	sum     uint64
}

func (s *histSum) add(h *hist) {
	for i := range h.buckets {
		s.buckets[i] += h.buckets[i].Load()
	}
	s.sum += h.sum.Load()
}

func (s *histSum) write(e *Encoder, labels string) {
	var total uint64
	for i, n := range s.buckets {
		total += n
		e.line("_bucket", labels, boundNames[i], float64(total))
	}
	e.line("_sum", labels, "", float64(s.sum)/1000)
	e.line("_count", labels, "", float64(total))
}
