// Package admission answers the API server's questions on 15017: shall this pod have a proxy (/inject), is this
// object right (/validate)?
//
// It reads requests within bounds and says what [weft.mesh/weft/control/inject] and the checks of `weft apply` say; it holds
// no configuration of its own and writes nothing. A question that it cannot answer is an error to the API
// server, whose failurePolicy decides then. Safe for concurrent use; it starts no goroutine.
package admission

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/inject"
)

// Bounds of a [Handler].
const (
	maxBody   = 8 << 20 // bytes of a review: an object and the one before, 3 MB each at most in Kubernetes
	maxAtOnce = 64      // reviews that are worked on; more wait
)

// Settings of a [Handler]. Functions are called on request goroutines.
type Settings struct {
	// Inject is the current configuration of injection; nil: it is not known yet.
	Inject func() *inject.Config
	// Check is the check of weft apply over everything that is there and these objects.
	Check func(ctx context.Context, changed []convert.Object) ([]admin.Diagnostic, error)
	Log   *slog.Logger
}

// Handler serves the webhooks. Make it with [New].
type Handler struct {
	set     Settings
	mux     *http.ServeMux
	running chan struct{}
	metrics metrics
}

// New makes a handler for an HTTPS server.
func New(set Settings) *Handler {
	if set.Log == nil {
		set.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{set: set, mux: http.NewServeMux(), running: make(chan struct{}, maxAtOnce), metrics: newMetrics()}
	h.mux.HandleFunc("/inject", h.review(h.inject))
	h.mux.HandleFunc("/inject/", h.review(h.inject))
	h.mux.HandleFunc("/validate", h.review(h.validate))
	h.mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// metrics are istiod's names.
type metrics struct {
	requests, injected, failed, skipped prometheus.Counter
	seconds                             prometheus.Histogram
	httpErrors                          *prometheus.CounterVec
}

func newMetrics() metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return metrics{
		requests: counter("sidecar_injection_requests_total", "Pods that injection was asked about."),
		injected: counter("sidecar_injection_success_total", "Pods that got a proxy."),
		failed:   counter("sidecar_injection_failure_total", "Pods that were refused."),
		skipped:  counter("sidecar_injection_skip_total", "Pods that were left as they are."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sidecar_injection_time_seconds", Help: "Time to inject a pod.",
			Buckets: []float64{.0005, .001, .003, .01, .03, .1, .3, 1, 3}}),
		httpErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "galley_validation_http_error", Help: "Reviews that could not be read, by status."}, []string{"status"}),
	}
}

// Collectors are the handler's metrics.
func (h *Handler) Collectors() []prometheus.Collector {
	m := h.metrics
	return []prometheus.Collector{m.requests, m.injected, m.failed, m.skipped, m.seconds, m.httpErrors}
}
