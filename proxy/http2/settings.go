package http2

import "encoding/binary"

func (c *conn) settingsFrame(h header, p []byte) error {
	if h.stream != 0 {
		return connErr(codeProtocol, "SETTINGS on a stream")
	}
	if h.has(flagAck) {
		if len(p) != 0 {
			return connErr(codeFrameSize, "SETTINGS acknowledgement with payload")
		}
		return c.guard.nothing()
	}
	if len(p)%6 != 0 {
		return connErr(codeFrameSize, "SETTINGS of wrong size")
	}
	if err := c.guard.nothing(); err != nil {
		return err
	}
	for ; len(p) > 0; p = p[6:] {
		if err := c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	if !c.settled {
		c.settled = true
		c.peer.received = true
		c.wakeEarly()
		if c.server != nil {
			c.server.greeted()
		}
	}
	return c.control(appendHeader(c.out(), 0, frameSettings, flagAck, 0))
}

func (c *conn) setting(id uint16, v uint32) error {
	switch id {
	case settingTableSize:
		c.enc.limit(int(min(v, defaultTableSize)))
	case settingPush:
		if v > 1 || v == 1 && c.client != nil {
			return connErr(codeProtocol, "invalid ENABLE_PUSH")
		}
	case settingMaxStreams:
		c.peer.maxStreams = int(min(v, maxStreamID))
		if c.client != nil {
			c.client.tell()
		}
	case settingWindow:
		if v > maxWindow {
			return connErr(codeFlowControl, "invalid INITIAL_WINDOW_SIZE")
		}
		return c.moveWindows(int(v) - c.peer.window)
	case settingMaxFrame:
		if v < minMaxFrame || v > maxMaxFrame {
			return connErr(codeProtocol, "invalid MAX_FRAME_SIZE")
		}
		c.peer.maxFrame = int(v)
	case settingConnect:
		if v > 1 || v == 0 && c.peer.connect {
			return connErr(codeProtocol, "invalid ENABLE_CONNECT_PROTOCOL")
		}
		c.peer.connect = v == 1
	}
	return nil
}

// moveWindows changes the send window of all streams (RFC 9113 section 6.9.2).
func (c *conn) moveWindows(by int) error {
	c.peer.window += by
	for _, s := range c.streams {
		if s.sendWin += by; s.sendWin > maxWindow {
			return connErr(codeFlowControl, "window overflow")
		}
		s.cond.Broadcast()
	}
	return nil
}

// hello appends our SETTINGS and opens the connection's window.
func (c *conn) hello() {
	b := c.out()
	start := len(b)
	b = appendHeader(b, 0, frameSettings, 0, 0)
	if c.client != nil {
		b = appendSetting(b, settingPush, 0)
	} else {
		b = appendSetting(b, settingMaxStreams, uint32(c.lim.maxStreams))
		b = appendSetting(b, settingConnect, 1)
	}
	b = appendSetting(b, settingWindow, uint32(c.lim.streamWindow))
	b = appendSetting(b, settingMaxHeaders, uint32(c.lim.headerBytes))
	appendHeader(b[:start], len(b)-start-frameHeader, frameSettings, 0, 0)
	if more := c.lim.connWindow - initialWindow; more > 0 {
		b = appendWindow(b, 0, more)
		c.recvWin += more
	}
	c.wbuf = b
}
