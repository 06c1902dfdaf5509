package http1

import (
	"io"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// maxInterims bounds how many 1xx heads one response may have.
const maxInterims = 32

// ReadHead implements [stream.Client].
func (x *clientExchange) ReadHead() (*stream.Response, error) {
	if x.readErr != nil {
		return nil, x.readErr
	}
	if x.headRead {
		return nil, x.writeError("read head", errOrder)
	}
	for {
		n, err := x.readHead()
		if err != nil {
			return nil, x.failed(err)
		}
		x.cc.in.off = n
		if x.resp.Status >= 200 || x.resp.Status == 101 {
			return x.final()
		}
		if x.interims++; x.interims > maxInterims {
			return nil, x.failed(x.protocolError("read head", refuse(502, "http1.too_many_informational")))
		}
		if x.resp.Status != 100 || x.asked100 {
			x.resp.ContentLength = 0
			return &x.resp, nil
		}
	}
}

// failed keeps why there will be no head. A tunnel will not come about either: who waits to write into it goes on.
func (x *clientExchange) failed(err error) error {
	x.readErr = err
	x.decide()
	return err
}

// readHead waits for a whole head at the front of the buffer, parses it and returns its length.
func (x *clientExchange) readHead() (int, error) {
	in := &x.cc.in
	if in.off > 0 { // an informational head was there
		in.next()
	}
	for looked := 0; ; {
		if b := in.head.Bytes(); len(b) > 0 {
			x.gotByte = true
			if looked == 0 { // nearly always it is all there
				if n, perr := x.parse(b); n > 0 && n <= x.cc.o.MaxHeaderBytes && perr == nil {
					return n, nil
				}
			}
			n, perr := headEnd(b, looked)
			if perr == nil && n > x.cc.o.MaxHeaderBytes {
				perr = refuse(502, detailsTooLarge)
			}
			if perr == nil && n > 0 {
				_, perr = x.parse(b[:n])
			}
			if perr != nil {
				return 0, x.protocolError("read head", perr)
			}
			if n > 0 {
				return n, nil
			}
			looked = len(b)
		}
		if err := x.await(); err != nil {
			if err == netio.ErrBufferFull {
				return 0, x.protocolError("read head", refuse(502, detailsTooLarge))
			}
			return 0, x.readError("read head", err)
		}
	}
}

// parse parses the head that b begins with; see parseResponse.
func (x *clientExchange) parse(b []byte) (int, *protoError) {
	x.resp.Reset()
	x.ctl = control{}
	return parseResponse(b, &x.resp, &x.ctl, x.cc.o.MaxHeaders)
}

// await flushes and reads. The whole request in the buffer and nothing sent yet: the
// response cannot be there before, so one park does for both.
func (x *clientExchange) await() error {
	w := &x.w
	b := &x.cc.in.head
	if !w.alone {
		w.eager.Store(true)
	}
	if x.reqEnded.Load() || x.tunnel {
		w.lock()
		if w.sent == 0 && w.n > 0 && w.err == nil && !x.gotByte {
			defer w.unlock()
			return x.roundTrip(b)
		}
		w.flush()
		w.unlock()
	} else if w.tryLock() { // else the writer sees eager when it is done
		if err := w.settle(); err != nil && !x.canAnswer(err) {
			return err
		}
	}
	return x.cc.c.Fill(b)
}

func (x *clientExchange) roundTrip(b *netio.Buffer) error {
	w := &x.w
	w.sent++
	before := x.cc.c.BytesWritten()
	err := x.cc.c.WriteFill(w.mem[:w.n], b)
	if err != nil && x.cc.c.BytesWritten() == before {
		w.err = err
	}
	w.release()
	return err
}

// canAnswer: an upstream that refuses a body early may reset our side and still have sent its response.
func (x *clientExchange) canAnswer(err error) bool { return netio.IsReset(err) }

// final deals with the head that decides the body.
func (x *clientExchange) final() (*stream.Response, error) {
	r := &x.resp
	raw := r.Status == 101 || x.method == methodCONNECT && r.Status/100 == 2
	if raw && (!x.tunnel || r.Status == 101 && len(r.Upgrade) > 0 && !stream.EqualFold(r.Upgrade, string(x.upgrade))) { // RFC 9110 section 7.8: only to what was asked for
		return nil, x.failed(x.protocolError("read head", refuse(502, detailsCodec)))
	}
	x.headRead = true
	switch {
	case raw:
		x.raw.Store(true)
		x.body.reset(framedClose, 0, 0)
		r.ContentLength = stream.UnknownLength
	case x.method == methodHEAD || r.Status == 204 || r.Status == 304:
		x.body.reset(framedNone, 0, 0)
		r.ContentLength = max(r.ContentLength, 0)
	case x.ctl.chunked:
		x.body.reset(framedChunked, 0, x.cc.o.MaxHeaderBytes)
	case r.ContentLength >= 0:
		x.body.reset(framedLength, r.ContentLength, 0)
	default:
		x.body.reset(framedClose, 0, 0)
	}
	if !raw {
		r.Upgrade = nil
		if x.tunnel {
			x.reqEnded.Store(true)
		}
	}
	x.decide()
	return r, nil
}

// ReadBody implements [stream.Client].
func (x *clientExchange) ReadBody() ([]byte, error) {
	if x.readErr != nil {
		return nil, x.readErr
	}
	for {
		p, perr := x.body.take(&x.cc.in, x.cc.o.MaxHeaders)
		switch {
		case perr != nil:
			x.readErr = x.protocolError("read body", perr)
			return nil, x.readErr
		case len(p) > 0:
			return p, nil
		case x.body.done:
			return nil, io.EOF
		}
		err := x.cc.in.fill(x.cc.c)
		if err == io.EOF {
			if err = x.body.end(); err == io.EOF {
				return nil, err
			}
		}
		if err != nil {
			x.readErr = x.readError("read body", err)
			return nil, x.readErr
		}
	}
}

// ReadReady implements [stream.Readier].
func (x *clientExchange) ReadReady() bool { return x.readErr != nil || x.body.ready(&x.cc.in) }

// Trailers implements [stream.Client].
func (x *clientExchange) Trailers() *stream.Fields {
	if !x.body.done || x.body.trailers.Len() == 0 {
		return nil
	}
	return &x.body.trailers
}

func (x *clientExchange) protocolError(op string, perr *protoError) error {
	return &stream.Error{Side: stream.Upstream, Op: op, Flag: stream.FlagUpstreamProtocolErr,
		Details: x.when("protocol_error"), Err: perr}
}

// when words a reset as Envoy does.
func (x *clientExchange) when(why string) string {
	if x.headRead {
		return "upstream_reset_after_response_started{" + why + "}"
	}
	return "upstream_reset_before_response_started{" + why + "}"
}

func (x *clientExchange) readError(op string, err error) error {
	if !x.gotByte && x.reqEnded.Load() && x.w.tryLock() {
		werr := x.w.err
		x.w.unlock()
		if werr != nil {
			return x.writeError(op, werr)
		}
	}
	e := &stream.Error{Side: stream.Upstream, Op: op, Flag: stream.FlagUpstreamTermination, Reset: true,
		Details: x.when("connection_termination"), Err: err}
	if netio.IsTimeout(err) {
		e.Timeout, e.Reset, e.Flag, e.Details = true, false, stream.FlagUpstreamTimeout, "response_timeout"
	}
	return e
}
