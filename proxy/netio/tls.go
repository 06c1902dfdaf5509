package netio

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/netio/record"
)

// noFD marks a shim that waits when it reads.
const noFD = ^uintptr(0)

// wouldBlock is the error of a read that found nothing. crypto/tls keeps its
// state on a net.Error that is temporary; every other error of a read, and any error of a
// write, is final for it, which is why the shim's writes always wait.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

var errWouldBlock error = wouldBlock{}

// shim is the connection that crypto/tls sees.
type shim struct {
	c       *Conn
	fd      uintptr     // noFD: reads wait; else they try this socket once. Reader only.
	pre     Buffer      // read ahead, before or in the handshake
	closing atomic.Bool // writes do not wait any more

	// Until the handshake is done, crypto/tls gets the rest of one record at most with a read: what comes behind the last is not lost in it.
	handshake bool
	keys      *keys // then
	header    [record.HeaderLen]byte
	got, left int // of the header; of what it announces
}

// ErrTLSStarted is returned by a second StartTLS.
var ErrTLSStarted = errors.New("tls was started already")

// StartTLSServer does the server's side of a handshake; what Peek has seen takes
// part in it. It ends when ctx does, which closes the connection.
func (c *Conn) StartTLSServer(ctx context.Context, cfg *tls.Config) error {
	return c.startTLS(ctx, cfg, tls.Server, true)
}

// StartTLSClient does the client's side of a handshake, as StartTLSServer.
func (c *Conn) StartTLSClient(ctx context.Context, cfg *tls.Config) error {
	return c.startTLS(ctx, cfg, tls.Client, false)
}

func (c *Conn) startTLS(ctx context.Context, cfg *tls.Config, side func(net.Conn, *tls.Config) *tls.Conn, server bool) error {
	if c.shim != nil {
		return ErrTLSStarted
	}
	k := newKeys(c, cfg, server)
	s := &shim{c: c, fd: noFD, handshake: k != nil, keys: k}
	s.pre, c.peek = c.peek, Buffer{}
	c.shim = s
	t := side(s, k.config(cfg))
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	state := t.ConnectionState()
	s.handshake, s.keys = false, nil
	next, err := k.session(s, &state)
	if err != nil {
		_ = t.Close()
		return err
	}
	if next == nil {
		next = &library{t, s}
	}
	c.in.Store(0)
	c.out.Store(0)
	c.state = &state
	c.tls.Store(&secured{next})
	return nil
}

// TLSState is what the handshake agreed on; nil without TLS. It is read-only.
func (c *Conn) TLSState() *tls.ConnectionState { return c.state }

// ahead tells whether bytes may lie between the socket and the reader, so that
// waiting for the socket would not be right.
func (c *Conn) ahead() bool {
	if t := c.tls.Load(); t != nil {
		return t.ahead()
	}
	return c.shim != nil && c.shim.pre.Len() > 0
}

func (s *shim) Read(p []byte) (int, error) {
	r := s.c.raw
	if s.handshake && s.pre.Len() == 0 {
		n, err := r.shimRead(s.pre.Free())
		if s.pre.Added(n); n == 0 {
			s.pre.Release()
			return 0, err
		}
	}
	if s.pre.Len() > 0 {
		return s.readAhead(p), nil
	}
	if r == nil {
		return s.c.nc.Read(p)
	}
	if s.fd != noFD {
		return r.tryRaw(s.fd, p)
	}
	return r.shimRead(p)
}

// readAhead reads what was read ahead.
func (s *shim) readAhead(p []byte) int {
	if s.handshake {
		p = p[:min(len(p), s.room())]
	}
	n := copy(p, s.pre.Bytes())
	if s.handshake {
		s.count(p[:n])
	}
	s.pre.Consume(n)
	if s.pre.Len() == 0 {
		s.pre.Release()
	}
	return n
}

// room is how much of the record that is being read is left.
func (s *shim) room() int {
	if s.left > 0 {
		return s.left
	}
	return record.HeaderLen - s.got
}

// count takes note of what of it was read.
func (s *shim) count(p []byte) {
	if s.left > 0 {
		s.left -= len(p)
		return
	}
	s.got += copy(s.header[s.got:], p)
	if s.got == record.HeaderLen {
		s.got, s.left = 0, int(s.header[3])<<8|int(s.header[4])
	}
}

// shimRead waits, for the handshake: nobody else reads then.
func (r *raw) shimRead(p []byte) (n int, err error) {
	werr := r.rc.Read(func(fd uintptr) bool {
		n, err = r.tryRaw(fd, p)
		return err != errWouldBlock
	})
	if werr != nil {
		return 0, werr
	}
	return n, err
}

func (s *shim) Write(p []byte) (int, error) {
	if s.handshake {
		s.keys.wrote(p)
	}
	if s.c.raw == nil {
		return s.c.nc.Write(p)
	}
	return s.c.raw.writeAll(p)
}

func (s *shim) Close() error {
	s.c.closed.Store(true)
	return s.c.shut()
}

func (s *shim) LocalAddr() net.Addr                { return s.c.nc.LocalAddr() }
func (s *shim) RemoteAddr() net.Addr               { return s.c.nc.RemoteAddr() }
func (s *shim) SetDeadline(t time.Time) error      { return s.c.nc.SetDeadline(t) }
func (s *shim) SetReadDeadline(t time.Time) error  { return s.c.nc.SetReadDeadline(t) }
func (s *shim) SetWriteDeadline(t time.Time) error { return s.c.nc.SetWriteDeadline(t) }
