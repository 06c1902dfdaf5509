package http1

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// exchange is the server's side of one request and response. It implements [stream.Server].
type exchange struct {
	message

	req  stream.Request
	body body
	w    writer

	read    atomic.Bool // the request's body has been read to its end
	expect  atomic.Bool // the client still waits for 100-continue
	cut     atomic.Bool
	closing atomic.Bool // CloseAfter
	woken   atomic.Bool // WakeRead
	known   atomic.Bool // decided is closed
}

// message is what is forgotten at once at the end of an exchange.
type message struct {
	sc      *serverConn
	ctl     control
	decided chan struct{} // of a request that asks for an upgrade: closed when it is known, or cut
	readErr error

	// writer only
	resp     framing
	respLeft int64 // of framedLength
	bodyless bool  // HEAD, 204, 304: what is written as a body is dropped
	headSent bool
	ended    bool // the response is complete
	close    bool // the connection ends after this exchange
	raw      bool // after 101, or 2xx to CONNECT
	long     bool // the body is longer than what may be drained
}

var (
	_ stream.Server  = (*exchange)(nil)
	_ stream.Readier = (*exchange)(nil)
	_ stream.Waker   = (*exchange)(nil)
)

// begin: x is as clear left it.
func (x *exchange) begin(sc *serverConn) {
	x.sc, x.w.c = sc, sc.c
}

// clear drops everything but memory that can be used again.
func (x *exchange) clear() {
	x.w.reset(nil)
	x.req.Reset()
	if x.body.framing != framedNone || x.body.started {
		x.body.reset(framedNone, 0, 0)
	}
	x.message = message{}
	lower(&x.expect)
	lower(&x.cut)
	lower(&x.closing)
	lower(&x.woken)
	lower(&x.read)
	lower(&x.known)
}

// accept prepares the exchange after the head was parsed.
func (x *exchange) accept() {
	o := x.sc.o
	switch {
	case x.tunnel():
		x.decided = make(chan struct{})
		x.body.reset(framedClose, 0, 0)
	case x.ctl.chunked:
		x.body.reset(framedChunked, 0, o.MaxHeaderBytes)
	case x.req.ContentLength == 0:
		x.body.done = true
	default:
		x.body.reset(framedLength, x.req.ContentLength, 0)
		x.long = x.req.ContentLength-int64(len(x.sc.in.rest())) > o.DrainBody
	}
	if x.req.Scheme == nil {
		x.req.Scheme = x.sc.scheme
	}
	if x.req.Proto == stream.HTTP10 {
		x.close = !x.ctl.keepAlive
		x.ctl.expect = false
	}
	x.close = x.close || x.ctl.close || o.MaxRequests > 0 && x.sc.idling.served >= o.MaxRequests
	if x.ctl.expect && !x.body.done && len(x.sc.in.rest()) == 0 {
		x.expect.Store(true)
	}
	x.w.alone = !x.expect.Load() // else whoever reads the body writes 100 (Continue)
}

// tunnel tells that the body may become a raw stream.
func (x *exchange) tunnel() bool { return x.req.Upgrade != nil || string(x.req.Method) == "CONNECT" }

// Request implements [stream.Server].
func (x *exchange) Request() *stream.Request { return &x.req }

// HasBody implements [stream.Server].
func (x *exchange) HasBody() bool { return x.body.framing != framedNone }

// BodyBuffered implements [stream.Server].
func (x *exchange) BodyBuffered() ([]byte, bool) {
	if x.tunnel() {
		return nil, false
	}
	return x.body.buffered(&x.sc.in)
}

// ReadBody implements [stream.Server].
func (x *exchange) ReadBody() ([]byte, error) {
	if x.readErr != nil {
		return nil, x.readErr
	}
	if x.decided != nil {
		<-x.decided
		if !x.raw {
			return nil, x.refused()
		}
	}
	for {
		p, perr := x.body.take(&x.sc.in, x.sc.o.MaxHeaders)
		switch {
		case perr != nil:
			x.readErr = &stream.Error{Side: stream.Downstream, Op: "read body", Flag: stream.FlagDownstreamProtocolErr,
				Details: perr.details, Status: perr.status, Err: perr}
			return nil, x.readErr
		case len(p) > 0:
			if x.body.done {
				x.read.Store(true)
			}
			return p, nil
		case x.body.done:
			x.read.Store(true)
			return nil, io.EOF
		}
		if err := x.fill(); err != nil {
			x.readErr = err
			return nil, err
		}
	}
}

// refused is the end of a raw stream that never began.
func (x *exchange) refused() error {
	if x.cut.Load() {
		return &stream.Error{Side: stream.Ours, Op: "read body", Flag: stream.FlagLocalReset, Details: "downstream_local_disconnect", Err: net.ErrClosed}
	}
	return io.EOF
}

// decide lets readers of a possible raw stream go on.
func (x *exchange) decide() {
	if x.decided != nil && !x.known.Swap(true) {
		close(x.decided)
	}
}

func (x *exchange) fill() error {
	if x.expect.Load() {
		x.proceed()
	}
	if x.decided == nil {
		x.sc.armBody()
	} else {
		x.sc.setDue(noDeadline)
	}
	if x.woken.Load() {
		return woken
	}
	err := x.sc.in.fill(x.sc.c)
	if err == nil {
		return nil
	}
	if x.woken.Load() {
		return woken
	}
	if err == io.EOF {
		if err = x.body.end(); err == io.EOF {
			return err
		}
	}
	e := &stream.Error{Side: stream.Downstream, Op: "read body", Flag: stream.FlagDownstreamTermination,
		Details: "downstream_remote_disconnect", Reset: true, Err: err}
	if netio.IsTimeout(err) {
		e.Details, e.Timeout, e.Reset, e.Status, e.Flag = "request_overall_timeout", true, false, 408, 0
	}
	return e
}

// woken is what WakeRead makes of a read.
var woken error = &stream.Error{Side: stream.Ours, Op: "read body", Flag: stream.FlagLocalReset, Details: "downstream_local_disconnect", Timeout: true, Err: os.ErrDeadlineExceeded}

// WakeRead implements [stream.Waker].
func (x *exchange) WakeRead() {
	x.closing.Store(true)
	x.woken.Store(true) // before the deadline: who reads sets its own, and then looks here
	_ = x.sc.c.SetReadDeadline(time.Unix(1, 0))
}

// proceed sends 100 Continue, unless a final head went out.
func (x *exchange) proceed() {
	x.w.lock()
	defer x.w.unlock()
	if x.expect.Swap(false) {
		x.w.str(statusLine(100))
		x.w.str("\r\n")
		x.w.flush()
	}
}

// ReadReady implements [stream.Readier].
func (x *exchange) ReadReady() bool { return x.readErr != nil || x.body.ready(&x.sc.in) }

// RequestTrailers implements [stream.Server].
func (x *exchange) RequestTrailers() *stream.Fields {
	if !x.body.done || x.body.trailers.Len() == 0 {
		return nil
	}
	return &x.body.trailers
}

// Abort implements [stream.Server]; it may be called from anywhere while the handler runs.
func (x *exchange) Abort() {
	if !x.cut.Swap(true) {
		x.sc.c.Abort()
		x.decide()
	}
}

// Gone implements [stream.Server].
func (x *exchange) Gone() bool { return x.sc.c.Gone() }

// Done implements [stream.Server]: HTTP/1 has no sign but Gone.
func (x *exchange) Done() <-chan struct{} { return nil }

// CloseAfter implements [stream.Server].
func (x *exchange) CloseAfter() { x.closing.Store(true) }

// finish ends the exchange after the handler: more tells that the connection can go on.
func (x *exchange) finish() (more bool, err error) {
	if x.cut.Load() {
		return false, nil
	}
	if !x.ended && !x.raw {
		x.Abort()
		return false, nil
	}
	x.w.flush()
	if x.w.err != nil {
		return false, writeError("write", x.w.err)
	}
	if x.raw {
		return false, nil
	}
	if x.body.done || !x.close && x.drain() {
		if !x.close {
			return true, nil
		}
		if len(x.sc.in.rest()) == 0 {
			x.lastGoodbye()
			return false, nil
		}
	}
	x.sc.linger()
	return false, nil
}

// lastGoodbye closes in order. Nothing is unread, so a plain close loses nothing.
func (x *exchange) lastGoodbye() { _ = x.sc.c.Close() }

// drain reads and drops what is left of the request body, within bounds of bytes and time.
func (x *exchange) drain() bool {
	if x.readErr != nil || x.tunnel() {
		return x.tunnel() && x.readErr == nil
	}
	left := x.sc.o.DrainBody
	for {
		p, perr := x.body.take(&x.sc.in, x.sc.o.MaxHeaders)
		if left -= int64(len(p)); perr != nil || left < 0 {
			return false
		}
		if x.body.done {
			return true
		}
		if len(p) > 0 {
			continue
		}
		x.sc.setDue(time.Now().Add(lingerTime))
		if x.sc.c.Fill(&x.sc.in.spill) != nil {
			return false
		}
	}
}
