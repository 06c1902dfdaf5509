package grpcstream

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"weft.mesh/weft/internal/sockcall"
)

// sock is a connection of the kernel that writes without waiting: what the kernel does not take at once is sent by a
// goroutine made for it. Writes between cork and uncork go together. Nor do reads wait, in [sock.attend].
// After [sock.plain] it waits, like any other.
type sock struct {
	net.Conn
	raw   syscall.RawConn
	fd    uintptr
	spawn func(func()) // starts a goroutine that the server waits for

	// of the reader
	trying bool // reads do not wait
	dry    bool // the last one took all that there was

	mu       sync.Mutex // protects the following
	onSent   func()     // what could not be sent at once is sent, or never will be; nil: nobody asks
	direct   bool       // waits in Write, as a net.Conn does
	attended bool       // its reader waits in attend, and closes it
	stopped  bool       // nobody moves its deadlines any more
	closed   bool       // fd is not to be used any more
	corked   bool
	out      []byte  // not sent yet; of outs
	buf      *[]byte // out's, to be put back
	late     bool    // a goroutine sends out
	err      error
}

// outs are buffers of what is about to be sent.
var outs = sync.Pool{New: func() any { b := make([]byte, 0, 52<<10); return &b }}

func newSock(nc net.Conn, spawn func(func())) (*sock, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("grpcstream: %T is not of the kernel", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &sock{Conn: nc, raw: raw, spawn: spawn}
	return s, raw.Control(func(fd uintptr) { s.fd = fd })
}

// plain makes it wait in Write.
func (s *sock) plain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.direct = true
}

// wouldBlock is the error of a read that found nothing. It is temporary, so crypto/tls keeps its state.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

var errWouldBlock error = wouldBlock{}

// attend calls handle now, and whenever something has come, until that says that it is done. Reads in it do not wait: they return
// errWouldBlock, also instead of one that would find nothing after one that took all there was. So the client's end, if it came with
// its last bytes, may be seen by [sock.gone] only.
func (s *sock) attend(handle func() (done bool)) error {
	s.mu.Lock()
	s.attended = !s.closed
	s.mu.Unlock()
	s.trying = true
	err := s.raw.Read(func(uintptr) bool {
		s.dry = false
		return handle()
	})
	s.trying = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attended = false
	return err
}

// Read implements net.Conn.
func (s *sock) Read(b []byte) (int, error) {
	if !s.trying {
		return s.Conn.Read(b)
	}
	if s.dry || len(b) == 0 {
		return 0, errWouldBlock
	}
	b = b[:min(len(b), sockcall.Most)]
	for {
		n, errno := sockcall.Read(s.fd, b) // attend holds the descriptor
		switch errno {
		case 0:
			if n == 0 {
				return 0, io.EOF
			}
			s.dry = n < len(b)
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

// gone tells that the client has ended the connection, and that all that it said has been read.
func (s *sock) gone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	n, errno := sockcall.Peek(s.fd)
	return n == 0 && errno == 0
}

// Close implements net.Conn. It waits for attend to end.
func (s *sock) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.Conn.Close()
}

// stop ends the connection from any goroutine, without waiting: at once, or by its reader, whose attend fails.
func (s *sock) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

// end is stop with mu.
func (s *sock) end() {
	if !s.attended {
		s.closed = true
		s.Conn.Close()
		return
	}
	s.stopped = true
	s.Conn.SetDeadline(time.Unix(1, 0))
}

// SetReadDeadline implements net.Conn.
func (s *sock) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	return s.Conn.SetReadDeadline(t)
}

// Write implements net.Conn. It takes everything.
func (s *sock) Write(b []byte) (int, error) {
	s.mu.Lock()
	if s.direct && !s.late {
		s.mu.Unlock()
		return s.Conn.Write(b)
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
	return !s.late, s.err
}

// send is called with mu.
func (s *sock) send() {
	if s.late || len(s.out) == 0 || s.err != nil {
		return
	}
	for len(s.out) > 0 {
		if s.closed {
			s.fail(net.ErrClosed)
			return
		}
		n, errno := sockcall.Write(s.fd, s.out[:min(len(s.out), sockcall.Most)])
		switch errno {
		case 0:
			s.out = s.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			s.late = true
			s.spawn(s.sendLate)
			return
		default:
			s.fail(os.NewSyscallError("write", errno))
			return
		}
	}
	s.release()
}

// release gives the buffer back. What out grew to beyond it is left to the collector.
func (s *sock) release() {
	outs.Put(s.buf)
	s.out, s.buf = nil, nil
}

func (s *sock) fail(err error) {
	s.err, s.out, s.buf = err, nil, nil
	s.end()
}

// sendLate sends what the kernel did not take, and ends when that is done, or the client takes nothing for a while.
func (s *sock) sendLate() {
	for {
		s.mu.Lock()
		out := s.out
		if s.err != nil || len(out) == 0 {
			if s.late = false; s.err == nil {
				s.release()
				s.Conn.SetWriteDeadline(time.Time{})
			}
			then := s.onSent
			s.mu.Unlock()
			if then != nil {
				then()
			}
			return
		}
		s.mu.Unlock()
		s.Conn.SetWriteDeadline(time.Now().Add(stallTime))
		n, err := s.Conn.Write(out[:min(len(out), 16<<10)])
		s.mu.Lock()
		if s.err == nil {
			if s.out = s.out[n:]; err != nil {
				s.fail(err)
			}
		}
		s.mu.Unlock()
	}
}
