package agent

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the agent's; names are Istio's where it has any.
type Metrics struct {
	requests *prometheus.CounterVec
	repaired *prometheus.CounterVec
	installs *prometheus.CounterVec
	ready    prometheus.Gauge
}

// NewMetrics makes and registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_cni_requests_total", Help: "Pods that the plugin asked about, by what became of them."}, []string{"result"}),
		repaired: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_cni_repair_pods_repaired_total", Help: "Pods that started without redirection, by what was done (repair, delete, label) and its result."}, []string{"type", "result"}),
		installs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "istio_cni_installs_total", Help: "Installations of the plugin on the node, by result."}, []string{"result"}),
		ready:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "istio_cni_install_ready", Help: "1 if the plugin is installed on the node."}),
	}
	r.MustRegister(m.requests, m.repaired, m.installs, m.ready)
	return m
}

// Installed counts an installation that did something, and tells whether the plugin is installed.
func (m *Metrics) Installed(changed bool, err error) {
	m.ready.Set(1)
	switch {
	case err != nil:
		m.ready.Set(0)
		m.installs.WithLabelValues("FAILURE").Inc()
	case changed:
		m.installs.WithLabelValues("SUCCESS").Inc()
	}
}
