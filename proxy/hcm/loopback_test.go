package hcm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream"
)

// tcpDialer dials without TLS.
type tcpDialer struct{}

func (tcpDialer) Dial(ctx context.Context, ep *config.Endpoint, _ *config.Cluster, _ *config.UpstreamTLS, _ upstream.DialOptions) (*netio.Conn, *stream.ConnInfo, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", ep.Addr.String())
	if err != nil {
		return nil, nil, err
	}
	return netio.New(c), &stream.ConnInfo{Remote: ep.Addr, Local: c.LocalAddr().(*net.TCPAddr).AddrPort()}, nil
}

// loop is a proxy on loopback before real servers.
type loop struct {
	t      *testing.T
	cfg    *config.HTTPManager
	view   *config.View
	m      *Manager
	ups    *upstream.Manager
	url    string
	addr   string
	client *http.Client
	drain  chan struct{}

	mu     sync.Mutex
	logged []string // mu
}

// serveHTTP starts an HTTP server that speaks HTTP/1.1 and h2c and returns its address.
func serveHTTP(t *testing.T, h http.Handler) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// newLoop proxies to h; http2 says what the client and what the upstream speak.
func newLoop(t *testing.T, down2, up2 bool, h http.Handler, change func(l *loop)) *loop {
	t.Helper()
	l := &loop{t: t, drain: make(chan struct{})}
	l.cfg = &config.HTTPManager{RouteName: "80", GenerateRequestID: true, Normalize: true, ServerName: "istio-envoy"}
	l.cfg.AccessLogs = []*config.AccessLog{{Log: func(i *stream.Info) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.logged = append(l.logged, fmt.Sprintf("%d %s %s", i.Status, i.Flags, i.Details))
	}}}
	c := cluster("app", serveHTTP(t, h).String())
	if up2 {
		c.Protocol = config.ProtoHTTP2
	}
	l.view = &config.View{Clusters: map[string]*config.Cluster{"app": c}, Routes: map[string]*route.Table{"80": {
		VirtualHosts: []*route.VirtualHost{{Name: "any", Domains: []string{"*"}, Routes: []*route.Route{{Name: "r", Forward: &route.Forward{Cluster: "app"}}}}},
	}}}
	if change != nil {
		change(l)
	}
	l.start(down2)
	return l
}

func (l *loop) forward() *route.Forward {
	return l.view.Routes["80"].VirtualHosts[0].Routes[0].Forward
}

func (l *loop) start(down2 bool) {
	t := l.t
	t.Helper()
	if err := route.Build(l.view.Routes["80"]); err != nil {
		t.Fatal(err)
	}
	live := &config.Live{}
	live.Publish(l.view)
	l.ups = upstream.NewManager(upstream.Settings{Dialer: tcpDialer{}})
	l.ups.Apply(l.view)
	sw := NewSweeper()
	l.m = New(l.cfg, Deps{Live: live, Upstreams: l.ups, Sweeper: sw, Drain: l.drain})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = sw.Run(ctx) })
	wg.Go(func() { _ = l.ups.Run(ctx) })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			info := &stream.ConnInfo{Direction: stream.Outbound, Local: c.LocalAddr().(*net.TCPAddr).AddrPort(), Remote: c.RemoteAddr().(*net.TCPAddr).AddrPort()}
			wg.Go(func() { _ = l.m.Serve(ctx, netio.New(c), info) })
		}
	})
	l.addr = ln.Addr().String()
	l.url = "http://" + l.addr
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(!down2)
	tr.Protocols.SetUnencryptedHTTP2(down2)
	l.client = &http.Client{Transport: tr, Timeout: time.Minute}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		_ = ln.Close()
		cancel()
		wg.Wait()
		l.m.Wait()
		if st := l.ups.Cluster("app").Snapshot(); st.Requests != 0 || st.Pending != 0 || st.Retries != 0 {
			t.Errorf("breakers are not back at zero: %+v", st)
		}
	})
}

func (l *loop) do(req *http.Request) (*http.Response, []byte) {
	l.t.Helper()
	resp, err := l.client.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return resp, b
}

func (l *loop) request(method, path string, body io.Reader) *http.Request {
	l.t.Helper()
	req, err := http.NewRequest(method, l.url+path, body)
	if err != nil {
		l.t.Fatal(err)
	}
	return req
}

// each runs f for all pairs of protocols.
func each(t *testing.T, f func(t *testing.T, down2, up2 bool)) {
	for _, c := range []struct {
		name   string
		d2, u2 bool
	}{{"h1 to h1", false, false}, {"h1 to h2", false, true}, {"h2 to h1", true, false}, {"h2 to h2", true, true}} {
		t.Run(c.name, func(t *testing.T) { f(t, c.d2, c.u2) })
	}
}

// unread hides a body's length, so that it is sent in pieces.
type unread struct{ io.Reader }

func TestBodiesOfAllSizesPassBothWays(t *testing.T) {
	each(t, func(t *testing.T, d2, u2 bool) {
		l := newLoop(t, d2, u2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("X-Sum", fmt.Sprintf("%x", sha256.Sum256(b)))
			_, _ = w.Write(b)
		}), nil)
		r := rand.NewChaCha8([32]byte{1})
		for _, size := range []int{0, 1, 5000, 16 << 10, 70 << 10, 3 << 20} {
			data := make([]byte, size)
			_, _ = r.Read(data)
			for _, known := range []bool{true, false} {
				var body io.Reader = bytes.NewReader(data)
				if !known {
					body = unread{body}
				}
				resp, got := l.do(l.request("POST", "/echo", body))
				if resp.StatusCode != 200 || resp.Header.Get("X-Sum") != fmt.Sprintf("%x", sha256.Sum256(data)) || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes, length known %v: status %d, %d bytes came back", size, known, resp.StatusCode, len(got))
				}
			}
		}
	})
}

func TestExpectIsAnsweredHere(t *testing.T) {
	for _, size := range []int{100, 200 << 10} {
		l := newLoop(t, false, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "%d %q", len(b), r.Header.Get("Expect"))
		}), nil)
		l.client.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
		req := l.request("POST", "/", bytes.NewReader(make([]byte, size)))
		req.Header.Set("Expect", "100-continue")
		start := time.Now()
		if resp, b := l.do(req); resp.StatusCode != 200 || string(b) != fmt.Sprintf(`%d ""`, size) || time.Since(start) > 30*time.Second {
			t.Errorf("%d %s after %v", resp.StatusCode, b, time.Since(start))
		}
	}
}

func TestTrailersPass(t *testing.T) {
	each(t, func(t *testing.T, d2, u2 bool) {
		l := newLoop(t, d2, u2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Trailer", "X-After")
			_, _ = w.Write([]byte("body"))
			_ = http.NewResponseController(w).Flush() // else HTTP/2 says the length, and HTTP/1.1 has no place for trailers then
			w.Header().Set("X-After", "done")
		}), nil)
		req := l.request("POST", "/", unread{strings.NewReader("x")})
		req.Header.Set("TE", "trailers")
		resp, b := l.do(req)
		if string(b) != "body" || resp.Trailer.Get("X-After") != "done" {
			t.Errorf("body %q, trailers %v", b, resp.Trailer)
		}
	})
}

func TestPiecesArriveAsTheyAreSent(t *testing.T) {
	each(t, func(t *testing.T, d2, u2 bool) {
		next := make(chan struct{})
		l := newLoop(t, d2, u2, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for i := range 3 {
				_, _ = fmt.Fprintf(w, "piece %d\n", i)
				_ = http.NewResponseController(w).Flush()
				<-next // the client has seen it
			}
		}), nil)
		resp, err := l.client.Do(l.request("GET", "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		rd := bufio.NewReader(resp.Body)
		for i := range 3 {
			line, err := rd.ReadString('\n')
			if err != nil || line != fmt.Sprintf("piece %d\n", i) {
				t.Fatalf("%q, %v", line, err)
			}
			next <- struct{}{}
		}
	})
}

func TestManyRequestsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, d2, u2 bool) {
		l := newLoop(t, d2, u2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.URL.Path)) }), nil)
		var wg sync.WaitGroup
		for g := range 16 {
			wg.Go(func() {
				for i := range 50 {
					path := fmt.Sprintf("/%d/%d", g, i)
					resp, err := l.client.Get(l.url + path)
					if err != nil {
						t.Error(err)
						return
					}
					b, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if err != nil || resp.StatusCode != 200 || string(b) != path {
						t.Errorf("%d %q %v, want %q", resp.StatusCode, b, err, path)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// nobody listens there; a port that was free a moment ago may be another program's by now.
const nobody = "127.0.0.1:1"

func TestAConnectFailureIsRetriedElsewhere(t *testing.T) {
	addr := netip.MustParseAddrPort(nobody)
	l := newLoop(t, false, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }), func(l *loop) {
		c := l.view.Clusters["app"]
		c.LB.Policy = config.RoundRobin
		c.Endpoints = append(c.Endpoints, &config.Endpoint{Addr: addr, Weight: 1})
		l.forward().Retry = &route.Retry{On: route.RetryConnectFailure, Attempts: 2, AvoidPrevious: true, HostAttempts: 5, BaseInterval: time.Millisecond, MaxInterval: time.Millisecond}
	})
	for range 20 {
		if resp, b := l.do(l.request("POST", "/", strings.NewReader("data"))); resp.StatusCode != 200 || string(b) != "ok" {
			t.Fatalf("%d %q", resp.StatusCode, b)
		}
	}
	if l.m.Stats.Retries.Load() == 0 {
		t.Error("nothing was retried, so nothing was tested")
	}
	l.view.Routes["80"].VirtualHosts[0].Routes[0].Forward.Retry = nil
}

func TestAConnectFailureHasEnvoysWords(t *testing.T) {
	l := newLoop(t, false, false, http.NotFoundHandler(), func(l *loop) {
		l.view.Clusters["app"].Endpoints[0].Addr = netip.MustParseAddrPort(nobody)
	})
	resp, b := l.do(l.request("GET", "/", nil))
	want := "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
	if resp.StatusCode != 503 || string(b) != want {
		t.Errorf("%d %q", resp.StatusCode, b)
	}
}

func TestAMirrorGetsACopy(t *testing.T) {
	var copies atomic.Int64
	mirror := serveHTTP(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if b, _ := io.ReadAll(r.Body); string(b) == "data" {
			copies.Add(1)
		}
	}))
	l := newLoop(t, false, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }), func(l *loop) {
		l.view.Clusters["copy"] = cluster("copy", mirror.String())
		l.forward().Mirrors = []route.Mirror{{Cluster: "copy", DisableShadow: true}}
	})
	for range 10 {
		if resp, b := l.do(l.request("POST", "/", strings.NewReader("data"))); resp.StatusCode != 200 || string(b) != "data" {
			t.Fatalf("%d %q", resp.StatusCode, b)
		}
	}
	l.m.Wait()
	if n := copies.Load(); n != 10 {
		t.Errorf("%d copies, want 10", n)
	}
}

func TestAnUpgradedConnectionIsAByteStream(t *testing.T) {
	l := newLoop(t, false, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "echo" {
			http.Error(w, "no upgrade", 400)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(c, rw)
	}), func(l *loop) { l.cfg.Upgrades = []string{"echo"} })
	c, err := net.Dial("tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	rd := bufio.NewReader(c)
	resp, err := http.ReadResponse(rd, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v %v", resp, err)
	}
	for _, msg := range []string{"hello", "again"} {
		_, _ = io.WriteString(c, msg)
		got := make([]byte, len(msg))
		if _, err := io.ReadFull(rd, got); err != nil || string(got) != msg {
			t.Fatalf("%q, %v", got, err)
		}
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(rd); err != nil || len(rest) != 0 {
		t.Errorf("after our end: %q, %v", rest, err)
	}
}

func TestDrainClosesConnectionsInOrder(t *testing.T) {
	inside, finish := make(chan struct{}), make(chan struct{})
	var once sync.Once
	l := newLoop(t, false, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { close(inside) })
		<-finish
		_, _ = w.Write([]byte("done"))
	}), nil)
	go func() {
		<-inside
		close(l.drain)
		close(finish)
	}()
	// The signal takes its way over another goroutine, so the first response may be faster.
	for end := time.Now().Add(20 * time.Second); ; {
		resp, b := l.do(l.request("GET", "/", nil))
		if string(b) != "done" {
			t.Fatalf("%q", b)
		}
		if resp.Close {
			return
		}
		if time.Now().After(end) {
			t.Fatal("no response announced the end of its connection")
		}
	}
}

func TestAServerThatRefusesEarlyIsHeard(t *testing.T) {
	each(t, func(t *testing.T, d2, u2 bool) {
		l := newLoop(t, d2, u2, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "too large", 413) }), nil)
		pr, pw := io.Pipe()
		go func() {
			for range 8 {
				if _, err := pw.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
			time.Sleep(50 * time.Millisecond) // a client that is not done yet
			_ = pw.Close()
		}()
		resp, err := l.client.Do(l.request("POST", "/", pr))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 413 || string(b) != "too large\n" {
			t.Errorf("%d %q", resp.StatusCode, b)
		}
		_ = pr.Close()
	})
}

func BenchmarkLoopback(b *testing.B) {
	t := &testing.T{}
	l := newLoop(t, false, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }), nil)
	c, err := net.Dial("tcp", l.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	req := []byte("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Write(req)
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
