// Package hcm is the HTTP connection manager: it serves downstream HTTP
// connections, from the bytes that a codec hands over to the exchange with an
// upstream and back.
//
// For each request it checks and normalises the head, sets the headers that a
// proxy owns (x-forwarded-*, x-request-id, trace context, client certificate),
// finds the route, runs the filters, and then routes: direct responses,
// redirects, rewrites, header operations, retries, time-outs, mirrors,
// upgrades. On the way back filters run in reverse order. It ends with access
// logs and the filters that want to see the finished exchange.
//
// It runs on the goroutine that the codec calls it on; one more goroutine
// uploads a request body that had not arrived with its head, and mirrors have
// their own. State of an exchange is pooled: in the steady state a plain
// proxied request allocates nothing.
//
// It does not parse HTTP (http1, http2), keep connections or pick endpoints
// (upstream), or know what filters do. Hedging, internal redirects, CONNECT
// tunnels to TCP upstreams and request buffering beyond 64 KiB are not done.
package hcm

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/http1"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream"
)

// Deps is what a Manager needs of the rest of the proxy.
type Deps struct {
	Live      *config.Live
	Upstreams *upstream.Manager
	// Drain, when closed, ends connections after what runs on them (Connection: close, GOAWAY).
	Drain <-chan struct{}
	// DrainTime is asked when Drain is closed: how long connections may be ended gently, see the
	// options of http1 and http2. Nil: at once.
	DrainTime func() time.Duration
	// DrainIdle is asked when Drain is closed: how long a connection may wait for a request that is on its
	// way; nil: [http1.DefaultDrainIdle]. 0 where the configuration was replaced: a request on its way would be
	// served by rules that are out of force.
	DrainIdle func() time.Duration
	// Sweeper watches over waiting exchanges; one is shared by all managers. Its Run must be running.
	Sweeper *Sweeper
	// Admission turns requests away when too much runs; nil: all are admitted.
	Admission Admission
	// Lot is where HTTP/1 connections that idle are parked; nil: they keep their goroutines. Its Run must be running.
	Lot *netio.Lot
	// MaxMirrors bounds mirrored requests in flight; 0: 1024. Beyond it they are dropped and counted.
	MaxMirrors int64
}

// Manager serves the connections of one compiled HTTP connection manager. Safe for concurrent use.
type Manager struct {
	cfg       *config.HTTPManager
	deps      Deps
	enders    []filter.Ender
	upstreams []filter.Upstreamer
	watchers  []filter.BodyWatcher
	// transcoders has a place for each filter, nil for those that are none; it is empty if all are.
	transcoders []filter.Transcoder
	mirrors     *mirrors
	table       atomic.Pointer[tableOf] // found last
	serverLine  []byte                  // our name as a header line

	Stats Stats
}

// Stats counts what passed. Names follow Envoy's http.<prefix>.
type Stats struct {
	CxTotal, RqTotal, Retries, MirrorDropped, MirrorTotal atomic.Uint64
	CxActive, RqActive                                    atomic.Int64
}

// New makes a manager.
func New(cfg *config.HTTPManager, d Deps) *Manager {
	if d.MaxMirrors <= 0 {
		d.MaxMirrors = 1024
	}
	m := &Manager{cfg: cfg, deps: d, mirrors: newMirrors(d.MaxMirrors)}
	if stream.ValidValue(stream.Bytes(cfg.ServerName)) {
		m.serverLine = []byte("server: " + cfg.ServerName + "\r\n")
	}
	for i, f := range cfg.Filters {
		if e, ok := f.(filter.Ender); ok {
			m.enders = append(m.enders, e)
		}
		if u, ok := f.(filter.Upstreamer); ok {
			m.upstreams = append(m.upstreams, u)
		}
		if w, ok := f.(filter.BodyWatcher); ok {
			m.watchers = append(m.watchers, w)
		}
		if t, ok := f.(filter.Transcoder); ok {
			if m.transcoders == nil {
				m.transcoders = make([]filter.Transcoder, len(cfg.Filters))
			}
			m.transcoders[i] = t
		}
	}
	return m
}

// tableOf is a view's route table, so that its name need not be looked up for each request.
type tableOf struct {
	view  *config.View
	table *route.Table
}

// routes is the current route table; nil if there is none.
func (m *Manager) routes() *route.Table {
	if t := m.cfg.Routes; t != nil {
		return t
	}
	v := m.deps.Live.View()
	if v == nil {
		return nil
	}
	t := m.table.Load()
	if t == nil || t.view != v {
		t = &tableOf{v, v.Routes[m.cfg.RouteName]}
		m.table.Store(t)
	}
	return t.table
}

// connection is one downstream connection.
type connection struct {
	m     *Manager
	ctx   context.Context
	info  *stream.ConnInfo
	owner Owner
	xfcc  []byte // the element for x-forwarded-client-cert, nil if there is none to add
}

// Serve serves a connection until it ends; it closes c. ctx ends what runs on it.
func (m *Manager) Serve(ctx context.Context, c *netio.Conn, info *stream.ConnInfo) error {
	end := make(owner, 1)
	m.Start(ctx, c, info, end)
	return <-end
}

// Owner is who has given a connection to a manager.
type Owner interface {
	// Ended is told what ended the connection, once. It must not wait.
	Ended(error)
	// Sleep is [netio.Lot.Sleep] of the connection: again is called when there is something to do, with what there is of it then, or with nil if it has ended.
	Sleep(due time.Time, again func(*netio.Conn)) bool
}

// owner of a connection that does not sleep.
type owner chan error

func (o owner) Ended(err error)                         { o <- err }
func (o owner) Sleep(time.Time, func(*netio.Conn)) bool { return false }

// Start is Serve, except that it returns early when the connection idles and was parked, or sleeps.
func (m *Manager) Start(ctx context.Context, c *netio.Conn, info *stream.ConnInfo, o Owner) {
	m.Stats.CxTotal.Add(1)
	m.Stats.CxActive.Add(1)
	conn := m.connection(ctx, info) // a context of its own would cost a goroutine that watches it
	if state := c.TLSState(); state != nil {
		conn.xfcc = clientCertElement(m.cfg, info, state)
	}
	conn.owner = o
	drain, stop := m.drainOf()
	conn.serve(c, drain, m.ending(c, o, stop))
}

// ending is what ends a connection.
func (m *Manager) ending(c *netio.Conn, o Owner, stop func()) func(error) {
	return func(err error) {
		stop()
		_ = c.Close()
		m.Stats.CxActive.Add(-1)
		o.Ended(err)
	}
}

// sleep gives a connection of HTTP/1 up until something comes of it. What goes on then knows nothing of what there was before.
func (c *connection) sleep(due time.Time, rest http1.Rest) bool {
	m, ctx, info, o := c.m, c.ctx, c.info, c.owner
	return o.Sleep(due, func(nc *netio.Conn) {
		if nc == nil {
			m.Stats.CxActive.Add(-1)
			o.Ended(nil)
			return
		}
		conn := m.connection(ctx, info)
		conn.owner = o
		drain, stop := m.drainOf()
		conn.serveHTTP1(nc, drain, rest, m.ending(nc, o, stop))
	})
}

func (m *Manager) connection(ctx context.Context, info *stream.ConnInfo) *connection {
	return &connection{m: m, ctx: ctx, info: info}
}

// drainOf is the drain signal of one connection: the manager's, or earlier when its time is over.
func (m *Manager) drainOf() (drain <-chan struct{}, stop func()) {
	max := m.cfg.MaxConnectionDuration
	if max <= 0 {
		return m.deps.Drain, func() {}
	}
	var wg sync.WaitGroup
	ch, end := make(chan struct{}), make(chan struct{})
	timer := time.NewTimer(max)
	wg.Go(func() {
		defer timer.Stop()
		select {
		case <-m.deps.Drain:
		case <-timer.C:
		case <-end:
			return
		}
		close(ch)
	})
	return ch, func() { close(end); wg.Wait() }
}

// protocolError logs a request that the codec refused.
func (c *connection) protocolError(status int, details string) {
	info := &stream.Info{
		Conn: c.info, Start: time.Now(), Req: &stream.Request{}, Status: status, GRPCCode: -1, ServiceTime: -1,
		Flags: stream.FlagDownstreamProtocolErr, Details: details,
	}
	for _, l := range c.m.cfg.AccessLogs {
		l.Log(info)
	}
}

// handle serves one request; it is the codecs' handler.
func (c *connection) handle(_ context.Context, s stream.Server) {
	m := c.m
	m.Stats.RqTotal.Add(1)
	m.Stats.RqActive.Add(1)
	x := exchangeOf(s)
	x.begin(c, s)
	if a := m.deps.Admission; a != nil {
		if x.admitted = a.Begin(); !x.admitted {
			x.shed()
			x.finish()
			return
		}
	}
	if x.run() {
		x.finish()
	} // else it goes on in resume
}

// fresh is a random number for routing decisions.
func fresh() uint64 { return rand.Uint64() }
