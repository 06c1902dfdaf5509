package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weft.mesh/weft/xds"
)

func TestPushMetricsHaveIstiodsNamesLabelsAndBuckets(t *testing.T) {
	reg, m := prometheus.NewRegistry(), newPushMetrics()
	reg.MustRegister(m)
	m.Converged(100 * time.Millisecond)
	m.Converged(100*time.Millisecond + 1)
	m.Converged(time.Hour)
	m.Queued(time.Second)
	m.Pushed(xds.RouteType, 20*time.Second, 5_000_000)
	m.Pushed("type.example/whatever.a.Client.names", time.Second, 1)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	// Istio 1.31: what its dashboard, Kiali and alerts ask for.
	want := map[string][]float64{
		"pilot_proxy_convergence_time": {.1, .5, 1, 3, 5, 10, 20, 30},
		"pilot_proxy_queue_time":       {.1, .5, 1, 3, 5, 10, 20, 30},
		"pilot_xds_push_time":          {.01, .1, 1, 3, 5, 10, 20, 30},
		"pilot_debounce_time":          {.01, .1, 1, 3, 5, 10, 20, 30},
		"pilot_xds_config_size_bytes":  {1, 10_000, 1_000_000, 4_000_000, 10_000_000, 40_000_000},
	}
	for _, f := range families {
		for _, le := range want[f.GetName()] {
			found := false
			for _, b := range f.GetMetric()[0].GetHistogram().GetBucket() {
				found = found || b.GetUpperBound() == le
			}
			if !found {
				t.Errorf("%s: no bucket %v", f.GetName(), le)
			}
		}
		delete(want, f.GetName())
	}
	for name := range want {
		t.Errorf("no %s", name)
	}
	page := httptest.NewRecorder()
	(&metrics{reg: reg}).handler().ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`pilot_xds_push_time_sum{type="rds"} 20`, `pilot_xds_config_size_bytes_sum{type="` + xds.RouteType + `"} 5e+06`, `pilot_proxy_convergence_time_bucket{le="0.03"} 0`, `pilot_proxy_convergence_time_bucket{le="0.1"} 1`,
		`pilot_proxy_convergence_time_bucket{le="0.5"} 2`, `pilot_proxy_convergence_time_bucket{le="30"} 2`, `pilot_proxy_convergence_time_bucket{le="+Inf"} 3`, `pilot_proxy_convergence_time_count 3`,
	} {
		if !strings.Contains(page.Body.String(), line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(page.Body.String(), "type.example") {
		t.Error("a client's own type is a series")
	}
}

func TestMeasuringAPushAllocatesNothing(t *testing.T) {
	m := newPushMetrics()
	n := testing.AllocsPerRun(1000, func() {
		m.Queued(time.Millisecond)
		m.Pushed(xds.EndpointType, time.Millisecond, 1000)
		m.Converged(time.Second)
	})
	if n != 0 {
		t.Errorf("%v allocations for a push, want 0", n)
	}
}

// BenchmarkMeasuringAPush is what measuring adds to what a proxy costs in a push of one type.
func BenchmarkMeasuringAPush(b *testing.B) {
	m := newPushMetrics()
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			start := time.Now()
			m.Queued(time.Since(start))
			m.Pushed(xds.EndpointType, time.Since(start), 1000)
			m.Converged(time.Since(start))
		}
	})
}
