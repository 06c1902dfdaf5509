package hcm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream"
)

// fakeServer is a downstream exchange.
type fakeServer struct {
	req      stream.Request
	buffered []byte        // the whole body, if it came with the head
	pieces   chan []byte   // else its pieces; closed at the end
	look     func() bool   // instead of Gone; nil: leave tells
	bodyErr  error         // instead of io.EOF
	abortC   chan struct{} // closed by Abort
	once     sync.Once

	mu       sync.Mutex
	infos    []int
	status   int
	head     map[string]string
	body     bytes.Buffer
	trailers map[string]string
	ended    bool
	aborted  bool
	gone     bool
	flushes  int
	closing  bool
	failing  error
}

func newServer(method, path string, headers ...string) *fakeServer {
	s := &fakeServer{abortC: make(chan struct{})}
	s.req = stream.Request{Proto: stream.HTTP11, Method: []byte(method), Scheme: []byte("http"), Authority: []byte("reviews"), Path: []byte(path)}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == ":authority" {
			s.req.Authority = []byte(headers[i+1])
			continue
		}
		s.req.Fields.Append([]byte(headers[i]), []byte(headers[i+1]))
	}
	return s
}

func (s *fakeServer) withBody(b string) *fakeServer {
	s.buffered, s.req.ContentLength = []byte(b), int64(len(b))
	return s
}

func (s *fakeServer) streaming() *fakeServer {
	s.pieces, s.req.ContentLength = make(chan []byte, 100), stream.UnknownLength
	return s
}

func (s *fakeServer) Request() *stream.Request     { return &s.req }
func (s *fakeServer) HasBody() bool                { return s.buffered != nil || s.pieces != nil }
func (s *fakeServer) BodyBuffered() ([]byte, bool) { return s.buffered, s.pieces == nil }
func (s *fakeServer) ReadBody() ([]byte, error) {
	if s.pieces == nil {
		return nil, io.EOF
	}
	select {
	case p, ok := <-s.pieces:
		if ok {
			return p, nil
		}
	case <-s.abortC:
		return nil, errors.New("aborted")
	}
	if s.bodyErr != nil {
		return nil, s.bodyErr
	}
	return nil, io.EOF
}
func (s *fakeServer) RequestTrailers() *stream.Fields { return nil }

func (s *fakeServer) WriteHead(r *stream.Response, end bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		return s.failing
	}
	if r.Status < 200 && r.Status != 101 {
		s.infos = append(s.infos, r.Status)
		return nil
	}
	s.status, s.head, s.ended = r.Status, fieldMap(&r.Fields), end
	return nil
}

func (s *fakeServer) WriteBody(p []byte, end bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		return s.failing
	}
	s.body.Write(p)
	s.ended = s.ended || end
	return nil
}

func (s *fakeServer) WriteTrailers(t *stream.Fields) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trailers, s.ended = fieldMap(t), true
	return nil
}

func (s *fakeServer) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushes++
	return nil
}

func (s *fakeServer) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	s.once.Do(func() { close(s.abortC) })
}

func (s *fakeServer) Gone() bool {
	if s.look != nil {
		return s.look()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

func (s *fakeServer) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
}
func (s *fakeServer) Done() <-chan struct{} { return nil }
func (s *fakeServer) CloseAfter()           { s.closing = true }

func fieldMap(f *stream.Fields) map[string]string {
	m := map[string]string{}
	for _, l := range f.All() {
		if old, ok := m[string(l.Name)]; ok {
			m[string(l.Name)] = old + "|" + string(l.Value)
		} else {
			m[string(l.Name)] = string(l.Value)
		}
	}
	return m
}

// answer is what a fake upstream does with one request.
type answer struct {
	status    int
	headers   []string
	body      []string // pieces
	trailers  []string
	infos     []int
	delay     time.Duration // before the head
	bodyDelay time.Duration // before each piece
	err       error         // instead of a head
	bodyErr   error         // after the pieces
	early     bool          // does not wait for the request's body
	connect   error         // the connection cannot be made
}

// seen is a request as an upstream got it.
type seen struct {
	cluster   string
	addr      netip.AddrPort
	method    string
	path      string
	authority string
	headers   map[string]string
	body      string
	at        time.Time
}

// backend is all upstreams.
type backend struct {
	handle func(n int, s *seen) answer
	write  func()           // called before a request is written; may be nil
	mtls   *stream.ConnInfo // of connections, if not plaintext

	mu       sync.Mutex
	requests []seen
	dials    int
	open     int // exchanges not closed
}

func (b *backend) Connect(ctx context.Context, c *config.Cluster, ep *config.Endpoint, _ *config.UpstreamTLS, _ config.Protocol, _ upstream.DialOptions) (upstream.HTTPConn, error) {
	b.mu.Lock()
	b.dials++
	b.mu.Unlock()
	info := &stream.ConnInfo{Local: netip.MustParseAddrPort("10.9.9.9:50000"), Remote: ep.Addr}
	if b.mtls != nil {
		info = b.mtls
	}
	return &fakeConn{b: b, cluster: c.Name, addr: ep.Addr, info: info}, nil
}

type fakeConn struct {
	b       *backend
	cluster string
	addr    netip.AddrPort
	info    *stream.ConnInfo
	x       fakeClient
	uses    int
	busy    bool
	dead    bool
}

func (c *fakeConn) Start() (stream.Client, error) {
	c.busy, c.uses = true, c.uses+1
	body := c.x.body
	body.Reset()
	resp := c.x.resp
	resp.Reset()
	c.x = fakeClient{c: c, body: body, resp: resp, changed: c.x.changed}
	c.b.mu.Lock()
	c.b.open++
	c.b.mu.Unlock()
	return &c.x, nil
}
func (c *fakeConn) Multiplexed() bool   { return false }
func (c *fakeConn) Idle() bool          { return !c.busy && !c.dead }
func (c *fakeConn) Usable() bool        { return !c.dead }
func (c *fakeConn) CanTakeStream() bool { return !c.busy }
func (c *fakeConn) Streams() int        { return 0 }
func (c *fakeConn) Close()              { c.dead = true }

// fakeClient is one exchange with an upstream. What it gets and answers passes by value.
type fakeClient struct {
	c        *fakeConn
	req      *stream.Request
	reqEnded bool
	body     bytes.Buffer
	resp     stream.Response
	ans      answer
	asked    bool
	infos    int
	piece    int
	over     bool

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{}
}

func (x *fakeClient) wake() {
	if x.changed != nil {
		close(x.changed)
	}
	x.changed = make(chan struct{})
}

func (x *fakeClient) WriteHead(r *stream.Request, end bool) error {
	if w := x.c.b.write; w != nil {
		w()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.req, x.reqEnded = r, end
	return nil
}

func (x *fakeClient) WriteBody(p []byte, end bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.deadline.IsZero() && !time.Now().Before(x.deadline) {
		return errDeadline
	}
	x.body.Write(p)
	if end {
		x.reqEnded = true
		x.wake()
	}
	return nil
}
func (x *fakeClient) WriteTrailers(*stream.Fields) error { return x.WriteBody(nil, true) }
func (x *fakeClient) Flush() error                       { return nil }

var errDeadline = &stream.Error{Side: stream.Upstream, Op: "read head", Flag: stream.FlagUpstreamTimeout, Timeout: true, Details: "response_timeout", Err: errors.New("deadline")}

// wait for d, or for cond if d is negative.
func (x *fakeClient) wait(d time.Duration, cond func() bool) error {
	end := time.Now().Add(d)
	for {
		x.mu.Lock()
		now := time.Now()
		if !x.deadline.IsZero() && !now.Before(x.deadline) {
			x.mu.Unlock()
			return errDeadline
		}
		if cond != nil && cond() || cond == nil && !now.Before(end) {
			x.mu.Unlock()
			return nil
		}
		if x.changed == nil {
			x.changed = make(chan struct{})
		}
		changed, until := x.changed, time.Hour
		if cond == nil {
			until = end.Sub(now)
		}
		if !x.deadline.IsZero() {
			until = min(until, x.deadline.Sub(now))
		}
		x.mu.Unlock()
		t := time.NewTimer(until)
		select {
		case <-t.C:
		case <-changed:
		}
		t.Stop()
	}
}

func (x *fakeClient) ReadHead() (*stream.Response, error) {
	if !x.asked {
		if err := x.ask(); err != nil {
			return nil, err
		}
	}
	a := &x.ans
	if x.infos < len(a.infos) {
		x.infos++
		return &stream.Response{Status: a.infos[x.infos-1]}, nil
	}
	if a.delay > 0 {
		if err := x.wait(a.delay, nil); err != nil {
			return nil, err
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	x.resp.Reset()
	x.resp.Proto, x.resp.Status, x.resp.ContentLength = stream.HTTP11, a.status, stream.UnknownLength
	if len(a.body) == 0 && len(a.trailers) == 0 {
		x.resp.ContentLength = 0
	} else if len(a.body) == 1 && len(a.trailers) == 0 && a.bodyErr == nil {
		x.resp.ContentLength = int64(len(a.body[0]))
	}
	for i := 0; i+1 < len(a.headers); i += 2 {
		x.resp.Fields.Add(a.headers[i], a.headers[i+1])
	}
	return &x.resp, nil
}

// ask shows the request to the backend, when it is complete.
func (x *fakeClient) ask() error {
	x.asked = true
	b := x.c.b
	probe := b.peek()
	if !probe.early {
		if err := x.wait(-1, func() bool { return x.reqEnded }); err != nil {
			return err
		}
	}
	x.mu.Lock()
	s := seen{cluster: x.c.cluster, addr: x.c.addr, method: string(x.req.Method), path: string(x.req.Path), authority: string(x.req.Authority),
		headers: fieldMap(&x.req.Fields), body: x.body.String(), at: time.Now()}
	x.mu.Unlock()
	b.mu.Lock()
	b.requests = append(b.requests, s)
	n := len(b.requests)
	b.mu.Unlock()
	x.ans = b.handle(n, &s)
	return nil
}

// peek asks the backend what it will do before it has the request; only early counts.
func (b *backend) peek() answer { return b.handle(0, nil) }

func (x *fakeClient) ReadBody() ([]byte, error) {
	a := &x.ans
	if x.piece < len(a.body) {
		if a.bodyDelay > 0 {
			if err := x.wait(a.bodyDelay, nil); err != nil {
				return nil, err
			}
		}
		x.piece++
		return []byte(a.body[x.piece-1]), nil
	}
	if a.bodyErr != nil {
		return nil, a.bodyErr
	}
	x.over = true
	return nil, io.EOF
}

func (x *fakeClient) Trailers() *stream.Fields {
	if len(x.ans.trailers) == 0 {
		return nil
	}
	var f stream.Fields
	for i := 0; i+1 < len(x.ans.trailers); i += 2 {
		f.Add(x.ans.trailers[i], x.ans.trailers[i+1])
	}
	return &f
}

func (x *fakeClient) SetDeadline(t time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.deadline = t
	x.wake()
}
func (x *fakeClient) Conn() *stream.ConnInfo { return x.c.info }
func (x *fakeClient) Fresh() bool            { return x.c.uses == 1 }
func (x *fakeClient) Close() {
	x.c.b.mu.Lock()
	x.c.b.open--
	x.c.b.mu.Unlock()
	x.c.busy = false
	x.c.dead = x.c.dead || !x.over
}

// harness is a connection manager with fake sides.
type harness struct {
	t       testing.TB
	cfg     *config.HTTPManager
	view    *config.View
	backend *backend
	info    *stream.ConnInfo
	m       *Manager
	ups     *upstream.Manager
	logged  []stream.Info
	logFn   func(*stream.Info)
}

func cluster(name string, addrs ...string) *config.Cluster {
	c := &config.Cluster{Name: name, Warm: true, Breakers: config.Breakers{MaxConnections: 1 << 30, MaxPending: 1 << 30, MaxRequests: 1 << 30, MaxRetries: 1 << 30},
		Service: stream.Service{Host: name + ".default.svc.cluster.local", Name: name, Namespace: "default"}}
	for _, a := range addrs {
		c.Endpoints = append(c.Endpoints, &config.Endpoint{Addr: netip.MustParseAddrPort(a), Weight: 1})
	}
	return c
}

// newHarness has one route to cluster "reviews" with two endpoints.
func newHarness(t testing.TB, handle func(n int, s *seen) answer) *harness {
	h := &harness{t: t, backend: &backend{handle: handle}}
	h.cfg = &config.HTTPManager{RouteName: "80", GenerateRequestID: true, Normalize: true, ServerName: "istio-envoy"}
	h.info = &stream.ConnInfo{Direction: stream.Outbound, Local: netip.MustParseAddrPort("10.0.0.2:80"), Remote: netip.MustParseAddrPort("10.0.0.1:40000")}
	h.view = &config.View{Routes: map[string]*route.Table{}, Clusters: map[string]*config.Cluster{}}
	h.cluster(cluster("reviews", "10.1.0.1:9080", "10.1.0.2:9080"))
	h.routes(&route.Route{Name: "default", Forward: &route.Forward{Cluster: "reviews"}})
	return h
}

func (h *harness) cluster(c *config.Cluster) { h.view.Clusters[c.Name] = c }

func (h *harness) routes(rs ...*route.Route) {
	h.view.Routes["80"] = &route.Table{Name: "80", VirtualHosts: []*route.VirtualHost{{Name: "any", Domains: []string{"*"}, Routes: rs}}}
}

// forward is the action of the only route.
func (h *harness) forward() *route.Forward {
	return h.view.Routes["80"].VirtualHosts[0].Routes[0].Forward
}

// start makes the manager; what runs ends with ctx.
func (h *harness) start(ctx context.Context) {
	h.t.Helper()
	for _, r := range h.view.Routes {
		if err := route.Build(r); err != nil {
			h.t.Fatal(err)
		}
	}
	if h.logFn == nil {
		h.logFn = func(i *stream.Info) { h.logged = append(h.logged, *i) }
	}
	h.cfg.AccessLogs = []*config.AccessLog{{Name: "test", Log: h.logFn}}
	live := &config.Live{}
	live.Publish(h.view)
	h.ups = upstream.NewManager(upstream.Settings{Connect: h.backend})
	h.ups.Apply(h.view)
	sw := NewSweeper()
	if ctx != nil {
		go func() { _ = sw.Run(ctx) }()
	}
	h.m = New(h.cfg, Deps{Live: live, Upstreams: h.ups, Sweeper: sw})
}

// serve runs one exchange to its end and returns what was logged of it.
func (h *harness) serve(s *fakeServer) *stream.Info {
	h.t.Helper()
	n := len(h.logged)
	h.m.connection(context.Background(), h.info).handle(context.Background(), s)
	if len(h.logged) != n+1 {
		h.t.Fatalf("%d lines logged, want one", len(h.logged)-n)
	}
	h.m.Wait()
	h.backend.mu.Lock()
	defer h.backend.mu.Unlock()
	if h.backend.open != 0 {
		h.t.Errorf("%d upstream exchanges were not closed", h.backend.open)
	}
	return &h.logged[n]
}

// filterFunc is a filter made of functions.
type filterFunc struct {
	request  func(*filter.Stream) filter.Verdict
	response func(*filter.Stream)
}

func (f *filterFunc) Name() string { return "test" }
func (f *filterFunc) Request(s *filter.Stream) filter.Verdict {
	if f.request == nil {
		return filter.Continue
	}
	return f.request(s)
}
func (f *filterFunc) Response(s *filter.Stream) {
	if f.response != nil {
		f.response(s)
	}
}
