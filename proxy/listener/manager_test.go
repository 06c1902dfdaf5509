package listener_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/listener"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/transport"
)

// served is what a server was given.
type served struct {
	chain string // the manager's or proxy's StatPrefix
	info  stream.ConnInfo
}

// echo serves HTTP and TCP alike: it tells the chain in the first line, then echoes. When
// draining it says "bye" and ends.
type echo struct {
	mu  sync.Mutex
	got []served
}

func (e *echo) ServeHTTP(ctx context.Context, cfg *config.HTTPManager, c *netio.Conn, info *stream.ConnInfo, o listener.Owner) {
	defer o.Ended(nil)
	e.serve(ctx, "http:"+cfg.StatPrefix, c, info)
}

func (e *echo) ServeTCP(ctx context.Context, cfg *config.TCPProxy, c *netio.Conn, info *stream.ConnInfo) {
	e.serve(ctx, "tcp:"+cfg.StatPrefix, c, info)
}

func (e *echo) serve(ctx context.Context, name string, c *netio.Conn, info *stream.ConnInfo) {
	defer func() { _ = c.Close() }()
	e.mu.Lock()
	e.got = append(e.got, served{name, *info})
	e.mu.Unlock()
	if strings.HasPrefix(name, "http:") {
		stop := netio.OnClose(stream.Draining(ctx), func() {
			_, _ = c.Write([]byte("bye\n"))
			_ = c.Close()
		})
		defer stop()
	}
	_, _ = fmt.Fprintln(c, name)
	_, _ = io.Copy(c, c)
}

func (e *echo) last() served {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got[len(e.got)-1]
}

// bench is a manager on a network in memory.
type bench struct {
	net    *memnet.Network
	m      *listener.Manager
	echo   *echo
	dst    netip.AddrPort // original destination of every connection
	cancel context.CancelFunc
	done   chan struct{}
}

func newBench(t *testing.T, set listener.Settings) *bench {
	t.Helper()
	b := &bench{net: memnet.New(memnet.Link{}), echo: &echo{}, done: make(chan struct{})}
	set.HTTP, set.TCP = b.echo, b.echo
	set.Listen = func(a netip.AddrPort) (net.Listener, error) {
		if a.Addr().IsUnspecified() {
			a = netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), a.Port())
		}
		return b.net.Listen(a.String())
	}
	set.OriginalDst = func(net.Conn) (netip.AddrPort, bool) { return b.dst, b.dst.IsValid() }
	b.m = listener.New(set)
	var ctx context.Context
	ctx, b.cancel = context.WithCancel(t.Context())
	go func() {
		defer close(b.done)
		_ = b.m.Run(ctx)
	}()
	t.Cleanup(func() {
		b.cancel()
		<-b.done
	})
	return b
}

func (b *bench) apply(t *testing.T, ls ...*config.Listener) {
	t.Helper()
	if err := b.m.Apply(view(ls...)); err != nil {
		t.Fatal(err)
	}
}

func view(ls ...*config.Listener) *config.View {
	v := &config.View{Listeners: map[string]*config.Listener{}}
	for _, l := range ls {
		v.Listeners[l.Name] = l
	}
	return v
}

// dial connects, sends and returns the first line that comes back, "" if the connection ends before.
func (b *bench) dial(t *testing.T, addr, first string) (net.Conn, string) {
	t.Helper()
	c, err := b.net.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if first != "" {
		if _, err := io.WriteString(c, first); err != nil {
			return c, ""
		}
	}
	return c, line(c)
}

func line(c io.Reader) string {
	var out []byte
	b := make([]byte, 1)
	for {
		if _, err := c.Read(b); err != nil {
			return string(out)
		}
		if b[0] == '\n' {
			return string(out)
		}
		out = append(out, b[0])
	}
}

func tcpChain(name string, m config.ChainMatch) *config.FilterChain {
	return &config.FilterChain{Name: name, Match: m, TCP: &config.TCPProxy{StatPrefix: name}}
}

func httpChain(name string, m config.ChainMatch) *config.FilterChain {
	return &config.FilterChain{Name: name, Match: m, HTTP: &config.HTTPManager{StatPrefix: name}}
}

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func bound(name, addr string, chains ...*config.FilterChain) *config.Listener {
	return &config.Listener{Name: name, Address: at(addr), BindToPort: true, Direction: stream.Inbound, Chains: chains}
}

// TestOutboundHandOver: virtualOutbound looks for a listener at the original destination.
func TestOutboundHandOver(t *testing.T) {
	virtual := &config.Listener{Name: "virtualOutbound", Address: at("0.0.0.0:15001"), BindToPort: true, UseOriginalDst: true,
		Direction: stream.Outbound, Default: tcpChain("passthrough", config.ChainMatch{})}
	any80 := &config.Listener{Name: "0.0.0.0_80", Address: at("0.0.0.0:80"), Direction: stream.Outbound,
		Inspect: config.Inspect{HTTP: true}, Chains: []*config.FilterChain{httpChain("80", config.ChainMatch{ALPN: []string{"http/1.1", "h2c"}})},
		Default: tcpChain("80-passthrough", config.ChainMatch{})}
	vip := &config.Listener{Name: "10.96.0.5_80", Address: at("10.96.0.5:80"), Direction: stream.Outbound, Chains: []*config.FilterChain{tcpChain("redis", config.ChainMatch{})}}
	tests := []struct {
		name, dst, send, want, listener string
	}{
		{"exact address", "10.96.0.5:80", "x", "tcp:redis", "10.96.0.5_80"},
		{"any address with that port, HTTP", "10.96.0.9:80", "GET / HTTP/1.1\r\n", "http:80", "0.0.0.0_80"},
		{"any address with that port, HTTP/2", "10.96.0.9:80", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http:80", "0.0.0.0_80"},
		{"any address with that port, something else", "10.96.0.9:80", "\x00\x01", "tcp:80-passthrough", "0.0.0.0_80"},
		{"nobody's port", "10.96.0.9:81", "x", "tcp:passthrough", "virtualOutbound"},
		{"the capturing port itself is no listener to hand over to", "10.96.0.9:15001", "x", "tcp:passthrough", "virtualOutbound"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, listener.Settings{})
				b.apply(t, virtual, any80, vip)
				b.dst = at(tt.dst)
				if _, got := b.dial(t, "10.0.0.1:15001", tt.send); got != tt.want {
					t.Fatalf("served by %q, want %q", got, tt.want)
				}
				if i := b.echo.last().info; i.Local != b.dst || i.Listener != tt.listener || i.Direction != stream.Outbound || i.ID == 0 {
					t.Errorf("connection %+v", i)
				}
			})
		})
	}
}

func TestADirectConnectionToACapturingListenerIsClosed(t *testing.T) {
	for _, allow := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, listener.Settings{AllowDirect: allow})
			l := bound("virtualInbound", "0.0.0.0:15006", tcpChain("all", config.ChainMatch{}))
			l.OriginalDst = true
			b.apply(t, l)
			for _, dst := range []netip.AddrPort{{}, at("10.0.0.1:15006")} { // not redirected; redirected to itself
				b.dst = dst
				if _, got := b.dial(t, "10.0.0.1:15006", "x"); (got == "tcp:all") != allow {
					t.Errorf("allow %t, destination %v: served by %q", allow, dst, got)
				}
			}
			if n := b.m.Stats().Direct.Load(); (n == 2) == allow {
				t.Errorf("counted %d", n)
			}
		})
	}
}

// TestInboundMatrix: the mTLS and plaintext, HTTP and TCP chains of a PERMISSIVE port.
func TestInboundMatrix(t *testing.T) {
	const client, server = "spiffe://cluster.local/ns/default/sa/reviews", "spiffe://cluster.local/ns/default/sa/ratings"
	mesh := &config.DownstreamTLS{Workload: true, RequireClient: true, ALPN: []string{"istio-peer-exchange", "istio-http/1.1", "istio", "h2", "http/1.1"}}
	withTLS := func(c *config.FilterChain) *config.FilterChain {
		c.TLS = mesh
		return c
	}
	l := bound("virtualInbound", "0.0.0.0:15006",
		withTLS(httpChain("mtls", config.ChainMatch{DestinationPort: 9080, Transport: "tls", ALPN: []string{"istio-http/1.1"}})),
		withTLS(tcpChain("mtls", config.ChainMatch{DestinationPort: 9080, Transport: "tls", ALPN: []string{"istio"}})),
		tcpChain("tls-of-the-app", config.ChainMatch{DestinationPort: 9080, Transport: "tls"}),
		httpChain("plain", config.ChainMatch{DestinationPort: 9080, ALPN: []string{"http/1.1"}, Transport: "raw_buffer"}),
		tcpChain("plain", config.ChainMatch{DestinationPort: 9080, Transport: "raw_buffer"}))
	l.OriginalDst = true
	l.Inspect = config.Inspect{TLS: true, HTTP: true, NoHTTP: []config.PortRange{{Start: 3306, End: 3307}}}
	tests := []struct {
		name string
		tls  *tls.Config
		send string
		want string
		id   string // of the client's certificate
	}{
		{"mTLS HTTP", &tls.Config{NextProtos: []string{"istio-http/1.1"}}, "GET / HTTP/1.1\r\n", "http:mtls", client},
		{"mTLS TCP", &tls.Config{NextProtos: []string{"istio"}}, "", "tcp:mtls", client},
		{"mTLS without certificate", &tls.Config{NextProtos: []string{"istio"}}, "", "", ""},
		{"plain HTTP", nil, "GET / HTTP/1.1\r\n", "http:plain", ""},
		{"plain TCP", nil, "\x01\x02", "tcp:plain", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				root := identitytest.NewCA(t, "root") // in the bubble, where it is another year
				b := newBench(t, listener.Settings{TLS: transport.NewServer(transport.ServerSettings{Identity: root.Source(t, server)})})
				b.apply(t, l)
				b.dst = at("10.0.0.1:9080")
				nc, err := b.net.Dial("10.0.0.1:15006")
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = nc.Close() }()
				var c net.Conn = nc
				if tt.tls != nil {
					tt.tls.InsecureSkipVerify = true
					if tt.id != "" {
						tt.tls.Certificates = []tls.Certificate{root.Certificate(t, tt.id)}
					}
					c = tls.Client(nc, tt.tls)
				}
				_, _ = io.WriteString(c, tt.send)
				if tt.send == "" {
					if tc, ok := c.(*tls.Conn); ok {
						_ = tc.Handshake()
					}
				}
				if got := line(c); got != tt.want {
					t.Fatalf("served by %q, want %q", got, tt.want)
				}
				if tt.want == "" {
					synctest.Wait()
					if b.m.Stats().TLSFailed.Load() != 1 {
						t.Error("the failed handshake was not counted")
					}
					return
				}
				if i := b.echo.last().info; i.PeerID.String() != tt.id || i.TLS != (tt.tls != nil) {
					t.Errorf("peer %q, want %q", i.PeerID, tt.id)
				}
				tt.send = "again\n"
				_, _ = io.WriteString(c, tt.send)
				for got := ""; !strings.HasSuffix(got, "again"); got = line(c) { // after the echo of what was sniffed
					if got == "bye" {
						t.Fatal("connection ended")
					}
				}
			})
		})
	}
}

func TestSniffingIsBounded(t *testing.T) {
	gateway := func(in config.Inspect) *config.Listener {
		l := bound("gw", "0.0.0.0:443", tcpChain("raw", config.ChainMatch{Transport: "raw_buffer"}), tcpChain("tls", config.ChainMatch{Transport: "tls"}))
		l.Direction, l.Inspect = stream.Gateway, in
		return l
	}
	tests := []struct {
		name  string
		in    config.Inspect
		send  string
		want  string
		after time.Duration
	}{
		{"a silent stranger is cut off after 15 s", config.Inspect{TLS: true}, "", "", 15 * time.Second},
		{"the listener's own time-out", config.Inspect{TLS: true, Timeout: 3 * time.Second}, "", "", 3 * time.Second},
		{"going on without an answer", config.Inspect{TLS: true, HTTP: true, Timeout: 3 * time.Second, ContinueOnTimeout: true}, "", "tcp:raw", 3 * time.Second},
		{"half a ClientHello", config.Inspect{TLS: true}, "\x16\x03\x01\x02\x00\x01", "", 15 * time.Second},
		{"a broken ClientHello at once", config.Inspect{TLS: true}, "\x16\x03\x01\xff\xff\x01", "", 0},
		{"no sniffing, no waiting", config.Inspect{}, "", "tcp:raw", 0},
		{"not sniffed on this port", config.Inspect{TLS: true, HTTP: true, NoTLS: []config.PortRange{{Start: 443, End: 444}}, NoHTTP: []config.PortRange{{Start: 1, End: 1000}}}, "", "tcp:raw", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, listener.Settings{})
				b.apply(t, gateway(tt.in))
				start := time.Now()
				_, got := b.dial(t, "10.0.0.1:443", tt.send)
				if got != tt.want || time.Since(start) != tt.after {
					t.Errorf("served by %q after %v, want %q after %v", got, time.Since(start), tt.want, tt.after)
				}
			})
		})
	}
}

func TestASidecarWaitsForTheClientsFirstBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, listener.Settings{})
		l := bound("in", "0.0.0.0:80", httpChain("http", config.ChainMatch{ALPN: []string{"http/1.1"}}))
		l.Inspect = config.Inspect{TLS: true, HTTP: true}
		b.apply(t, l)
		c, err := b.net.Dial("10.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		for _, part := range []string{"G", "ET /", " HTTP/1.1\r", "\n"} {
			time.Sleep(time.Hour)
			if _, err := io.WriteString(c, part); err != nil {
				t.Fatal(err)
			}
		}
		if got := line(c); got != "http:http" {
			t.Errorf("served by %q", got)
		}
	})
}

func TestProxyProtocolSetsTheAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, listener.Settings{})
		l := bound("gw", "0.0.0.0:80", tcpChain("x", config.ChainMatch{SourcePrefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}))
		l.Inspect = config.Inspect{ProxyProtocol: true, HTTP: true}
		b.apply(t, l)
		c, got := b.dial(t, "10.0.0.1:80", "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nhello\n")
		if got != "tcp:x" || line(c) != "hello" {
			t.Fatalf("served by %q", got)
		}
		if i := b.echo.last().info; i.Remote != at("192.0.2.7:4711") || i.Local != at("198.51.100.1:443") {
			t.Errorf("addresses %v → %v", i.Remote, i.Local)
		}
		if _, got := b.dial(t, "10.0.0.1:80", "hello without a header\n"); got != "" {
			t.Errorf("a connection without header was served by %q", got)
		}
	})
}

// deny is a network filter.
type deny struct{ only string }

func (deny) Name() string { return "envoy.filters.network.rbac" }
func (d deny) Connection(c *stream.ConnInfo) (bool, string) {
	return c.Remote.Addr().String() != d.only, "rbac_access_denied_matched_policy[none]"
}

func TestWhoIsTurnedAwayIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs []stream.Info
		log := []*config.AccessLog{{Log: func(i *stream.Info) { logs = append(logs, *i) }}}
		b := newBench(t, listener.Settings{})
		ch := tcpChain("x", config.ChainMatch{DestinationPort: 80})
		ch.Network = []filter.Network{deny{"127.0.0.1"}}
		ch.TCP.AccessLogs = log
		var reports []stream.Report
		ch.TCP.Ends = []func(*stream.Info){func(i *stream.Info) { reports = append(reports, i.Report) }}
		l := bound("l", "0.0.0.0:80", ch)
		other := bound("other", "0.0.0.0:81", tcpChain("y", config.ChainMatch{DestinationPort: 9}))
		other.AccessLogs = log
		b.apply(t, l, other)
		for _, port := range []string{"80", "81"} {
			if _, got := b.dial(t, "10.0.0.1:"+port, ""); got != "" {
				t.Errorf("port %s: served by %q", port, got)
			}
		}
		if len(logs) != 2 || logs[0].Flags != 0 || !strings.HasPrefix(logs[0].Termination, "rbac_access_denied") {
			t.Fatalf("logs %+v", logs)
		}
		if !slices.Equal(reports, []stream.Report{stream.ReportOpen, stream.ReportEnd}) {
			t.Errorf("reports %v, want opened and closed", reports)
		}
		if logs[1].Flags != stream.FlagNoRoute || logs[1].Details != "filter_chain_not_found" || logs[1].Conn.Listener != "other" {
			t.Errorf("log %+v, want NR filter_chain_not_found", logs[1])
		}
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, listener.Settings{MaxConnections: 3})
		l := bound("a", "0.0.0.0:80", tcpChain("a", config.ChainMatch{}))
		l.MaxConnections = 2
		b.apply(t, l, bound("b", "0.0.0.0:81", tcpChain("b", config.ChainMatch{})))
		var got []string
		var conns []net.Conn
		for _, port := range []string{"80", "80", "80", "81", "81"} {
			c, s := b.dial(t, "10.0.0.1:"+port, "")
			got, conns = append(got, s), append(conns, c)
		}
		if want := []string{"tcp:a", "tcp:a", "", "tcp:b", ""}; !slices.Equal(got, want) {
			t.Fatalf("served %q, want %q", got, want)
		}
		if list := b.m.Connections(); len(list) != 3 || b.m.Active() != 3 || list[0].Chain != "a" || list[2].Info.Listener != "b" {
			t.Errorf("connections %+v", list)
		}
		_ = conns[0].Close()
		synctest.Wait()
		if _, s := b.dial(t, "10.0.0.1:80", ""); s != "tcp:a" {
			t.Errorf("served by %q after one had ended", s)
		}
		if n := b.m.Stats().Overflow.Load(); n != 2 {
			t.Errorf("overflow %d, want 2", n)
		}
	})
}

func TestApplyKeepsSocketsAndDrainsWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, listener.Settings{DrainTime: 45 * time.Second})
		keep, change := httpChain("keep", config.ChainMatch{DestinationPort: 80}), httpChain("old", config.ChainMatch{})
		tcpOld := tcpChain("tcp-old", config.ChainMatch{})
		b.apply(t, bound("a", "0.0.0.0:80", keep), bound("b", "0.0.0.0:81", change), bound("c", "0.0.0.0:82", tcpOld))
		onKeep, _ := b.dial(t, "10.0.0.1:80", "")
		onOld, _ := b.dial(t, "10.0.0.1:81", "")
		onTCP, _ := b.dial(t, "10.0.0.1:82", "")
		changed := bound("a", "0.0.0.0:80", keep, httpChain("more", config.ChainMatch{}))
		begin := time.Now()
		b.apply(t, changed, bound("b", "0.0.0.0:81", httpChain("new", config.ChainMatch{})))
		if got := line(onOld); got != "bye" {
			t.Errorf("connection of a changed chain got %q, want to be told to end", got)
		}
		if _, err := b.net.Dial("10.0.0.1:82"); err == nil {
			t.Error("the removed listener accepts")
		}
		if _, got := b.dial(t, "10.0.0.1:81", ""); got != "http:new" {
			t.Errorf("served by %q, want the new chain", got)
		}
		if got := line(onTCP); got != "" || time.Since(begin) != 45*time.Second {
			t.Errorf("the removed listener's connection got %q after %v, want to be cut after 45s", got, time.Since(begin))
		}
		if _, err := io.WriteString(onKeep, "still here\n"); err != nil {
			t.Fatal(err)
		}
		if got := line(onKeep); got != "still here" {
			t.Errorf("connection of a kept chain got %q", got)
		}
	})
}

func TestNewSecretsDoNotEndConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, listener.Settings{DrainTime: 45 * time.Second})
		origin := httpChain("origin", config.ChainMatch{})
		with := func(secret string) *config.FilterChain {
			fc := httpChain(secret, config.ChainMatch{})
			fc.Origin = origin
			return fc
		}
		b.apply(t, bound("a", "0.0.0.0:80", with("one")))
		onOne, _ := b.dial(t, "10.0.0.1:80", "")
		b.apply(t, bound("a", "0.0.0.0:80", with("two")))
		if _, got := b.dial(t, "10.0.0.1:80", ""); got != "http:two" {
			t.Errorf("served by %q, want the chain with the new secret", got)
		}
		time.Sleep(time.Minute)
		if _, err := io.WriteString(onOne, "still here\n"); err != nil {
			t.Fatal(err)
		}
		if got := line(onOne); got != "still here" {
			t.Errorf("connection from before the new secret got %q", got)
		}
		b.apply(t, bound("a", "0.0.0.0:80", httpChain("other", config.ChainMatch{})))
		if got := line(onOne); got != "bye" {
			t.Errorf("connection of a chain that is gone got %q, want to be told to end", got)
		}
	})
}

func TestAFailedApplyChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, listener.Settings{})
		b.apply(t, bound("a", "0.0.0.0:80", tcpChain("a", config.ChainMatch{})))
		taken, err := b.net.Listen("10.0.0.1:82")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = taken.Close() }()
		noServer := &config.FilterChain{Name: "empty"}
		needsTLS := tcpChain("t", config.ChainMatch{})
		needsTLS.TLS = &config.DownstreamTLS{}
		tests := map[string]*config.View{
			"a port that is taken":         view(bound("new", "0.0.0.0:81", tcpChain("x", config.ChainMatch{})), bound("z", "0.0.0.0:82", tcpChain("x", config.ChainMatch{}))),
			"one address twice":            view(bound("a", "0.0.0.0:81", tcpChain("x", config.ChainMatch{})), bound("b", "0.0.0.0:81", tcpChain("x", config.ChainMatch{}))),
			"chains that match the same":   view(bound("a", "0.0.0.0:81", tcpChain("x", config.ChainMatch{}), tcpChain("y", config.ChainMatch{}))),
			"a chain without a server":     view(bound("a", "0.0.0.0:81", noServer)),
			"TLS where none can be served": view(bound("a", "0.0.0.0:81", needsTLS)),
		}
		for name, v := range tests {
			if err := b.m.Apply(v); err == nil || !strings.Contains(err.Error(), `listener "`) {
				t.Errorf("%s: %v, want an error that names the listener", name, err)
			}
			if _, err := b.net.Dial("10.0.0.1:81"); err == nil {
				t.Errorf("%s: something listens on the new port", name)
			}
			if _, got := b.dial(t, "10.0.0.1:80", ""); got != "tcp:a" {
				t.Errorf("%s: the old listener answers %q", name, got)
			}
		}
	})
}

func TestDrain(t *testing.T) {
	for _, accept := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, listener.Settings{AcceptWhileDraining: accept})
			b.apply(t, bound("a", "0.0.0.0:80", httpChain("h", config.ChainMatch{})), bound("b", "0.0.0.0:81", tcpChain("t", config.ChainMatch{})))
			web, _ := b.dial(t, "10.0.0.1:80", "")
			long, _ := b.dial(t, "10.0.0.1:81", "")
			start := time.Now()
			res := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				res <- b.m.Drain(ctx)
			}()
			if got := line(web); got != "bye" {
				t.Errorf("HTTP connection got %q, want to be told to end", got)
			}
			synctest.Wait()
			c, err := b.net.Dial("10.0.0.1:80")
			if (err == nil) != accept {
				t.Errorf("accepting while draining: %v, want %t", err, accept)
			}
			if err == nil {
				if got := line(c) + line(c); !strings.Contains(got, "bye") {
					t.Errorf("a new connection got %q, want to be told to end at once", got)
				}
				_ = c.Close()
			}
			err = <-res
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cut 1 connections") || time.Since(start) != 30*time.Second {
				t.Errorf("after %v: %v, want one cut after 30s", time.Since(start), err)
			}
			if got := line(long); got != "" {
				t.Errorf("the long connection got %q", got)
			}
			if _, err := b.net.Dial("10.0.0.1:80"); err == nil {
				t.Error("accepts after Drain")
			}
		})
	}
}

func TestAnInheritedSocketOfAnotherNamespaceComesBesideOnesOwn(t *testing.T) {
	host, err := net.Listen("tcp4", "127.0.0.1:0") // as if of the machine's namespace
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Close() }()
	port := host.Addr().(*net.TCPAddr).AddrPort().Port()
	var own net.Listener
	e := &echo{}
	m := listener.New(listener.Settings{HTTP: e, TCP: e, Inherited: map[uint16]net.Listener{port: host},
		Listen: func(netip.AddrPort) (net.Listener, error) {
			own, err = net.Listen("tcp4", "127.0.0.1:0") // as if of this one, where the port is free
			return own, err
		}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	for range 2 { // removed and added again
		if err := m.Apply(view(bound("gw", fmt.Sprintf("0.0.0.0:%d", port), tcpChain("gw", config.ChainMatch{})))); err != nil {
			t.Fatal(err)
		}
		for _, at := range []net.Listener{host, own} {
			c, err := net.Dial("tcp4", at.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if got := line(c); got != "tcp:gw" {
				t.Errorf("%s is served by %q", at.Addr(), got)
			}
			_ = c.Close()
		}
		if err := m.Apply(view()); err != nil {
			t.Fatal(err)
		}
		if _, err := net.Dial("tcp4", own.Addr().String()); err == nil {
			t.Error("the own socket of a listener that was removed is still open")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestAnInheritedSocketIsUsedAndLeftOpen(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
	e := &echo{}
	m := listener.New(listener.Settings{HTTP: e, TCP: e, Inherited: map[uint16]net.Listener{port: ln}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	l := bound("gw", fmt.Sprintf("0.0.0.0:%d", port), tcpChain("gw", config.ChainMatch{}))
	ask := func() string {
		c, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return line(c)
	}
	for range 2 { // removed and added again
		if err := m.Apply(view(l)); err != nil {
			t.Fatal(err)
		}
		if got := ask(); got != "tcp:gw" {
			t.Fatalf("served by %q", got)
		}
		if err := m.Apply(view()); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatalf("the inherited socket was closed: %v", err)
	}
	_ = c.Close()
}
