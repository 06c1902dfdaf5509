package hcm

import (
	"context"
	"io"
	"testing"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream"
)

// quietServer is a downstream exchange that allocates nothing.
type quietServer struct {
	*fakeServer
	path, authority []byte
	status          int
}

func (s *quietServer) WriteHead(r *stream.Response, _ bool) error { s.status = r.Status; return nil }
func (s *quietServer) WriteBody([]byte, bool) error               { return nil }
func (s *quietServer) Flush() error                               { return nil }

// quietBackend answers 200 with five bytes and allocates nothing.
type quietBackend struct{}

func (b *quietBackend) manager(v *config.View) *upstream.Manager {
	m := upstream.NewManager(upstream.Settings{Connect: b})
	m.Apply(v)
	return m
}

func (b *quietBackend) Connect(_ context.Context, _ *config.Cluster, ep *config.Endpoint, _ *config.UpstreamTLS, _ config.Protocol, _ upstream.DialOptions) (upstream.HTTPConn, error) {
	return &quietConn{info: stream.ConnInfo{Remote: ep.Addr}, body: []byte("hello")}, nil
}

// quietConn is a connection and its only exchange.
type quietConn struct {
	info stream.ConnInfo
	resp stream.Response
	body []byte
	read bool
	busy bool
}

func (c *quietConn) Start() (stream.Client, error) {
	c.busy, c.read = true, false
	return (*quietClient)(c), nil
}
func (c *quietConn) Multiplexed() bool   { return false }
func (c *quietConn) Idle() bool          { return !c.busy }
func (c *quietConn) Usable() bool        { return true }
func (c *quietConn) CanTakeStream() bool { return true }
func (c *quietConn) Streams() int        { return 0 }
func (c *quietConn) Close()              {}

type quietClient quietConn

func (x *quietClient) WriteHead(*stream.Request, bool) error { return nil }
func (x *quietClient) WriteBody([]byte, bool) error          { return nil }
func (x *quietClient) WriteTrailers(*stream.Fields) error    { return nil }
func (x *quietClient) Flush() error                          { return nil }
func (x *quietClient) ReadHead() (*stream.Response, error) {
	x.resp.Reset()
	x.resp.Proto, x.resp.Status, x.resp.ContentLength = stream.HTTP11, 200, 5
	x.resp.Fields.Add("content-type", "text/plain")
	return &x.resp, nil
}
func (x *quietClient) ReadBody() ([]byte, error) {
	if x.read {
		return nil, io.EOF
	}
	x.read = true
	return x.body, nil
}
func (x *quietClient) Trailers() *stream.Fields { return nil }
func (x *quietClient) SetDeadline(time.Time)    {}
func (x *quietClient) Conn() *stream.ConnInfo   { return &x.info }
func (x *quietClient) Fresh() bool              { return false }
func (x *quietClient) Close()                   { x.busy = false }

// BenchmarkExchange is what the connection manager, router and pool cost without codecs and sockets.
func BenchmarkExchange(b *testing.B) {
	h := newHarness(b, ok)
	h.logFn = func(*stream.Info) {}
	h.start(nil)
	m := New(h.cfg, Deps{Live: h.m.deps.Live, Upstreams: (&quietBackend{}).manager(h.view), Sweeper: NewSweeper()})
	conn := m.connection(context.Background(), h.info)
	s := &quietServer{fakeServer: newServer("GET", "/reviews/1", "user-agent", "curl", "accept", "*/*", "cookie", "a=b", "accept-encoding", "gzip")}
	fields := append([]stream.Field(nil), s.req.Fields.All()...)
	path := s.req.Path
	b.ReportAllocs()
	for b.Loop() {
		s.req.Fields.Reset()
		for _, f := range fields {
			s.req.Fields.Append(f.Name, f.Value)
		}
		s.req.Path = path
		conn.handle(context.Background(), s)
	}
}
