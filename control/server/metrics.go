package server

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/status"
	"weft.mesh/weft/internal/version"
)

// metrics are istiod's names, so that its dashboard works unchanged.
type metrics struct {
	reg        *prometheus.Registry
	csr        prometheus.Counter
	issued     prometheus.Counter
	certErrors *prometheus.CounterVec
	build      prometheus.Histogram
	services   prometheus.Gauge
	virtual    prometheus.Gauge
	inbound    *prometheus.CounterVec
	triggers   *prometheus.CounterVec
	passed     prometheus.Counter
	failed     prometheus.Counter
	pushes     *pushMetrics
}

// durations in seconds, from a millisecond to half a minute.
var durationBuckets = []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30}

func newMetrics(t *status.Tracker, started time.Time) *metrics {
	reg := prometheus.NewRegistry()
	m := &metrics{
		reg:        reg,
		csr:        prometheus.NewCounter(prometheus.CounterOpts{Name: "citadel_server_csr_count", Help: "CSRs received."}),
		issued:     prometheus.NewCounter(prometheus.CounterOpts{Name: "citadel_server_success_cert_issuance_count", Help: "Certificates issued."}),
		certErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "citadel_server_cert_issuance_error_count", Help: "CSRs refused, by reason."}, []string{"reason"}),
		build:      prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pilot_pushcontext_init_seconds", Help: "Time to build a new world.", Buckets: durationBuckets}),
		services:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_services", Help: "Services known."}),
		virtual:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_virt_services", Help: "Virtual services known."}),
		inbound:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_inbound_updates", Help: "Objects received from sources, by type."}, []string{"type"}),
		triggers:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_push_triggers", Help: "Worlds published, by cause."}, []string{"type"}),
		passed:     prometheus.NewCounter(prometheus.CounterOpts{Name: "galley_validation_passed", Help: "Apply requests that were accepted."}),
		failed:     prometheus.NewCounter(prometheus.CounterOpts{Name: "galley_validation_failed", Help: "Apply requests that were refused."}),
		pushes:     newPushMetrics(),
	}
	reg.MustRegister(m.csr, m.issued, m.certErrors, m.build, m.services, m.virtual, m.inbound, m.triggers, m.passed, m.failed,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "istiod_uptime_seconds", Help: "Seconds since the control plane started."},
			func() float64 { return time.Since(started).Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "istio_build", Help: "1, labelled with what was built.",
			ConstLabels: prometheus.Labels{"component": "pilot", "tag": version.Version}}, func() float64 { return 1 }),
		&syncCollector{t: t}, m.pushes)
	return m
}

// root adds the root certificate's expiry.
func (m *metrics) root(c *ca.CA) {
	m.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "citadel_server_root_cert_expiry_timestamp", Help: "Unix time at which the root certificate expires."},
		func() float64 { return float64(c.Root().NotAfter.Unix()) }))
}

func (m *metrics) counters() ca.Counters {
	return ca.Counters{
		CSR:    m.csr.Inc,
		Issued: m.issued.Inc,
		Failed: func(reason string) { m.certErrors.WithLabelValues(reason).Inc() },
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// syncCollector reads the tracker at scrape time.
type syncCollector struct{ t *status.Tracker }

var (
	descXDS     = prometheus.NewDesc("pilot_xds", "Connected proxies, by version.", []string{"version"}, nil)
	descPushes  = prometheus.NewDesc("pilot_xds_pushes", "Responses sent, by type.", []string{"type"}, nil)
	descRejects = prometheus.NewDesc("pilot_total_xds_rejects", "Responses that proxies refused, by type.", []string{"type"}, nil)
)

func (c *syncCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descXDS
	ch <- descPushes
	ch <- descRejects
}

func (c *syncCollector) Collect(ch chan<- prometheus.Metric) {
	pushes, rejects, connected := c.t.Counts()
	for v, n := range connected {
		ch <- prometheus.MustNewConstMetric(descXDS, prometheus.GaugeValue, float64(n), v)
	}
	for t, n := range pushes {
		ch <- prometheus.MustNewConstMetric(descPushes, prometheus.CounterValue, float64(n), strings.ToLower(t))
	}
	for t, n := range rejects {
		ch <- prometheus.MustNewConstMetric(descRejects, prometheus.CounterValue, float64(n), strings.ToLower(t))
	}
}

// published notes a World that proxies are being brought to.
func (m *metrics) published(w *snapshot.World, took time.Duration) {
	m.build.Observe(took.Seconds())
	if began := w.Began(); !began.IsZero() {
		m.pushes.debounce.observe(int64(time.Since(began)))
	}
	cause := "config"
	if w.Changes().EndpointsOnly {
		cause = "endpoint"
	} else {
		m.services.Set(float64(len(w.Services())))
		m.virtual.Set(float64(len(w.AllRoutes())))
	}
	m.triggers.WithLabelValues(cause).Inc()
}
