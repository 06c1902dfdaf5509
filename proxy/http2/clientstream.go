package http2

import (
	"slices"
	"strconv"

	msg "weft.mesh/weft/proxy/stream"
)

// fault words an error of this stream. mu must not be held.
func (s *clientStream) fault(op string, cause error) error {
	if cause == nil || cause == msg.EOF {
		return cause
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return upstreamError(op, cause, s.headDone, s.refused, s.unsent)
}

// WriteHead implements [msg.Client].
func (s *clientStream) WriteHead(r *msg.Request, end bool) error {
	if s.state.headSent {
		return s.fault("write head", errOrder)
	}
	err := s.sendHead(r, end)
	s.state.headErr = err
	return err
}

func (s *clientStream) sendHead(r *msg.Request, end bool) error {
	st := &s.state
	st.left = -1
	switch {
	case r.Upgrade != nil:
		st.upgrade = r.Upgrade
		end = false
	case string(r.Method) == "CONNECT":
		st.connect = true
		end = false
	case end && r.ContentLength > 0:
		return s.fault("write head", errLength)
	case !end:
		st.left = r.ContentLength
	}
	st.isHEAD = string(r.Method) == "HEAD"
	st.asked100 = r.Fields.Has("expect")
	if !validRequest(r) {
		return s.fault("write head", errInjection)
	}
	return s.fault("write head", s.writeHead(r, end))
}

func validRequest(r *msg.Request) bool {
	if !msg.ValidToken(r.Method) || !validFields(&r.Fields) || len(r.Authority) > 0 && !msg.ValidHost(r.Authority) {
		return false
	}
	if r.Upgrade != nil && !msg.ValidProtocol(r.Upgrade) {
		return false
	}
	return string(r.Method) == "CONNECT" || len(r.Path) == 0 || msg.ValidTarget(r.Path)
}

func (s *clientStream) writeHead(r *msg.Request, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Upgrade != nil {
		if err := s.awaitConnect(); err != nil {
			return err
		}
	}
	if err := s.dead(); err != nil {
		s.unsent = true
		return err
	}
	if c.goneAway || c.nextID > maxStreamID {
		s.unsent = true
		return &resetError{codeRefused, byPeer}
	}
	s.state.headSent = true
	s.id = c.nextID
	c.nextID += 2
	s.sendWin = c.peer.window
	s.inTable = true
	c.streams[s.id] = &s.stream
	c.encodeRequest(s.id, r, end)
	if end {
		s.localEnd = true
		s.push(true)
	}
	return nil
}

// awaitConnect waits for the upstream's SETTINGS and looks whether it takes an extended CONNECT. mu is held.
func (s *clientStream) awaitConnect() error {
	c := s.c
	s.busy++
	defer func() {
		s.busy--
		c.early = slices.DeleteFunc(c.early, func(o *stream) bool { return o == &s.stream })
	}()
	for !c.peer.received && s.dead() == nil {
		s.send()
		if c.peer.received {
			break
		}
		if err := s.waitRoom(); err != nil {
			return err
		}
	}
	if s.dead() == nil && !c.peer.connect {
		return errNoConnect
	}
	return nil
}

// encodeRequest appends the head's frames. mu is held.
func (c *conn) encodeRequest(id uint32, r *msg.Request, end bool) {
	method := r.Method
	if r.Upgrade != nil {
		method = methodCONNECT
	}
	path, scheme := r.Path, r.Scheme
	if len(path) == 0 {
		path = rootPath
	}
	if len(scheme) == 0 {
		scheme = schemeHTTP
	}
	b, start := c.beginBlock()
	b = c.enc.field(b, stringBytes(":method"), method)
	if r.Upgrade != nil || string(method) != "CONNECT" {
		b = c.enc.field(b, stringBytes(":scheme"), scheme)
		b = c.enc.field(b, stringBytes(":path"), path)
	}
	if len(r.Authority) > 0 {
		b = c.enc.field(b, stringBytes(":authority"), r.Authority)
	}
	if r.Upgrade != nil {
		b = c.enc.field(b, stringBytes(":protocol"), r.Upgrade)
	}
	if r.Upgrade == nil && string(method) != "CONNECT" && (r.ContentLength > 0 || r.ContentLength == 0 && r.Fields.Has("content-length")) {
		var digits [20]byte
		b = c.enc.field(b, stringBytes("content-length"), strconv.AppendInt(digits[:0], r.ContentLength, 10))
	}
	if r.TETrailers {
		b = c.enc.field(b, stringBytes("te"), stringBytes("trailers"))
	}
	b = c.appendFields(b, &r.Fields)
	c.endBlock(b, start, id, end)
}

var (
	methodCONNECT = []byte("CONNECT")
	rootPath      = []byte("/")
	schemeHTTP    = []byte("http")
)

// WriteBody implements [msg.Client].
func (s *clientStream) WriteBody(p []byte, end bool) error {
	if !s.state.headSent {
		return s.fault("write body", errOrder)
	}
	if left := s.state.left; left >= 0 {
		if left -= int64(len(p)); left < 0 || end && left > 0 {
			s.cut(codeInternal)
			return s.fault("write body", errLength)
		}
		s.state.left = left
	}
	return s.fault("write body", s.writeBody(p, end))
}

// WriteTrailers implements [msg.Client].
func (s *clientStream) WriteTrailers(t *msg.Fields) error {
	if !s.state.headSent {
		return s.fault("write trailers", errOrder)
	}
	if s.state.left > 0 {
		s.cut(codeInternal)
		return s.fault("write trailers", errLength)
	}
	return s.fault("write trailers", s.writeTrailers(t))
}

func (s *clientStream) cut(cd code) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.abort(cd, "aborted")
	s.push(false)
}

// Flush implements [msg.Client].
func (s *clientStream) Flush() error { return s.fault("flush", s.flush()) }

// ReadHead implements [msg.Client].
func (s *clientStream) ReadHead() (*msg.Response, error) {
	if err := s.state.headErr; err != nil {
		return nil, err // why there will be no response
	}
	r, err := s.readHead()
	if err != nil {
		return nil, s.fault("read head", err)
	}
	return r, nil
}

func (s *clientStream) readHead() (*msg.Response, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.busy++
	defer func() { s.busy-- }()
	if s.state.headRead || !s.state.headSent {
		return nil, errOrder
	}
	for {
		switch {
		case len(s.interims) > 0:
			r := s.interims[0]
			s.interims = s.interims[1:]
			return r, nil
		case s.headDone:
			s.state.headRead = true
			return &s.resp, nil
		}
		if err := s.dead(); err != nil {
			return nil, err
		}
		if len(c.wbuf) > 0 && !c.flushing {
			s.send()
			continue
		}
		if err := s.wait(); err != nil {
			return nil, err
		}
	}
}

// ReadBody implements [msg.Client].
func (s *clientStream) ReadBody() ([]byte, error) {
	p, err := s.readBody()
	return p, s.fault("read body", err)
}

// ReadReady implements [msg.Readier].
func (s *clientStream) ReadReady() bool { return s.ready() }

// Trailers implements [msg.Client].
func (s *clientStream) Trailers() *msg.Fields {
	if s.trailers.Len() == 0 {
		return nil
	}
	return &s.trailers
}
