package upstream

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// fakeNet makes connections that do nothing.
type fakeNet struct {
	h2      bool
	streams int           // that fit on an HTTP/2 connection
	delay   time.Duration // of connecting
	fail    func(a netip.AddrPort) error

	mu    sync.Mutex
	conns []*fakeConn
}

func (n *fakeNet) Connect(ctx context.Context, _ *config.Cluster, ep *config.Endpoint, tls *config.UpstreamTLS, proto config.Protocol, o DialOptions) (HTTPConn, error) {
	select {
	case <-time.After(n.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if n.fail != nil {
		if err := n.fail(ep.Addr); err != nil {
			return nil, err
		}
	}
	c := &fakeConn{net: n, addr: ep.Addr, tls: tls, opts: o, multi: proto == config.ProtoHTTP2 || n.h2, usable: true}
	n.mu.Lock()
	n.conns = append(n.conns, c)
	n.mu.Unlock()
	return c, nil
}

func (n *fakeNet) count() (all, open int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.mu.Lock()
		if !c.closed {
			open++
		}
		c.mu.Unlock()
	}
	return len(n.conns), open
}

type fakeConn struct {
	net   *fakeNet
	addr  netip.AddrPort
	tls   *config.UpstreamTLS
	opts  DialOptions
	multi bool

	mu      sync.Mutex
	streams int
	usable  bool   // mu
	closed  bool   // mu
	broken  bool   // the next exchange leaves it unusable
	looked  func() // called by Usable, if not nil
}

func (c *fakeConn) Start() (stream.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !c.usable || c.multi && c.streams >= c.limit() || !c.multi && c.streams > 0 {
		return nil, errors.New("no room")
	}
	c.streams++
	return &fakeExchange{c}, nil
}

func (c *fakeConn) limit() int {
	if c.net.streams > 0 {
		return c.net.streams
	}
	return 100
}
func (c *fakeConn) Multiplexed() bool { return c.multi }
func (c *fakeConn) Idle() bool        { c.mu.Lock(); defer c.mu.Unlock(); return c.streams == 0 && !c.broken }
func (c *fakeConn) Usable() bool {
	if c.looked != nil {
		c.looked()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usable && !c.closed
}
func (c *fakeConn) CanTakeStream() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usable && c.streams < c.limit()
}
func (c *fakeConn) Streams() int { c.mu.Lock(); defer c.mu.Unlock(); return c.streams }
func (c *fakeConn) Close()       { c.mu.Lock(); defer c.mu.Unlock(); c.closed = true }

// fakeExchange only knows its connection.
type fakeExchange struct{ c *fakeConn }

func (x *fakeExchange) WriteHead(*stream.Request, bool) error { return nil }
func (x *fakeExchange) WriteBody([]byte, bool) error          { return nil }
func (x *fakeExchange) WriteTrailers(*stream.Fields) error    { return nil }
func (x *fakeExchange) Flush() error                          { return nil }
func (x *fakeExchange) ReadHead() (*stream.Response, error)   { return nil, errors.New("none") }
func (x *fakeExchange) ReadBody() ([]byte, error)             { return nil, stream.EOF }
func (x *fakeExchange) Trailers() *stream.Fields              { return nil }
func (x *fakeExchange) SetDeadline(time.Time)                 {}
func (x *fakeExchange) Conn() *stream.ConnInfo                { return &stream.ConnInfo{Remote: x.c.addr} }
func (x *fakeExchange) Fresh() bool                           { return true }
func (x *fakeExchange) ReadReady() bool                       { return true }
func (x *fakeExchange) Close() {
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	x.c.streams--
}

const unlimited = 1 << 31

func clusterOf(addrs ...string) *config.Cluster {
	c := &config.Cluster{Name: "c", Warm: true, Breakers: config.Breakers{MaxConnections: unlimited, MaxPending: unlimited, MaxRequests: unlimited, MaxRetries: unlimited}}
	for _, a := range addrs {
		c.Endpoints = append(c.Endpoints, endpoint(a))
	}
	return c
}

func endpoint(a string) *config.Endpoint {
	return &config.Endpoint{Addr: netip.MustParseAddrPort(a), Weight: 1}
}

// world is a manager of one cluster.
type world struct {
	t   *testing.T
	net *fakeNet
	m   *Manager
}

func newWorld(t *testing.T, n *fakeNet, c *config.Cluster) *world {
	t.Helper()
	w := &world{t: t, net: n, m: NewManager(Settings{Connect: n})}
	w.apply(c)
	return w
}

func (w *world) apply(cs ...*config.Cluster) {
	v := &config.View{Clusters: map[string]*config.Cluster{}}
	for _, c := range cs {
		v.Clusters[c.Name] = c
	}
	w.m.Apply(v)
}

// run runs the manager until the returned function is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.m.Run(ctx) }()
	return func() { cancel(); <-done }
}

func (w *world) c() *Cluster { return w.m.Cluster("c") }

func (w *world) get() (stream.Client, *Host) {
	w.t.Helper()
	x, h, err := w.c().Acquire(context.Background(), &Request{Random: uint64(time.Now().UnixNano())})
	if err != nil {
		w.t.Fatal(err)
	}
	return x, h
}

func (w *world) refused(r *Request) *stream.Error {
	w.t.Helper()
	x, _, err := w.c().Acquire(context.Background(), r)
	if err == nil {
		x.Close()
		w.t.Fatal("acquired, want a refusal")
	}
	e, ok := stream.AsError(err)
	if !ok {
		w.t.Fatalf("error %v is no *stream.Error", err)
	}
	return e
}

func (w *world) expectConns(all, open int) {
	w.t.Helper()
	if a, o := w.net.count(); a != all || o != open {
		w.t.Errorf("%d connections made, %d open, want %d and %d", a, o, all, open)
	}
}
