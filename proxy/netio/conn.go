package netio

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is a connected byte stream. It implements [net.Conn].
type Conn struct {
	nc  net.Conn     // set at creation
	tcp *net.TCPConn // set at creation; nil on the plain path
	raw *raw         // set at creation; nil on the plain path

	tls   atomic.Pointer[secured] // nil without TLS; set at the end of the handshake
	shim  *shim                   // set by StartTLS, before tls
	state *tls.ConnectionState    // set by StartTLS, before tls

	peek Buffer // read by Peek and not yet read again; reader only

	stall    atomic.Int64 // nanoseconds, see SetWriteStall
	writeDue atomic.Int64 // unix nanoseconds of the user's write deadline; 0 none
	readDue  atomic.Int64 // the same for reads

	in, out atomic.Uint64
	closed  atomic.Bool

	spot atomic.Pointer[spot] // where it is parked; nil: it is not

	plain sync.Mutex // plain path: held by whoever reads, so that Gone can tell
}

var _ net.Conn = (*Conn)(nil)

// New wraps a connection, which from then on belongs to the Conn: nobody else may close it.
func New(c net.Conn) *Conn {
	if nc, ok := c.(*Conn); ok {
		return nc
	}
	conn := &Conn{nc: c}
	if tcp, ok := c.(*net.TCPConn); ok {
		if rc, err := tcp.SyscallConn(); err == nil {
			conn.tcp = tcp
			conn.raw = newRaw(conn, rc) // nil: the plain path tells that it is closed
		}
	}
	return conn
}

// Fill waits for at least one more byte and appends what is there to b. It
// takes memory for b only when there is something to read, and gives it back
// before it waits if b is empty. Slices taken from b before are invalid
// afterwards. io.EOF: the peer has ended its side. ErrBufferFull: b's limit is reached.
func (c *Conn) Fill(b *Buffer) error {
	if c.peek.Len() > 0 {
		return b.take(&c.peek)
	}
	if c.raw != nil {
		return c.raw.fill(nil, b)
	}
	return c.plainFill(b)
}

// WriteFill writes p, then waits and fills b: one park for a round trip, and no
// read that finds nothing. It is for the side that asks: whatever arrived
// before p was written is noticed only when the peer sends again or ends its side after that.
func (c *Conn) WriteFill(p []byte, b *Buffer) error {
	if c.peek.Len() > 0 || c.raw == nil {
		if _, err := c.Write(p); err != nil {
			return err
		}
		return c.Fill(b)
	}
	return c.raw.fill(p, b)
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.peek.Len() > 0 {
		n := copy(p, c.peek.Bytes())
		c.peek.Consume(n)
		if c.peek.Len() == 0 {
			c.peek.Release()
		}
		return n, nil
	}
	if c.raw != nil {
		return c.raw.read(p)
	}
	return c.plainRead(p)
}

// Write implements [net.Conn]. It returns when all of p is with the kernel.
func (c *Conn) Write(p []byte) (int, error) {
	var n int
	var err error
	switch {
	case c.tls.Load() != nil:
		n, err = c.tls.Load().write(nil, p, nil)
	case c.raw != nil:
		n, err = c.raw.writeAll(p)
	default:
		n, err = c.nc.Write(p)
	}
	c.out.Add(uint64(n))
	return n, err
}

// WriteParts writes head, body and tail in as few system calls or TLS records as
// possible: one if the kernel takes them at once. With TLS, or without a socket, they are
// copied together.
func (c *Conn) WriteParts(head, body, tail []byte) error {
	var n int
	var err error
	switch t := c.tls.Load(); {
	case t != nil:
		n, err = t.write(head, body, tail)
	case c.raw != nil:
		n, err = c.raw.write(head, body, tail)
	default:
		n, err = writeCopied(c.nc, head, body, tail)
	}
	c.out.Add(uint64(n))
	return err
}

// writeCopied cuts the parts into writes of one buffer (one TLS record).
func writeCopied(w io.Writer, parts ...[]byte) (done int, err error) {
	mem := pool.Get().(*[BufferSize]byte)
	defer pool.Put(mem)
	n := 0
	put := func(p []byte) bool {
		var m int
		m, err = w.Write(p)
		done += m
		return err == nil
	}
	for _, p := range parts {
		for len(p) > 0 {
			if n == 0 && len(p) >= BufferSize {
				whole := len(p) - len(p)%BufferSize
				if !put(p[:whole]) {
					return done, err
				}
				p = p[whole:]
				continue
			}
			m := copy(mem[n:], p)
			n, p = n+m, p[m:]
			if n == BufferSize {
				if !put(mem[:n]) {
					return done, err
				}
				n = 0
			}
		}
	}
	if n > 0 {
		put(mem[:n])
	}
	return done, err
}

// Peek waits until n bytes (at most BufferSize) have arrived and returns all
// that is there; they will be read again. With an error it returns what came
// before it. After StartTLSServer or StartTLSClient it looks at what was decrypted.
func (c *Conn) Peek(n int) ([]byte, error) {
	if n > BufferSize {
		return nil, ErrBufferFull
	}
	for c.peek.Len() < n {
		var err error
		if c.raw != nil {
			err = c.raw.fill(nil, &c.peek)
		} else {
			err = c.plainFill(&c.peek)
		}
		if err != nil {
			return c.peek.Bytes(), err
		}
	}
	return c.peek.Bytes(), nil
}

// Unread gives back what b holds: it will be read again, before anything else. It is for whoever passes the
// connection on after having read too far; nothing may be peeked at already.
func (c *Conn) Unread(b *Buffer) {
	if b.Len() > 0 {
		_ = c.peek.take(b) // into an empty buffer always fits
	}
}

// Buffered is the number of bytes that Peek has read ahead.
func (c *Conn) Buffered() int { return c.peek.Len() }

// CloseWrite ends our side (close_notify with TLS, then a FIN); reading goes on.
func (c *Conn) CloseWrite() error {
	if t := c.tls.Load(); t != nil {
		if err := t.closeWrite(); err != nil {
			return err
		}
	}
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.nc.Close()
}

// Close ends the connection. With TLS it sends close_notify if that does not
// have to wait. Calls that wait return with [net.ErrClosed].
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	if t := c.tls.Load(); t != nil {
		return t.close()
	}
	return c.shut()
}

// shut closes what is below.
func (c *Conn) shut() error {
	if c.raw != nil {
		return c.raw.close()
	}
	return c.nc.Close()
}

// Abort ends the connection with a reset, so that the peer cannot take what it got for all.
func (c *Conn) Abort() {
	if c.closed.Swap(true) {
		return
	}
	if l, ok := c.nc.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // then it is an ordinary close: all we can do
	}
	_ = c.shut()
}

// Closed tells whether Close or Abort was called on our side.
func (c *Conn) Closed() bool { return c.closed.Load() }

// Gone tells whether the peer has ended its side or the connection is broken, without waiting and
// without taking bytes. Bytes that wait before the peer's end hide it on the plain path only.
func (c *Conn) Gone() bool {
	if c.closed.Load() {
		return true
	}
	if c.raw != nil {
		return c.raw.gone()
	}
	return c.plainGone()
}

// Quiet tells whether the connection is open and nothing is there to be read:
// the state in which an idle connection may be used again. It must not be
// called while another goroutine reads.
func (c *Conn) Quiet() bool {
	if c.closed.Load() || c.peek.Len() > 0 {
		return false
	}
	if c.raw != nil {
		return c.raw.quiet()
	}
	return !c.plainGone() && c.peek.Len() == 0
}

// LocalAddr implements [net.Conn].
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readDue.Store(nanos(t))
	err := c.nc.SetReadDeadline(t)
	c.unpark()
	return err
}

// unpark ends the wait of a parked connection.
func (c *Conn) unpark() {
	if s := c.spot.Load(); s != nil {
		s.leave()
	}
}

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeDue.Store(nanos(t))
	return c.nc.SetWriteDeadline(t)
}

// SetWriteStall bounds how long a write waits for the peer to take some bytes; it
// then fails with [os.ErrDeadlineExceeded]. Zero: no bound. It costs nothing until a
// write has to wait. TCP only.
func (c *Conn) SetWriteStall(d time.Duration) { c.stall.Store(int64(d)) }

// TCP returns the socket for splicing, if there is one and nothing stands between: no TLS, nothing read ahead.
func (c *Conn) TCP() (*net.TCPConn, bool) {
	return c.tcp, c.tcp != nil && c.tls.Load() == nil && c.peek.Len() == 0
}

// Socket returns the TCP socket whatever lies above it, for socket options; nil if it is none.
func (c *Conn) Socket() *net.TCPConn { return c.tcp }

// BytesRead is the number of bytes (after decryption) that were read, those seen by Peek included.
func (c *Conn) BytesRead() uint64 { return c.in.Load() }

// BytesWritten is the number of bytes (before encryption) that were written.
func (c *Conn) BytesWritten() uint64 { return c.out.Load() }

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// IsTimeout tells whether err is a deadline that passed.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// IsReset tells whether the peer cut the connection.
func IsReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}
