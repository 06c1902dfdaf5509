package protocol

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// stat reads a metric, with its labels if it has some.
func (r *rig) stat(name string) float64 {
	r.t.Helper()
	code, text, err := r.tryGet("/stats/prometheus")
	if err != nil || code != 200 {
		r.t.Fatalf("metrics: %d, %v", code, err)
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			var v float64
			if _, err := fmt.Sscan(rest, &v); err != nil {
				r.t.Fatal(err)
			}
			return v
		}
	}
	r.t.Fatalf("no metric %s", name)
	return 0
}

// clusterStat reads a metric of a cluster.
func (r *rig) clusterStat(name, cluster string) float64 {
	return r.stat(fmt.Sprintf(`%s{cluster_name="%s"}`, name, cluster))
}

// held is requests whose answers the application holds back.
type held struct {
	mu    sync.Mutex
	conns []net.Conn
}

// soon is how long a request is given that is expected to be held, so that one that is turned away is seen; answers to those that
// must get one are waited for.
const soon = 20 * time.Millisecond

// ask sends a request and waits for an answer; the connection stays open. status is 0 if none came within the time.
func (h *held) ask(port int, head string, within time.Duration) (status int, header http.Header, err error) {
	c, err := dial(port)
	if err != nil {
		return 0, nil, err
	}
	h.mu.Lock()
	h.conns = append(h.conns, c)
	h.mu.Unlock()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprint(c, head); err != nil {
		return 0, nil, err
	}
	_ = c.SetReadDeadline(time.Now().Add(within))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, resp.Header, nil
}

// turnedAway is how many requests and connections were, by the proxy's own count.
func (r *rig) turnedAway() float64 {
	r.t.Helper()
	return r.stat("envoy_http_downstream_rq_overload_close") + r.stat("envoy_listener_downstream_cx_overload_reject")
}

func (h *held) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		_ = c.Close()
	}
	h.conns = nil
}

// A small proxy that is given more than fits turns requests away, stays what it was for those that
// it has and for its operators, and is well again when the load has gone.
func TestAProxyUnderMemoryPressureShedsAndRecovers(t *testing.T) {
	const limit = 72 << 20
	app := proxytest.StartApp(t, "app")
	release := make(chan struct{})
	var once sync.Once
	let := func() { once.Do(func() { close(release) }) }
	defer let()
	app.Handle(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/hold") {
			<-release
		}
		fmt.Fprint(w, "ok")
	})
	r := startRig(t, rigOptions{app: app.Port, args: []string{"--memory-limit", "72Mi"}})
	if got := r.stat("weft_proxy_memory_limit_bytes"); got != limit {
		t.Fatalf("limit %v, want %d", got, limit)
	}
	var h held
	defer h.close()
	head := "GET /hold HTTP/1.1\r\nHost: app\r\n"
	for i := range 50 {
		head += fmt.Sprintf("x-filler-%d: %s\r\n", i, strings.Repeat("f", 1000))
	}
	head += "\r\n"
	shed, refused, probes, worst := 0, 0, 0, int64(0)
	for n := 0; n < 6000 && shed+refused < 20; n++ {
		status, _, err := h.ask(r.plain, head, soon)
		switch {
		case status == 503:
			shed++
		case err != nil:
			refused++
		case status != 0:
			t.Fatalf("status %d", status)
		}
		if n%100 == 0 { // operators are never turned away
			if away := int(r.turnedAway()); away >= 20 { // a busy machine answers later than soon
				shed, refused = away, 0
			}
			probes++
			worst = max(worst, r.rss())
			if code, _, err := r.tryGet("/ready"); err != nil || code != 200 {
				t.Errorf("readiness under pressure: %d, %v", code, err)
			}
		}
	}
	h.mu.Lock()
	n := len(h.conns)
	h.mu.Unlock()
	t.Logf("%d requests with 50 KB of headers held, %d shed, %d refused; resident at most %d MB of %d MB", n, shed, refused, worst>>20, limit>>20)
	if shed+refused < 20 {
		t.Fatalf("%d of %d requests were turned away", shed+refused, n)
	}
	if worst > limit+(16<<20) { // files and stacks are not the heap's
		t.Errorf("resident memory reached %d MB", worst>>20)
	}
	for _, m := range []string{"envoy_overload_envoy_overload_actions_shrink_heap_active", "envoy_overload_envoy_overload_actions_stop_accepting_requests_active"} {
		if r.stat(m) != 1 {
			t.Errorf("%s is not 1", m)
		}
	}
	if r.turnedAway() < 20 || r.stat("envoy_overload_envoy_resource_monitors_fixed_heap_pressure") < 80 {
		t.Error("the metrics know nothing of it")
	}
	let()
	h.close()
	proxytest.Until(t, "requests to be taken again", func() bool {
		code, _, _, err := proxytest.TryCall("GET", r.plain, "/")
		return err == nil && code == 200
	})
	proxytest.Until(t, "all actions to end", func() bool {
		return r.stat("envoy_overload_envoy_overload_actions_shrink_heap_active") == 0
	})
	// Within seconds when it is quiet; what else runs on the machine may put that off, but not beyond 30 s.
	for end := time.Now().Add(40 * time.Second); r.rss() >= 48<<20 && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	if rss := r.rss(); rss >= 48<<20 {
		t.Errorf("resident %d MB: the memory is not given back", rss>>20)
	}
	t.Logf("resident %d MB afterwards", r.rss()>>20)
}

func TestRequestsAndConnectionsAreBoundedByFlags(t *testing.T) {
	app := proxytest.StartApp(t, "app")
	release := make(chan struct{})
	var holding atomic.Int64
	app.Handle(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			holding.Add(1)
			<-release
		}
		fmt.Fprint(w, "ok")
	})
	r := startRig(t, rigOptions{app: app.Port, args: []string{"--max-requests", "3", "--max-connections", "8"}})
	var h held
	defer h.close()
	const hold = "GET /hold HTTP/1.1\r\nHost: app\r\n\r\n"
	for range 3 {
		if status, _, err := h.ask(r.plain, hold, soon); status != 0 || err != nil {
			t.Fatalf("a request within the bound: %d, %v", status, err)
		}
	}
	proxytest.Until(t, "three requests to be held", func() bool { return holding.Load() == 3 })
	status, header, err := h.ask(r.plain, hold, time.Minute)
	if err != nil || status != 503 || header.Get("x-envoy-overloaded") != "true" {
		t.Errorf("the fourth request: %d, %v, %v; want 503", status, header, err)
	}
	status, header, err = h.ask(r.plain, "POST /p.S/M HTTP/1.1\r\nHost: app\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n", time.Minute)
	if err != nil || status != 200 || header.Get("grpc-status") != "14" || header.Get("x-envoy-overloaded") != "true" {
		t.Errorf("gRPC beyond the bound: %d, %v, %v; want UNAVAILABLE", status, header, err)
	}
	proxytest.Until(t, "the access log to tell why", func() bool {
		b, _ := os.ReadFile(filepath.Join(r.dir, "access.log"))
		return bytes.Contains(b, []byte(" 503 OM overload ")) && r.stat("envoy_http_downstream_rq_overload_close") == 2
	})
	for range 3 {
		c, err := dial(r.plain)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	proxytest.Until(t, "eight connections", func() bool { return r.stat("envoy_server_total_connections") == 8 })
	if status, _, err := h.ask(r.plain, hold, time.Minute); err == nil {
		t.Errorf("the ninth connection: answered with %d", status)
	}
	if code, _, err := r.tryGet("/ready"); err != nil || code != 200 {
		t.Errorf("readiness: %d, %v", code, err)
	}
	close(release)
	h.close()
	proxytest.Until(t, "requests to be taken again", func() bool {
		code, _, _, err := proxytest.TryCall("GET", r.plain, "/")
		return err == nil && code == 200
	})
	if n := r.stat("envoy_listener_downstream_cx_overflow"); n < 1 {
		t.Errorf("%v overflows counted", n)
	}
}

// Buffers of a burst are given back when it is over, although nothing allocates any more.
func TestABurstsMemoryIsGivenBackSoon(t *testing.T) {
	t.Parallel() // waits more than it works
	app := proxytest.StartApp(t, "app")
	app.Handle(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 64<<10)) })
	r := startRig(t, rigOptions{app: app.Port})
	time.Sleep(2500 * time.Millisecond) // the program gives back what its start took
	before := r.rss()
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 1500 {
		c, err := dial(r.plain)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for range 2 { // all at once, answers unread: every connection has its buffers
		for _, c := range conns {
			if _, err := fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range conns {
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
	}
	peak := r.rss()
	began := time.Now()
	ups := r.clusterStat("envoy_cluster_upstream_cx_active", "h1")
	want := before + int64(1500+ups)*(14<<10) + 4<<20 // a stack of 8 KB for each client's, 5 KB of heap, and what may stay
	for d := time.Duration(0); r.rss() >= want; d = time.Since(began) {
		if d > time.Minute {
			t.Fatalf("%d KB before, %d KB at its peak, still %d KB after %v, want less than %d KB; given back %v times, heap %v, %d goroutines",
				before>>10, peak>>10, r.rss()>>10, d, want>>10, r.stat("weft_proxy_memory_given_back_total"), r.stat("envoy_server_memory_heap_size"), r.goroutines())
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%d KB before, %d KB at its peak, %d KB after %v with 1,500 idle connections of clients and %v to the upstream",
		before>>10, peak>>10, r.rss()>>10, time.Since(began).Round(100*time.Millisecond), ups)
	if want >= peak {
		t.Errorf("the burst took only %d KB: nothing is shown", (peak-before)>>10)
	}
}
