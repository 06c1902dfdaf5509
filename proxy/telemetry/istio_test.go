package telemetry_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/telemetry"
)

func self() stream.Workload {
	return stream.Workload{
		Name: "productpage-v1", Namespace: "default", App: "productpage", Version: "v1", CanonicalName: "productpage", CanonicalRevision: "v1",
		Cluster: "Kubernetes", Principal: "spiffe://cluster.local/ns/default/sa/bookinfo-productpage",
	}
}

func newIstio(set telemetry.IstioSettings) (*telemetry.Registry, *telemetry.Istio) {
	r := telemetry.NewRegistry()
	set.Self, set.Tag = self(), "test"
	return r, telemetry.NewIstio(r, set)
}

func text(t testing.TB, r *telemetry.Registry) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// series returns the lines of one metric.
func series(t testing.TB, r *telemetry.Registry, name string) string {
	t.Helper()
	var out []string
	for l := range strings.Lines(text(t, r)) {
		if strings.HasPrefix(l, name+"{") {
			out = append(out, strings.TrimSpace(l))
		}
	}
	return strings.Join(out, "\n")
}

func TestStandardMetricsGolden(t *testing.T) {
	r, m := newIstio(telemetry.IstioSettings{})
	out := request()
	out.UpstreamID = identitytest.ID(t, "spiffe://cluster.local/ns/default/sa/bookinfo-reviews")
	m.HTTP(out)
	m.HTTP(out)
	slow := request()
	slow.UpstreamID = out.UpstreamID
	slow.Duration, slow.BytesIn = 90*time.Minute, 5
	m.HTTP(slow)
	m.HTTP(failed())
	in := inboundRequest(t)
	m.HTTP(in)
	rpc := inboundRequest(t)
	rpc.GRPC, rpc.GRPCCode, rpc.ReqMsgs, rpc.RespMsgs = true, 7, 3, 9
	m.HTTP(rpc)
	conn := tcpEnd()
	conn.Report = stream.ReportOpen
	m.TCP(conn)
	conn.Report, conn.NewIn, conn.NewOut = stream.ReportRunning, 100, 7
	m.TCP(conn)
	conn.Report, conn.NewIn, conn.NewOut = stream.ReportEnd, 11, 0
	m.TCP(conn)
	var got strings.Builder
	for l := range strings.Lines(text(t, r)) {
		if strings.Contains(l, "istio_") {
			got.WriteString(l)
		}
	}
	golden(t, "metrics.prom", got.String())
}

// TestLabelRules looks at single labels of one report.
func TestLabelRules(t *testing.T) {
	pass := request()
	pass.Cluster, pass.Service, pass.Peer = "PassthroughCluster", stream.Service{}, nil
	black := request()
	black.Cluster, black.Service, black.Peer, black.Status = "BlackHoleCluster", stream.Service{}, nil, 502
	plain := inboundRequest(t)
	plain.Conn.PeerID, plain.Peer = identitytest.ID(t, "spiffe://cluster.local/ns/a/sa/b"), nil
	anon := request()
	anon.Conn.Direction, anon.Peer = stream.Inbound, nil
	gw := request()
	gw.Conn.Direction, gw.Service = stream.Gateway, stream.Service{}
	inPass := tcpEnd()
	inPass.Conn.Direction, inPass.Cluster, inPass.Service = stream.Inbound, "InboundPassthroughCluster", stream.Service{}
	noStatus := request()
	noStatus.Status, noStatus.Flags = 0, stream.FlagDownstreamTermination
	rpc := request()
	rpc.GRPC = true
	tests := []struct {
		name string
		set  telemetry.IstioSettings
		info *stream.Info
		want []string
		not  []string
	}{
		{"outbound", telemetry.IstioSettings{}, request(), []string{`reporter="source",source_workload="productpage-v1"`, `destination_workload="reviews-v1"`,
			`source_principal="unknown"`, `destination_principal="unknown"`, `connection_security_policy="unknown"`, `response_flags="-"`,
			`destination_service="reviews.default.svc.cluster.local"`, `request_protocol="http",response_code="200",response_flags`}, []string{"grpc_response_status"}},
		{"pass-through names the host that was asked for", telemetry.IstioSettings{}, pass, []string{`destination_service="reviews:9080"`,
			`destination_service_name="PassthroughCluster"`, `destination_service_namespace="unknown"`, `destination_workload="unknown"`}, nil},
		{"not at a gateway, whose clients are strangers", telemetry.IstioSettings{}, gw, []string{`reporter="source"`, `destination_service="unknown"`}, nil},
		{"nor where the fallback is off", telemetry.IstioSettings{NoHostFallback: true}, pass, []string{`destination_service="unknown"`, `destination_service_name="PassthroughCluster"`}, nil},
		{"black hole", telemetry.IstioSettings{}, black, []string{`destination_service_name="BlackHoleCluster"`, `response_code="502"`}, nil},
		{"inbound with mTLS and no metadata", telemetry.IstioSettings{}, plain, []string{`reporter="destination",source_workload="unknown"`,
			`source_principal="spiffe://cluster.local/ns/a/sa/b"`, `destination_workload="productpage-v1"`, `connection_security_policy="mutual_tls"`}, nil},
		{"inbound in plaintext", telemetry.IstioSettings{}, anon, []string{`source_principal="unknown"`, `connection_security_policy="none"`}, nil},
		{"inbound pass-through", telemetry.IstioSettings{}, inPass, []string{`destination_service="unknown"`, `destination_service_name="InboundPassthroughCluster"`,
			`destination_service_namespace="default"`}, nil},
		{"the client left before an answer", telemetry.IstioSettings{}, noStatus, []string{`response_code="0"`, `response_flags="DC"`}, nil},
		{"gRPC without a status", telemetry.IstioSettings{}, rpc, []string{`request_protocol="grpc",response_code="200",grpc_response_status="unknown"`}, nil},
		{"waypoint", telemetry.IstioSettings{Waypoint: true}, gw, []string{`reporter="waypoint"`}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, m := newIstio(tt.set)
			name := "istio_requests_total"
			if tt.info.Req == nil {
				name = "istio_tcp_connections_closed_total"
				m.TCP(tt.info)
			} else {
				m.HTTP(tt.info)
			}
			got := series(t, r, name)
			for _, w := range tt.want {
				if !strings.Contains(got, w) {
					t.Errorf("no %s in\n%s", w, got)
				}
			}
			for _, w := range tt.not {
				if strings.Contains(got, w) {
					t.Errorf("%s in\n%s", w, got)
				}
			}
			if !strings.HasSuffix(got, " 1") {
				t.Errorf("not counted once: %s", got)
			}
		})
	}
}

func TestTheNumberOfSeriesIsBounded(t *testing.T) {
	r, m := newIstio(telemetry.IstioSettings{MaxSeries: 10})
	for n := range 50 {
		i := request()
		i.Status = 200 + n
		m.HTTP(i)
		m.HTTP(i)
	}
	if n := strings.Count(series(t, r, "istio_requests_total"), "\n") + 1; n != 10 {
		t.Errorf("%d series, want 10", n)
	}
	if got := r.Counter("weft_proxy_metric_series_overflow_total", "Reports whose label set was not kept because the bound on series was reached.").Value(); got != 80 {
		t.Errorf("%d reports counted as overflow, want 80", got)
	}
}

func TestSeriesDoNotKeepTheMessagesMemory(t *testing.T) {
	r, m := newIstio(telemetry.IstioSettings{})
	i := request()
	i.Service, i.Cluster = stream.Service{}, "PassthroughCluster"
	m.HTTP(i)
	copy(i.Req.Authority, "XXXXXXXXXXXX") // the buffer is used again
	if got := series(t, r, "istio_requests_total"); !strings.Contains(got, `destination_service="reviews:9080"`) {
		t.Errorf("label changed: %s", got)
	}
	i.Req.Authority = []byte("reviews:9080")
	m.HTTP(i)
	if got := series(t, r, "istio_requests_total"); !strings.HasSuffix(got, " 2") {
		t.Errorf("not the same series: %s", got)
	}
}

func TestNothingIsLostWithManyGoroutines(t *testing.T) {
	r, m := newIstio(telemetry.IstioSettings{})
	c := r.Counter("test_total", "Test.")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			i := request()
			for n := range 2000 {
				i.Status = 200 + n%4
				m.HTTP(i)
				c.Inc()
				if n%500 == 0 {
					runtime.Gosched()
					_ = text(t, r)
				}
			}
		})
	}
	wg.Wait()
	if n := strings.Count(series(t, r, "istio_requests_total"), "} 4000\n") + strings.Count(series(t, r, "istio_request_bytes_count"), "} 4000"); n != 3+4 {
		t.Errorf("series are not 4 × 4000:\n%s", series(t, r, "istio_requests_total"))
	}
	if c.Value() != 16000 {
		t.Errorf("counter %d, want 16000", c.Value())
	}
}

func TestRecordingDoesNotAllocate(t *testing.T) {
	r, m := newIstio(telemetry.IstioSettings{})
	c := r.Counter("test_total", "Test.")
	out, in, conn := request(), inboundRequest(t), tcpEnd()
	for name, f := range map[string]func(){
		"outbound": func() { m.HTTP(out) }, "inbound": func() { m.HTTP(in) }, "tcp": func() { m.TCP(conn) }, "counter": c.Inc,
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: allocs = %v, want 0", name, n)
		}
	}
}

// TestExpositionParses gives the text to Prometheus' own parser and, if it is there, promtool.
func TestExpositionParses(t *testing.T) {
	r, m := newIstio(telemetry.IstioSettings{})
	telemetry.RegisterProcess(r, time.Now(), func() bool { return false })
	for _, i := range cases(t) {
		if i.Req != nil {
			m.HTTP(i)
		} else {
			m.TCP(i)
		}
	}
	evil := hostile()
	evil.Service, evil.Req.Authority = stream.Service{}, []byte("a\"b\\c\nd\xff")
	m.HTTP(evil)
	r.Counter("envoy_cluster_upstream_rq_total", "Requests.", telemetry.Label{Name: "envoy_cluster_name", Value: "outbound|80||x"}).Add(3)
	r.Collect(func(e *telemetry.Encoder) {
		e.Family("envoy_listener_downstream_cx_active", "Connections.", telemetry.KindGauge)
		e.Sample("", 2, telemetry.Label{Name: "envoy_listener_address", Value: "0.0.0.0_80"})
	})
	out := text(t, r)
	p := expfmt.NewTextParser(model.UTF8Validation)
	fams, err := p.TextToMetricFamilies(strings.NewReader(out))
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	for _, want := range []string{"istio_requests_total", "istio_build", "process_resident_memory_bytes", "envoy_cluster_upstream_rq_total", "envoy_listener_downstream_cx_active", "go_goroutines"} {
		if fams[want] == nil {
			t.Errorf("no %s", want)
		}
	}
	if v := fams["process_resident_memory_bytes"].GetMetric()[0].GetGauge().GetValue(); v < 1<<20 {
		t.Errorf("resident memory %v", v)
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not installed: only the parser was asked")
		return
	}
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(out)
	lint, err := cmd.CombinedOutput()
	// Istio's and Envoy's names are what they are; the linter would have liked others.
	known := regexp.MustCompile(`(?m)^(istio_request_duration_milliseconds|istio_request_bytes|istio_response_bytes|go_gomaxprocs|process_.*|go_.*) .*$`)
	if rest := strings.TrimSpace(known.ReplaceAllString(string(lint), "")); rest != "" {
		t.Errorf("promtool: %v\n%s", err, rest)
	}
}

func TestRegistryRefusesMistakes(t *testing.T) {
	r := telemetry.NewRegistry()
	a := r.Counter("x_total", "X.", telemetry.Label{Name: "l", Value: "1"})
	if r.Counter("x_total", "X.", telemetry.Label{Name: "l", Value: "1"}) != a {
		t.Error("the same labels gave another counter")
	}
	if r.Counter("x_total", "X.", telemetry.Label{Name: "l", Value: "2"}) == a {
		t.Error("other labels gave the same counter")
	}
	for name, f := range map[string]func(){
		"another kind": func() { r.Gauge("x_total", "X.") },
		"twice":        func() { r.GaugeFunc("y", "Y.", nil); r.GaugeFunc("y", "Y.", nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func BenchmarkHTTP(b *testing.B) {
	_, m := newIstio(telemetry.IstioSettings{})
	b.Run("one", func(b *testing.B) {
		i := request()
		b.ReportAllocs()
		for b.Loop() {
			m.HTTP(i)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			i := request()
			for pb.Next() {
				m.HTTP(i)
			}
		})
	})
}

func BenchmarkWriteText(b *testing.B) {
	r, m := newIstio(telemetry.IstioSettings{})
	for n := range 1000 {
		i := request()
		i.Service.Host = fmt.Sprint("service-", n)
		m.HTTP(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = text(b, r)
	}
}
