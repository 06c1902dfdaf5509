package console

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/api/admin"
)

// fake is a mesh of a gateway, productpage, reviews in two versions, and a caller without a proxy.
type fake struct {
	mu        sync.Mutex         // protects the following
	calls     map[string]float64 // of each series of a pod; goes up at each scrape
	scrapes   int
	hang      bool // the control plane does not answer
	statusErr error
	podsErr   error
	objects   []admin.Object
}

func (f *fake) Status(ctx context.Context) (*admin.ControlStatus, error) {
	f.mu.Lock()
	if f.hang {
		f.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	defer f.mu.Unlock()
	if f.statusErr != nil {
		return nil, f.statusErr
	}
	ok := map[string]admin.TypeStatus{"CDS": {State: admin.SyncSynced}, "SDS": {State: admin.SyncNotSent}}
	bad := map[string]admin.TypeStatus{"CDS": {State: admin.SyncRefused, LastNack: &admin.Nack{Reason: "no"}}}
	lost := time.Now()
	return &admin.ControlStatus{
		Version: "1", World: "w/1", Objects: len(f.objects), Services: 1,
		Problems: []admin.Diagnostic{{Severity: admin.SeverityError, Message: "what"}},
		Proxies: []admin.ProxyStatus{
			{Namespace: "default", Pod: "productpage-1", Type: "sidecar", Types: ok},
			{Namespace: "default", Pod: "reviews-v2-1", Type: "sidecar", Types: bad},
			{Namespace: "weft-system", Pod: "gw-1", Type: "router", Types: ok},
			{Namespace: "default", Pod: "old", Type: "sidecar", Lost: &lost},
		},
	}, nil
}

func (f *fake) Objects(context.Context) ([]admin.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.objects, nil
}

func fakePod(ns, name, deployment, app string, ready bool, containers ...string) admin.Pod {
	p := admin.Pod{Namespace: ns, Name: name, Deployment: deployment, Labels: map[string]string{"app": app}, Phase: admin.PodRunning, Ready: ready}
	for _, c := range containers {
		p.Containers = append(p.Containers, admin.Container{Name: c, PID: 1})
	}
	return p
}

func (f *fake) Pods(context.Context) ([]admin.Pod, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []admin.Pod{
		fakePod("default", "productpage-1", "productpage-v1", "productpage", true, "app", "istio-proxy"),
		fakePod("default", "reviews-v1-1", "reviews-v1", "reviews", true, "app", "istio-proxy"),
		fakePod("default", "reviews-v2-1", "reviews-v2", "reviews", false, "app", "istio-proxy"),
		fakePod("legacy", "sleep-1", "sleep", "sleep", true, "app"),
		fakePod("weft-system", "gw-1", "istio-ingressgateway", "gw", true, "istio-proxy"),
	}, f.podsErr
}

const series = `istio_requests_total{reporter="%s",source_workload="%s",source_workload_namespace="%s",source_canonical_service="%[2]s",source_canonical_revision="v1",` +
	`destination_workload="%[4]s",destination_workload_namespace="default",destination_canonical_service="%[5]s",destination_canonical_revision="%[6]s",` +
	`destination_service="%[5]s.default.svc.cluster.local",destination_service_name="%[5]s",destination_service_namespace="default",` +
	`request_protocol="http",response_code="%[7]s",connection_security_policy="%[8]s"} %[9]g` + "\n"

func (f *fake) Metrics(_ context.Context, ns, pod string) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scrapes++
	if f.calls == nil {
		f.calls = map[string]float64{}
	}
	f.calls[pod] += 2
	n := f.calls[pod]
	var b strings.Builder
	line := func(reporter, source, sourceNS, dest, app, version, code, policy string) {
		fmt.Fprintf(&b, series, reporter, source, sourceNS, dest, app, version, code, policy, n)
	}
	switch ns + "/" + pod {
	case "weft-system/gw-1":
		line("source", "istio-ingressgateway", "weft-system", "productpage-v1", "productpage", "v1", "200", "unknown")
	case "default/productpage-1":
		line("destination", "istio-ingressgateway", "weft-system", "productpage-v1", "productpage", "v1", "200", "mutual_tls")
		line("source", "productpage-v1", "default", "reviews-v1", "reviews", "v1", "200", "unknown")
		line("source", "productpage-v1", "default", "reviews-v1", "reviews", "v1", "503", "unknown")
		line("source", "productpage-v1", "default", "unknown", "reviews", "v1", "503", "unknown")
	case "default/reviews-v1-1":
		line("destination", "unknown", "unknown", "reviews-v1", "reviews", "v1", "200", "none")
	case "default/reviews-v2-1":
		return nil, errors.New("connection refused")
	default:
		return nil, fmt.Errorf("no proxy in %s/%s", ns, pod)
	}
	return io.NopCloser(strings.NewReader(b.String())), nil
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.scrapes
}

var reviewsService = admin.Object{APIVersion: "v1", Kind: "Service", Namespace: "default", Name: "reviews", Source: "a.yaml", Raw: json.RawMessage(`{"kind":"Service","spec":{"selector":{"app":"reviews"}}}`)}

func newServer(t *testing.T, f *fake) *Server {
	t.Helper()
	s, err := New(Settings{Mesh: f})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends one request as a browser's own page would.
func ask(h http.Handler, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.Host = "localhost:8090"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if w.Code != http.StatusOK {
		t.Fatalf("answer %d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return v
}

// running runs a server's looking in the bubble until the test ends.
func running(t *testing.T, f *fake) *Server {
	s := newServer(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func TestNothingIsReadWhenNobodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		s := running(t, f)
		time.Sleep(time.Hour)
		if n := f.count(); n != 0 {
			t.Fatalf("scrapes before anybody looked = %d, want none", n)
		}
		ask(s.Handler(), "/api/v1/overview")
		time.Sleep(time.Minute)
		n := f.count()
		if n == 0 || n > 4*10 {
			t.Errorf("scrapes after one look = %d, want those of about %s", n, attention)
		}
		time.Sleep(time.Hour)
		if m := f.count(); m != n {
			t.Errorf("scrapes went on: %d, then %d", n, m)
		}
	})
}

func TestOverviewTellsRatesSuccessAndSecurity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{objects: []admin.Object{reviewsService}}
		s := running(t, f)
		o := decode[map[string]any](t, ask(s.Handler(), "/api/v1/overview?window=10"))
		if o["covered"].(float64) <= 0 {
			t.Fatalf("the first answer has no rates: %v", o)
		}
		want := map[string]any{"total": 5.0, "ready": 4.0}
		if diff := cmp.Diff(want, o["pods"]); diff != "" {
			t.Error("pods:", diff)
		}
		if diff := cmp.Diff(map[string]any{"total": 3.0, "ready": 2.0}, o["proxies"]); diff != "" {
			t.Error("proxies:", diff)
		}
		if o["refused"] != 1.0 || o["problems"] != 1.0 {
			t.Errorf("refused = %v, problems = %v; want 1, 1", o["refused"], o["problems"])
		}
		rows := map[string]map[string]any{}
		for _, r := range o["services"].([]any) {
			row := r.(map[string]any)
			rows[row["name"].(string)] = row
		}
		reviews := rows["reviews"]
		tr := reviews["traffic"].(map[string]any)
		// Two calls that succeeded, one by each caller, and two that failed.
		if tr["success"] != 0.5 || tr["mtls"] != 0.0 || tr["rate"].(float64) <= 0 {
			t.Errorf("reviews = %v, want half to succeed, none over mTLS", tr)
		}
		if diff := cmp.Diff(map[string]any{"total": 2.0, "ready": 1.0}, reviews["pods"]); diff != "" {
			t.Error("pods of reviews:", diff)
		}
		versions := []any{
			map[string]any{"version": "unknown", "share": 0.25, "success": 0.0},
			map[string]any{"version": "v1", "share": 0.75, "success": 0.6667},
		}
		if diff := cmp.Diff(versions, reviews["versions"]); diff != "" {
			t.Error("versions of reviews:", diff)
		}
		page := rows["productpage"]["traffic"].(map[string]any)
		if page["success"] != 1.0 || page["mtls"] != 1.0 || page["p50"] != nil || rows["productpage"]["known"] != false {
			t.Errorf("productpage = %v, want all to succeed over mTLS, no latency, not configured", rows["productpage"])
		}
	})
}

func TestGraphNamesWhoCallsWhom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, &fake{})
		g := decode[struct {
			Nodes []struct{ ID, Kind, App, Version string }
			Edges []struct {
				Source, Target, Service string
				Traffic                 struct{ Success, MTLS *float64 }
			}
		}](t, ask(s.Handler(), "/api/v1/graph"))
		var nodes, edges []string
		for _, n := range g.Nodes {
			nodes = append(nodes, n.Kind+" "+n.ID)
		}
		for _, e := range g.Edges {
			edges = append(edges, fmt.Sprintf("%s > %s success %.2f", e.Source, e.Target, *e.Traffic.Success))
		}
		wantNodes := []string{
			"outside outside",
			"service service:default/reviews",
			"workload workload:default/productpage-v1",
			"workload workload:default/reviews-v1",
			"gateway workload:weft-system/istio-ingressgateway",
		}
		wantEdges := []string{
			"outside > workload:default/reviews-v1 success 1.00",
			"workload:default/productpage-v1 > service:default/reviews success 0.00",
			"workload:default/productpage-v1 > workload:default/reviews-v1 success 0.50",
			"workload:weft-system/istio-ingressgateway > workload:default/productpage-v1 success 1.00",
		}
		if diff := cmp.Diff(wantNodes, nodes); diff != "" {
			t.Error("nodes:", diff)
		}
		if diff := cmp.Diff(wantEdges, edges); diff != "" {
			t.Error("edges:", diff)
		}
	})
}

func TestWhatCannotBeReadIsToldAndTheRestIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{objects: []admin.Object{reviewsService}}
		s := running(t, f)
		ask(s.Handler(), "/api/v1/overview")
		f.mu.Lock()
		f.statusErr = errors.New("control.sock: not running")
		f.mu.Unlock()
		time.Sleep(2 * time.Second)
		o := decode[struct {
			Control struct{ Error, Version string }
			Proxies Ready
		}](t, ask(s.Handler(), "/api/v1/overview"))
		if o.Control.Error != "control.sock: not running" || o.Control.Version != "1" || o.Proxies.Total != 3 {
			t.Errorf("overview without a control plane = %+v, want the error and what was known", o)
		}
		pods := decode[PodList](t, ask(s.Handler(), "/api/v1/pods"))
		if pods.ScrapeErrors["default/reviews-v2-1"] != "connection refused" || len(pods.ScrapeErrors) != 1 {
			t.Errorf("scrape errors = %v, want that of reviews-v2", pods.ScrapeErrors)
		}
		if p := decode[ProxyList](t, ask(s.Handler(), "/api/v1/proxies")); p.World != "w/1" || len(p.Items) != 4 || p.Error == "" {
			t.Errorf("proxies = %+v", p)
		}
	})
}

func TestAControlPlaneThatHangsHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		s := running(t, f)
		ask(s.Handler(), "/api/v1/overview")
		f.mu.Lock()
		f.hang = true
		f.mu.Unlock()
		time.Sleep(3 * time.Second)
		before := f.count()
		o := decode[struct {
			Control struct{ Error string }
			Covered float64
		}](t, ask(s.Handler(), "/api/v1/overview?window=10"))
		time.Sleep(4 * time.Second)
		if f.count()-before < 3*4 || o.Covered < 2 || o.Control.Error != context.DeadlineExceeded.Error() {
			t.Errorf("%d scrapes in four seconds, overview %+v", f.count()-before, o)
		}
	})
}

func TestObjectsAreShownAsYAMLWithoutSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{objects: []admin.Object{
			reviewsService,
			{Kind: "Secret", Namespace: "default", Name: "s", Raw: json.RawMessage(`{"kind":"Secret","data":{"key":"c2VjcmV0"},"stringData":{"a":"geheim"}}`)},
			{Kind: "Deployment", Namespace: "default", Name: "d", Raw: json.RawMessage(`{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"geheim"}},"spec":{"template":{"spec":{"containers":[{"env":[{"name":"DB_PASSWORD","value":"geheim"},{"name":"PORT","value":"9080"}]}]}}}}`)},
		}}
		s := running(t, f)
		list := decode[ObjectList](t, ask(s.Handler(), "/api/v1/objects"))
		if len(list.Items) != 3 || list.Items[0].Source != "a.yaml" || len(list.Problems) != 1 {
			t.Errorf("objects = %+v", list)
		}
		o := decode[Object](t, ask(s.Handler(), "/api/v1/object?kind=Service&namespace=default&name=reviews"))
		if want := "kind: Service\nspec:\n  selector:\n    app: reviews\n"; o.YAML != want {
			t.Errorf("YAML = %q, want %q", o.YAML, want)
		}
		for _, path := range []string{"kind=Secret&namespace=default&name=s", "kind=Deployment&namespace=default&name=d"} {
			o := decode[Object](t, ask(s.Handler(), "/api/v1/object?"+path))
			if strings.Contains(o.YAML, "geheim") || strings.Contains(o.YAML, "c2VjcmV0") || !strings.Contains(o.YAML, hidden) {
				t.Errorf("%s shows a secret:\n%s", path, o.YAML)
			}
			if strings.Contains(path, "Deployment") && !strings.Contains(o.YAML, "9080") {
				t.Errorf("%s hides what is none:\n%s", path, o.YAML)
			}
		}
		if w := ask(s.Handler(), "/api/v1/object?kind=Service&namespace=default&name=none"); w.Code != http.StatusNotFound {
			t.Errorf("an object that is not: answer %d", w.Code)
		}
	})
}

func TestGuard(t *testing.T) {
	tests := []struct {
		name, method, host, path, site, body string
		want                                 int
	}{
		{"localhost", "GET", "localhost:8090", "/", "", "", 200},
		{"localhost in capitals", "GET", "LocalHost", "/", "", "", 200},
		{"the loopback address", "GET", "127.0.0.1:18090", "/", "", "", 200},
		{"the loopback address of IPv6", "GET", "[::1]:8090", "/", "", "", 200},
		{"IPv6 without a port", "GET", "[::1]", "/", "", "", 200},
		{"HEAD", "HEAD", "localhost", "/", "", "", 200},
		{"another name (DNS rebinding)", "GET", "attacker.example:8090", "/api/v1/pods", "", "", 403},
		{"a name that begins like ours", "GET", "localhost.attacker.example", "/", "", "", 403},
		{"a name that ends like ours", "GET", "attacker.localhost", "/", "", "", 403},
		{"another loopback address", "GET", "127.0.0.2", "/", "", "", 403},
		{"all addresses", "GET", "0.0.0.0:8090", "/", "", "", 403},
		{"our address as IPv6", "GET", "[::ffff:127.0.0.1]:8090", "/", "", "", 403},
		{"no name", "GET", "", "/", "", "", 403},
		{"a port that is none", "GET", "localhost:evil", "/", "", "", 403},
		{"POST", "POST", "localhost", "/api/v1/pods", "", "", 405},
		{"OPTIONS gets no CORS answer", "OPTIONS", "localhost", "/api/v1/pods", "", "", 405},
		{"a body", "GET", "localhost", "/", "", "x", 400},
		{"another site's page", "GET", "localhost", "/api/v1/events", "cross-site", "", 403},
		{"a page on another port of localhost", "GET", "localhost", "/api/v1/events", "same-site", "", 403},
		{"a link from another site", "GET", "localhost", "/", "cross-site", "", 200},
		{"no such file", "GET", "localhost", "/../../etc/passwd", "", "", 404},
		{"no such endpoint", "GET", "localhost", "/api/v1/none", "", "", 404},
		{"a window that is none", "GET", "localhost", "/api/v1/graph?window=7", "", "", 400},
	}
	s := newServer(t, &fake{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, "http://x"+tt.path, strings.NewReader(tt.body))
			r.Host = tt.host
			r.URL.Path, _, _ = strings.Cut(tt.path, "?")
			if tt.site != "" {
				r.Header.Set("Sec-Fetch-Site", tt.site)
			}
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			if w.Code == http.StatusTemporaryRedirect || w.Code == http.StatusMovedPermanently {
				w.Code = http.StatusNotFound // the mux cleans the path first
			}
			if w.Code != tt.want {
				t.Errorf("answer %d: %s; want %d", w.Code, w.Body, tt.want)
			}
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Content-Security-Policy": policy, "Access-Control-Allow-Origin": ""} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestThePageHasNothingThatItsPolicyForbids(t *testing.T) {
	s := newServer(t, &fake{})
	index := ask(s.Handler(), "/").Body.String()
	for _, part := range []string{"<style", "style=", "onload=", "javascript:", "http://", "https://"} {
		if strings.Contains(index, part) {
			t.Errorf("index.html has %q:\n%s", part, index)
		}
	}
	for rest := index; ; {
		_, after, ok := strings.Cut(rest, "<script")
		if !ok {
			break
		}
		tag, body, _ := strings.Cut(after, ">")
		if !strings.Contains(tag, "src=") || !strings.HasPrefix(strings.TrimSpace(body), "</script>") {
			t.Errorf("an inline script: <script%s>", tag)
		}
		rest = body
	}
	for _, part := range strings.Split(index, `"`) {
		if !strings.HasPrefix(part, "/") || part == "/" || strings.HasPrefix(part, "/>") {
			continue
		}
		w := ask(s.Handler(), part)
		if w.Code != http.StatusOK {
			t.Errorf("index.html names %s: answer %d", part, w.Code)
		}
		r := httptest.NewRequest("GET", part, nil)
		r.Host = "localhost"
		r.Header.Set("If-None-Match", w.Header().Get("ETag"))
		again := httptest.NewRecorder()
		s.Handler().ServeHTTP(again, r)
		if again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("%s again: answer %d of %d bytes, want 304", part, again.Code, again.Body.Len())
		}
	}
}

// pipes is a listener of connections in memory.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(t *testing.T) net.Conn {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
	case <-p.done:
		t.Fatal("the listener is closed")
	}
	return ours
}

func TestEventsComeOnceASecondUntilTheServerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		s := newServer(t, f)
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, l) }()
		c := l.dial(t)
		defer c.Close()
		fmt.Fprint(c, "GET /api/v1/events?window=10 HTTP/1.1\r\nHost: localhost:8090\r\n\r\n")
		var events atomic.Int32
		lastEvent := make(chan string, 1)
		go func() {
			sc := bufio.NewScanner(c)
			sc.Buffer(nil, 1<<20)
			last := ""
			for sc.Scan() {
				if d, ok := strings.CutPrefix(sc.Text(), "data: "); ok {
					events.Add(1)
					last = d
				}
			}
			lastEvent <- last
		}()
		time.Sleep(60 * time.Second)
		if n := events.Load(); n < 58 || n > 66 {
			t.Errorf("events in a minute = %d, want about 62", n)
		}
		before := f.count()
		time.Sleep(10 * time.Second)
		if n := f.count() - before; n != 4*10 {
			t.Errorf("scrapes in ten seconds = %d, want one of each of 4 proxies a second", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		var e struct {
			Overview  struct{ Covered float64 }
			Graph     struct{ Edges []any }
			Revisions Revisions
		}
		if err := json.Unmarshal([]byte(<-lastEvent), &e); err != nil {
			t.Fatal(err)
		}
		if e.Overview.Covered < 8 || e.Overview.Covered > 11 || len(e.Graph.Edges) != 4 || e.Revisions.Pods != 1 {
			t.Errorf("last event = %+v", e)
		}
	})
}

func TestTooManyViewersAreSentAway(t *testing.T) {
	s := newServer(t, &fake{})
	for range maxViewers {
		if !s.audience.enter() {
			t.Fatal("sent away too soon")
		}
	}
	w := ask(s.Handler(), "/api/v1/events")
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("one viewer too many: answer %d", w.Code)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		l := newLimit(p, 1)
		accepted := make(chan net.Conn)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				accepted <- c
			}
		}()
		a := p.dial(t)
		defer a.Close()
		first := <-accepted
		b := make(chan net.Conn)
		go func() { b <- p.dial(t) }()
		synctest.Wait()
		select {
		case <-accepted:
			t.Error("a second connection beyond the bound")
		default:
		}
		first.Close()
		first.Close() // gives its place back once
		second := <-accepted
		(<-b).Close()
		second.Close()
		l.Close()
		<-ended
	})
}
