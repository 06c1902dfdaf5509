package hotrestart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout bounds each answer of the parent.
const answerTimeout = 10 * time.Second

// ErrNone says that no process offers its sockets.
var ErrNone = errors.New("hot restart: no proxy runs with this state directory")

// Child is a conversation with the parent. Not safe for concurrent use.
type Child struct {
	c       conn
	gone    bool // the parent has ended
	Parent  Peer
	Lineage Lineage // ours: the parent's, one further
	// Inherited are the ports of sockets that the parent was started with.
	Inherited []uint16
}

// Running tells whether a process offers its sockets at path, and its number.
func Running(path string) (pid int, ok bool) {
	c, err := dial(path)
	if err != nil {
		return 0, false
	}
	defer c.Close()
	_, pid, _ = uid(c) // only for the message
	return pid, true
}

func dial(path string) (*net.UnixConn, error) {
	name, release, err := short(path)
	if err != nil {
		return nil, err
	}
	defer release()
	return net.DialUnix(network, nil, &net.UnixAddr{Name: name, Net: network})
}

// Connect asks the parent at path to let us take over. [ErrNone]: there is none.
func Connect(ctx context.Context, path string, self Peer) (*Child, error) {
	c, err := dial(path)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED):
		return nil, ErrNone
	case err != nil:
		return nil, fmt.Errorf("hot restart: %w", err)
	}
	ch := &Child{c: conn{c}}
	if err := ch.greet(ctx, self); err != nil {
		_ = c.Close()
		if errors.Is(err, errPeer) {
			return nil, fmt.Errorf("hot restart: the running proxy ended the conversation: it is ending, or another one has just taken over")
		}
		return nil, fmt.Errorf("hot restart: %w", err)
	}
	return ch, nil
}

func (c *Child) greet(ctx context.Context, self Peer) error {
	id, pid, err := uid(c.c.c)
	if err != nil {
		return err
	}
	if id != os.Geteuid() {
		return fmt.Errorf("process %d, which offers its sockets, belongs to user %d, we are user %d", pid, id, os.Geteuid())
	}
	m, err := c.ask(ctx, &message{Type: msgHello, Min: MinVersion, Max: MaxVersion, Peer: self}, msgWelcome)
	if err != nil {
		return err
	}
	if m.Version < MinVersion || m.Version > MaxVersion {
		return fmt.Errorf("process %d chose version %d, we speak %d to %d", m.PID, m.Version, MinVersion, MaxVersion)
	}
	c.Parent, c.Inherited = m.Peer, m.Inherited
	c.Lineage = Lineage{Epoch: m.Epoch + 1, Started: time.UnixMilli(m.StartedMS)}
	return nil
}

// ask sends a message and waits for an answer without a descriptor.
func (c *Child) ask(ctx context.Context, m *message, want string) (*message, error) {
	defer until(ctx, c.c.c, answerTimeout)()
	if err := c.c.send(m, -1); err != nil && !errors.Is(err, errPeer) { // it may have refused already
		return nil, err
	}
	a, err := c.c.expect(want, msgRefused)
	if err != nil {
		return nil, err
	}
	if a.Type == msgRefused {
		return nil, &RefusedError{a.Reason}
	}
	return a, nil
}

// RefusedError is the parent's no.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "the running proxy refuses: " + e.Reason }

// Take asks for a socket. nil without an error: the parent has none, or has ended, so that its addresses are free.
// A [RefusedError] is the parent's last word.
func (c *Child) Take(ctx context.Context, k Key) (net.Listener, error) {
	if c.gone {
		return nil, nil
	}
	ln, err := c.take(ctx, k)
	if errors.Is(err, errPeer) {
		c.gone = true
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hot restart: take %s: %w", k, err)
	}
	return ln, nil
}

func (c *Child) take(ctx context.Context, k Key) (net.Listener, error) {
	defer until(ctx, c.c.c, answerTimeout)()
	if err := c.c.send(&message{Type: msgTake, Key: k}, -1); err != nil && !errors.Is(err, errPeer) { // it may have refused already
		return nil, err
	}
	m, fd, err := c.c.receive()
	if err != nil {
		return nil, err
	}
	if m.Type == msgRefused && fd < 0 {
		return nil, &RefusedError{m.Reason}
	}
	if (m.Type == msgSocket) != (fd >= 0) || m.Type != msgSocket && m.Type != msgNone {
		closeIf(fd)
		return nil, fmt.Errorf("%q message came out of place", m.Type)
	}
	if fd < 0 {
		return nil, nil
	}
	return listener(fd, k)
}

func closeIf(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// Serving tells the parent that it may stop, and waits until it has. nil also when the parent has ended: nobody else serves then.
// After another error but a [RefusedError] nobody knows what the parent does.
func (c *Child) Serving(ctx context.Context, t Terms) error {
	if c.gone {
		return nil
	}
	_, err := c.ask(ctx, &message{Type: msgServing, DrainMS: t.Drain.Milliseconds(), ShutdownMS: t.Shutdown.Milliseconds()}, msgDraining)
	if errors.Is(err, errPeer) {
		c.gone = true
		return nil
	}
	return err
}

// Gone tells that the parent was found to have ended.
func (c *Child) Gone() bool { return c.gone }

// Close ends the conversation. Before Serving it leaves everything to the parent.
func (c *Child) Close() { _ = c.c.c.Close() }

// listener makes a listener of a descriptor, which it owns, if it is what was asked for.
func listener(fd int, k Key) (net.Listener, error) {
	f := os.NewFile(uintptr(fd), k.String())
	defer f.Close() // FileListener has a copy
	if err := checkListening(fd); err != nil {
		return nil, err
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	if !matches(ln.Addr(), k) {
		_ = ln.Close()
		return nil, fmt.Errorf("got a socket of %s", ln.Addr())
	}
	return ln, nil
}

func checkListening(fd int) error {
	for _, o := range []struct{ opt, want int }{{unix.SO_TYPE, unix.SOCK_STREAM}, {unix.SO_ACCEPTCONN, 1}} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, o.opt)
		if err != nil {
			return err
		}
		if v != o.want {
			return errors.New("got a descriptor that is no listening TCP socket")
		}
	}
	return nil
}

// matches tells whether a socket is bound to what was asked for. Port 0 and an address left out match any.
func matches(a net.Addr, k Key) bool {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	host, port := "", k.Address
	if k.Kind != Inherited {
		var err error
		if host, port, err = net.SplitHostPort(k.Address); err != nil {
			return false
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n != 0 && int(n) != t.Port {
		return false
	}
	want, err := netip.ParseAddr(host)
	if err != nil {
		return host == "" || host == "localhost"
	}
	got := t.AddrPort().Addr().Unmap()
	return got == want.Unmap() || got.IsUnspecified() && want.IsUnspecified()
}

var _ syscall.Conn = (*net.TCPListener)(nil)
