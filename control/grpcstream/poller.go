package grpcstream

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/internal/sockcall"
)

// poller waits for what connections say, with one goroutine for all of them, and handles it on its stack: a thousand clients that
// acknowledge something need no thousand wakes, nor stacks. Its waits are in an epoll instance of its own, which itself is waited for in Go's
// poller. A connection that may take long has its turn on a goroutine of its own. Safe for concurrent use.
type poller struct {
	file  *os.File // the epoll instance
	rc    syscall.RawConn
	fd    int
	spawn func(func()) // starts a goroutine that the server waits for

	helpers atomic.Int32

	mu    sync.Mutex // protects the following
	conns map[int32]*conn
	over  bool // run is to end when there is none left
}

// maxEvents is how many connections are looked at in one go; share is how many of them are worth another goroutine.
const maxEvents, share = 128, 48

func newPoller(spawn func(func())) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("grpcstream: %w", os.NewSyscallError("epoll_create1", err))
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else os.NewFile does not give it to Go's poller
		_ = unix.Close(fd)
		return nil, fmt.Errorf("grpcstream: %w", os.NewSyscallError("fcntl", err))
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, spawn: spawn, conns: map[int32]*conn{}}
	if p.rc, err = p.file.SyscallConn(); err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // fails if Go's poller did not take it
	}
	if err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("grpcstream: %w", err)
	}
	return p, nil
}

// add takes over the wait of a connection, whose turn it is.
func (p *poller) add(c *conn, fd int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return net.ErrClosed
	}
	// Edge-triggered: what was there before is told at once.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | 1<<31, Fd: int32(fd)}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	p.conns[int32(fd)] = c
	return nil
}

// remove is called before the descriptor is closed, which ends its wait.
func (p *poller) remove(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, int32(fd))
	p.wake()
}

// stop has run end when there are no connections any more.
func (p *poller) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.wake()
}

// wake is called with mu.
func (p *poller) wake() {
	if p.over && len(p.conns) == 0 {
		_ = p.file.SetReadDeadline(time.Unix(1, 0))
	}
}

func (p *poller) done() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over && len(p.conns) == 0
}

// run ends after stop.
func (p *poller) run() error {
	defer p.end()
	var events [maxEvents]unix.EpollEvent
	n := 0
	step := func(fd uintptr) bool {
		var errno syscall.Errno
		n, errno = sockcall.Epoll(fd, events[:])
		return n > 0 || errno != 0 && errno != syscall.EINTR
	}
	for !p.done() {
		n = 0
		if err := p.rc.Read(step); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("grpcstream: wait for clients: %w", err)
		}
		p.handle(events[:max(n, 0)])
	}
	return nil
}

// end lets nobody be added any more. There is nobody left, if nothing has failed.
func (p *poller) end() {
	p.mu.Lock()
	p.over = true
	left := slices.Collect(maps.Values(p.conns))
	p.mu.Unlock()
	for _, c := range left {
		c.abort()
		if c.rouse(unix.EPOLLHUP) {
			c.turns(true)
		}
	}
	_ = p.file.Close()
}

// handle tells connections what has come of them.
func (p *poller) handle(events []unix.EpollEvent) {
	turns := make([]*conn, 0, maxEvents)
	for _, e := range events {
		p.mu.Lock()
		c := p.conns[e.Fd]
		p.mu.Unlock()
		switch {
		case c == nil || !c.rouse(e.Events):
		case c.alone():
			p.spawn(func() { c.turns(true) })
		default:
			turns = append(turns, c)
		}
	}
	p.turns(turns)
}

// turns gives some of many to another goroutine, if there are processors for it.
func (p *poller) turns(all []*conn) {
	if len(all) >= 2*share && int(p.helpers.Load()) < runtime.GOMAXPROCS(0)-1 {
		p.helpers.Add(1)
		half := append([]*conn(nil), all[len(all)/2:]...)
		all = all[:len(all)/2]
		p.spawn(func() {
			defer p.helpers.Add(-1)
			turnsOf(half)
		})
	}
	turnsOf(all)
}

func turnsOf(all []*conn) {
	for _, c := range all {
		c.turns(false)
	}
}
