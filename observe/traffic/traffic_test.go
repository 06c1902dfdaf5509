package traffic_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/observe/traffic"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// mesh is a few proxies whose counters a test moves.
type mesh struct {
	t     *testing.T
	store *traffic.Store
	now   time.Time
	lines map[string]map[string]float64 // proxy → line → value
}

func newMesh(t *testing.T) *mesh {
	return &mesh{t: t, store: traffic.New(), now: start, lines: map[string]map[string]float64{}}
}

// call is one series of istio_requests_total.
type call struct {
	reporter, source, dest, version, code, policy, more string
}

func (c call) labels() string {
	if c.version == "" {
		c.version = "v1"
	}
	destNS := "default"
	if c.dest == "unknown" {
		destNS = "unknown"
	}
	if c.policy == "" {
		c.policy = "unknown"
	}
	protocol := `request_protocol="http",`
	if strings.Contains(c.more, "request_protocol") {
		protocol = ""
	}
	return fmt.Sprintf(`reporter="%s",source_workload="%s",source_workload_namespace="default",source_canonical_service="%[2]s",source_canonical_revision="v1",`+
		`destination_workload="%[3]s",destination_workload_namespace="%[4]s",destination_canonical_service="%[3]s",destination_canonical_revision="%[5]s",`+
		`destination_service="reviews.default.svc.cluster.local",destination_service_name="reviews",destination_service_namespace="default",`+
		`%[6]sresponse_code="%[7]s",%[8]sconnection_security_policy="%[9]s"`,
		c.reporter, c.source, c.dest, destNS, c.version, protocol, c.code, c.more, c.policy)
}

func (m *mesh) add(proxy string, c call, n float64) {
	m.addLine(proxy, "istio_requests_total{"+c.labels()+"}", n)
}

func (m *mesh) addLine(proxy, line string, n float64) {
	if m.lines[proxy] == nil {
		m.lines[proxy] = map[string]float64{}
	}
	m.lines[proxy][line] += n
}

func (m *mesh) text(proxy string) string {
	var b strings.Builder
	b.WriteString("# HELP istio_requests_total x\n# TYPE istio_requests_total counter\nprocess_open_fds 12\n")
	for l, v := range m.lines[proxy] {
		fmt.Fprintf(&b, "%s %g\n", l, v)
	}
	return b.String()
}

// look scrapes every proxy after a while, and closes the look.
func (m *mesh) look(after time.Duration) {
	m.t.Helper()
	m.now = m.now.Add(after)
	for p := range m.lines {
		if err := m.store.Scrape(p, start.Add(-time.Hour), m.now, strings.NewReader(m.text(p))); err != nil {
			m.t.Fatal(err)
		}
	}
	m.store.Tick(m.now, func(id string) bool { return m.lines[id] != nil })
}

func (m *mesh) one(window time.Duration) (traffic.EdgeTraffic, *traffic.Snapshot) {
	m.t.Helper()
	s := m.store.Snapshot(window)
	if len(s.Edges) != 1 {
		m.t.Fatalf("edges = %+v, want one", s.Edges)
	}
	return s.Edges[0], s
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.IsNaN(want) != math.IsNaN(got) || math.Abs(got-want) > 1e-6 {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

func TestWhatHappenedBeforeTheFirstLookDoesNotCount(t *testing.T) {
	m := newMesh(t)
	c := call{reporter: "source", source: "page", dest: "reviews-v1", code: "200"}
	m.add("page", c, 1000)
	m.look(0)
	m.add("page", c, 20)
	m.look(time.Second)
	m.add("page", c, 10)
	m.look(time.Second)
	e, s := m.one(10 * time.Second)
	near(t, "requests", e.Requests, 30)
	near(t, "seconds", s.Seconds, 2)
	near(t, "rate", s.Rate(e.Requests), 15)
}

func TestTheCallersReportCountsAndTheCalledSideTellsSecurity(t *testing.T) {
	m := newMesh(t)
	ok := call{reporter: "source", source: "page", dest: "reviews-v1", code: "200"}
	bad, denied := ok, ok
	bad.code, denied.code = "503", "403"
	in := ok
	in.reporter, in.policy = "destination", "mutual_tls"
	plain := in
	plain.policy = "none"
	m.add("page", ok, 0)
	m.add("reviews", in, 0)
	m.look(0)
	m.add("page", ok, 6)
	m.add("page", bad, 2)
	m.add("page", denied, 2)
	m.add("reviews", in, 3)
	m.add("reviews", plain, 1)
	m.look(time.Second)
	e, _ := m.one(time.Minute)
	near(t, "requests", e.Requests, 10)
	near(t, "success", e.Success(), 0.8)
	near(t, "refused", e.Refused, 2)
	near(t, "mTLS", e.MTLS(), 0.75)
}

func TestACallerWithoutAProxyIsCountedByTheCalledSide(t *testing.T) {
	m := newMesh(t)
	in := call{reporter: "destination", source: "unknown", dest: "reviews-v1", code: "200", policy: "none"}
	m.add("reviews", in, 0)
	m.look(0)
	m.add("reviews", in, 5)
	m.look(time.Second)
	e, _ := m.one(time.Minute)
	near(t, "requests", e.Requests, 5)
	near(t, "mTLS", e.MTLS(), 0)
	if e.Source.Known() {
		t.Errorf("source %+v is known", e.Source)
	}
}

func TestACounterThatBeganAnewCountsFromZero(t *testing.T) {
	m := newMesh(t)
	c := call{reporter: "source", source: "page", dest: "reviews-v1", code: "200"}
	m.add("page", c, 100)
	m.look(0)
	m.lines["page"] = nil
	m.add("page", c, 7)
	m.look(time.Second)
	e, _ := m.one(time.Minute)
	near(t, "requests", e.Requests, 7)
}

func TestAProxyThatBeganWhileLookingCountsFromZero(t *testing.T) {
	m := newMesh(t)
	m.add("other", call{reporter: "source", source: "x", dest: "unknown", code: "200"}, 1)
	m.look(0)
	began := m.now.Add(time.Second)
	m.now = m.now.Add(3 * time.Second)
	m.add("new", call{reporter: "source", source: "page", dest: "reviews-v1", code: "200"}, 4)
	for _, p := range []string{"new", "other"} {
		if err := m.store.Scrape(p, began, m.now, strings.NewReader(m.text(p))); err != nil {
			t.Fatal(err)
		}
	}
	m.store.Tick(m.now, func(string) bool { return true })
	e, _ := m.one(time.Minute)
	near(t, "requests", e.Requests, 4)
}

func TestALongPauseIsNotARate(t *testing.T) {
	m := newMesh(t)
	c := call{reporter: "source", source: "page", dest: "reviews-v1", code: "200"}
	m.add("page", c, 0)
	m.look(0)
	m.add("page", c, 5)
	m.look(time.Second)
	m.add("page", c, 100000)
	m.look(time.Minute)
	m.add("page", c, 5)
	m.look(time.Second)
	e, s := m.one(traffic.Span)
	near(t, "requests", e.Requests, 10)
	near(t, "seconds", s.Seconds, 2)
	gaps := 0
	for _, p := range s.History[""] {
		if math.IsNaN(p.Rate) {
			gaps++
		}
	}
	if gaps != traffic.Points-2 {
		t.Errorf("points without a look = %d, want %d", gaps, traffic.Points-2)
	}
}

func TestOldTicksLeaveTheWindowThenTheRing(t *testing.T) {
	m := newMesh(t)
	c := call{reporter: "source", source: "page", dest: "reviews-v1", code: "200"}
	m.add("page", c, 0)
	m.look(0)
	m.add("page", c, 50)
	for range 11 {
		m.look(time.Second)
	}
	e, s := m.one(10 * time.Second)
	near(t, "requests in the window", e.Requests, 0)
	near(t, "seconds", s.Seconds, 10)
	e, _ = m.one(time.Minute)
	near(t, "requests in a minute", e.Requests, 50)
	for range 300 {
		m.look(time.Second)
	}
	if s := m.store.Snapshot(traffic.Span); len(s.Edges) != 0 {
		t.Errorf("edges after Span = %+v, want none", s.Edges)
	}
}

func TestQuantilesInterpolateWithinABucket(t *testing.T) {
	tests := []struct {
		name    string
		buckets map[string]float64
		q, want float64
	}{
		{"half of what is between 5 and 10 ms", map[string]float64{"5": 0, "10": 100, "25": 100, "+Inf": 100}, 0.5, 7.5},
		{"the first bucket begins at zero", map[string]float64{"0.5": 100, "+Inf": 100}, 0.5, 0.25},
		{"beyond the last bound is the last bound", map[string]float64{"3600000": 0, "+Inf": 10}, 0.99, 3600000},
		{"without requests there is none", map[string]float64{"5": 0, "+Inf": 0}, 0.5, math.NaN()},
		{"empty buckets between are skipped", map[string]float64{"1": 50, "5": 50, "10": 50, "25": 100, "+Inf": 100}, 0.75, 17.5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMesh(t)
			c := call{reporter: "source", source: "page", dest: "reviews-v1", code: "200"}
			// Every bound is there, as a proxy writes them.
			all := []string{"0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000", "300000", "600000", "1800000", "3600000", "+Inf"}
			value := 0.0
			m.add("page", c, 0)
			m.look(0)
			m.add("page", c, 100)
			for _, le := range all {
				if v, ok := tt.buckets[le]; ok {
					value = v
				}
				m.addLine("page", "istio_request_duration_milliseconds_bucket{"+c.labels()+`,le="`+le+`"}`, value)
			}
			m.look(time.Second)
			e, _ := m.one(time.Minute)
			near(t, "quantile", e.Quantile(tt.q), tt.want)
		})
	}
}

func TestGRPCStatusDecidesWhoseFaultItIs(t *testing.T) {
	tests := []struct {
		name, status    string
		failed, refused float64
	}{
		{"OK", "0", 0, 0},
		{"NOT_FOUND is the caller's", "5", 0, 1},
		{"PERMISSION_DENIED is a refusal", "7", 0, 1},
		{"UNAVAILABLE is a failure", "14", 1, 0},
		{"no status at all is a failure", "unknown", 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMesh(t)
			c := call{reporter: "source", source: "page", dest: "reviews-v1", code: "200", more: `request_protocol="grpc",grpc_response_status="` + tt.status + `",`}
			m.add("other", call{reporter: "x"}, 0)
			m.add("page", c, 0)
			m.look(0)
			m.add("page", c, 1)
			m.look(time.Second)
			e, _ := m.one(time.Minute)
			near(t, "failed", e.Failed, tt.failed)
			near(t, "refused", e.Refused, tt.refused)
		})
	}
}

func TestOpenConnectionsAreTheDifferenceOfTwoCounters(t *testing.T) {
	m := newMesh(t)
	c := call{reporter: "source", source: "page", dest: "reviews-v1", more: `request_protocol="tcp",`}
	opened, closed := "istio_tcp_connections_opened_total{"+c.labels()+"}", "istio_tcp_connections_closed_total{"+c.labels()+"}"
	sent := "istio_tcp_sent_bytes_total{" + c.labels() + "}"
	m.addLine("page", opened, 3)
	m.addLine("page", closed, 1)
	m.addLine("page", sent, 10)
	m.look(0)
	m.addLine("page", opened, 2)
	m.addLine("page", sent, 4096)
	m.look(time.Second)
	e, _ := m.one(time.Minute)
	near(t, "opened", e.Opened, 2)
	near(t, "open", e.Open, 4)
	near(t, "sent", e.Sent, 4096)
	m.addLine("page", closed, 4)
	m.look(time.Second)
	e, _ = m.one(time.Minute)
	near(t, "open after all were closed", e.Open, 0)
}

func TestAnAnswerCutShortIsNotMistakenForSmallerNumbers(t *testing.T) {
	m := newMesh(t)
	c := call{reporter: "source", source: "page", dest: "reviews-v1", code: "200"}
	m.add("page", c, 100)
	m.look(0)
	text := "istio_requests_total{" + c.labels() + "} 12" // of 123
	m.now = m.now.Add(time.Second)
	if err := m.store.Scrape("page", start, m.now, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	m.store.Tick(m.now, func(string) bool { return true })
	if s := m.store.Snapshot(time.Minute); len(s.Edges) != 0 {
		t.Errorf("edges = %+v, want none", s.Edges)
	}
	err := m.store.Scrape("page", start, m.now, bytes.NewReader(make([]byte, traffic.MaxScrape+1)))
	if !errors.Is(err, traffic.ErrTooLong) {
		t.Errorf("endless answer: error = %v, want %v", err, traffic.ErrTooLong)
	}
}

func TestTooManyEdgesAreToldNotKept(t *testing.T) {
	m := newMesh(t)
	for i := range traffic.MaxEdges + 50 {
		m.add("page", call{reporter: "source", source: "page", dest: fmt.Sprintf("w%d", i), code: "200"}, 1)
	}
	m.look(0)
	for l := range m.lines["page"] {
		m.lines["page"][l]++
	}
	m.look(time.Second)
	s := m.store.Snapshot(time.Minute)
	if len(s.Edges) != traffic.MaxEdges || !s.Truncated {
		t.Errorf("edges = %d, truncated = %t; want %d, true", len(s.Edges), s.Truncated, traffic.MaxEdges)
	}
}

func TestTheSumOfAHistoryIsTheSumOfItsServices(t *testing.T) {
	m := newMesh(t)
	c := call{reporter: "source", source: "page", dest: "reviews-v1", code: "500"}
	m.add("page", c, 0)
	m.look(0)
	for range 20 {
		m.add("page", c, 3)
		m.look(time.Second)
	}
	_, s := m.one(time.Minute)
	all, one := s.History[""], s.History["default/reviews"]
	last := traffic.Points - 1
	near(t, "rate", one[last-1].Rate, 3)
	near(t, "failed", one[last-1].Failed, 3)
	near(t, "rate of all", all[last-1].Rate, one[last-1].Rate)
}

func FuzzScrape(f *testing.F) {
	f.Add("istio_requests_total{" + call{reporter: "source", source: "a", dest: "b", code: "200"}.labels() + "} 1\n")
	f.Add(`istio_requests_total{reporter="source",x="\"}` + "\n")
	f.Add(`istio_requests_total{reporter="a\nb",le="x"} NaN 12` + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := traffic.New()
		for i := range 3 {
			now := start.Add(time.Duration(i) * time.Second)
			if err := s.Scrape("p", start, now, strings.NewReader(text)); err != nil {
				t.Fatal(err)
			}
			s.Tick(now, func(string) bool { return true })
		}
		for _, e := range s.Snapshot(time.Minute).Edges {
			if e.Requests < 0 || e.Failed > e.Requests || e.Secured > e.Known {
				t.Errorf("edge %+v makes no sense", e)
			}
		}
	})
}

// TestLookingCostsLittle pins that lines seen before are counted without allocating.
func TestLookingCostsLittle(t *testing.T) {
	m := newMesh(t)
	for i := range 200 {
		m.add("page", call{reporter: "source", source: "page", dest: fmt.Sprintf("w%d", i), code: "200"}, 1)
	}
	m.look(0)
	text := m.text("page")
	r := strings.NewReader(text)
	n := testing.AllocsPerRun(50, func() {
		r.Reset(text)
		if err := m.store.Scrape("page", start, m.now, r); err != nil {
			t.Fatal(err)
		}
	})
	if n > 10 {
		t.Errorf("allocations for 200 known lines = %v, want at most 10", n)
	}
}
