package netio

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Sleeper is what is left of a connection while it sleeps: see [Lot.Sleep].
type Sleeper interface {
	// Slept is told under which number it can be woken, before it can be; 0: it does not sleep after all, or not any more. It must not wait.
	Slept(bed int32)
	// Wake gives the connection back, on a goroutine of its own; nil: it is lost, because there are no descriptors or it has come to an end.
	Wake(c *Conn)
}

// bed is one connection that sleeps. Its descriptor is our own.
type bed struct {
	s   Sleeper
	due int64 // unix nanoseconds; 0: none
}

// Sleep is Park for a connection without TLS, of which only the descriptor is kept: c is closed if it returns true, and
// whoever wakes gets another. What c has counted is gone with it.
func (l *Lot) Sleep(c *Conn, due time.Time, s Sleeper) bool {
	r := c.raw
	if r == nil || c.shim != nil || c.peek.Len() > 0 || c.writeDue.Load() != 0 {
		return false
	}
	r.own.Lock()
	defer r.own.Unlock()
	if r.shut {
		return false
	}
	// The socket goes on under a number that Go's poller does not know.
	fd, err := unix.FcntlInt(r.fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if !l.makeBed(int32(fd), s, due) {
		_ = unix.Close(fd)
		return false
	}
	l.parks.Add(1)
	r.shut = true
	c.closed.Store(true)
	_ = c.nc.Close() // of a descriptor that has another now: nothing is sent
	return true
}

func (l *Lot) makeBed(fd int32, s Sleeper, due time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	// Level-triggered: what came before is told at once, but for mu.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: fd}
	if unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, int(fd), &ev) != nil {
		return false
	}
	l.beds[fd] = bed{s, nanos(due)}
	s.Slept(fd)
	if !due.IsZero() && (l.next.IsZero() || due.Before(l.next)) {
		l.setNext(due)
	}
	return true
}

// Rouse wakes who sleeps under a number, if it still is who sleeps there.
func (l *Lot) Rouse(number int32, s Sleeper) {
	if number != 0 {
		l.rouse(number, s)
	}
}

func (l *Lot) rouse(fd int32, s Sleeper) {
	l.mu.Lock()
	b, ok := l.beds[fd]
	if !ok || s != nil && b.s != s {
		l.mu.Unlock()
		return
	}
	delete(l.beds, fd)
	b.s.Slept(0)
	_ = unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, int(fd), nil) // closing the descriptor does not: there is another for the socket
	l.mu.Unlock()
	go func() { b.s.Wake(connOf(int(fd))) }()
}

// connOf makes a connection of a descriptor, which it takes; nil: it cannot.
func connOf(fd int) *Conn {
	f := os.NewFile(uintptr(fd), "connection")
	defer func() { _ = f.Close() }() // FileConn has another
	nc, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	return New(nc)
}
