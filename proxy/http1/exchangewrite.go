package http1

import (
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// WriteHead implements [stream.Server].
func (x *exchange) WriteHead(r *stream.Response, end bool) error {
	x.w.lock()
	if x.headSent || x.w.err != nil {
		err := x.w.err
		x.w.unlock()
		return writeError("write head", err)
	}
	m := x.w.mark()
	ok := true
	if r.Status < 200 && r.Status != 101 {
		ok = x.informational(r)
	} else {
		ok = x.final(r, end)
	}
	if !ok {
		clean := x.w.undo(m)
		x.w.unlock()
		if !clean {
			x.Abort()
		}
		return &stream.Error{Side: stream.Ours, Op: "write head", Details: "http1.invalid_characters", Err: errInjection}
	}
	return x.settle("write head")
}

func (x *exchange) settle(op string) error {
	if err := x.w.settle(); err != nil {
		return writeError(op, err)
	}
	return nil
}

func writeError(op string, err error) error {
	if err == nil {
		err = errOrder
	}
	e := &stream.Error{Side: stream.Downstream, Op: op, Flag: stream.FlagDownstreamTermination,
		Details: "downstream_remote_disconnect", Reset: true, Err: err}
	switch {
	case err == errOrder || err == errLength:
		e.Side, e.Flag, e.Details, e.Reset = stream.Ours, stream.FlagLocalReset, detailsCodec, false
	case netio.IsTimeout(err):
		e.Timeout, e.Reset, e.Details = true, false, "downstream_write_stalled"
	}
	return e
}

// informational sends a 1xx head, if this client wants it.
func (x *exchange) informational(r *stream.Response) bool {
	if x.req.Proto == stream.HTTP10 {
		return true
	}
	if r.Status == 100 && !x.expect.Swap(false) {
		return true // it did not ask, or has it already
	}
	x.w.str(statusLine(r.Status))
	if !x.w.fields(&r.Fields) {
		return false
	}
	x.w.str("\r\n")
	x.w.flush()
	return true
}

// final sends the head that decides everything. mu is held.
func (x *exchange) final(r *stream.Response, end bool) bool {
	raw := r.Status == 101 && x.req.Upgrade != nil || r.Status/100 == 2 && string(x.req.Method) == "CONNECT"
	resp, left, bodyless := x.frame(r, end, raw)
	if x.expect.Load() {
		x.close = true // the client may or may not send its body now
	}
	if !raw && string(x.req.Method) == "CONNECT" {
		x.close = true // what follows may be meant for the tunnel
	}
	x.close = x.close || x.closing.Load() || x.sc.draining.Load() != 0 || resp == framedClose ||
		x.long && !x.read.Load()
	x.w.str(statusLine(r.Status))
	if !x.w.fields(&r.Fields) {
		return false
	}
	if !x.connectionFields(r, resp, left, bodyless, raw) {
		return false
	}
	x.w.str("\r\n")
	lower(&x.expect)
	x.resp, x.respLeft, x.bodyless, x.headSent, x.raw = resp, left, bodyless, true, raw
	x.decide()
	if end && !raw {
		x.complete()
	}
	return true
}

// frame decides how the end of the response is told (RFC 9112 section 6).
func (x *exchange) frame(r *stream.Response, end, raw bool) (f framing, left int64, bodyless bool) {
	switch {
	case raw:
		return framedClose, 0, false
	case string(x.req.Method) == "HEAD" || r.Status == 204 || r.Status == 304 || r.Status < 200:
		return framedNone, 0, true
	case r.ContentLength >= 0 && (!end || r.ContentLength == 0):
		return framedLength, r.ContentLength, false
	case end:
		return framedLength, 0, false
	case x.req.Proto == stream.HTTP10:
		return framedClose, 0, false
	}
	return framedChunked, 0, false
}

func (x *exchange) connectionFields(r *stream.Response, resp framing, left int64, bodyless, raw bool) bool {
	switch {
	case raw && r.Status == 101:
		proto := r.Upgrade
		if len(proto) == 0 {
			proto = x.req.Upgrade
		}
		x.w.str("connection: upgrade\r\n")
		return x.w.field(stringBytes("upgrade"), proto)
	case raw:
		return true
	case bodyless:
		x.bodylessLength(r)
	case resp == framedLength:
		x.w.str("content-length: ")
		x.w.int(left, 10)
		x.w.str("\r\n")
	case resp == framedChunked:
		x.w.str("transfer-encoding: chunked\r\n")
	}
	if x.close {
		x.w.str("connection: close\r\n")
	} else if x.req.Proto == stream.HTTP10 {
		x.w.str("connection: keep-alive\r\n")
	}
	return true
}

// bodylessLength keeps the length of a body that is not sent (RFC 9110 section 8.6).
func (x *exchange) bodylessLength(r *stream.Response) {
	if r.Status == 204 || r.Status < 200 {
		return
	}
	if n := r.Fields.Get("content-length"); n != nil {
		x.w.field(stringBytes("content-length"), n)
	} else if r.ContentLength > 0 {
		x.w.str("content-length: ")
		x.w.int(r.ContentLength, 10)
		x.w.str("\r\n")
	}
}

// WriteBody implements [stream.Server].
func (x *exchange) WriteBody(p []byte, end bool) error {
	x.w.lock()
	if !x.headSent || x.ended {
		x.w.unlock()
		return writeError("write body", errOrder)
	}
	switch {
	case x.bodyless:
	case x.resp == framedChunked:
		x.w.chunk(p, end)
	case x.resp == framedLength && int64(len(p)) > x.respLeft:
		x.w.unlock()
		x.Abort()
		return writeError("write body", errLength)
	default:
		x.respLeft -= int64(len(p))
		x.w.payload(p, "")
	}
	if end {
		if x.resp == framedLength && x.respLeft > 0 {
			x.w.unlock()
			x.Abort()
			return writeError("write body", errLength)
		}
		x.complete()
	}
	return x.settle("write body")
}

// complete ends the response: everything leaves now.
func (x *exchange) complete() {
	x.ended = true
	x.w.flush()
	if x.raw && x.w.err == nil {
		x.w.err = x.w.c.CloseWrite()
	}
}

// WriteTrailers implements [stream.Server]. Trailers reach only clients that take
// them ("TE: trailers"), in a chunked response.
func (x *exchange) WriteTrailers(t *stream.Fields) error {
	if x.resp != framedChunked || x.bodyless {
		return x.WriteBody(nil, true)
	}
	x.w.lock()
	if !x.headSent || x.ended {
		x.w.unlock()
		return writeError("write trailers", errOrder)
	}
	if !x.req.TETrailers {
		t = nil
	}
	if m := x.w.mark(); !x.w.trailers(t) {
		clean := x.w.undo(m)
		x.w.unlock()
		if !clean {
			x.Abort()
		}
		return &stream.Error{Side: stream.Ours, Op: "write trailers", Details: "http1.invalid_characters", Err: errInjection}
	}
	x.complete()
	return x.settle("write trailers")
}

// Flush implements [stream.Server].
func (x *exchange) Flush() error {
	x.w.lock()
	x.w.flush()
	return x.settle("flush")
}
