// Package netns holds Linux network namespaces open and runs code inside them.
//
// A [Handle] is an open file descriptor of a namespace: the namespace lives as
// long as a handle or a process in it does, and needs no name and no mount, so
// that nothing remains when the process ends. Code runs inside a namespace on
// an operating system thread of its own ([Handle.Do]); a thread that cannot be
// brought back is thrown away, so that no other goroutine ever runs on it.
//
// It creates no links and sets no addresses. Safe for concurrent use.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadNS is the network namespace of the calling thread.
const threadNS = "/proc/thread-self/ns/net"

// Handle keeps one network namespace open.
type Handle struct {
	file  *os.File
	inode uint64
}

// FromThread opens the network namespace of the calling thread. The caller
// must hold the thread with [runtime.LockOSThread] if it has left the
// process's own namespace.
func FromThread() (*Handle, error) {
	h, err := Open(threadNS)
	if err != nil {
		return nil, fmt.Errorf("%w (is /proc mounted?)", err)
	}
	return h, nil
}

// Open opens the network namespace that a file stands for: one of a process's in /proc/PID/ns, or one that is mounted somewhere.
func Open(path string) (*Handle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("netns: open namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("netns: stat %s: %w", path, err)
	}
	return &Handle{file: f, inode: st.Ino}, nil
}

// New makes an empty network namespace (a loopback link that is down).
// It needs CAP_SYS_ADMIN in the current user namespace.
func New() (*Handle, error) {
	var h *Handle
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("netns: make a network namespace: %w", err)
		}
		var err error
		h, err = FromThread()
		return err
	})
	return h, err
}

// FD is the descriptor of the namespace; it stays owned by h.
func (h *Handle) FD() int { return int(h.file.Fd()) }

// File is the open namespace, for passing to a child; it stays owned by h.
func (h *Handle) File() *os.File { return h.file }

// Inode identifies the namespace: two handles of one namespace have one inode.
func (h *Handle) Inode() uint64 { return h.inode }

// Close lets go of the namespace. It ends when nothing else is in it.
func (h *Handle) Close() error { return h.file.Close() }

// Do runs f on a thread inside the namespace and returns its error. Sockets
// that f makes stay in the namespace for good. f must not start a goroutine
// that expects to be inside.
func (h *Handle) Do(f func() error) error {
	return onThread(func() error {
		if err := h.Enter(); err != nil {
			return err
		}
		return f()
	})
}

// Enter moves the calling thread into the namespace. The caller must have
// locked the thread and must never unlock it.
func (h *Handle) Enter() error {
	if err := unix.Setns(h.FD(), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("netns: enter namespace %d: %w", h.inode, err)
	}
	return nil
}

// onThread runs f on a thread that is thrown away afterwards: a locked
// goroutine that ends takes its thread with it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("netns: panic inside a namespace: %v", p)
			}
		}()
		done <- f()
	}()
	return <-done
}

// Dial connects to address, an IP address and port, from inside the namespace.
func (h *Handle) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("netns: dial %q: %w", address, err)
	}
	if net.ParseIP(host) == nil {
		return nil, fmt.Errorf("netns: dial %q: want an IP address and port", address)
	}
	var conn net.Conn
	err = h.Do(func() error {
		var d net.Dialer
		var err error
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen opens a listener inside the namespace.
func (h *Handle) Listen(network, address string) (net.Listener, error) {
	var ln net.Listener
	err := h.Do(func() error {
		var err error
		ln, err = net.Listen(network, address)
		return err
	})
	return ln, err
}

// Unsupported says whether err means that this process may not make or enter
// namespaces, as opposed to a mistake.
func Unsupported(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EACCES)
}
