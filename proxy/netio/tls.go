package netio

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"time"
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
	pre     Buffer      // read ahead before the handshake
	closing atomic.Bool // writes do not wait any more
}

// ErrTLSStarted is returned by a second StartTLS.
var ErrTLSStarted = errors.New("tls was started already")

// StartTLSServer does the server's side of a handshake; what Peek has seen takes
// part in it. It ends when ctx does, which closes the connection.
func (c *Conn) StartTLSServer(ctx context.Context, cfg *tls.Config) error {
	return c.startTLS(ctx, cfg, tls.Server)
}

// StartTLSClient does the client's side of a handshake, as StartTLSServer.
func (c *Conn) StartTLSClient(ctx context.Context, cfg *tls.Config) error {
	return c.startTLS(ctx, cfg, tls.Client)
}

func (c *Conn) startTLS(ctx context.Context, cfg *tls.Config, side func(net.Conn, *tls.Config) *tls.Conn) error {
	if c.shim != nil {
		return ErrTLSStarted
	}
	if !cfg.DynamicRecordSizingDisabled {
		// Small records early in a connection would split a 1 KB response in two.
		cfg = cfg.Clone()
		cfg.DynamicRecordSizingDisabled = true
	}
	s := &shim{c: c, fd: noFD}
	s.pre, c.peek = c.peek, Buffer{}
	t := side(s, cfg)
	c.shim = s
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	state := t.ConnectionState()
	c.in.Store(0)
	c.out.Store(0)
	c.state = &state
	c.tls.Store(t)
	return nil
}

// TLSState is what the handshake agreed on; nil without TLS. It is read-only.
func (c *Conn) TLSState() *tls.ConnectionState { return c.state }

// ahead tells whether bytes may lie between the socket and the reader, so that
// waiting for the socket would not be right.
func (s *shim) ahead() bool { return s.pre.Len() > 0 }

func (s *shim) Read(p []byte) (int, error) {
	if s.pre.Len() > 0 {
		n := copy(p, s.pre.Bytes())
		s.pre.Consume(n)
		if s.pre.Len() == 0 {
			s.pre.Release()
		}
		return n, nil
	}
	r := s.c.raw
	if r == nil {
		return s.c.nc.Read(p)
	}
	if s.fd != noFD {
		return r.tryRaw(s.fd, p)
	}
	return r.shimRead(p)
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
