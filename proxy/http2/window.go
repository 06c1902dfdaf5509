package http2

import "time"

// Windows that were not configured grow.
//
// A stream's doubles when half of it is used up in less time than it takes to the peer and back, although what comes
// is taken at once: then it is the window that holds the peer up. A reader that is slow never gets
// there, so a stream that nobody reads holds no more than its first window.
//
// A connection's doubles when little of it is left, for whatever reason: streams that nobody
// reads would close it for all others else. So it is what bounds a connection's memory in the end.
const (
	mostStreamWindow = 2 << 20
	mostServerWindow = 4 << 20  // of a client's connection
	mostClientWindow = 16 << 20 // of an upstream's, which many clients share
)

// windows fills in the limits of the options; 0: not configured.
func (l *limits) windows(stream, conn uint32, most int) {
	l.streamWindow, l.mostStream = chosen(stream, DefaultStreamWindow, mostStreamWindow)
	l.connWindow, l.mostConn = chosen(conn, DefaultConnWindow, most)
}

func chosen(n, def uint32, grown int) (first, most int) {
	if n == 0 {
		return int(def), grown
	}
	first = int(min(max(n, initialWindow), maxWindow))
	return first, first
}

// grow is called when half of a stream's window was consumed, and tells by how much it is opened beyond that. mu is held.
func (s *stream) grow() int {
	n := min(s.window, s.c.lim.mostStream-s.window)
	if n <= 0 {
		return 0
	}
	last, now := s.refilled, time.Now()
	s.refilled = now
	held := s.window - s.recvWin - s.unacked // received and not consumed
	if last.IsZero() || held > s.window/8 || now.Sub(last) >= s.c.rtt() {
		return 0
	}
	s.window += n
	return n
}

// grow opens the connection's window further when it is nearly closed. mu is held; for the reader.
func (c *conn) grow() {
	n := min(c.window, c.lim.mostConn-c.window)
	if n <= 0 || c.recvWin >= c.window/4 {
		return
	}
	c.window += n
	c.recvWin += n
	c.wbuf = appendWindow(c.out(), 0, n)
}
