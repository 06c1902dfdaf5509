package http2

import (
	"encoding/binary"
	"time"
)

// maxContinuations bounds the frames of one header block; its bytes are bounded by the header limit.
const maxContinuations = 64

// headersFrame takes the first frame of a header block. mu is held.
func (c *conn) headersFrame(h header, p []byte) error {
	if h.stream == 0 {
		return connErr(codeProtocol, "HEADERS without stream")
	}
	pad := 0
	if h.has(flagPadded) {
		if len(p) < 1 {
			return connErr(codeFrameSize, "padded HEADERS of no size")
		}
		pad, p = int(p[0]), p[1:]
	}
	selfDependent := false
	if h.has(flagPriority) {
		if len(p) < 5 {
			return connErr(codeFrameSize, "HEADERS too short for its priority")
		}
		selfDependent = binary.BigEndian.Uint32(p)&maxStreamID == h.stream
		p = p[5:]
	}
	if pad > len(p) {
		return connErr(codeProtocol, "padding too long")
	}
	p = p[:len(p)-pad]
	if h.has(flagEndHeaders) {
		return c.blockDone(h, p, selfDependent)
	}
	if selfDependent {
		return connErr(codeProtocol, "stream depends on itself")
	}
	c.blockOf, c.conts = h, 0
	if c.lim.headTimeout > 0 {
		c.setDeadline(time.Now().Add(c.lim.headTimeout)) // timedOut sets the next one
	}
	c.block = append(c.block[:0], p...)
	return nil
}

// continuation goes on with a header block. mu is held.
func (c *conn) continuation(h header, p []byte) error {
	c.conts++
	if c.conts > maxContinuations || len(c.block)+len(p) > 2*c.lim.headerBytes+minMaxFrame {
		return connErr(codeCalm, "header block too long")
	}
	c.block = append(c.block, p...)
	if !h.has(flagEndHeaders) {
		return nil
	}
	first := c.blockOf
	c.blockOf = header{}
	err := c.blockDone(first, c.block, false)
	if cap(c.block) > 64<<10 {
		c.block = nil
	}
	return err
}

// blockDone decodes a whole header block and gives it to its stream. mu is held.
func (c *conn) blockDone(h header, block []byte, selfDependent bool) error {
	end := h.has(flagEndStream)
	if c.server != nil {
		return c.server.headers(h.stream, block, end, selfDependent)
	}
	return c.client.headers(h.stream, block, end)
}

// decode runs the HPACK decoder with c.sink, appending to arena. mu is held.
func (c *conn) decode(block []byte, arena *[]byte) error {
	k := &c.sink
	k.maxSize, k.maxLines = c.lim.headerBytes, c.lim.headers
	if arena != nil {
		c.dec.arena = *arena
	}
	err := c.dec.decode(block, k, bombFactor*c.lim.headerBytes)
	if arena != nil {
		*arena = c.dec.arena
		c.dec.arena = nil
	} else {
		c.dec.arena = c.dec.arena[:0]
	}
	switch err {
	case nil:
		return nil
	case errBomb:
		return connErr(codeCalm, err.Error())
	}
	return connErr(codeCompression, err.Error())
}

// ignoreBlock decodes a block only to keep the table in step.
func (c *conn) ignoreBlock(block []byte) error {
	c.sink = headSink{kind: blockIgnored}
	return c.decode(block, nil)
}

// trailersBlock decodes the trailers of s. mu is held.
func (c *conn) trailersBlock(s *stream, block []byte, end bool) error {
	c.sink = headSink{kind: blockTrailers, fields: &s.trailers}
	if err := c.decode(block, &s.arena); err != nil {
		return err
	}
	switch {
	case c.sink.bad != "":
		s.abort(codeProtocol, c.sink.bad)
	case c.sink.over:
		s.abort(codeCalm, "trailers too large")
	case !end:
		s.abort(codeProtocol, "HEADERS in the middle of a message")
	default:
		c.endRemote(s)
	}
	return nil
}
