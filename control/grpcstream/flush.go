package grpcstream

import "sync"

// batch is how much is written at once: two TLS records.
const batch = 2 * maxFrame

var batches = sync.Pool{New: func() any { b := make([]byte, 0, batch+maxFrame); return &b }}

// flush sends what there is, as far as windows and the kernel take it; c.mu is held.
func (c *conn) flush() {
	if c.late || c.dead || len(c.ctl) == 0 && len(c.ready) == 0 {
		return
	}
	p := batches.Get().(*[]byte)
	defer batches.Put(p)
	b := append((*p)[:0], c.ctl...)
	c.ctl = nil
	for {
		if b = c.frame(b); len(b) == 0 {
			return
		}
		c.sock.cork()
		_, err := c.nc.Write(b)
		sent, broken := c.sock.uncork()
		if err != nil || broken != nil {
			c.kill()
			return
		}
		if !sent {
			c.late = true // sentLate goes on
			return
		}
		b = b[:0]
	}
}

// sentLate goes on when the kernel has taken what it had not.
func (c *conn) sentLate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = false
	c.flush()
}

// frame appends frames of streams, each in turn, up to a batch.
func (c *conn) frame(b []byte) []byte {
	for len(c.ready) > 0 && len(b) < batch-maxFrame/2 {
		s := c.ready[0]
		c.ready = c.ready[1:]
		s.listed = false
		var more bool
		if b, more = s.frame(b); more {
			s.list()
		}
	}
	if len(c.ready) == 0 {
		c.one[0] = nil
		c.ready = c.one[:0]
	}
	return b
}

// frame appends the next frame of a stream, and tells whether another could follow.
func (s *Stream) frame(b []byte) (_ []byte, more bool) {
	c := s.c
	if s.ended {
		return b, false
	}
	if len(s.queue) == 0 {
		if s.ending {
			b = appendTrailers(b, s.id, !s.answered, s.err)
			if !s.eof {
				b = appendReset(b, s.id, codeNone)
			}
			s.drop()
		}
		return b, false
	}
	m := s.queue[0][s.sent:]
	n := int(min(maxChunk, int64(len(m)), s.send, c.send))
	if n <= 0 {
		return b, false // until the client says WINDOW_UPDATE
	}
	if !s.answered {
		s.answered = true
		b = appendResponse(b, s.id, s.gzip)
	}
	b = append(appendHead(b, n, frameData, 0, s.id), m[:n]...)
	s.send, c.send, s.queued, s.sent = s.send-int64(n), c.send-int64(n), s.queued-n, s.sent+n
	if n == len(m) {
		s.queue[0] = nil
		if s.queue, s.sent = s.queue[1:], 0; len(s.queue) == 0 {
			s.queue = s.one[:0]
		}
	}
	s.relieve()
	return b, len(s.queue) > 0 || s.ending
}

// relieve listens to the client again when it has taken enough; c.mu is held.
func (s *Stream) relieve() {
	if s.full && !s.busy && s.queued <= maxQueued/2 && s.recv != nil && !s.ended {
		s.full = false
		recv := s.recv
		s.c.srv.wg.Go(func() { s.drained(recv) })
	}
}

// drained goes on with what the client says.
func (s *Stream) drained(recv Receiver) {
	recv.Drained()
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.deliver(nil)
	s.c.flush()
}

// widen changes the client's window; c.mu is held.
func (s *Stream) widen(n int64) error {
	if s.send += n; s.send > maxWindow {
		return fatal(codeFlowControl, "a window is too large")
	}
	s.waits()
	return nil
}

// waits lists a stream that may have waited for a window: one that says nothing costs nothing when a client widens
// windows without end.
func (s *Stream) waits() {
	if len(s.queue) > 0 {
		s.list()
	}
}
