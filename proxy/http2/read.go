package http2

import (
	"encoding/binary"
	"io"
	"time"

	"weft.mesh/weft/proxy/netio"
)

// turnFrames is how many frames of a connection are handled at once before the other connections have their turn: some
// cost their sender nine bytes.
const turnFrames = 128

// loop is the frame loop of whoever has the turn. It returns when the connection has ended or
// the turn was passed on (errPassed), never with nil. Between two looks at the socket it handles all
// frames that are there, then runs what they made possible, then sends what came of that.
func (c *conn) loop(t *turn) error {
	for n := 1; ; n++ {
		more, err := c.frame()
		if err != nil {
			return err
		}
		if !more {
			if n%turnFrames == 0 {
				netio.GiveWay()
			}
			continue
		}
		n = 0
		if err := c.work(t); err != nil {
			return err
		}
		if err := c.fill(); err != nil {
			if err == io.EOF && (c.in.Len() > 0 || c.begun) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// fill waits for more input.
func (c *conn) fill() error {
	for {
		err := c.nc.Fill(&c.in)
		if err == nil || !netio.IsTimeout(err) {
			return err
		}
		c.mu.Lock()
		err = c.err // it may have been woken by who ended the connection
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if err := c.timedOut(); err != nil {
			return err
		}
	}
}

// need waits until n bytes are there, for the preface. What we owe the peer goes out before.
func (c *conn) need(n int) error {
	for c.in.Len() < n {
		c.mu.Lock()
		err := c.err
		c.flushAside()
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
	return nil
}

// timedOut is asked when the read deadline has passed: nil means go on.
func (c *conn) timedOut() error {
	if c.server == nil {
		return c.err
	}
	return c.server.timedOut()
}

// setDeadline bounds the reader's waits.
func (c *conn) setDeadline(t time.Time) {
	if !t.Equal(c.deadline) {
		c.deadline = t
		_ = c.nc.SetReadDeadline(t) // fails on a closed connection only
	}
}

// frame handles what has come of the next frame; more tells that it cannot go on without further bytes.
func (c *conn) frame() (more bool, err error) {
	if !c.begun {
		if c.in.Len() < frameHeader {
			return true, nil
		}
		h := parseHeader(c.in.Bytes())
		if h.len > minMaxFrame { // we never announce more
			return false, connErr(codeFrameSize, "frame too long")
		}
		if err := c.order(h); err != nil {
			return false, err
		}
		c.in.Consume(frameHeader)
		c.head, c.begun = h, true
		c.left, c.pad = -1, 0
	}
	if c.head.typ == frameData {
		return c.data()
	}
	n := c.head.len
	if c.in.Len() < n {
		return true, nil
	}
	c.begun = false
	err = c.handle(c.head, c.in.Bytes()[:n])
	c.in.Consume(n)
	return false, err
}

// order checks what may come now, by header alone.
func (c *conn) order(h header) error {
	switch {
	case !c.settled && (h.typ != frameSettings || h.has(flagAck)):
		return connErr(codeProtocol, "first frame is not SETTINGS")
	case c.blockOf.stream != 0 && (h.typ != frameContinuation || h.stream != c.blockOf.stream):
		return connErr(codeProtocol, "header block interrupted")
	case c.blockOf.stream == 0 && h.typ == frameContinuation:
		return connErr(codeProtocol, "unexpected CONTINUATION")
	}
	return nil
}

// handle deals with a whole frame other than DATA. p is valid during the call.
func (c *conn) handle(h header, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	switch h.typ {
	case frameHeaders:
		return c.headersFrame(h, p)
	case frameContinuation:
		return c.continuation(h, p)
	case frameSettings:
		return c.settingsFrame(h, p)
	case framePing:
		return c.pingFrame(h, p)
	case frameWindow:
		return c.windowFrame(h, p)
	case frameRST:
		return c.rstFrame(h, p)
	case frameGoAway:
		return c.goAwayFrame(h, p)
	case framePush:
		return connErr(codeProtocol, "PUSH_PROMISE without consent")
	case framePriority:
		return c.priorityFrame(h, p)
	}
	return c.guard.nothing() // unknown types are ignored
}

func (c *conn) priorityFrame(h header, p []byte) error {
	if h.stream == 0 {
		return connErr(codeProtocol, "PRIORITY without stream")
	}
	if len(p) != 5 {
		c.resetID(h.stream, codeFrameSize)
		return c.guard.nothing()
	}
	if binary.BigEndian.Uint32(p)&maxStreamID == h.stream {
		c.resetID(h.stream, codeProtocol)
	}
	return c.guard.nothing()
}

// resetID resets a stream that may not be in the table. mu is held.
func (c *conn) resetID(id uint32, cd code) {
	if s := c.streams[id]; s != nil {
		s.abort(cd, cd.String())
		return
	}
	c.wbuf = appendRST(c.out(), id, cd)
	c.forget(id)
}

// idle tells whether a stream was never opened.
func (c *conn) idle(id uint32) bool {
	if c.client != nil {
		return id%2 == 0 || id >= c.nextID
	}
	return id%2 == 0 || id > c.lastPeer
}

func (c *conn) windowFrame(h header, p []byte) error {
	if len(p) != 4 {
		return connErr(codeFrameSize, "WINDOW_UPDATE of wrong size")
	}
	if err := c.guard.nothing(); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(p) & maxStreamID)
	if h.stream == 0 {
		if n == 0 {
			return connErr(codeProtocol, "WINDOW_UPDATE of zero")
		}
		if c.sendWin += n; c.sendWin > maxWindow {
			return connErr(codeFlowControl, "window overflow")
		}
		if c.blocked > 0 {
			for _, s := range c.streams {
				if s.blocked {
					s.cond.Broadcast()
				}
			}
		}
		return nil
	}
	s := c.streams[h.stream]
	switch {
	case s == nil && c.idle(h.stream):
		return connErr(codeProtocol, "WINDOW_UPDATE on an idle stream")
	case n == 0:
		c.resetID(h.stream, codeProtocol) // also for a stream that has just ended: the frame is wrong whenever it comes
		if c.server != nil {
			return c.guard.reset(time.Now()) // who makes us reset streams does what rapid reset does (CVE-2025-8671)
		}
	case s == nil:
	default:
		if s.sendWin += n; s.sendWin > maxWindow {
			s.abort(codeFlowControl, "window overflow")
		}
		if s.waiting > 0 {
			s.cond.Broadcast()
		}
	}
	return nil
}

func (c *conn) rstFrame(h header, p []byte) error {
	if len(p) != 4 {
		return connErr(codeFrameSize, "RST_STREAM of wrong size")
	}
	if h.stream == 0 || c.idle(h.stream) {
		return connErr(codeProtocol, "RST_STREAM on an idle stream")
	}
	cd := code(binary.BigEndian.Uint32(p))
	s := c.streams[h.stream]
	if s == nil {
		return c.guard.nothing()
	}
	s.reset = &resetError{cd, byPeer}
	s.refused = cd == codeRefused
	s.ended()
	if c.server != nil {
		return c.guard.reset(time.Now())
	}
	return nil
}

func (c *conn) pingFrame(h header, p []byte) error {
	if len(p) != 8 {
		return connErr(codeFrameSize, "PING of wrong size")
	}
	if h.stream != 0 {
		return connErr(codeProtocol, "PING on a stream")
	}
	if h.has(flagAck) {
		if c.server != nil {
			c.server.pong(p)
		}
		return nil
	}
	if err := c.guard.nothing(); err != nil {
		return err
	}
	return c.control(appendPing(c.out(), true, p))
}

func (c *conn) goAwayFrame(h header, p []byte) error {
	if h.stream != 0 || len(p) < 8 {
		return connErr(codeProtocol, "invalid GOAWAY")
	}
	if err := c.guard.nothing(); err != nil {
		return err
	}
	c.goneAway = true
	if c.client == nil {
		return nil // we never open streams there
	}
	c.client.tell()
	last := binary.BigEndian.Uint32(p) & maxStreamID
	cd := code(binary.BigEndian.Uint32(p[4:]))
	for id, s := range c.streams {
		if id > last {
			s.reset = &resetError{cd, byPeer}
			s.refused = true
			s.ended()
		}
	}
	return c.maybeEnd()
}

// maybeEnd returns errEnded when the connection is to go and nothing runs on it. mu is held.
func (c *conn) maybeEnd() error {
	if (c.goneAway && c.client != nil || c.draining == drainLast) && c.running == 0 {
		return errEnded
	}
	return nil
}
