package hcm

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// exchange is one request and its response. It is pooled: begin sets all of it.
type exchange struct {
	message

	fs    filter.Stream
	buf   []byte          // arena of header values made here
	local stream.Response // a reply of our own

	watches []filter.BodyWatch
	up      upstreamSide

	// What other goroutines (the sweeper) may touch.
	mu     sync.Mutex
	client stream.Client      // mu: the running upstream exchange
	times  times              // mu
	cancel context.CancelFunc // mu: of ctx, if it was made
	cutBy  atomic.Uint32      // a cut: why it was ended from outside; set with mu held
	ctx    context.Context
	watch  watched

	// Set once for the life of the value.
	sleepFn   func(time.Duration) bool
	contextFn func() context.Context
	resumeFn  func()
	kept      bool // the codec's stream keeps it

	admitted bool // counted by the manager's Admission
}

// message is what is forgotten at once at the end of an exchange: clearing it whole is less code, and less to be fetched, than field by field.
type message struct {
	conn *connection
	m    *Manager
	srv  stream.Server
	req  *stream.Request
	info stream.Info
	h    known // headers found in one pass

	table  *route.Table
	route  *route.Route
	choice *route.WeightedCluster
	random uint64

	env   route.Env
	codec stream.Server // what runs the exchange; srv may stand before it

	headSent   bool  // the final head went downstream
	transcoded bool  // a filter stands between us and the codec
	announced  int64 // the length of the body as it came to the filter that transcodes
}

// cut says why an exchange was ended from outside.
type cut uint8

const (
	notCut cut = iota
	cutGone
	cutIdle
	cutDuration
)

var exchanges = sync.Pool{New: func() any {
	x := &exchange{buf: make([]byte, 0, 1024)}
	x.sleepFn, x.contextFn = x.sleep, x.context
	x.fs.Info, x.fs.Sleep, x.fs.Context = &x.info, x.sleepFn, x.contextFn
	return x
}}

func (x *exchange) begin(c *connection, s stream.Server) {
	if x.resumeFn == nil {
		x.resumeFn = x.resume
	}
	x.conn, x.m, x.srv, x.codec, x.req = c, c.m, s, s, s.Request()
	i := &x.info // it is empty: clear has seen to that
	i.Conn, i.Start, i.Req, i.GRPCCode, i.ServiceTime, i.OrigPath, i.Peer = c.info, now(), x.req, -1, -1, x.req.Path, c.info.Met.Peer()
	x.fs.Conn, x.fs.Req = c.info, x.req
	if n := len(c.m.cfg.Filters); cap(x.fs.State) < n {
		x.fs.State = make([]any, n)
	} else {
		x.fs.State = x.fs.State[:n]
	}
	x.random = fresh()
	x.watch.begin = x.watch.progress.Load()
}

// finish ends the exchange and gives it back to the pool.
func (x *exchange) finish() {
	m, kept := x.m, x.kept
	if x.admitted {
		x.admitted = false
		m.deps.Admission.End()
	}
	x.end()
	m.Stats.RqActive.Add(-1)
	if !kept {
		exchanges.Put(x)
	}
}

// exchangeOf finds the exchange that the codec's stream had before, or takes one from the pool.
func exchangeOf(s stream.Server) *exchange {
	k, ok := s.(stream.Keeper)
	if !ok {
		return exchanges.Get().(*exchange)
	}
	x, ok := k.Kept().(*exchange)
	if !ok {
		x = exchanges.Get().(*exchange)
		x.kept = true
		k.Keep(x)
	}
	return x
}

// end tells those who want to know, and lets go of everything.
func (x *exchange) end() {
	x.info.Duration = time.Since(x.info.Start)
	x.unwatch()
	x.up.body.finish(x)
	if x.cancel != nil {
		x.cancel()
	}
	if x.fs.Resp != nil {
		x.info.Resp = x.fs.Resp
	}
	for _, w := range x.watches {
		w.Done(&x.fs)
	}
	for _, e := range x.m.enders {
		e.End(&x.fs)
	}
	for _, l := range x.m.cfg.AccessLogs {
		l.Log(&x.info)
	}
	x.closeClient() // not before: the response's head is the client's memory
	x.clear()
}

func (x *exchange) clear() {
	fs := &x.fs
	clear(fs.State)
	fs.State = fs.State[:0]
	fs.Conn, fs.Req, fs.Resp, fs.Upstream, fs.PerRoute, fs.Direct = nil, nil, nil, nil, nil, false
	x.message = message{}
	if x.local.Fields.Len() > 0 {
		x.local.Reset()
	}
	if cap(x.buf) > maxArena {
		x.buf = make([]byte, 0, 1024)
	}
	x.buf = x.buf[:0]
	clear(x.watches)
	x.watches = x.watches[:0]
	if x.watch.answering.Load() {
		x.watch.answering.Store(false)
	}
	x.up.clear()
	x.client, x.cancel, x.ctx = nil, nil, nil
	if x.cutReason() != notCut {
		x.cutBy.Store(uint32(notCut))
	}
	x.times = times{}
	set(&x.watch.idle, 0)
	set(&x.watch.longest, 0)
}

// set is v.Store(n), which costs as much as a lock, where it changes anything.
func set(v *atomic.Int64, n int64) {
	if v.Load() != n {
		v.Store(n)
	}
}

// maxArena is how much memory for header values a pooled exchange may keep.
const maxArena = 16 << 10

// run takes the request from its head to the end of its response. With false the exchange awaits
// its upstream: it belongs to resume and must not be touched any more.
func (x *exchange) run() (done bool) {
	x.h.scan(&x.req.Fields)
	x.info.GRPC = route.IsGRPC(x.h.contentType)
	if r := x.check(); r != nil {
		x.reply(r)
		return true
	}
	x.requestHeaders()
	x.findRoute()
	for i, f := range x.m.cfg.Filters {
		if v := f.Request(&x.fs); v.Reply != nil {
			x.reply(v.Reply)
			return true
		}
		if x.gone() {
			return true
		}
		if ts := x.m.transcoders; ts != nil && ts[i] != nil {
			x.transcode(ts[i])
		}
	}
	return x.act()
}

// resume goes on when there is a response to read.
func (x *exchange) resume() {
	if x.settle(x.answer(nil)) || x.attempts() {
		x.finish()
	}
}

// block tells the codec that this goroutine is about to wait.
func (x *exchange) block() {
	if b, ok := x.codec.(stream.Blocker); ok {
		b.Block()
	}
}

// transcode lets a filter take the codec's place for those behind it.
func (x *exchange) transcode(t filter.Transcoder) {
	announced := x.req.ContentLength
	s := t.Transcode(&x.fs, x.srv)
	if s == nil {
		return
	}
	if !x.transcoded {
		x.announced = announced
	}
	if w := &x.watch; w.on { // a filter before has slept, and the sweeper looks
		w.shard.mu.Lock()
		defer w.shard.mu.Unlock()
	}
	x.srv, x.transcoded = s, true
}

// findRoute looks the route up. Filters run also if there is none.
func (x *exchange) findRoute() {
	t := x.m.routes()
	if t == nil {
		return
	}
	x.table = t
	r := t.Match(x.req, x.info.Conn.Local.Addr(), x.random)
	if r == nil {
		return
	}
	x.route = r
	x.info.RouteName = r.Name
	x.fs.PerRoute = r.PerFilter
	if r.Forward != nil {
		x.choice = r.Forward.Choose(x.random >> 20)
		if x.choice != nil && x.choice.PerFilter != nil {
			x.fs.PerRoute = x.choice.PerFilter
		}
		x.aim(r.Forward)
	}
}

// act does what the route says.
func (x *exchange) act() (done bool) {
	switch r := x.route; {
	case r == nil && x.req.Upgrade == nil && string(x.req.Method) == "CONNECT":
		x.reply(&replyUpgrade) // a tunnel needs a route that says so
	case r == nil:
		x.reply(&replyNoRoute)
	case r.Redirect != nil:
		x.redirect(r.Redirect)
	case r.Direct != nil:
		x.reply(&filter.Reply{Status: r.Direct.Status, Body: r.Direct.Body, Details: "direct_response"})
	default:
		return x.forward(r.Forward)
	}
	return true
}

// gone tells whether the exchange was ended from outside, and if so finishes it.
func (x *exchange) gone() bool {
	switch x.cutReason() {
	case notCut:
		return false
	case cutGone:
		if err := x.up.body.pump.failure(); err != nil {
			x.downstreamError(err) // a malformed or late body has a status of its own
		} else {
			x.clientGone()
		}
	case cutIdle:
		x.reply(x.late(&replyIdle, &replyIdleRequest))
	case cutDuration:
		x.reply(x.late(&replyDuration, &replyDurationRequest))
	}
	return true
}

// late chooses the reply for whoever has kept us waiting: the client, if its request is not whole.
func (x *exchange) late(whole, request *filter.Reply) *filter.Reply {
	x.mu.Lock()
	began := x.times.began
	x.mu.Unlock()
	switch {
	case !began.IsZero() || !x.srv.HasBody():
		return whole
	case x.up.body.pump == nil && !x.watch.collecting.Load(): // a filter took the time
		if _, ok := x.srv.BodyBuffered(); ok {
			return whole
		}
	}
	return request
}

// clientGone records that nobody waits for a response any more.
func (x *exchange) clientGone() {
	x.info.Flags |= stream.FlagDownstreamTermination
	x.info.Details = "downstream_remote_disconnect"
	x.srv.Abort()
}

func (x *exchange) cutReason() cut { return cut(x.cutBy.Load()) }

// cutNow ends the exchange from outside: what waits for an upstream stops waiting.
func (x *exchange) cutNow(why cut) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cutReason() != notCut {
		return
	}
	x.cutBy.Store(uint32(why))
	if x.client != nil {
		x.client.SetDeadline(past)
	}
	if x.cancel != nil {
		x.cancel()
	}
	if w, ok := x.codec.(stream.Waker); ok && x.watch.collecting.Load() {
		w.WakeRead()
	}
	// A handler that waits for the client to take some of its response is woken by nothing else.
	if why != cutGone && x.watch.answering.Load() {
		x.srv.Abort()
	}
}

var past = time.Unix(1, 0)

// setClient makes c the running upstream exchange; nil when it is about to be closed.
func (x *exchange) setClient(c stream.Client) {
	x.mu.Lock()
	x.client = c
	if c != nil && x.cutReason() != notCut {
		c.SetDeadline(past)
	}
	x.mu.Unlock()
}

// context is made when a filter or a slow path asks for it. It ends with the exchange or when the client goes.
func (x *exchange) context() context.Context {
	x.block() // nobody asks for it who does not wait
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ctx == nil {
		x.ctx, x.cancel = context.WithCancel(x.conn.ctx)
		// A stream that the client has reset already (rapid reset) is not worth a connection.
		if x.cutReason() != notCut || x.req.Proto == stream.HTTP2 && x.srv.Gone() {
			x.cancel()
		}
	}
	return x.ctx
}

// sleep waits for d; false if the client went away meanwhile.
func (x *exchange) sleep(d time.Duration) bool {
	ctx := x.context()
	x.startWatch()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		x.watch.progress.Add(1)
		return true
	case <-ctx.Done():
		x.cutNow(cutGone) // the connection's context ended, if it was nobody else
		return false
	}
}

// watched is the sweeper's view of an exchange.
type watched struct {
	on         bool   // owner only
	begin      uint32 // owner only: progress when the exchange began
	next, prev *exchange
	shard      *shard
	progress   atomic.Uint32 // counts pieces that passed
	idle       atomic.Int64  // the route's stream idle time-out, nanoseconds
	longest    atomic.Int64  // the route's max_stream_duration, nanoseconds
	waiting    atomic.Bool   // waits for an upstream or a timer
	collecting atomic.Bool   // waits for the client's body, with nothing sent yet
	answering  atomic.Bool   // an upstream's head is on its way to the client: no reply of ours can follow

	// The shard's mutex protects the following.
	seen  uint32 // progress at the last look
	quiet time.Time
	looks uint32
}
