package memnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Conn is one end of a connection. It is a [net.Conn] with half-close, and safe
// for concurrent use as such.
type Conn struct {
	out, in       *flow        // set at creation
	local, remote *net.TCPAddr // set at creation

	mu sync.Mutex
	// mu protects the following.
	closed bool
	abort  bool // SetLinger(0): Close resets
}

// Pipe returns the two ends of a connection over link l. The client has address
// 127.0.0.1:40000 and the server 127.0.0.1:80.
func Pipe(l Link) (client, server *Conn) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	return pipe(l, netip.AddrPortFrom(loopback, firstEphemeral), netip.AddrPortFrom(loopback, 80))
}

func pipe(l Link, client, server netip.AddrPort) (*Conn, *Conn) {
	there, back := newFlow(l), newFlow(l)
	ca, sa := net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(server)
	return &Conn{out: there, in: back, local: ca, remote: sa}, &Conn{out: back, in: there, local: sa, remote: ca}
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	return n, c.wrap("read", err)
}

// Write implements [net.Conn]. It returns when all of p is in the connection's
// buffer, which is no sign that the peer has read it.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	if c.out.hasTripped() {
		c.in.reset(syscall.ECONNRESET)
	}
	return n, c.wrap("write", err)
}

// Close ends both directions; data already written still arrives at the peer,
// unless SetLinger(0) was called. A second Close returns net.ErrClosed.
func (c *Conn) Close() error {
	c.mu.Lock()
	closed, abort := c.closed, c.abort
	c.closed = true
	c.mu.Unlock()
	if closed {
		return c.wrap("close", net.ErrClosed)
	}
	if abort {
		c.out.reset(net.ErrClosed)
		c.in.closeReader(net.ErrClosed, syscall.ECONNRESET)
		return nil
	}
	c.out.closeWriter(net.ErrClosed)
	c.in.closeReader(net.ErrClosed, syscall.EPIPE)
	return nil
}

// CloseWrite ends the sending direction: the peer reads EOF after the data, and
// may go on sending.
func (c *Conn) CloseWrite() error {
	if c.isClosed() {
		return c.wrap("close", net.ErrClosed)
	}
	c.out.closeWriter(syscall.EPIPE)
	return nil
}

// CloseRead ends the receiving direction: reads return EOF, and what the peer
// sends is dropped without an error for it.
func (c *Conn) CloseRead() error {
	if c.isClosed() {
		return c.wrap("close", net.ErrClosed)
	}
	c.in.closeReader(io.EOF, nil)
	return nil
}

// SetLinger decides what Close does, as for TCP: 0 resets the connection, any
// other value ends it in order.
func (c *Conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abort = sec == 0
	return nil
}

// Reset closes this end with a reset: the peer reads what has been sent so far and
// then gets ECONNRESET.
func (c *Conn) Reset() error {
	_ = c.SetLinger(0)
	return c.Close()
}

// ResetAfter injects a fault: after n more bytes sent from this end, both ends
// get ECONNRESET; the peer first reads those n bytes. With n ≤ 0 that is now.
func (c *Conn) ResetAfter(n int64) {
	if n > 0 {
		c.out.resetAfter(n)
		return
	}
	c.out.reset(syscall.ECONNRESET)
	c.in.reset(syscall.ECONNRESET)
}

// StallAfter injects a fault: of the bytes sent from this end, the peer can read n
// more and then nothing, not even an end. Resume lifts it.
func (c *Conn) StallAfter(n int64) { c.out.stallAfter(max(n, 0)) }

// Resume lets what is sent from this end arrive again.
func (c *Conn) Resume() { c.out.stallAfter(-1) }

// LocalAddr implements [net.Conn]; the address is a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements [net.Conn]; the address is a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.isClosed() {
		return c.wrap("set", net.ErrClosed)
	}
	c.in.setReadDeadline(t)
	return nil
}

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.isClosed() {
		return c.wrap("set", net.ErrClosed)
	}
	c.out.setWriteDeadline(t)
	return nil
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// wrap makes err look as it does from package net.
func (c *Conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if no, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, no)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}
