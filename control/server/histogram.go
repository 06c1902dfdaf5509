package server

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// histogram counts whole numbers, nanoseconds or bytes, in two atomic additions: a push to a thousand proxies observes some
// thousands of them. What is collected meanwhile may have the sum of one observation more than it has counted, or less.
type histogram struct {
	unit   float64 // so many of what is observed are one of what is shown
	bounds []int64 // ascending, inclusive
	counts []atomic.Uint64
	sum    atomic.Int64
}

// newHistogram takes bounds as they are shown.
func newHistogram(unit float64, bounds []float64) *histogram {
	h := &histogram{unit: unit, counts: make([]atomic.Uint64, len(bounds)+1)}
	for _, b := range bounds {
		h.bounds = append(h.bounds, int64(b*unit+.5))
	}
	return h
}

func (h *histogram) observe(v int64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(v)
}

// metric is what was counted so far.
func (h *histogram) metric(desc *prometheus.Desc, labels ...string) prometheus.Metric {
	buckets, n := make(map[float64]uint64, len(h.bounds)), uint64(0)
	for i, b := range h.bounds {
		n += h.counts[i].Load()
		buckets[float64(b)/h.unit] = n
	}
	n += h.counts[len(h.bounds)].Load()
	return prometheus.MustNewConstHistogram(desc, n, float64(h.sum.Load())/h.unit, buckets, labels...)
}
