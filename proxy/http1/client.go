package http1

import (
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// ClientConn is the client's side of one connection: one exchange at a time.
// Start, Idle and Usable belong to the pool that owns it; Close may be called from anywhere.
type ClientConn struct {
	c    *netio.Conn
	info *stream.ConnInfo
	o    ClientOptions
	in   input
	x    clientExchange
	uses uint64

	busy   atomic.Bool
	closed atomic.Bool
}

// NewClientConn takes over a connection. It starts nothing and writes nothing.
func NewClientConn(c *netio.Conn, info *stream.ConnInfo, o ClientOptions) *ClientConn {
	o.MaxHeaderBytes = orDefault(o.MaxHeaderBytes, DefaultMaxHeaderBytes)
	o.MaxHeaders = orDefault(o.MaxHeaders, DefaultMaxHeaders)
	cc := &ClientConn{c: c, info: info, o: o}
	cc.in.head.SetLimit(o.MaxHeaderBytes)
	if o.WriteStallTimeout > 0 {
		c.SetWriteStall(o.WriteStallTimeout)
	}
	cc.x.cc = cc
	return cc
}

// Start begins an exchange. It fails if one is running or the connection is closed.
// It does not look at the socket: ask Usable before, for a connection that was idle.
func (cc *ClientConn) Start() (stream.Client, error) {
	if cc.closed.Load() || cc.busy.Swap(true) {
		return nil, &stream.Error{Side: stream.Ours, Op: "start", Flag: stream.FlagUpstreamConnectFailure,
			Details: "upstream_reset_before_response_started{connection_failure}", Unsent: true, Err: errBusy}
	}
	cc.x.begin()
	cc.uses++
	return &cc.x, nil
}

// Idle tells whether an exchange could begin: none is running, and the last one has not closed the connection.
func (cc *ClientConn) Idle() bool { return !cc.busy.Load() && !cc.closed.Load() }

// Usable looks at the socket of an idle connection: open, and nothing to be read.
func (cc *ClientConn) Usable() bool {
	return !cc.closed.Load() && !cc.busy.Load() && cc.in.head.Len() == 0 && cc.c.Quiet()
}

// Uses is the number of exchanges that were started.
func (cc *ClientConn) Uses() uint64 { return cc.uses }

// Conn is the connection below.
func (cc *ClientConn) Conn() *netio.Conn { return cc.c }

// Info is what is known of the connection.
func (cc *ClientConn) Info() *stream.ConnInfo { return cc.info }

// Close closes the connection; a running exchange fails.
func (cc *ClientConn) Close() {
	cc.closed.Store(true)
	_ = cc.c.Close()
}

// clientExchange is one exchange; the connection reuses it. It implements [stream.Client].
type clientExchange struct {
	cc   *ClientConn
	w    writer
	resp stream.Response
	ctl  control
	body body

	// writer only
	req      framing
	reqLeft  int64
	headSent bool
	tunnel   bool          // the request asks for a raw stream
	upgrade  []byte        // to which protocol; nil for CONNECT
	decided  chan struct{} // of a tunnel: closed when its fate is known
	method   method
	written  uint64 // by the connection before this exchange

	reqEnded atomic.Bool // the request is complete and with the connection or its buffer
	known    atomic.Bool // decided is closed
	raw      atomic.Bool // the stream is raw now

	// reader only
	headRead bool // the final head
	gotByte  bool
	asked100 bool
	readErr  error
	interims int
	bounded  atomic.Bool // a deadline is set
	done     atomic.Bool // Close was called
}

// method is what the framing of a response depends on.
type method uint8

const (
	methodOther method = iota
	methodHEAD
	methodCONNECT
)

var (
	_ stream.Client  = (*clientExchange)(nil)
	_ stream.Readier = (*clientExchange)(nil)
)

func (x *clientExchange) begin() {
	x.w.reset(x.cc.c)
	x.resp.Reset()
	x.body.reset(framedNone, 0, 0)
	x.ctl = control{}
	x.req, x.reqLeft, x.headSent, x.tunnel, x.upgrade, x.decided, x.method = 0, 0, false, false, nil, nil, methodOther
	lower(&x.reqEnded)
	lower(&x.known)
	lower(&x.raw)
	x.headRead, x.gotByte, x.asked100, x.readErr, x.interims = false, false, false, nil, 0
	lower(&x.done)
	x.written = x.cc.c.BytesWritten()
}

// base is how many bytes the connection had written when the exchange began.
func (x *clientExchange) base() uint64 { return x.written }

// Conn implements [stream.Client].
func (x *clientExchange) Conn() *stream.ConnInfo { return x.cc.info }

// Fresh implements [stream.Client].
func (x *clientExchange) Fresh() bool { return x.cc.uses == 1 }

// SetDeadline implements [stream.Client]; it may be called from anywhere while the exchange runs.
func (x *clientExchange) SetDeadline(t time.Time) {
	if t.IsZero() && !x.bounded.Load() {
		return
	}
	x.bounded.Store(!t.IsZero())
	_ = x.cc.c.SetDeadline(t) // fails on a closed connection only
}

// Close implements [stream.Client]. The exchange's memory is reused: no other goroutine may be in, or
// come to, a call of it; SetDeadline with a time in the past ends their waits.
func (x *clientExchange) Close() {
	if x.done.Swap(true) {
		return
	}
	cc := x.cc
	reusable := x.reusable()
	if reusable {
		x.SetDeadline(time.Time{})
		cc.in.next()
		x.resp.Reset()
	} else {
		cc.closed.Store(true)
		x.end() // also ends a write that waits
		x.decide()
		x.w.lock()
		x.w.release()
		x.w.unlock()
		cc.in.release()
	}
	cc.busy.Store(false)
	if cc.o.OnRelease != nil {
		cc.o.OnRelease(cc, reusable)
	}
}

// end closes the connection: with a reset if the upstream might still send or take the request for whole.
func (x *clientExchange) end() {
	if x.headRead && x.body.done || x.raw.Load() {
		_ = x.cc.c.Close()
		return
	}
	x.cc.c.Abort()
}

// reusable: both messages are complete, and the connection is where the next one begins.
func (x *clientExchange) reusable() bool {
	if !x.w.tryLock() {
		return false
	}
	defer x.w.unlock()
	return x.headSent && x.reqEnded.Load() && x.headRead && x.body.done && x.readErr == nil && x.w.err == nil && x.w.n == 0 &&
		!x.raw.Load() && !x.ctl.close && (x.resp.Proto == stream.HTTP11 || x.ctl.keepAlive) && x.body.framing != framedClose &&
		len(x.cc.in.rest()) == 0 && !x.cc.closed.Load()
}

// decide lets a writer of a possible raw stream go on.
func (x *clientExchange) decide() {
	if x.decided != nil && !x.known.Swap(true) {
		close(x.decided)
	}
}
