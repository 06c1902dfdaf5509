package hotrestart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a conversation as the parent sees it. A child may take its time to become ready; one that hangs must not
// keep others away for ever.
const (
	conversation = 15 * time.Minute
	helloTimeout = 5 * time.Second
	sendTimeout  = 5 * time.Second
	acceptRetry  = time.Second
	maxCallers   = 8 // conversations at once; all but one are only refused
)

// Settings of a [Parent]. Functions are called on one goroutine at a time.
type Settings struct {
	// Path of the socket. Its folder must exist.
	Path    string
	Self    Peer
	Lineage Lineage
	// Inherited are the ports of sockets that whoever started this proxy passed to it.
	Inherited []uint16
	// Socket finds an open listening socket; nil: there is none.
	Socket func(Key) syscall.Conn
	// Prepare is called when a child was welcomed, before it is answered: what it will read from disk is written now.
	Prepare func()
	// HandOver stops accepting, for good.
	HandOver func(Terms)
	// UID of those who may take over; -1: ours.
	UID int
	Log *slog.Logger

	limit time.Duration // of a conversation; zero: conversation
}

// Parent offers the sockets of this process. Make it with [Offer].
type Parent struct {
	set  Settings
	ln   *net.UnixListener
	file os.FileInfo // the socket's, to know it again
	busy atomic.Bool // a child is being served, or has taken over
	over atomic.Bool // a child has taken over
	done chan Terms  // has room for one
}

// Offer opens the socket; an old one in its place is replaced.
func Offer(s Settings) (*Parent, error) {
	if s.UID < 0 {
		s.UID = os.Geteuid()
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.limit <= 0 {
		s.limit = conversation
	}
	p := &Parent{set: s, done: make(chan Terms, 1)}
	if err := p.open(); err != nil {
		return nil, fmt.Errorf("hot restart: %w", err)
	}
	return p, nil
}

// open binds under a name of its own and renames: who connects meets the old socket or the new one.
func (p *Parent) open() error {
	temp := p.set.Path + "." + strconv.Itoa(os.Getpid())
	name, release, err := short(temp)
	if err != nil {
		return err
	}
	defer release()
	_ = os.Remove(temp) // of a process that had our number
	ln, err := net.ListenUnix(network, &net.UnixAddr{Name: name, Net: network})
	if err != nil {
		return err
	}
	ln.SetUnlinkOnClose(false)
	err = os.Chmod(temp, 0o600)
	if err == nil {
		p.file, err = os.Lstat(temp)
	}
	if err == nil {
		err = os.Rename(temp, p.set.Path)
	}
	if err != nil {
		_ = ln.Close()
		_ = os.Remove(temp)
		return err
	}
	p.ln = ln
	return nil
}

// Run talks to children until one has taken over (then it returns its terms and true) or ctx ends.
func (p *Parent) Run(ctx context.Context) (Terms, bool) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	callers := make(chan struct{}, maxCallers)
	wg.Go(func() {
		for {
			c, err := p.ln.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // out of descriptors and the like
				p.set.Log.Warn("hot restart: accept failed", "cause", err)
				if !sleep(ctx, acceptRetry) {
					return
				}
				continue
			}
			select {
			case callers <- struct{}{}:
			case <-ctx.Done():
				_ = c.Close()
				return
			}
			wg.Go(func() {
				defer func() { <-callers }()
				defer c.Close()
				p.serve(ctx, conn{c})
			})
		}
	})
	select {
	case t := <-p.done:
		p.close(true)
		return t, true
	case <-ctx.Done():
	}
	p.close(p.over.Load())
	wg.Wait()
	select { // a conversation may have come to its end at that moment
	case t := <-p.done:
		return t, true
	default:
		return Terms{}, false
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// close ends the offer and takes its file away, first, while nobody can take us for dead and put another in its
// place. After a hand-over the successor does that at this moment: the file is left to it.
func (p *Parent) close(handedOver bool) {
	if !handedOver {
		if now, err := os.Lstat(p.set.Path); err == nil && os.SameFile(now, p.file) {
			_ = os.Remove(p.set.Path)
		}
	}
	_ = p.ln.Close()
}

// serve is one conversation.
func (p *Parent) serve(ctx context.Context, c conn) {
	hello, err := p.greet(ctx, c)
	if err != nil {
		if !errors.Is(err, errPeer) && ctx.Err() == nil { // one that only looks whether we are here
			p.set.Log.Warn("hot restart refused", "cause", err)
		}
		return
	}
	log := p.set.Log.With("pid", hello.PID, "version", hello.Software)
	log.Info("hot restart begins: another process wants to take over")
	terms, err := p.converse(ctx, c, hello)
	if err != nil {
		p.busy.Store(false)
		if ctx.Err() == nil {
			log.Warn("hot restart came to nothing, this process goes on", "cause", err)
		}
		return
	}
	p.over.Store(true)
	p.set.HandOver(terms)
	stop := until(ctx, c.c, sendTimeout)
	defer stop()
	if err := c.send(&message{Type: msgDraining}, -1); err != nil {
		log.Warn("the other process was not told that it has taken over", "cause", err)
	}
	p.done <- terms
}

// greet finds out who is there, and makes it the one that is served.
func (p *Parent) greet(ctx context.Context, c conn) (*message, error) {
	defer until(ctx, c.c, helloTimeout)()
	m, err := c.expect(msgHello) // first: closing with something unread would reset the connection before the refusal is read
	if err != nil {
		return nil, err
	}
	id, pid, err := uid(c.c)
	if err != nil {
		return nil, err
	}
	if id != p.set.UID {
		return nil, p.refuse(c, fmt.Sprintf("process %d belongs to user %d, only user %d may take over", pid, id, p.set.UID))
	}
	if why := refusal(p.set.Self, m.Peer, m.Min, m.Max); why != "" {
		return nil, p.refuse(c, why)
	}
	if !p.busy.CompareAndSwap(false, true) {
		return nil, p.refuse(c, "another process is taking over")
	}
	return m, nil
}

// refuse tells the other side and makes an error of it.
func (p *Parent) refuse(c conn, why string) error {
	_ = c.send(&message{Type: msgRefused, Reason: why[:min(len(why), maxText)]}, -1)
	return errors.New(why)
}

// converse gives what is asked for until the child serves.
func (p *Parent) converse(ctx context.Context, c conn, hello *message) (Terms, error) {
	if p.set.Prepare != nil {
		p.set.Prepare()
	}
	defer until(ctx, c.c, p.set.limit)()
	err := c.send(&message{Type: msgWelcome, Peer: p.set.Self, Version: min(hello.Max, MaxVersion), Epoch: p.set.Lineage.Epoch,
		StartedMS: p.set.Lineage.Started.UnixMilli(), Inherited: p.set.Inherited[:min(len(p.set.Inherited), maxInherited)]}, -1)
	for err == nil {
		var m *message
		if m, err = c.expect(msgTake, msgServing); err != nil {
			break
		}
		if m.Type == msgServing {
			return Terms{time.Duration(m.DrainMS) * time.Millisecond, time.Duration(m.ShutdownMS) * time.Millisecond}, nil
		}
		err = p.give(c, m.Key)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
		// Closing without a word would tell the child that we have ended, and it would serve beside us.
		_ = c.c.SetDeadline(time.Now().Add(sendTimeout))
		err = p.refuse(c, fmt.Sprintf("it has not begun to serve within %v", p.set.limit))
	}
	return Terms{}, err
}

// give answers with a copy of the socket's descriptor, which the kernel makes.
func (p *Parent) give(c conn, k Key) error {
	s := p.set.Socket(k)
	if s == nil {
		return c.send(&message{Type: msgNone}, -1)
	}
	fd, err := duplicate(s)
	if err != nil { // closed this moment: there is none
		return c.send(&message{Type: msgNone}, -1)
	}
	defer unix.Close(fd)
	return c.send(&message{Type: msgSocket}, fd)
}

// duplicate does not use File of a listener: its Fd would make the socket, which the accept loop shares, blocking.
func duplicate(s syscall.Conn) (fd int, err error) {
	rc, err := s.SyscallConn()
	if err != nil {
		return -1, err
	}
	if e := rc.Control(func(f uintptr) { fd, err = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return -1, e
	}
	return fd, err
}

// SocketPath is where the proxy of a state directory offers its sockets.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, "hot-restart.sock") }
