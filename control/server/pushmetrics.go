package server

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weft.mesh/weft/xds"
)

// pushMetrics are istiod's histograms of a push. It implements xdsserver.Meter and prometheus.Collector.
type pushMetrics struct {
	debounce, queue, convergence *histogram
	types                        []typeMetrics // nothing changes in it
}

type typeMetrics struct {
	url        string
	push, size *histogram
}

// Buckets are Istio's, and some more that tell what is fast from what is very fast.
var (
	debounceBuckets    = []float64{.001, .003, .01, .03, .1, .3, 1, 3, 5, 10, 20, 30}
	pushBuckets        = []float64{.0001, .001, .01, .1, 1, 3, 5, 10, 20, 30}
	queueBuckets       = []float64{.001, .003, .01, .03, .1, .5, 1, 3, 5, 10, 20, 30}
	convergenceBuckets = []float64{.003, .01, .03, .1, .5, 1, 3, 5, 10, 20, 30}
	sizeBuckets        = []float64{1, 1000, 10_000, 100_000, 1_000_000, 4_000_000, 10_000_000, 40_000_000}
)

var (
	descDebounce    = prometheus.NewDesc("pilot_debounce_time", "Seconds from the first change of a World to its publication.", nil, nil)
	descQueue       = prometheus.NewDesc("pilot_proxy_queue_time", "Seconds from a World's publication to the turn of a proxy.", nil, nil)
	descConvergence = prometheus.NewDesc("pilot_proxy_convergence_time", "Seconds from a change until a proxy that it concerns has answered all of it.", nil, nil)
	descPush        = prometheus.NewDesc("pilot_xds_push_time", "Seconds to make a response and to hand it to its connection, by type.", []string{"type"}, nil)
	descSize        = prometheus.NewDesc("pilot_xds_config_size_bytes", "Bytes of the resources of a response, by type URL.", []string{"type"}, nil)
)

// meteredTypes are those whose responses are measured: a client may ask for others, by names of its own.
var meteredTypes = []string{xds.ClusterType, xds.EndpointType, xds.ListenerType, xds.RouteType, xds.SecretType, xds.NameTableType}

func newPushMetrics() *pushMetrics {
	second, one := float64(time.Second), 1.
	m := &pushMetrics{
		debounce: newHistogram(second, debounceBuckets), queue: newHistogram(second, queueBuckets),
		convergence: newHistogram(second, convergenceBuckets),
	}
	for _, t := range meteredTypes {
		m.types = append(m.types, typeMetrics{t, newHistogram(second, pushBuckets), newHistogram(one, sizeBuckets)})
	}
	return m
}

// Queued implements xdsserver.Meter.
func (m *pushMetrics) Queued(d time.Duration) { m.queue.observe(int64(d)) }

// Converged implements xdsserver.Meter.
func (m *pushMetrics) Converged(d time.Duration) { m.convergence.observe(int64(d)) }

// Pushed implements xdsserver.Meter.
func (m *pushMetrics) Pushed(typeURL string, d time.Duration, bytes int) {
	for i := range m.types { // the same memory, mostly: sooner compared than hashed
		if t := &m.types[i]; t.url == typeURL {
			t.push.observe(int64(d))
			t.size.observe(int64(bytes))
			return
		}
	}
}

// Describe implements prometheus.Collector.
func (m *pushMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descDebounce, descQueue, descConvergence, descPush, descSize} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *pushMetrics) Collect(ch chan<- prometheus.Metric) {
	ch <- m.debounce.metric(descDebounce)
	ch <- m.queue.metric(descQueue)
	ch <- m.convergence.metric(descConvergence)
	for _, t := range m.types {
		ch <- t.push.metric(descPush, strings.ToLower(xds.ShortName(t.url)))
		ch <- t.size.metric(descSize, t.url)
	}
}
