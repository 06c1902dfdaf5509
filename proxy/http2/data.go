package http2

import (
	"errors"
	"io"
)

// data handles a DATA frame piece by piece as it arrives.
func (c *conn) data(h header) error {
	if h.stream == 0 {
		return connErr(codeProtocol, "DATA without stream")
	}
	left, pad := h.len, 0
	if h.has(flagPadded) {
		if left == 0 {
			return connErr(codeFrameSize, "padded DATA of no size")
		}
		if err := c.need(1); err != nil {
			return err
		}
		pad = int(c.in.Bytes()[0])
		c.in.Consume(1)
		left--
		if pad > left {
			return connErr(codeProtocol, "padding too long")
		}
	}
	if err := c.dataHead(h, left-pad); err != nil {
		return err
	}
	for left -= pad; left > 0; {
		if err := c.need(1); err != nil {
			return eofInFrame(err)
		}
		p := c.in.Bytes()
		p = p[:min(len(p), left)]
		left -= len(p)
		if err := c.dataPiece(h, p, left == 0); err != nil {
			return err
		}
		c.in.Consume(len(p))
	}
	for pad > 0 {
		if err := c.need(1); err != nil {
			return eofInFrame(err)
		}
		n := min(pad, c.in.Len())
		c.in.Consume(n)
		pad -= n
	}
	return nil
}

func eofInFrame(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// dataHead checks a DATA frame before its payload: state, windows, length.
func (c *conn) dataHead(h header, n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken = false
	if c.err != nil {
		return c.err
	}
	if c.recvWin -= h.len; c.recvWin < 0 {
		return connErr(codeFlowControl, "connection window exceeded")
	}
	c.giveBack(h.len - n) // padding is consumed at once
	if n == 0 && !h.has(flagEndStream) {
		if err := c.guard.nothing(); err != nil {
			return err
		}
	} else {
		c.guard.work()
	}
	s := c.streams[h.stream]
	if s == nil {
		return c.dataNowhere(h, n)
	}
	if s.remoteEnd {
		c.giveBack(n)
		s.abort(codeStreamClosed, "DATA after END_STREAM")
		return nil
	}
	if s.cli != nil && !s.cli.headDone {
		c.giveBack(n)
		s.abort(codeProtocol, "DATA before HEADERS")
		return nil
	}
	if s.recvWin -= h.len; s.recvWin < 0 {
		c.giveBack(n)
		s.abort(codeFlowControl, "stream window exceeded")
		return nil
	}
	s.unacked += h.len - n
	s.got += int64(n)
	if s.declare >= 0 && s.got > s.declare {
		c.giveBack(n)
		s.abort(codeProtocol, "more DATA than content-length")
		return nil
	}
	c.taken = true
	if n == 0 && h.has(flagEndStream) {
		c.endRemote(s)
	}
	return nil
}

// dataNowhere deals with DATA for a stream that is not open.
func (c *conn) dataNowhere(h header, n int) error {
	c.giveBack(n)
	if c.idle(h.stream) {
		return connErr(codeProtocol, "DATA on an idle stream")
	}
	if !c.wasReset(h.stream) {
		return c.strayed(h.stream)
	}
	return c.guard.nothing()
}

// strayed answers a frame for a stream that is closed.
func (c *conn) strayed(id uint32) error {
	c.forget(id)
	return c.control(appendRST(c.out(), id, codeStreamClosed))
}

// dataPiece gives a piece of the payload to the stream, if that still takes it.
func (c *conn) dataPiece(h header, p []byte, last bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[h.stream]
	if !c.taken || s == nil { // refused by dataHead, which has given it back, or gone since
		if c.taken {
			c.giveBack(len(p))
		}
		return c.err
	}
	s.recv.put(p)
	if last && h.has(flagEndStream) {
		c.endRemote(s)
	} else if s.waiting > 0 {
		s.cond.Broadcast()
	}
	return nil
}

// endRemote: the peer's message is complete. mu is held.
func (c *conn) endRemote(s *stream) {
	if s.declare >= 0 && s.got != s.declare && !s.noBody {
		s.abort(codeProtocol, "less DATA than content-length")
		return
	}
	s.remoteEnd = true
	s.maybeClosed()
	s.cond.Broadcast()
}
