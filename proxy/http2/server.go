package http2

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"weft.mesh/weft/proxy/netio"
	msg "weft.mesh/weft/proxy/stream"
)

// serverConn is the server's side of a connection.
type serverConn struct {
	*conn
	o   *ServerOptions
	ctx context.Context
	h   func(context.Context, msg.Server)

	workers sync.WaitGroup
	over    chan struct{} // closed when nobody reads any more
	overErr error         // set before over is closed

	// reader only
	runs  []*serverStream // whose handlers are to be run…
	runAt int             // …from here on

	// guarded by conn.mu
	free      []*serverStream
	idlers    []chan job
	served    uint32
	quietFrom time.Time // when the last stream ended
	lastTimer *time.Timer
}

// ServeConn serves a connection until it ends, and closes it. The client's preface has
// not been read (it may have been peeked at). Handler h runs on a goroutine of the
// connection's pool for each stream; the exchange is complete, or reset, when h
// returns, and nothing of it may be used afterwards. ServeConn returns after all
// handlers have; nil if the connection was drained or left idle, else what ended
// it. The end of ctx cuts the connection.
func ServeConn(ctx context.Context, nc *netio.Conn, o ServerOptions, h func(ctx context.Context, s msg.Server)) error {
	lim := limits{
		headerBytes: orDefault(o.MaxHeaderBytes, DefaultMaxHeaderBytes),
		headers:     orDefault(o.MaxHeaders, DefaultMaxHeaders),
		maxStreams:  int(orDefault(o.MaxConcurrentStreams, DefaultMaxStreams)),
		headTimeout: o.HeaderTimeout,
	}
	lim.windows(o.StreamWindow, o.ConnWindow, mostServerWindow)
	c := newConn(nc, lim)
	sc := &serverConn{conn: c, o: &o, ctx: ctx, h: h, quietFrom: time.Now(), over: make(chan struct{})}
	c.server = sc
	nc.SetWriteStall(orDefault(o.WriteStallTimeout, DefaultWriteStall))
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, nc.Abort)()
	}
	if err := sc.preface(); err != nil {
		sc.finish(err)
	} else {
		defer netio.OnClose(o.Drain, sc.drain)()
		sc.serve(job{turn: &turn{c: c}})
		<-sc.over
	}
	sc.workers.Wait()
	sc.telling.Wait()
	sc.mu.Lock()
	sc.idleBuffers()
	sc.mu.Unlock()
	return sc.outcome(sc.overErr)
}

// preface says hello first, as the RFC allows, and reads the client's.
func (sc *serverConn) preface() error {
	c := sc.conn
	if d := sc.o.HeaderTimeout; d > 0 {
		c.setDeadline(time.Now().Add(d))
	} else if d := sc.o.IdleTimeout; d > 0 {
		c.setDeadline(time.Now().Add(d))
	}
	c.mu.Lock()
	c.hello()
	var err error
	if sc.o.Upgrade != nil {
		err = sc.adopt(sc.o.Upgrade)
		sc.o.Upgrade = nil
	}
	c.flushAside()
	c.mu.Unlock()
	if err != nil {
		return err
	}
	for have := 0; have < len(preface); have = min(c.in.Len(), len(preface)) {
		if err := c.need(have + 1); err != nil {
			return err
		}
		if n := min(c.in.Len(), len(preface)); string(c.in.Bytes()[:n]) != preface[:n] {
			return connErr(codeProtocol, "no HTTP/2 preface")
		}
	}
	c.in.Consume(len(preface))
	return nil
}

// greeted: the client's SETTINGS have come, and with them the end of the first deadline.
func (sc *serverConn) greeted() {
	var due time.Time
	if d := sc.o.IdleTimeout; d > 0 {
		due = time.Now().Add(d)
	}
	sc.setDeadline(due)
}

// timedOut is called by the reader when its deadline has passed.
func (sc *serverConn) timedOut() error {
	c := sc.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case !c.settled:
		return connErr(codeSettingsTimeout, "no SETTINGS in time")
	case c.blockOf.stream != 0 && c.lim.headTimeout > 0:
		return connErr(codeCalm, "header block not complete in time")
	}
	if sc.o.IdleTimeout <= 0 {
		sc.setDeadline(time.Time{})
		return nil
	}
	due := sc.quietFrom.Add(sc.o.IdleTimeout)
	if c.running > 0 {
		due = now.Add(sc.o.IdleTimeout)
	}
	if due.After(now) {
		sc.setDeadline(due)
		return nil
	}
	return connErr(codeNo, "idle")
}

// finish is the end of the frame loop: handlers end soon, as the connection has failed.
func (sc *serverConn) finish(err error) {
	sc.mu.Lock()
	for ; sc.runAt < len(sc.runs); sc.runAt++ {
		sc.dispatch(sc.runs[sc.runAt]) // they came before what ended the connection
	}
	sc.mu.Unlock()
	var ce *connError
	if errors.As(err, &ce) && ce.code != codeNo {
		sc.refused(400, "http2.connection_error{"+strings.ReplaceAll(ce.Error(), " ", "_")+"}")
	}
	sc.end(err)
	sc.mu.Lock()
	for _, w := range sc.idlers {
		close(w)
	}
	sc.idlers = nil
	if sc.lastTimer != nil {
		sc.lastTimer.Stop()
	}
	sc.mu.Unlock()
	sc.overErr = err
	close(sc.over)
}

func (sc *serverConn) outcome(err error) error {
	var ce *connError
	switch {
	case errors.Is(err, errEnded), errors.Is(err, io.EOF), errors.As(err, &ce) && ce.code == codeNo:
		return nil
	case netio.IsReset(err) && sc.running == 0, errors.Is(err, net.ErrClosed) && sc.running == 0:
		return nil
	}
	return err
}

// headers deals with a header block of the client. mu is held.
func (sc *serverConn) headers(id uint32, block []byte, end, selfDependent bool) error {
	c := sc.conn
	if s := c.streams[id]; s != nil {
		if s.remoteEnd {
			if err := c.ignoreBlock(block); err != nil {
				return err
			}
			s.abort(codeStreamClosed, "HEADERS after END_STREAM")
			return nil
		}
		return c.trailersBlock(s, block, end)
	}
	if id%2 == 0 {
		return connErr(codeProtocol, "stream ID is even")
	}
	if id <= c.lastPeer {
		if c.wasReset(id) {
			if err := c.guard.nothing(); err != nil {
				return err
			}
			return c.ignoreBlock(block)
		}
		return connErr(codeStreamClosed, "HEADERS on a closed stream")
	}
	c.lastPeer = id
	if refused, err := sc.refuse(id, block); refused || err != nil {
		return err
	}
	return sc.open(id, block, end, selfDependent)
}

// refuse refuses a stream that would be one too many, or came after the last GOAWAY.
func (sc *serverConn) refuse(id uint32, block []byte) (bool, error) {
	c := sc.conn
	// Handlers of streams that the client has reset still cost: count them, with leeway.
	if c.draining != drainLast && len(c.streams) < c.lim.maxStreams && c.running < 2*c.lim.maxStreams {
		return false, nil
	}
	if err := c.ignoreBlock(block); err != nil {
		return true, err
	}
	if err := c.guard.reset(time.Now()); err != nil {
		return true, err
	}
	c.forget(id)
	details := detailsTooManyStreams
	if c.draining == drainLast {
		details = detailsGoingAway
	}
	sc.refused(503, details)
	return true, c.control(appendRST(c.out(), id, codeRefused))
}

// open starts a stream with its request.
func (sc *serverConn) open(id uint32, block []byte, end, selfDependent bool) error {
	c := sc.conn
	s := sc.newStream()
	s.renew(c, id)
	s.server = serverState{}
	s.req.Reset()
	c.sink = headSink{kind: blockRequest, req: &s.req, fields: &s.req.Fields, cookies: &s.cookies}
	if err := c.decode(block, &s.arena); err != nil {
		return err
	}
	k := &c.sink
	if !k.over && k.bad == "" {
		k.finishRequest(end)
	}
	if selfDependent {
		k.malformed("stream depends on itself")
	}
	s.inTable = true
	c.streams[id] = &s.stream
	if k.bad != "" || k.over {
		err := sc.reject(s, k)
		s.recycle()
		return err
	}
	if k.hasLength {
		s.declare = k.length
	}
	s.server.expect = k.expect && !end
	if end {
		s.remoteEnd = true
	}
	c.guard.work()
	c.running++
	sc.served++
	if n := sc.o.MaxRequests; n > 0 && sc.served >= n {
		sc.startDrain()
	}
	sc.runs = append(sc.runs, s)
	return nil
}

// refused tells of what no handler sees.
func (sc *serverConn) refused(status int, details string) {
	if sc.o.OnProtocolError != nil {
		sc.o.OnProtocolError(status, details)
	}
}

// reject answers a request that no handler sees.
func (sc *serverConn) reject(s *serverStream, k *headSink) error {
	c := sc.conn
	status, details := 400, detailsHeader
	if k.over {
		status, details = 431, detailsTooLarge
		if k.lines > k.maxLines {
			details = detailsTooMany
		}
		b, start := c.beginBlock()
		b = c.enc.field(b, stringBytes(":status"), stringBytes("431"))
		b = c.enc.field(b, stringBytes("content-length"), stringBytes("0"))
		c.endBlock(b, start, s.id, true)
		s.abort(codeNo, "refused")
	} else {
		s.abort(codeProtocol, k.bad)
	}
	sc.refused(status, details)
	return c.guard.reset(time.Now())
}

// close ends a stream whose handler has returned. mu is held.
func (sc *serverConn) close(s *serverStream) {
	c := sc.conn
	if s.localEnd {
		c.guard.completed()
		s.abort(codeNo, "response is complete") // stop sending; nothing if the request is complete
	} else {
		s.abort(codeInternal, "handler gave up")
	}
	s.discard()
	c.running--
	if c.running == 0 {
		sc.quietFrom = time.Now()
		c.mayRest()
	}
	if c.maybeEnd() != nil {
		c.leave()
	} else {
		s.push(false)
	}
	s.recycle()
}

var drainPing = []byte("weftbye!")

// drain begins a graceful end, now or soon: it runs on a goroutine of its own.
func (sc *serverConn) drain() {
	if sc.o.DrainTime != nil {
		if d := sc.o.DrainTime(); d > 0 {
			time.AfterFunc(rand.N(d), sc.drainNow) // nothing is left to do if the connection has ended by then
			return
		}
	}
	sc.drainNow()
}

func (sc *serverConn) drainNow() {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.err != nil {
		return
	}
	sc.startDrain()
	sc.conn.flushAside()
}

// startDrain announces the end. Streams that are on their way are still served: the last ID
// follows when the client has answered our PING, or after a second (RFC 9113 section 6.8).
func (sc *serverConn) startDrain() {
	c := sc.conn
	if c.draining != drainNone || c.err != nil {
		return
	}
	c.draining = drainFirst
	c.wbuf = appendGoAway(c.out(), maxStreamID, codeNo, "")
	c.wbuf = appendPing(c.wbuf, false, drainPing)
	sc.lastTimer = time.AfterFunc(time.Second, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		sc.endDrain()
	})
}

// pong: the client has seen the first GOAWAY. mu is held.
func (sc *serverConn) pong(p []byte) {
	if string(p) == string(drainPing) {
		sc.endDrain()
	}
}

func (sc *serverConn) endDrain() {
	c := sc.conn
	if c.draining != drainFirst || c.err != nil {
		return
	}
	c.draining = drainLast
	c.wbuf = appendGoAway(c.out(), c.lastPeer, codeNo, "")
	if c.maybeEnd() != nil {
		c.leave()
		return
	}
	c.flushAside()
}
