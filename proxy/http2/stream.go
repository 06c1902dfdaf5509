package http2

import (
	"io"
	"os"
	"sync"
	"time"

	msg "weft.mesh/weft/proxy/stream"
)

// stream is what both sides have in common. All of it is guarded by conn.mu,
// except the bytes of messages, which their reader owns once it was told of them.
type stream struct {
	c    *conn
	id   uint32
	cond sync.Cond // something happened to the stream
	srv  *serverStream
	cli  *clientStream

	recv    recv
	recvWin int
	window  int // what recvWin is at most
	unacked int // consumed and not yet given back
	// refilled is when the window was opened again last, see grow.
	refilled time.Time
	sendWin  int
	declare  int64 // content-length, -1 if none
	got      int64

	remoteEnd bool // END_STREAM came
	localEnd  bool // END_STREAM is in the output
	inTable   bool
	noBody    bool  // the response to HEAD, 204, 304: a content-length says nothing
	reset     error // why it ended early
	refused   bool  // the peer will not have processed it: GOAWAY, REFUSED_STREAM
	unsent    bool  // client: nothing of it was sent, because the connection was at its end
	waiting   int   // goroutines in wait
	busy      int   // goroutines inside a call that may wait
	turn      *turn // of the reader that runs the exchange now, nil if none does; the exchange's goroutine only
	blocked   bool  // waits for the connection's window
	deadline  time.Time

	arena    []byte // bytes of heads and trailers
	cookies  []byte
	trailers msg.Fields

	kept any // see [msg.Keeper]

	over     chan struct{} // Done; made when asked for, kept while it is open
	overShut bool
}

// renew prepares a pooled stream for its next life.
func (s *stream) renew(c *conn, id uint32) {
	arena, cookies, trailers, over := s.arena[:0], s.cookies[:0], s.trailers, s.over
	if cap(arena) > 64<<10 {
		arena = nil
	}
	if cap(cookies) > 16<<10 {
		cookies = nil
	}
	if s.overShut {
		over = nil
	}
	trailers.Reset()
	*s = stream{c: c, id: id, recv: s.recv, kept: s.kept, srv: s.srv, cli: s.cli, arena: arena, cookies: cookies, trailers: trailers, over: over,
		recvWin: c.lim.streamWindow, window: c.lim.streamWindow, sendWin: c.peer.window, declare: -1}
	s.cond.L = &c.mu
}

// Kept implements [msg.Keeper].
func (s *stream) Kept() any { return s.kept }

// Keep implements [msg.Keeper].
func (s *stream) Keep(v any) { s.kept = v }

// gone marks Done. mu is held.
func (s *stream) gone() {
	if s.over != nil && !s.overShut {
		s.overShut = true
		close(s.over)
	}
}

// done makes Done's channel. mu is held.
func (s *stream) doneChan() chan struct{} {
	if s.over == nil {
		s.over = make(chan struct{})
		s.overShut = false
	}
	if s.dead() != nil {
		s.gone()
	}
	return s.over
}

// dead returns why nothing more can happen on the stream, nil if it can.
func (s *stream) dead() error {
	if s.reset != nil {
		return s.reset
	}
	return s.c.err
}

// wait sleeps until something happened. The caller checks its condition again. mu is held.
func (s *stream) wait() error {
	if s.passTurn() {
		return nil
	}
	if !s.deadline.IsZero() {
		if !time.Now().Before(s.deadline) {
			return os.ErrDeadlineExceeded
		}
		s.c.arm(s.deadline)
	}
	s.waiting++
	s.cond.Wait()
	s.waiting--
	return nil
}

// passTurn gives the right to read away before a wait. true: mu, which is held, was released
// in between, so that the condition to wait for must be looked at again.
func (s *stream) passTurn() bool {
	t := s.turn
	if !t.on() {
		return false
	}
	s.c.mu.Unlock()
	t.pass()
	s.c.mu.Lock()
	return true
}

// push sends what was appended: at once, or at the end of the turn in which the exchange runs. mu is held.
func (s *stream) push(yield bool) {
	if t := s.turn; t.on() {
		t.mark(s.c)
		return
	}
	s.c.flush(yield)
}

// send sends at once. mu is held, and released in between.
func (s *stream) send() {
	if s.turn.on() {
		s.c.flushAside()
		return
	}
	s.c.flush(true)
}

// wake tells whoever waits for the stream. mu is held; for the reader.
func (s *stream) wake() {
	if s.waiting > 0 {
		s.cond.Broadcast()
	}
	if s.cli != nil && s.cli.resume != nil {
		s.c.client.queue(s.cli)
	}
}

// resumeAside is wake for others than the reader. mu is held.
func (s *stream) resumeAside() {
	if s.cli != nil && s.cli.resume != nil {
		s.c.client.resumeAside(s.cli)
	}
}

// waits tells whether anybody would be woken. mu is held.
func (s *stream) waits() bool { return s.waiting > 0 || s.cli != nil && s.cli.resume != nil }

// abort resets the stream from our side. mu is held.
func (s *stream) abort(cd code, why string) {
	if s.dead() != nil || s.localEnd && s.remoteEnd || s.id == 0 {
		return
	}
	s.reset = &resetError{cd, why}
	c := s.c
	c.wbuf = appendRST(c.out(), s.id, cd)
	c.forget(s.id)
	s.ended()
}

// ended takes the stream out of the table and tells everybody. mu is held.
func (s *stream) ended() {
	if s.reset != nil {
		s.gone()
	}
	c := s.c
	if s.inTable {
		s.inTable = false
		delete(c.streams, s.id)
	}
	if s.blocked {
		s.blocked = false
		c.blocked--
	}
	s.wake()
}

// maybeClosed ends the stream when both sides have. mu is held.
func (s *stream) maybeClosed() bool {
	if s.localEnd && s.remoteEnd {
		s.ended()
		return true
	}
	return false
}

// waitRoom waits like wait for something that concerns the whole connection. mu is held.
func (s *stream) waitRoom() error {
	s.c.early = append(s.c.early, s)
	return s.wait()
}

// readBody is ReadBody; the error is the bare cause.
func (s *stream) readBody() ([]byte, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.busy++
	defer func() { s.busy-- }()
	for {
		if p := s.recv.next(); len(p) > 0 {
			s.credit(len(p))
			return p, nil
		}
		if s.remoteEnd {
			return nil, io.EOF
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

// ready tells whether readBody would return at once.
func (s *stream) ready() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.recv.len() > 0 || s.remoteEnd || s.dead() != nil
}

// credit opens the windows again for n consumed bytes. mu is held.
func (s *stream) credit(n int) {
	c := s.c
	due := false
	s.unacked += n
	if s.unacked >= s.window/2 && !s.remoteEnd && s.dead() == nil {
		n := s.unacked + s.grow()
		c.wbuf = appendWindow(c.out(), s.id, n)
		s.recvWin += n
		s.unacked = 0
		due = true
	}
	if c.giveBack(n) || due {
		s.push(false)
	}
}

// giveBack opens the connection's window again; it tells whether a frame was appended. mu is held.
func (c *conn) giveBack(n int) bool {
	c.unacked += n
	if c.unacked < c.window/2 || c.err != nil {
		return false
	}
	c.wbuf = appendWindow(c.out(), 0, c.unacked)
	c.recvWin += c.unacked
	c.unacked = 0
	return true
}

// discard drops what was received and never read, so that it does not keep the connection's window closed. mu is held.
func (s *stream) discard() {
	if n := s.recv.drop(); n > 0 {
		s.c.giveBack(n)
	}
}

// writeBody sends p as DATA frames as the windows allow.
func (s *stream) writeBody(p []byte, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.busy++
	defer func() { s.busy-- }()
	if s.localEnd {
		if len(p) == 0 && end {
			return nil
		}
		return errOrder
	}
	for len(p) > 0 {
		if err := s.dead(); err != nil {
			return err
		}
		n := min(len(p), c.peer.maxFrame, c.sendWin, s.sendWin, minMaxFrame)
		if n <= 0 || len(c.wbuf) >= maxBuffered {
			if err := s.waitSend(n <= 0); err != nil {
				return err
			}
			continue
		}
		var flags uint8
		if end && n == len(p) {
			flags = flagEndStream
		}
		c.wbuf = append(appendHeader(c.out(), n, frameData, flags, s.id), p[:n]...)
		c.sendWin -= n
		s.sendWin -= n
		c.guard.sent()
		p = p[n:]
		if flags != 0 {
			s.finishSend()
			return nil
		}
	}
	if end {
		if err := s.dead(); err != nil {
			return err
		}
		c.wbuf = appendHeader(c.out(), 0, frameData, flagEndStream, s.id)
		s.finishSend()
	} else if len(c.wbuf) >= maxBuffered/2 {
		s.send()
	}
	return nil
}

// waitSend waits for a window (or for room in the output) after sending what there is. mu is held.
func (s *stream) waitSend(window bool) error {
	c := s.c
	if len(c.wbuf) > 0 && !c.flushing {
		s.send()
		return nil
	}
	if s.passTurn() {
		return nil
	}
	if !window {
		c.room.Wait()
		return nil
	}
	if c.sendWin <= 0 && !s.blocked {
		s.blocked = true
		c.blocked++
	}
	err := s.wait()
	if s.blocked {
		s.blocked = false
		c.blocked--
	}
	return err
}

// finishSend: END_STREAM is in the output. mu is held.
func (s *stream) finishSend() {
	s.localEnd = true
	s.maybeClosed()
	s.push(true)
}

// writeTrailers ends the message with a header block.
func (s *stream) writeTrailers(t *msg.Fields) error {
	if t == nil || t.Len() == 0 {
		return s.writeBody(nil, true)
	}
	if !validFields(t) {
		return errInjection
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.localEnd {
		return errOrder
	}
	if err := s.dead(); err != nil {
		return err
	}
	b, start := c.beginBlock()
	b = c.appendFields(b, t)
	c.endBlock(b, start, s.id, true)
	s.finishSend()
	return nil
}

// flush sends what this stream, and all others, have appended.
func (s *stream) flush() error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.push(true)
	return s.dead()
}

// beginBlock starts a HEADERS frame. mu is held until endBlock.
func (c *conn) beginBlock() (b []byte, start int) {
	b = c.out()
	start = len(b)
	b = append(b, make([]byte, frameHeader)...)
	return c.enc.begin(b), start
}

// appendFields encodes the fields that belong on the wire.
func (c *conn) appendFields(b []byte, f *msg.Fields) []byte {
	all := f.All()
	for i := range all {
		if l := &all[i]; l.Checked() || !connectionSpecific(l.Name) {
			b = c.enc.field(b, l.Name, l.Value)
		}
	}
	return b
}

// endBlock completes the HEADERS frame that began at start, cutting it into CONTINUATION frames if it must be.
func (c *conn) endBlock(b []byte, start int, id uint32, end bool) {
	flags := uint8(flagEndHeaders)
	if end {
		flags |= flagEndStream
	}
	n := len(b) - start - frameHeader
	if n <= c.peer.maxFrame {
		appendHeader(b[:start], n, frameHeaders, flags, id)
		c.wbuf = b
		return
	}
	block := append([]byte(nil), b[start+frameHeader:]...)
	b = b[:start]
	for typ := frameHeaders; len(block) > 0; typ = frameContinuation {
		n := min(len(block), c.peer.maxFrame)
		f := flags
		if typ == frameContinuation {
			f &^= flagEndStream
		}
		if n < len(block) {
			f &^= flagEndHeaders
		}
		b = append(appendHeader(b, n, typ, f, id), block[:n]...)
		block = block[n:]
	}
	c.wbuf = b
}

// connectionSpecific fields never go on the wire (RFC 9113 section 8.2.2); content-length and te are written from the head.
func connectionSpecific(name []byte) bool {
	switch len(name) {
	case 2:
		return msg.EqualFold(name, "te")
	case 4:
		return msg.EqualFold(name, "host")
	case 7:
		return msg.EqualFold(name, "upgrade")
	case 10:
		return msg.EqualFold(name, "connection") || msg.EqualFold(name, "keep-alive")
	case 14:
		return msg.EqualFold(name, "content-length")
	case 16:
		return msg.EqualFold(name, "proxy-connection")
	case 17:
		return msg.EqualFold(name, "transfer-encoding")
	}
	return false
}

// validFields: nothing may become another field further on.
func validFields(f *msg.Fields) bool {
	all := f.All()
	for i := range all {
		if l := &all[i]; !l.Checked() && (!msg.ValidToken(l.Name) || !msg.ValidValue(l.Value)) {
			return false
		}
	}
	return true
}
