package http2

// data handles what has come of a DATA frame.
func (c *conn) data() (more bool, err error) {
	h := c.head
	if c.left < 0 {
		if !h.has(flagPadded) && h.stream != 0 && c.in.Len() >= h.len {
			return false, c.dataWhole(h)
		}
		if more, err := c.dataStart(h); more || err != nil {
			return more, err
		}
	}
	for c.left > 0 {
		p := c.in.Bytes()
		if len(p) == 0 {
			return true, nil
		}
		p = p[:min(len(p), c.left)]
		c.left -= len(p)
		c.mu.Lock()
		err := c.dataPiece(h, p, c.left == 0 && c.pad == 0)
		c.mu.Unlock()
		if err != nil {
			return false, err
		}
		c.in.Consume(len(p))
	}
	if c.pad > 0 {
		n := min(c.pad, c.in.Len())
		c.in.Consume(n)
		if c.pad -= n; c.pad > 0 {
			return true, nil
		}
		c.mu.Lock()
		err := c.padded(h)
		c.mu.Unlock()
		if err != nil {
			return false, err
		}
	}
	c.begun = false
	return false, nil
}

// dataWhole handles a frame that is there whole, as nearly all are.
func (c *conn) dataWhole(h header) error {
	c.begun = false
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.dataHead(h, h.len); err != nil {
		return err
	}
	var err error
	if h.len > 0 {
		err = c.dataPiece(h, c.in.Bytes()[:h.len], true)
	}
	c.in.Consume(h.len)
	return err
}

// dataStart looks at what precedes the payload, and sets left and pad.
func (c *conn) dataStart(h header) (more bool, err error) {
	if h.stream == 0 {
		return false, connErr(codeProtocol, "DATA without stream")
	}
	left, pad := h.len, 0
	if h.has(flagPadded) {
		if left == 0 {
			return false, connErr(codeFrameSize, "padded DATA of no size")
		}
		if c.in.Len() == 0 {
			return true, nil
		}
		pad = int(c.in.Bytes()[0])
		c.in.Consume(1)
		left--
		if pad > left {
			return false, connErr(codeProtocol, "padding too long")
		}
	}
	c.left, c.pad = left-pad, pad
	c.mu.Lock()
	defer c.mu.Unlock()
	return false, c.dataHead(h, left-pad)
}

// dataHead checks a DATA frame before its payload: state, windows, length. mu is held.
func (c *conn) dataHead(h header, n int) error {
	c.taken = false
	if c.err != nil {
		return c.err
	}
	if c.recvWin -= h.len; c.recvWin < 0 {
		return connErr(codeFlowControl, "connection window exceeded")
	}
	c.giveBack(h.len - n) // padding is consumed at once
	c.grow()
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
	if n == 0 && c.pad == 0 && h.has(flagEndStream) {
		c.endRemote(s)
	}
	return nil
}

// padded: the padding of a frame has come, and only with it the end of the frame's stream. mu is held.
func (c *conn) padded(h header) error {
	if s := c.streams[h.stream]; s != nil && c.taken && h.has(flagEndStream) {
		c.endRemote(s)
	}
	return c.err
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

// dataPiece gives a piece of the payload to the stream, if that still takes it. last: it ends the frame. mu is held.
func (c *conn) dataPiece(h header, p []byte, last bool) error {
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
	if !s.maybeClosed() {
		s.wake()
	}
}
