package grpcstream

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// sock is a connection of the kernel that writes without waiting: what the kernel does not take at once is sent by a
// goroutine made for it. Writes between cork and uncork go together.
// After [sock.plain] it waits, like any other.
type sock struct {
	net.Conn
	raw     syscall.RawConn
	attempt func(fd uintptr) bool // made once: it writes out
	spawn   func(func())          // starts a goroutine that the server waits for

	mu     sync.Mutex // protects the following
	onSent func()     // what could not be sent at once is sent, or never will be; nil: nobody asks
	direct bool       // waits in Write, as a net.Conn does
	corked bool
	out    []byte  // not sent yet; of outs
	buf    *[]byte // out's, to be put back
	n      int     // what attempt wrote…
	werr   error   // …and why it did not
	late   bool    // a goroutine sends out
	err    error
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
	s.attempt = func(fd uintptr) bool {
		for {
			s.n, s.werr = syscall.Write(int(fd), s.out)
			if s.werr != syscall.EINTR {
				return true
			}
		}
	}
	return s, nil
}

// plain makes it wait in Write.
func (s *sock) plain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.direct = true
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
	s.n, s.werr = 0, nil
	if err := s.raw.Write(s.attempt); err != nil {
		s.fail(err)
		return
	}
	if s.werr != nil && !errors.Is(s.werr, syscall.EAGAIN) {
		s.fail(s.werr)
		return
	}
	s.n = max(s.n, 0)
	if s.n == len(s.out) {
		s.release()
		return
	}
	s.out = s.out[s.n:]
	s.late = true
	s.spawn(s.sendLate)
}

// release gives the buffer back. What out grew to beyond it is left to the collector.
func (s *sock) release() {
	outs.Put(s.buf)
	s.out, s.buf = nil, nil
}

func (s *sock) fail(err error) {
	s.err, s.out, s.buf = err, nil, nil
	s.Conn.Close() // its reader ends
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
