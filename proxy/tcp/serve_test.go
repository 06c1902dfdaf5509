package tcp_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/tcp"
	"weft.mesh/weft/proxy/transport/exchange"
)

// oneHost is a cluster with a prepared connection, or a prepared failure.
type oneHost struct {
	mu       sync.Mutex
	conn     net.Conn
	errs     []error // returned by the first dials
	dials    []tcp.Request
	clusters []string
	released []error
	up       *netio.Conn
}

func (h *oneHost) Dial(_ context.Context, cluster string, r tcp.Request) (*tcp.Upstream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dials, h.clusters = append(h.dials, r), append(h.clusters, cluster)
	up := &tcp.Upstream{
		Addr: netip.MustParseAddrPort("10.1.0.9:6379"), Service: stream.Service{Host: "redis.default.svc.cluster.local", Name: "redis", Namespace: "default"},
		Workload: &stream.Workload{Name: "redis-v1"},
	}
	if len(h.errs) > 0 {
		err := h.errs[0]
		h.errs = h.errs[1:]
		return up, err
	}
	up.Conn, up.Info = netio.New(h.conn), &stream.ConnInfo{Local: netip.MustParseAddrPort("10.1.0.2:999")}
	h.up = up.Conn
	up.Release = func(err error) { h.released = append(h.released, err) }
	return up, nil
}

// records collects reports and the access log.
type records struct {
	mu      sync.Mutex
	reports []stream.Info
	logs    []stream.Info
}

func (r *records) attach(cfg *config.TCPProxy) *config.TCPProxy {
	cfg.Ends = []func(*stream.Info){func(i *stream.Info) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.reports = append(r.reports, *i)
	}}
	cfg.AccessLogs = []*config.AccessLog{{Log: func(i *stream.Info) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.logs = append(r.logs, *i)
	}}}
	return cfg
}

// bench is a proxied connection: client ↔ (down) proxy (up) ↔ server.
type bench struct {
	client, server net.Conn
	rec            records
	host           *oneHost
	info           *stream.ConnInfo
	done           chan struct{}
	cancel         context.CancelFunc
}

func start(t *testing.T, cfg *config.TCPProxy, pair func() (net.Conn, net.Conn), deps tcp.Deps, info *stream.ConnInfo) *bench {
	t.Helper()
	client, down := pair()
	up, server := pair()
	b := &bench{client: client, server: server, host: &oneHost{conn: up}, info: info, done: make(chan struct{})}
	if cfg.Cluster == "" {
		cfg.Cluster = "outbound|6379||redis.default.svc.cluster.local"
	}
	b.rec.attach(cfg)
	var ctx context.Context
	ctx, b.cancel = context.WithCancel(t.Context())
	deps.Upstreams = b.host
	go func() {
		defer close(b.done)
		tcp.Serve(ctx, cfg, netio.New(down), info, deps)
	}()
	t.Cleanup(func() {
		b.cancel()
		_ = client.Close()
		_ = server.Close()
		<-b.done
	})
	return b
}

func outbound() *stream.ConnInfo { return &stream.ConnInfo{Direction: stream.Outbound} }

func memory() (net.Conn, net.Conn) {
	c, s := memnet.Pipe(memnet.Link{})
	return c, s
}

// loopback makes pairs of real sockets.
func loopback(t *testing.T) func() (net.Conn, net.Conn) {
	return func() (net.Conn, net.Conn) {
		t.Helper()
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		c, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c, s
	}
}

// pairs runs a test over memory and over sockets.
func pairs(t *testing.T, f func(t *testing.T, pair func() (net.Conn, net.Conn))) {
	t.Run("memory", func(t *testing.T) { f(t, memory) })
	t.Run("sockets", func(t *testing.T) { f(t, loopback(t)) })
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, c net.Conn, s string) {
	t.Helper()
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
		t.Fatalf("read %q (%v), want %q", b, err, s)
	}
}

func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func wantEOF(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d, %v; want EOF", n, err)
	}
}

func TestHalfCloseIsPassedOnBothWays(t *testing.T) {
	pairs(t, func(t *testing.T, pair func() (net.Conn, net.Conn)) {
		b := start(t, &config.TCPProxy{}, pair, tcp.Deps{}, outbound())
		send(t, b.client, "question")
		want(t, b.server, "question")
		closeWrite(t, b.client)
		wantEOF(t, b.server)
		send(t, b.server, "the answer comes after the end of the question")
		want(t, b.client, "the answer comes after the end of the question")
		closeWrite(t, b.server)
		wantEOF(t, b.client)
		<-b.done
		i := b.rec.logs[0]
		if i.BytesIn != 8 || i.BytesOut != 46 || i.Flags != 0 || i.Termination != "" || i.UpLocal.Port() != 999 {
			t.Errorf("log %+v", i)
		}
		if len(b.host.released) != 1 || b.host.released[0] != nil {
			t.Errorf("released with %v, want once without an error", b.host.released)
		}
	})
}

func TestTheServerMaySpeakFirst(t *testing.T) {
	pairs(t, func(t *testing.T, pair func() (net.Conn, net.Conn)) {
		b := start(t, &config.TCPProxy{}, pair, tcp.Deps{}, outbound())
		send(t, b.server, "220 ready\r\n")
		want(t, b.client, "220 ready\r\n")
	})
}

func TestBulkArrivesWholeBothWays(t *testing.T) {
	pairs(t, func(t *testing.T, pair func() (net.Conn, net.Conn)) {
		const size = 24 << 20
		b := start(t, &config.TCPProxy{IdleTimeout: time.Hour}, pair, tcp.Deps{}, outbound())
		data := make([]byte, size)
		if _, err := rand.Read(data); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, d := range [][2]net.Conn{{b.client, b.server}, {b.server, b.client}} {
			wg.Go(func() {
				if _, err := io.Copy(d[0], bytes.NewReader(data)); err != nil {
					t.Error(err)
				}
				closeWrite(t, d[0])
			})
			wg.Go(func() {
				h := sha256.New()
				if _, err := io.Copy(h, d[1]); err != nil {
					t.Error(err)
				}
				if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) {
					t.Error("what arrived is not what was sent")
				}
			})
		}
		wg.Wait()
		<-b.done
		if i := b.rec.logs[0]; i.BytesIn != size || i.BytesOut != size {
			t.Errorf("counted %d and %d, want %d", i.BytesIn, i.BytesOut, size)
		}
		// What was spliced never passed through the connection's buffers.
		_, sockets := b.client.(*net.TCPConn)
		if n := b.host.up.BytesWritten(); sockets != (n < 1<<20) {
			t.Errorf("%d bytes were copied by hand, sockets: %t", n, sockets)
		}
	})
}

func TestQuestionsAndAnswersAreNotSpliced(t *testing.T) {
	b := start(t, &config.TCPProxy{}, loopback(t), tcp.Deps{}, outbound())
	msg := strings.Repeat("q", 200)
	const rounds = 1000 // 200 KB each way
	for range rounds {
		for _, ends := range [][2]net.Conn{{b.client, b.server}, {b.server, b.client}} {
			if _, err := io.WriteString(ends[0], msg); err != nil {
				t.Fatal(err)
			}
			want(t, ends[1], msg)
		}
	}
	byHand := b.host.up.BytesWritten()
	if byHand != rounds*uint64(len(msg)) {
		t.Errorf("%d bytes of %d were copied by hand", byHand, rounds*len(msg))
	}
	// A long answer on the same connection is.
	bulk := strings.Repeat("b", 4<<20)
	go func() { _, _ = io.WriteString(b.client, bulk) }()
	want(t, b.server, bulk)
	if n := b.host.up.BytesWritten() - byHand; n > 1<<20 {
		t.Errorf("%d bytes of %d were copied by hand", n, len(bulk))
	}
	_, _ = b.client.Close(), b.server.Close()
	<-b.done
}

func TestAResetIsPassedOnAsAReset(t *testing.T) {
	for _, bulk := range []bool{false, true} {
		for _, fromServer := range []bool{false, true} {
			name := map[bool]string{false: "client", true: "server"}[fromServer] + map[bool]string{false: "", true: " after splicing began"}[bulk]
			t.Run(name, func(t *testing.T) {
				b := start(t, &config.TCPProxy{}, loopback(t), tcp.Deps{}, outbound())
				from, to := b.client, b.server
				if fromServer {
					from, to = to, from
				}
				msg := "x"
				if bulk {
					msg = strings.Repeat("x", 200<<10)
				}
				go func() { _, _ = io.WriteString(from, msg) }()
				want(t, to, msg)
				if err := from.(*net.TCPConn).SetLinger(0); err != nil {
					t.Fatal(err)
				}
				_ = from.Close()
				if _, err := to.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the other side read %v, want a reset", err)
				}
				<-b.done
				wantFlag := stream.FlagDownstreamTermination
				if fromServer {
					wantFlag = stream.FlagUpstreamTermination
				}
				if i := b.rec.logs[0]; i.Flags != wantFlag {
					t.Errorf("flags %v (%s), want %v", i.Flags, i.Termination, wantFlag)
				}
				if got := len(b.host.released) == 1 && b.host.released[0] != nil; got != fromServer {
					t.Errorf("released with %v; an error only if the upstream broke", b.host.released)
				}
			})
		}
	}
}

func TestASlowReaderSlowsTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, &config.TCPProxy{}, memory, tcp.Deps{}, outbound())
		var sent int
		go func() {
			p := make([]byte, 16<<10)
			for {
				n, err := b.client.Write(p)
				sent += n
				if err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if sent > 1<<20 {
			t.Errorf("%d bytes taken although nobody reads", sent)
		}
	})
}

func TestIdleAndDurationLimits(t *testing.T) {
	tests := []struct {
		name  string
		cfg   config.TCPProxy
		chat  bool // bytes every 40 minutes
		after time.Duration
		why   string
		flags stream.Flags
	}{
		{"idle for an hour", config.TCPProxy{IdleTimeout: time.Hour}, false, time.Hour, "tcp_session_idle_timeout", 0},
		{"bytes keep it alive, the maximum duration ends it", config.TCPProxy{IdleTimeout: time.Hour, MaxDuration: 5 * time.Hour}, true, 5 * time.Hour,
			"max_connection_duration_reached", stream.FlagDurationTimeout},
		{"idle after the last byte", config.TCPProxy{IdleTimeout: 30 * time.Minute}, true, 30 * time.Minute, "tcp_session_idle_timeout", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				b := start(t, &tt.cfg, memory, tcp.Deps{}, outbound())
				if tt.chat {
					go func() {
						for {
							select {
							case <-b.done:
								return
							case <-time.After(40 * time.Minute):
							}
							if _, err := b.server.Write([]byte("tick")); err != nil {
								return
							}
						}
					}()
					go func() { _, _ = io.Copy(io.Discard, b.client) }()
				}
				<-b.done
				if got := time.Since(begin); got < tt.after || got > tt.after+30*time.Second {
					t.Errorf("ended after %v, want %v", got, tt.after)
				}
				if i := b.rec.logs[0]; i.Termination != tt.why || i.Flags != tt.flags {
					t.Errorf("termination %q, flags %v; want %q, %v", i.Termination, i.Flags, tt.why, tt.flags)
				}
			})
		})
	}
}

func TestReportsComeAtOpenEvery15SecondsAndAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, &config.TCPProxy{}, memory, tcp.Deps{}, outbound())
		synctest.Wait()
		send(t, b.client, "12345")
		want(t, b.server, "12345")
		time.Sleep(40 * time.Second) // reports at 15 s, none at 30 s: nothing moved
		send(t, b.server, "123")
		want(t, b.client, "123")
		time.Sleep(10 * time.Second) // report at 45 s
		send(t, b.server, "1")
		_ = b.client.Close()
		<-b.done
		var got []stream.Info
		for _, r := range b.rec.reports {
			got = append(got, stream.Info{Report: r.Report, NewIn: r.NewIn, NewOut: r.NewOut})
			if r.Peer == nil || r.Peer.Name != "redis-v1" || r.Service.Name != "redis" {
				t.Errorf("report of %+v, service %+v", r.Peer, r.Service)
			}
		}
		wantReports := []stream.Info{{Report: stream.ReportOpen}, {Report: stream.ReportRunning, NewIn: 5}, {Report: stream.ReportRunning, NewOut: 3}, {Report: stream.ReportEnd, NewOut: 1}}
		if len(got) != len(wantReports) {
			t.Fatalf("%d reports: %+v", len(got), got)
		}
		for k := range got {
			g, w := got[k], wantReports[k]
			if k == 3 {
				g.NewOut, w.NewOut = 0, 0 // the last byte may or may not have been taken by the closed client
			}
			if g.Report != w.Report || g.NewIn != w.NewIn || g.NewOut != w.NewOut {
				t.Errorf("report %d: %+v, want %+v", k, g, w)
			}
		}
	})
}

func TestConnectFailures(t *testing.T) {
	refused := &stream.Error{Side: stream.Upstream, Op: "connect", Flag: stream.FlagUpstreamConnectFailure, Details: "d", Err: syscall.ECONNREFUSED}
	overflow := &stream.Error{Side: stream.Upstream, Flag: stream.FlagUpstreamOverflow}
	none := &stream.Error{Side: stream.Upstream, Flag: stream.FlagNoHealthyUpstream}
	noCluster := &stream.Error{Side: stream.Ours, Flag: stream.FlagNoCluster}
	tests := []struct {
		name     string
		attempts uint32
		errs     []error
		dials    int
		flags    stream.Flags
	}{
		{"refused", 0, []error{refused}, 1, stream.FlagUpstreamConnectFailure | stream.FlagUpstreamRetryLimit},
		{"refused three times", 3, []error{refused, refused, refused}, 3, stream.FlagUpstreamConnectFailure | stream.FlagUpstreamRetryLimit},
		{"another host answers", 2, []error{refused}, 2, 0},
		{"an open circuit breaker is not tried again", 5, []error{overflow}, 1, stream.FlagUpstreamOverflow},
		{"no healthy host", 5, []error{none}, 1, stream.FlagNoHealthyUpstream},
		{"no such cluster", 5, []error{noCluster}, 1, stream.FlagNoCluster},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, down := loopback(t)()
			up, server := memory()
			h := &oneHost{errs: tt.errs, conn: up}
			var rec records
			cfg := rec.attach(&config.TCPProxy{Cluster: "c", MaxConnectAttempts: tt.attempts})
			if tt.flags == 0 { // let the connection that was made end at once
				_ = server.Close()
				closeWrite(t, client)
			}
			tcp.Serve(t.Context(), cfg, netio.New(down), outbound(), tcp.Deps{Upstreams: h})
			if len(h.dials) != tt.dials {
				t.Errorf("%d dials, want %d", len(h.dials), tt.dials)
			}
			i := rec.logs[0]
			if i.Flags != tt.flags || i.Upstream.Port() != 6379 {
				t.Errorf("flags %v of %v, want %v", i.Flags, i.Upstream, tt.flags)
			}
			if tt.flags == 0 {
				return
			}
			if tt.flags&stream.FlagUpstreamConnectFailure != 0 && i.UpFailure != "delayed_connect_error:_Connection_refused" {
				t.Errorf("failure reason %q", i.UpFailure)
			}
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("client read %v, want a reset", err)
			}
			if len(rec.reports) != 2 || rec.reports[0].Report != stream.ReportOpen || rec.reports[1].Report != stream.ReportEnd {
				t.Errorf("reports %+v, want opened and closed", rec.reports)
			}
		})
	}
}

func TestWeightsChooseTheCluster(t *testing.T) {
	h := &oneHost{}
	cfg := &config.TCPProxy{Weighted: []route.WeightedCluster{{Cluster: "a", Weight: 90}, {Cluster: "never"}, {Cluster: "b", Weight: 10}}, Total: 100}
	for range 2000 {
		client, down := memory()
		h.errs = []error{&stream.Error{Flag: stream.FlagNoHealthyUpstream}}
		tcp.Serve(t.Context(), cfg, netio.New(down), outbound(), tcp.Deps{Upstreams: h})
		_ = client.Close()
	}
	n := map[string]int{}
	for _, c := range h.clusters {
		n[c]++
	}
	if n["never"] != 0 || n["a"] < 1700 || n["b"] < 100 || n["a"]+n["b"] != 2000 {
		t.Errorf("chosen %v, want about 1800 and 200", n)
	}
}

func TestTheCutEndsTheConnection(t *testing.T) {
	pairs(t, func(t *testing.T, pair func() (net.Conn, net.Conn)) {
		b := start(t, &config.TCPProxy{}, pair, tcp.Deps{}, outbound())
		send(t, b.client, "x")
		want(t, b.server, "x")
		b.cancel()
		<-b.done
		wantEOF(t, b.client)
		wantEOF(t, b.server)
		if i := b.rec.logs[0]; i.Termination != "drain_deadline" {
			t.Errorf("termination %q", i.Termination)
		}
	})
}

func TestMetadataExchangeOnTheServersSide(t *testing.T) {
	mine, err := exchange.NewNode("n", &stream.Workload{Name: "ratings-v1"})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := exchange.NewNode("n", &stream.Workload{Name: "reviews-v1"})
	if err != nil {
		t.Fatal(err)
	}
	inbound := func() *stream.ConnInfo {
		return &stream.ConnInfo{Direction: stream.Inbound, ALPN: "istio-peer-exchange"}
	}
	t.Run("client sends its preamble with its data", func(t *testing.T) {
		b := start(t, &config.TCPProxy{MetadataExchange: true}, memory, tcp.Deps{Exchange: mine}, inbound())
		want(t, b.client, string(mine.Preamble()))
		send(t, b.server, "server first")
		want(t, b.client, "server first")
		send(t, b.client, string(theirs.Preamble())+"data")
		want(t, b.server, "data")
		_ = b.client.Close()
		_ = b.server.Close()
		<-b.done
		if i := b.rec.logs[0]; i.Peer == nil || i.Peer.Name != "reviews-v1" || i.BytesIn != 4 {
			t.Errorf("log: peer %+v, %d bytes; want reviews-v1 and 4", i.Peer, i.BytesIn)
		}
	})
	t.Run("client sends something else", func(t *testing.T) {
		b := start(t, &config.TCPProxy{MetadataExchange: true}, memory, tcp.Deps{Exchange: mine}, inbound())
		send(t, b.client, "GET / HTTP/1.1\r\n\r\n")
		<-b.done
		if n, err := b.server.Read(make([]byte, 1)); n != 0 {
			t.Errorf("server read %d bytes (%v), want none", n, err)
		}
	})
	t.Run("another protocol was agreed on", func(t *testing.T) {
		info := inbound()
		info.ALPN = "istio"
		b := start(t, &config.TCPProxy{MetadataExchange: true}, memory, tcp.Deps{Exchange: mine}, info)
		send(t, b.server, "hello")
		want(t, b.client, "hello")
	})
}

func BenchmarkPingPong(b *testing.B) {
	client, server, stop := running(b)
	defer stop()
	go func() { _, _ = io.Copy(server, server) }()
	msg := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(client, msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBulk(b *testing.B) {
	client, server, stop := running(b)
	defer stop()
	go func() { _, _ = io.Copy(io.Discard, server) }()
	p := make([]byte, 256<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}

// running is a proxied pair of real sockets.
func running(b *testing.B) (client, server net.Conn, stop func()) {
	b.Helper()
	pair := func() (net.Conn, net.Conn) {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		c, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		s, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		return c, s
	}
	client, down := pair()
	up, server := pair()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tcp.Serve(context.Background(), &config.TCPProxy{Cluster: "c"}, netio.New(down), outbound(), tcp.Deps{Upstreams: &oneHost{conn: up}})
	}()
	return client, server, func() {
		_ = client.Close()
		_ = server.Close()
		<-done
	}
}
