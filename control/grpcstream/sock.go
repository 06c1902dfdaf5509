package grpcstream

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/internal/sockcall"
)

// sock is a connection of the kernel. It begins as Go's poller has it, and waits like any other. After [sock.adopt] it is
// our own, and never waits: a read that would find nothing returns errWouldBlock, and what the kernel does not take at once is sent when it
// does. Writes between cork and uncork go together.
type sock struct {
	nc            net.Conn // until it is adopted
	local, remote net.Addr

	// of the reader
	own bool // adopted; changed with mu
	dry bool // the last read took all that there was
	tls records

	ended atomic.Bool // the client's end has come, or is behind what has

	mu     sync.Mutex // protects the following
	fd     int        // if it is our own
	onSent func()     // what could not be sent at once is sent, or never will be
	closed bool
	corked bool
	out    []byte    // not sent yet; of outs
	buf    *[]byte   // out's, to be put back
	late   time.Time // since when the kernel takes nothing; zero: it does
	err    error
}

// outs are buffers of what is about to be sent.
var outs = sync.Pool{New: func() any { b := make([]byte, 0, 52<<10); return &b }}

func newSock(nc net.Conn) *sock { return &sock{nc: nc, local: nc.LocalAddr(), remote: nc.RemoteAddr()} }

// wouldBlock is the error of a read that found nothing. It is temporary, so crypto/tls keeps its state.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

var errWouldBlock error = wouldBlock{}

// adopt takes the descriptor from Go's poller, which would else be woken with ours.
func (s *sock) adopt(onSent func()) (fd int, err error) {
	sc, ok := s.nc.(syscall.Conn)
	if !ok {
		return -1, errors.New("grpcstream: a connection is not of the kernel")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return -1, net.ErrClosed
	}
	var dup error
	if err := raw.Control(func(was uintptr) { fd, dup = unix.FcntlInt(was, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	if dup != nil {
		return -1, os.NewSyscallError("fcntl", dup)
	}
	s.own, s.fd, s.onSent = true, fd, onSent
	_ = s.nc.Close() // of a descriptor that has another now: nothing is sent
	s.nc = nil
	return fd, nil
}

// Read implements net.Conn.
func (s *sock) Read(b []byte) (int, error) {
	if !s.own {
		n, err := s.nc.Read(b)
		s.tls.came(b[:n])
		return n, err
	}
	if s.dry || len(b) == 0 {
		return 0, errWouldBlock
	}
	b = b[:min(len(b), sockcall.Most)]
	for {
		n, errno := sockcall.Read(uintptr(s.fd), b) // only the reader closes it
		switch errno {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			s.dry = n < len(b) && !s.ended.Load()
			s.tls.came(b[:n])
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			s.dry = true
			return 0, errWouldBlock
		default:
			return 0, os.NewSyscallError("read", errno)
		}
	}
}

// Close implements net.Conn. Of one that is our own it is the reader's.
func (s *sock) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	if !s.own {
		return s.nc.Close()
	}
	fd := s.fd
	s.fd = -1 // which is nobody else's
	return os.NewSyscallError("close", unix.Close(fd))
}

// stop ends the connection from any goroutine: the reader finds its end.
func (s *sock) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

// end is stop with mu.
func (s *sock) end() {
	switch {
	case s.closed:
	case s.own:
		_ = unix.Shutdown(s.fd, unix.SHUT_RDWR) // fails if the client has reset it: that is an end
	default:
		s.closed = true
		s.nc.Close()
	}
}

// leave says that nothing more will be sent.
func (s *sock) leave() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.late.IsZero() {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", unix.Shutdown(s.fd, unix.SHUT_WR))
}

// LocalAddr implements net.Conn.
func (s *sock) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn.
func (s *sock) RemoteAddr() net.Addr { return s.remote }

// SetDeadline implements net.Conn. One that is our own does not wait, and has none.
func (s *sock) SetDeadline(t time.Time) error { return s.due(t, net.Conn.SetDeadline) }

// SetReadDeadline implements net.Conn.
func (s *sock) SetReadDeadline(t time.Time) error { return s.due(t, net.Conn.SetReadDeadline) }

// SetWriteDeadline implements net.Conn.
func (s *sock) SetWriteDeadline(t time.Time) error { return s.due(t, net.Conn.SetWriteDeadline) }

func (s *sock) due(t time.Time, set func(net.Conn, time.Time) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own {
		return nil
	}
	return set(s.nc, t)
}

// Write implements net.Conn. It takes everything.
func (s *sock) Write(b []byte) (int, error) {
	s.mu.Lock()
	if !s.own {
		s.mu.Unlock()
		return s.nc.Write(b)
	}
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	if s.buf == nil {
		s.buf = outs.Get().(*[]byte)
		s.out = (*s.buf)[:0]
	}
	s.out = append(s.out, b...)
	if !s.corked {
		s.send()
	}
	return len(b), s.err
}

func (s *sock) cork() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = true
}

// uncork sends what was written, and tells whether the kernel took it all.
func (s *sock) uncork() (sent bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	s.send()
	return s.late.IsZero(), s.err
}

// send is called with mu.
func (s *sock) send() {
	if !s.late.IsZero() || len(s.out) == 0 || s.err != nil {
		return
	}
	s.sendOut()
}

func (s *sock) sendOut() {
	for len(s.out) > 0 {
		if s.closed {
			s.fail(net.ErrClosed)
			return
		}
		n, errno := sockcall.Write(uintptr(s.fd), s.out[:min(len(s.out), sockcall.Most)])
		switch errno {
		case 0:
			s.out = s.out[n:]
			if !s.late.IsZero() {
				s.late = time.Now() // it takes something
			}
		case syscall.EINTR:
		case syscall.EAGAIN:
			if s.late.IsZero() {
				s.late = time.Now()
			}
			return
		default:
			s.fail(os.NewSyscallError("write", errno))
			return
		}
	}
	s.late = time.Time{}
	s.release()
}

// writable sends what the kernel did not take, now that it does.
func (s *sock) writable() {
	s.mu.Lock()
	if s.late.IsZero() {
		s.mu.Unlock()
		return
	}
	s.sendOut()
	sent := s.late.IsZero()
	s.mu.Unlock()
	if sent {
		s.onSent() // which was set before it was our own
	}
}

// stalls tells that the client has taken nothing for too long.
func (s *sock) stalls(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.late.IsZero() && now.Sub(s.late) > stallTime
}

// release gives the buffer back. What out grew to beyond it is left to the collector.
func (s *sock) release() {
	outs.Put(s.buf)
	s.out, s.buf = nil, nil
}

func (s *sock) fail(err error) {
	s.err, s.out, s.buf, s.late = err, nil, nil, time.Time{}
	s.end()
}
