package netio

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/internal/sockcall"
)

// Lot waits for connections that idle, for all of them with one goroutine: a
// parked connection costs no stack, only what it holds on the heap. Its waits are
// in an epoll instance of their own, which itself is waited for in Go's poller.
// Make it with [NewLot]; Run must be running. Safe for concurrent use.
type Lot struct {
	file *os.File        // the epoll instance
	rc   syscall.RawConn // of file
	fd   int

	parks atomic.Uint64

	mu sync.Mutex
	// mu protects the following.
	spots map[int32]*spot // by the connection's descriptor
	beds  map[int32]bed   // by the descriptor of who sleeps
	next  time.Time       // when Run looks for spots whose time is over; zero: never
	over  bool            // Run is to end, or has
}

// spot is one parked connection.
type spot struct {
	lot  *Lot
	c    *Conn
	wake func()
	due  int64 // unix nanoseconds; 0: none
}

// lookEvery is how often, at most, the lot looks for connections whose time is over.
const lookEvery = time.Second

// NewLot makes a lot.
func NewLot() (*Lot, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("netio: make a lot: %w", os.NewSyscallError("epoll_create1", err))
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else os.NewFile does not give it to the poller
		_ = unix.Close(fd)
		return nil, fmt.Errorf("netio: make a lot: %w", err)
	}
	l := &Lot{file: os.NewFile(uintptr(fd), "lot"), fd: fd, spots: map[int32]*spot{}, beds: map[int32]bed{}}
	if l.rc, err = l.file.SyscallConn(); err == nil {
		err = l.file.SetReadDeadline(time.Time{}) // fails if the poller did not take it
	}
	if err != nil {
		_ = l.file.Close()
		return nil, fmt.Errorf("netio: make a lot: %w", err)
	}
	return l, nil
}

// Park takes over the wait of c, which nobody may read from meanwhile: wake is called once, on a goroutine
// of its own, when c has something to read or is at its end, when due (zero: never) has passed, to within a second,
// when a read deadline is set, or when c is closed. It may be running before Park returns. False: c cannot be parked.
func (l *Lot) Park(c *Conn, due time.Time, wake func()) bool {
	r := c.raw
	if r == nil || c.peek.Len() > 0 || c.ahead() {
		return false
	}
	s := &spot{lot: l, c: c, wake: wake, due: nanos(due)}
	r.own.Lock()
	defer r.own.Unlock()
	if r.shut || !l.add(s, due) {
		return false
	}
	// Level-triggered: what came before is told at once.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(r.fd)}
	if unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, int(r.fd), &ev) != nil {
		l.remove(s)
		return false
	}
	c.spot.Store(s)
	l.parks.Add(1)
	return true
}

// Parks is how often connections were parked.
func (l *Lot) Parks() uint64 { return l.parks.Load() }

// Parked is the number of connections that are parked.
func (l *Lot) Parked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.spots) + len(l.beds)
}

func (l *Lot) add(s *spot, due time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.spots[int32(s.c.raw.fd)] = s
	if !due.IsZero() && (l.next.IsZero() || due.Before(l.next)) {
		l.setNext(due)
	}
	return true
}

// setNext makes Run look at t, unless it is to end: it has been told so by the same deadline. mu is held.
func (l *Lot) setNext(t time.Time) {
	if l.over {
		return
	}
	l.next = t
	_ = l.file.SetReadDeadline(t) // fails only when it is closed
}

// remove takes a spot out; false: it was taken out before.
func (l *Lot) remove(s *spot) bool {
	fd := int32(s.c.raw.fd)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spots[fd] != s {
		return false
	}
	delete(l.spots, fd)
	return true
}

// leave ends the wait, whoever asks first.
func (s *spot) leave() {
	if !s.lot.remove(s) {
		return
	}
	r := s.c.raw
	r.own.Lock() // also waits for Park to come to its end
	s.c.spot.CompareAndSwap(s, nil)
	if !r.shut { // else the kernel has taken it out, or does
		_ = unix.EpollCtl(s.lot.fd, unix.EPOLL_CTL_DEL, int(r.fd), nil)
	}
	r.own.Unlock()
	go s.wake()
}

// Run waits until ctx ends, then wakes what is parked; nothing can be parked any more.
func (l *Lot) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, l.stop)
	defer stop()
	defer l.end()
	var events [128]unix.EpollEvent
	n := 0
	step := func(fd uintptr) bool {
		var errno syscall.Errno
		n, errno = sockcall.Epoll(fd, events[:])
		return n > 0 || errno != 0 && errno != syscall.EINTR
	}
	for ctx.Err() == nil {
		n = 0
		if err := l.rc.Read(step); err != nil && !IsTimeout(err) {
			return fmt.Errorf("netio: wait for parked connections: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if s := l.at(e.Fd); s != nil {
				s.leave()
			} else {
				l.rouse(e.Fd)
			}
		}
		l.expire(time.Now())
	}
	return nil
}

// stop has Run end. What is parked from now on, by whoever is late, must not move the deadline that says so.
func (l *Lot) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	_ = l.file.SetReadDeadline(time.Unix(1, 0))
}

func (l *Lot) at(fd int32) *spot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.spots[fd]
}

// expire wakes those whose time is over.
func (l *Lot) expire(now time.Time) {
	l.mu.Lock()
	if l.next.IsZero() || now.Before(l.next) {
		l.mu.Unlock()
		return
	}
	var late []*spot
	asleep := map[int32]bed{}
	first := int64(0)
	is := func(due int64) bool { // late
		if due != 0 && due > now.UnixNano() && (first == 0 || due < first) {
			first = due
		}
		return due != 0 && due <= now.UnixNano()
	}
	for _, s := range l.spots {
		if is(s.due) {
			late = append(late, s)
		}
	}
	for fd, b := range l.beds {
		if is(b.due) {
			asleep[fd] = b
		}
	}
	var next time.Time
	if first != 0 {
		if next = time.Unix(0, first); next.Before(now.Add(lookEvery)) {
			next = now.Add(lookEvery)
		}
	}
	l.setNext(next)
	l.mu.Unlock()
	for _, s := range late {
		s.leave()
	}
	for fd, b := range asleep {
		l.elapsed(fd, b)
	}
}

func (l *Lot) end() {
	l.mu.Lock()
	l.over = true
	left := slices.Collect(maps.Values(l.spots))
	asleep := slices.Collect(maps.Keys(l.beds))
	l.mu.Unlock()
	for _, s := range left {
		s.leave()
	}
	for _, fd := range asleep {
		l.rouse(fd)
	}
	_ = l.file.Close()
}
