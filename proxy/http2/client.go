package http2

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/netio"
	msg "weft.mesh/weft/proxy/stream"
)

// ClientConn is the client's side of a connection, for many streams. It is safe for concurrent use.
type ClientConn struct {
	*conn
	info  *msg.ConnInfo
	o     ClientOptions
	ended chan struct{}
	used  atomic.Bool

	// What the pool asks for each exchange, without the lock; written by tell.
	active atomic.Int32 // running
	takes  atomic.Bool  // room1
	dead   atomic.Bool  // err is set

	// guarded by conn.mu
	free    []*clientStream
	ready   []*clientStream // whose exchange the reader will resume…
	readyAt int             // …from here on
}

// NewClientConn takes over a connection: it sends the preface and starts the reader goroutine,
// which ends with the connection ([ClientConn.Done]). It does not wait for the
// upstream's SETTINGS. ctx bounds this call only.
func NewClientConn(ctx context.Context, nc *netio.Conn, info *msg.ConnInfo, o ClientOptions) (*ClientConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	lim := limits{
		headerBytes: orDefault(o.MaxHeaderBytes, DefaultMaxHeaderBytes),
		headers:     orDefault(o.MaxHeaders, DefaultMaxHeaders),
	}
	lim.windows(o.StreamWindow, o.ConnWindow, mostClientWindow)
	c := newConn(nc, lim)
	cc := &ClientConn{conn: c, info: info, o: o, ended: make(chan struct{})}
	c.client, c.nextID = cc, 1
	nc.SetWriteStall(orDefault(o.WriteStallTimeout, DefaultWriteStall))
	c.mu.Lock()
	c.wbuf = append(c.out(), preface...)
	c.hello()
	cc.tell()
	c.mu.Unlock()
	go cc.read(&turn{c: c}) // its first wait sends the preface, unless a stream does before
	return cc, nil
}

// read reads until the connection ends or the turn is passed on.
func (cc *ClientConn) read(t *turn) {
	err := cc.loop(t)
	if err == errPassed {
		return
	}
	defer close(cc.ended)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	cc.resumeRest()
	cc.end(err)
	cc.telling.Wait()
}

// Info is what is known of the connection.
func (cc *ClientConn) Info() *msg.ConnInfo { return cc.info }

// Done is closed when the connection has ended and its goroutine has too.
func (cc *ClientConn) Done() <-chan struct{} { return cc.ended }

// Err is why the connection ended, nil while it has not.
func (cc *ClientConn) Err() error {
	if !cc.dead.Load() {
		return nil
	}
	cc.mu.Lock()
	defer cc.mu.Unlock()
	return cc.err
}

// Streams is the number of exchanges that were started and not closed.
func (cc *ClientConn) Streams() int { return int(cc.active.Load()) }

// CanTakeStream tells whether Start would succeed now.
func (cc *ClientConn) CanTakeStream() bool { return cc.takes.Load() }

// tell publishes what changed. mu is held.
func (cc *ClientConn) tell() {
	cc.active.Store(int32(cc.running))
	if ok := cc.room1(); ok != cc.takes.Load() {
		cc.takes.Store(ok)
	}
}

func (cc *ClientConn) room1() bool {
	limit := cc.peer.maxStreams
	if n := int(cc.o.MaxStreams); n > 0 {
		limit = min(limit, n)
	}
	return cc.err == nil && !cc.goneAway && cc.draining == drainNone && cc.running < limit && cc.nextID+2*uint32(cc.running) < maxStreamID-2
}

// Start begins an exchange. Nothing is sent before its WriteHead.
func (cc *ClientConn) Start() (msg.Client, error) {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if !cc.room1() {
		return nil, upstreamError("start", errFull, false, false, false)
	}
	s := cc.newStream()
	s.renew(cc.conn, 0)
	s.resp.Reset()
	s.state = clientState{fresh: !cc.used.Swap(true)}
	cc.running++
	cc.tell()
	return s, nil
}

// Shut takes no new stream, and closes the connection when the running ones have ended.
func (cc *ClientConn) Shut() {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	cc.draining = drainLast
	cc.tell()
	cc.leaveIfDone()
}

// Close ends the connection; running streams fail.
func (cc *ClientConn) Close() {
	cc.mu.Lock()
	cc.fail(errClosed)
	cc.mu.Unlock()
}

var errClosed = errors.New("connection closed by its pool")

// leaveIfDone closes the connection if nothing runs and nothing may come. mu is held.
func (cc *ClientConn) leaveIfDone() {
	if cc.maybeEnd() == nil || cc.err != nil || cc.leaving {
		return
	}
	cc.wbuf = appendGoAway(cc.out(), 0, codeNo, "")
	cc.leave()
}

// headers deals with a header block of the upstream. mu is held.
func (cc *ClientConn) headers(id uint32, block []byte, end bool) error {
	c := cc.conn
	s := c.streams[id]
	switch {
	case s == nil && c.idle(id):
		return connErr(codeProtocol, "HEADERS on an idle stream")
	case s == nil:
		if err := c.guard.nothing(); err != nil {
			return err
		}
		return c.ignoreBlock(block)
	case s.remoteEnd:
		s.abort(codeStreamClosed, "HEADERS after END_STREAM")
		return c.ignoreBlock(block)
	case s.cli.headDone:
		return c.trailersBlock(s, block, end)
	}
	return s.cli.head(block, end)
}

// clientStream is the client's side of one exchange. It implements [msg.Client].
type clientStream struct {
	stream
	resp  msg.Response
	state clientState

	// guarded by conn.mu
	headDone bool // a final head is in resp
	interims []*msg.Response
	infos    int
	closed   bool
	resume   func()        // Await's; nil when nobody awaits the response, or it is being run
	queued   bool          // in ClientConn.ready
	down     *serverStream // the other side of the exchange that awaits
}

// clientState is what the exchange's owner knows.
type clientState struct {
	fresh    bool
	headSent bool
	headErr  error // why it was not
	headRead bool
	asked100 bool
	isHEAD   bool
	connect  bool
	upgrade  []byte
	left     int64 // of the announced content-length, -1 if none
}

var clientStreams = sync.Pool{New: func() any {
	s := new(clientStream)
	s.cli = s
	return s
}}

var (
	_ msg.Client  = (*clientStream)(nil)
	_ msg.Readier = (*clientStream)(nil)
	_ msg.Awaiter = (*clientStream)(nil)
	_ msg.Keeper  = (*clientStream)(nil)
)

// maxInterims bounds how many 1xx heads one response may have.
const maxInterims = 32

// head decodes a response's head. mu is held.
func (s *clientStream) head(block []byte, end bool) error {
	c := s.c
	s.resp.Reset()
	c.sink = headSink{kind: blockResponse, resp: &s.resp, fields: &s.resp.Fields}
	if err := c.decode(block, &s.arena); err != nil {
		return err
	}
	k := &c.sink
	if k.over {
		s.abort(codeCalm, "response head too large")
		s.reset = &resetError{codeProtocol, "response head too large"}
		return nil
	}
	if k.bad == "" {
		k.finishResponse(end)
	}
	info := s.resp.Status < 200
	if info && end {
		k.malformed("informational response ends the stream")
	}
	if k.bad != "" {
		s.abort(codeProtocol, k.bad)
		return nil
	}
	if info {
		return s.interim()
	}
	c.guard.work()
	s.final(k, end)
	return nil
}

// interim keeps an informational head until it is read.
func (s *clientStream) interim() error {
	if s.infos++; s.infos > maxInterims {
		s.abort(codeCalm, "too many informational responses")
		return nil
	}
	if s.resp.Status == 100 && !s.state.asked100 {
		return s.c.guard.nothing()
	}
	r := &msg.Response{Proto: msg.HTTP2, Status: s.resp.Status}
	for _, f := range s.resp.Fields.All() {
		r.Fields.Append(f.Name, f.Value)
	}
	s.interims = append(s.interims, r)
	s.wake()
	return nil
}

func (s *clientStream) final(k *headSink, end bool) {
	r := &s.resp
	s.headDone = true
	s.noBody = s.state.isHEAD || r.Status == 204 || r.Status == 304
	switch {
	case s.state.upgrade != nil && r.Status/100 == 2:
		r.Status, r.Upgrade, r.ContentLength = 101, s.state.upgrade, msg.UnknownLength
	case s.state.connect && r.Status/100 == 2:
		r.ContentLength = msg.UnknownLength
	case k.hasLength && !s.noBody:
		s.declare = k.length
	case s.noBody:
		r.ContentLength = max(r.ContentLength, 0)
	}
	if end {
		s.c.endRemote(&s.stream)
	}
	s.wake()
}

// Conn implements [msg.Client].
func (s *clientStream) Conn() *msg.ConnInfo { return s.c.client.info }

// Fresh implements [msg.Client].
func (s *clientStream) Fresh() bool { return s.state.fresh }

// SetDeadline implements [msg.Client]; it may be called from anywhere while the exchange runs.
func (s *clientStream) SetDeadline(t time.Time) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.deadline = t
	if s.waiting > 0 {
		s.cond.Broadcast()
	}
	if s.resume != nil && !t.IsZero() {
		if time.Now().Before(t) {
			s.c.arm(t)
		} else {
			s.resumeAside()
		}
	}
}

// Close implements [msg.Client]. The stream's memory is reused: no other goroutine may be in, or
// come to, a call of this exchange; SetDeadline with a time in the past ends their waits.
func (s *clientStream) Close() {
	cc := s.c.client
	cc.mu.Lock()
	if s.closed {
		cc.mu.Unlock()
		return
	}
	s.closed = true
	s.abort(codeCancel, "closed early")
	s.discard()
	if cc.running--; cc.running == 0 {
		cc.mayRest()
	}
	cc.tell()
	if cc.maybeEnd() != nil {
		cc.leaveIfDone()
	} else {
		s.push(true)
	}
	if s.busy == 0 {
		s.recycle()
	}
	cc.mu.Unlock()
	if cc.o.OnRelease != nil {
		cc.o.OnRelease(cc)
	}
}

func (s *clientStream) recycle() {
	s.resp.Reset()
	s.headDone, s.interims, s.infos, s.closed = false, nil, 0, false
	s.turn, s.down = nil, nil
	s.state = clientState{}
	if cc := s.c.client; len(cc.free) < maxFree {
		cc.free = append(cc.free, s)
	} else {
		clientStreams.Put(s)
	}
}
