package http1

import (
	"bytes"
	"errors"
	"io"
	"syscall"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// WriteHead implements [stream.Client].
func (x *clientExchange) WriteHead(r *stream.Request, end bool) error {
	if end && !x.headSent && r.Upgrade == nil && string(r.Method) != "CONNECT" {
		x.w.alone = true // nobody writes after this, and who reads the answer does so after it
	}
	x.w.lock()
	if x.headSent {
		x.w.unlock()
		return x.writeError("write head", errOrder)
	}
	if err := x.head(r, end); err != nil {
		clean := x.w.undo(mark{})
		x.w.unlock()
		if !clean {
			x.cc.c.Abort()
		}
		return &stream.Error{Side: stream.Ours, Op: "write head", Flag: stream.FlagLocalReset,
			Details: "http1.invalid_characters", Unsent: clean, Err: err}
	}
	x.headSent = true
	if end && !x.tunnel {
		x.reqEnded.Store(true)
	}
	return x.settle("write head")
}

func (x *clientExchange) settle(op string) error {
	if err := x.w.settle(); err != nil {
		return x.writeError(op, err)
	}
	return nil
}

// head serialises the request's head. mu is held.
func (x *clientExchange) head(r *stream.Request, end bool) error {
	target := r.Path
	switch {
	case string(r.Method) == "HEAD":
		x.method = methodHEAD
	case string(r.Method) == "CONNECT":
		x.method, x.tunnel, target = methodCONNECT, true, r.Authority
	}
	if len(target) == 0 {
		target = rootPath
	}
	if !r.AsRead() && (!stream.ValidToken(r.Method) || !stream.ValidTarget(target) || !stream.ValidValue(r.Authority) || bytes.IndexByte(r.Authority, ' ') >= 0) {
		return errInjection
	}
	w := &x.w
	w.bytes(r.Method)
	w.str(" ")
	w.bytes(target)
	w.str(" HTTP/1.1\r\nhost: ")
	w.bytes(r.Authority)
	w.str("\r\n")
	if !w.fields(&r.Fields) {
		return errInjection
	}
	// The codecs take Expect out of what they read; whoever asks on their own puts it in again.
	if v := r.Fields.Get("expect"); v != nil {
		if x.asked100 = true; !w.field(stringBytes("expect"), v) {
			return errInjection
		}
	}
	if err := x.frame(r, end); err != nil {
		return err
	}
	w.str("\r\n")
	return nil
}

// frame writes the fields about the body and the connection.
func (x *clientExchange) frame(r *stream.Request, end bool) error {
	w := &x.w
	switch {
	case x.method == methodCONNECT:
		x.req, x.decided = framedClose, make(chan struct{})
		return nil
	case r.Upgrade != nil:
		x.tunnel, x.req, x.decided, x.upgrade = true, framedClose, make(chan struct{}), r.Upgrade
		w.str("connection: upgrade\r\n")
		if !w.field(stringBytes("upgrade"), r.Upgrade) {
			return errInjection
		}
		return nil
	case end:
		x.req = framedNone
		if r.ContentLength > 0 {
			return errLength
		}
		if lengthExpected(r) {
			w.str("content-length: 0\r\n")
		}
	case r.ContentLength >= 0:
		x.req, x.reqLeft = framedLength, r.ContentLength
		w.str("content-length: ")
		w.int(r.ContentLength, 10)
		w.str("\r\n")
	default:
		x.req = framedChunked
		w.str("transfer-encoding: chunked\r\n")
	}
	if r.TETrailers {
		w.str("te: trailers\r\nconnection: te\r\n")
	}
	return nil
}

// lengthExpected: an empty body is said to be so, unless the method's meaning has none (RFC 9110 section 8.6).
func lengthExpected(r *stream.Request) bool {
	switch string(r.Method) {
	case "GET", "HEAD", "DELETE", "TRACE", "CONNECT":
		return r.Fields.Has("content-length")
	}
	return true
}

// WriteBody implements [stream.Client]. On a request that asks for a raw
// stream it waits until the upstream has agreed; if it does not, p is dropped.
func (x *clientExchange) WriteBody(p []byte, end bool) error {
	if x.tunnel {
		return x.writeRaw(p, end)
	}
	x.w.lock()
	if !x.headSent || x.reqEnded.Load() && (len(p) > 0 || !end) {
		x.w.unlock()
		return x.writeError("write body", errOrder)
	}
	switch {
	case x.reqEnded.Load():
	case x.req == framedChunked:
		x.w.chunk(p, end)
	case int64(len(p)) > x.reqLeft || end && int64(len(p)) < x.reqLeft:
		x.w.unlock()
		x.cc.c.Abort()
		return x.writeError("write body", errLength)
	default:
		x.reqLeft -= int64(len(p))
		x.w.payload(p, "")
	}
	if end {
		x.reqEnded.Store(true)
	}
	return x.settle("write body")
}

func (x *clientExchange) writeRaw(p []byte, end bool) error {
	if len(p) == 0 && !end {
		return nil
	}
	if err := x.Flush(); err != nil {
		return err
	}
	<-x.decided
	if !x.raw.Load() {
		x.reqEnded.Store(true)
		return nil
	}
	x.w.lock()
	x.w.payload(p, "")
	if end {
		x.w.flush()
		if x.w.err == nil {
			x.w.err = x.cc.c.CloseWrite()
		}
		x.reqEnded.Store(true)
	}
	return x.settle("write body")
}

// WriteTrailers implements [stream.Client]. Without the chunked coding there is no place for them: they are dropped.
func (x *clientExchange) WriteTrailers(t *stream.Fields) error {
	if x.req != framedChunked {
		return x.WriteBody(nil, true)
	}
	x.w.lock()
	if !x.headSent || x.reqEnded.Load() {
		x.w.unlock()
		return x.writeError("write trailers", errOrder)
	}
	if !x.w.trailers(t) {
		x.w.unlock()
		x.cc.c.Abort()
		return &stream.Error{Side: stream.Ours, Op: "write trailers", Flag: stream.FlagLocalReset, Details: "http1.invalid_characters", Err: errInjection}
	}
	x.reqEnded.Store(true)
	return x.settle("write trailers")
}

// Flush implements [stream.Client].
func (x *clientExchange) Flush() error {
	x.w.lock()
	x.w.flush()
	return x.settle("flush")
}

// writeError says what a failed write means. Nothing can have been processed if the connection
// was cut before it took a byte of the request.
func (x *clientExchange) writeError(op string, err error) error {
	e := &stream.Error{Side: stream.Upstream, Op: op, Flag: stream.FlagUpstreamTermination, Reset: true, Err: err,
		Details: "upstream_reset_before_response_started{connection_termination}"}
	switch {
	case err == errOrder || err == errLength:
		e.Side, e.Flag, e.Details, e.Reset = stream.Ours, stream.FlagLocalReset, "upstream_reset_before_response_started{local_reset}", false
	case netio.IsTimeout(err):
		e.Timeout, e.Reset, e.Flag, e.Details = true, false, stream.FlagUpstreamTimeout, "response_timeout"
	case x.w.sent <= 1 && x.cc.c.BytesWritten() == x.base():
		e.Unsent = errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrClosedPipe)
	}
	return e
}
