package http2

import (
	"strconv"
	"sync"
	"time"

	msg "weft.mesh/weft/proxy/stream"
)

// serverStream is the server's side of one exchange. It implements [msg.Server].
type serverStream struct {
	stream
	req    msg.Request
	server serverState
}

// serverState is what the handler's writing goroutine knows.
type serverState struct {
	expect   bool // the client waits for 100-continue; guarded by conn.mu
	headSent bool
	noBody   bool  // HEAD, 204, 304: what is written as a body is dropped
	left     int64 // of the announced content-length, -1 if none
}

var serverStreams = sync.Pool{New: func() any {
	s := new(serverStream)
	s.srv = s
	return s
}}

var (
	_ msg.Server  = (*serverStream)(nil)
	_ msg.Readier = (*serverStream)(nil)
	_ msg.Blocker = (*serverStream)(nil)
	_ msg.Keeper  = (*serverStream)(nil)
	_ msg.Waker   = (*serverStream)(nil)
)

// recycle gives the stream back; nobody has it any more. mu is held.
func (s *serverStream) recycle() {
	s.recv.drop()
	s.req.Reset()
	if sc := s.c.server; len(sc.free) < maxFree {
		sc.free = append(sc.free, s)
	} else {
		serverStreams.Put(s)
	}
}

// Request implements [msg.Server].
func (s *serverStream) Request() *msg.Request { return &s.req }

// HasBody implements [msg.Server].
func (s *serverStream) HasBody() bool { return s.req.ContentLength != 0 || s.req.Upgrade != nil }

// BodyBuffered implements [msg.Server]: it returns a body that has wholly arrived in one buffer.
func (s *serverStream) BodyBuffered() ([]byte, bool) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.remoteEnd || s.reset != nil || s.trailers.Len() > 0 {
		return nil, false
	}
	if s.got == 0 {
		return nil, true
	}
	return s.recv.hold(int(s.got))
}

// ReadBody implements [msg.Server].
func (s *serverStream) ReadBody() ([]byte, error) {
	s.proceed()
	p, err := s.readBody()
	if err == nil || err == msg.EOF {
		return p, err
	}
	return nil, downstream("read body", err)
}

// proceed sends 100 Continue to a client that waits for it.
func (s *serverStream) proceed() {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.server.expect {
		return
	}
	s.server.expect = false
	if s.recv.len() > 0 || s.remoteEnd || s.dead() != nil {
		return
	}
	b, start := c.beginBlock()
	b = c.enc.field(b, stringBytes(":status"), stringBytes("100"))
	c.endBlock(b, start, s.id, false)
	s.push(false)
}

// ReadReady implements [msg.Readier].
func (s *serverStream) ReadReady() bool { return s.ready() }

// RequestTrailers implements [msg.Server].
func (s *serverStream) RequestTrailers() *msg.Fields {
	if s.trailers.Len() == 0 {
		return nil
	}
	return &s.trailers
}

// WriteHead implements [msg.Server].
func (s *serverStream) WriteHead(r *msg.Response, end bool) error {
	if s.server.headSent {
		return downstream("write head", errOrder)
	}
	if !validFields(&r.Fields) || r.Status < 100 || r.Status > 999 {
		return downstream("write head", errInjection)
	}
	code := r.Status
	if code == 101 {
		if s.req.Upgrade == nil {
			return downstream("write head", errOrder)
		}
		code = 200 // RFC 8441 section 4
	}
	info := code < 200
	if !info && s.plan(r, code, end) != nil {
		return downstream("write head", errLength)
	}
	return downstream("write head", s.writeHead(r, code, end && !info))
}

// plan decides what may follow the head.
func (s *serverStream) plan(r *msg.Response, code int, end bool) error {
	s.server.left = -1
	s.server.noBody = string(s.req.Method) == "HEAD" || code == 204 || code == 304
	if r.ContentLength >= 0 && !s.server.noBody && r.Status != 101 && string(s.req.Method) != "CONNECT" {
		s.server.left = r.ContentLength
		if end && r.ContentLength > 0 {
			return errLength
		}
	}
	s.server.headSent = true
	return nil
}

func (s *serverStream) writeHead(r *msg.Response, code int, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.dead(); err != nil {
		return err
	}
	if code == 100 && !s.server.expect {
		return nil // the client did not ask, or has it already
	}
	if code >= 200 || code == 100 {
		s.server.expect = false
	}
	var digits [20]byte
	b, start := c.beginBlock()
	b = c.enc.field(b, stringBytes(":status"), strconv.AppendInt(digits[:0], int64(code), 10))
	if code >= 200 {
		if v := s.lengthField(r, digits[:0]); v != nil {
			b = c.enc.field(b, stringBytes("content-length"), v)
		}
	}
	b = c.appendFields(b, &r.Fields)
	c.endBlock(b, start, s.id, end)
	switch {
	case end:
		s.finishSend()
	case code < 200:
		s.push(false)
	}
	return nil
}

// lengthField is the content-length to send, nil for none.
func (s *serverStream) lengthField(r *msg.Response, buf []byte) []byte {
	switch {
	case r.Status == 101 || r.Status == 204:
		return nil
	case s.server.noBody:
		if v := r.Fields.Get("content-length"); v != nil {
			return v
		}
		if r.ContentLength > 0 {
			return strconv.AppendInt(buf, r.ContentLength, 10)
		}
	case s.server.left >= 0:
		return strconv.AppendInt(buf, s.server.left, 10)
	}
	return nil
}

// WriteBody implements [msg.Server].
func (s *serverStream) WriteBody(p []byte, end bool) error {
	if !s.server.headSent {
		return downstream("write body", errOrder)
	}
	if s.server.noBody {
		p = nil
		if !end {
			return nil
		}
	}
	if left := s.server.left; left >= 0 {
		if left -= int64(len(p)); left < 0 || end && left > 0 {
			s.Abort()
			return downstream("write body", errLength)
		}
		s.server.left = left
	}
	return downstream("write body", s.writeBody(p, end))
}

// WriteTrailers implements [msg.Server].
func (s *serverStream) WriteTrailers(t *msg.Fields) error {
	if !s.server.headSent {
		return downstream("write trailers", errOrder)
	}
	if s.server.left > 0 {
		s.Abort()
		return downstream("write trailers", errLength)
	}
	return downstream("write trailers", s.writeTrailers(t))
}

// Flush implements [msg.Server].
func (s *serverStream) Flush() error { return downstream("flush", s.flush()) }

// Abort implements [msg.Server]; it may be called from anywhere while the handler runs.
func (s *serverStream) Abort() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.abort(codeInternal, "aborted")
	s.c.flushAside()
}

// Block implements [msg.Blocker].
func (s *serverStream) Block() { s.turn.pass() }

// WakeRead implements [msg.Waker].
func (s *serverStream) WakeRead() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.deadline = time.Unix(1, 0)
	s.cond.Broadcast()
}

// Gone implements [msg.Server].
func (s *serverStream) Gone() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.dead() != nil
}

// Done implements [msg.Server].
func (s *serverStream) Done() <-chan struct{} {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.doneChan()
}

// CloseAfter implements [msg.Server]: it drains the connection.
func (s *serverStream) CloseAfter() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.server.startDrain()
}
