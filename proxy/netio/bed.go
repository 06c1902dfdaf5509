package netio

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/internal/sockcall"
)

// Sleeper is what is left of a connection while it sleeps: see [Lot.Sleep]. What it is told must not wait, but for Wake.
type Sleeper interface {
	// Slept is told under which number it sleeps, before anything can come of that; 0: it does not any more.
	Slept(bed int32)
	// Wake gives the connection back, on a goroutine of its own.
	Wake(c *Conn)
	// Over is told instead that the connection has ended: its time was over, or it was dropped. With an error it is lost.
	Over(err error)
}

// bed is one connection that sleeps. Its descriptor is our own.
type bed struct {
	s   Sleeper
	due int64 // unix nanoseconds; 0: none
}

// Sleep is Park for a connection without TLS, of which only the descriptor is kept: c is closed if it returns true, and
// whoever wakes gets another. What c has counted is gone with it. It wakes when it has something to read or is at its end, and when the
// lot ends; when due (zero: never) has passed, to within a second, it is closed. It may wake for nothing: what was told of another
// connection, whose descriptor's number it has now, may have been on its way.
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

// Hasten has who sleeps under a number end at due, unless it would before or has something to say by then.
func (l *Lot) Hasten(number int32, s Sleeper, due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.beds[number]
	if !ok || b.s != s || b.due != 0 && b.due <= nanos(due) {
		return
	}
	b.due = nanos(due)
	l.beds[number] = b
	if l.next.IsZero() || due.Before(l.next) {
		l.setNext(due)
	}
}

// Drop ends who sleeps under a number.
func (l *Lot) Drop(number int32, s Sleeper) {
	l.mu.Lock()
	b, ok := l.beds[number]
	if !ok || b.s != s {
		l.mu.Unlock()
		return
	}
	l.vacate(number, b)
	l.mu.Unlock()
	_ = unix.Close(int(number))
	s.Over(nil)
}

// vacate takes a bed out. mu is held.
func (l *Lot) vacate(fd int32, b bed) {
	delete(l.beds, fd)
	b.s.Slept(0)
	_ = unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, int(fd), nil) // closing the descriptor does not where the socket has another
}

// rouse wakes who sleeps under a number, if anybody does.
func (l *Lot) rouse(fd int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.beds[fd]; ok {
		l.vacate(fd, b)
		go b.wake(fd)
	}
}

// elapsed ends who sleeps where b was when its time came, or wakes it if there is something to read all the same.
func (l *Lot) elapsed(fd int32, b bed) {
	l.mu.Lock()
	if l.beds[fd] != b {
		l.mu.Unlock()
		return
	}
	_, errno := sockcall.Peek(uintptr(fd))
	l.vacate(fd, b)
	l.mu.Unlock()
	if errno != unix.EAGAIN {
		go b.wake(fd)
		return
	}
	_ = unix.Close(int(fd))
	b.s.Over(nil)
}

// wake makes a connection of a descriptor, which it takes.
func (b bed) wake(fd int32) {
	f := os.NewFile(uintptr(fd), "connection")
	nc, err := net.FileConn(f)
	_ = f.Close() // FileConn has another
	if err != nil {
		b.s.Over(err)
		return
	}
	b.s.Wake(New(nc))
}
