package hotrestart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// network is SOCK_SEQPACKET: message boundaries are the kernel's.
const network = "unixpacket"

// maxPath is the longest path of a Unix socket (sun_path of unix(7)).
const maxPath = 107

// errPeer is a conversation that the other side's end has ended.
var errPeer = errors.New("the other process has gone")

// conn carries messages, each with at most one descriptor.
type conn struct{ c *net.UnixConn }

// send writes a message; fd < 0: without a descriptor.
func (c conn) send(m *message, fd int) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	if _, _, err = c.c.WriteMsgUnix(b, oob, nil); err != nil {
		return gone(err)
	}
	return nil
}

// receive reads a message. The descriptor, if there is one, is the caller's; -1: none.
func (c conn) receive() (*message, int, error) {
	b := make([]byte, maxMessage+1)
	oob := make([]byte, unix.CmsgSpace(4*8)) // room to see that there were too many
	n, oobn, flags, _, err := c.c.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, -1, gone(err)
	}
	fds, err := rights(oob[:oobn])
	if err == nil {
		err = whole(flags, len(fds))
	}
	var m *message
	if err == nil {
		m, err = decode(b[:n])
	}
	if err != nil {
		closeAll(fds)
		return nil, -1, err
	}
	if len(fds) == 0 {
		return m, -1, nil
	}
	return m, fds[0], nil
}

// expect receives a message without a descriptor, of one of the types.
func (c conn) expect(types ...string) (*message, error) {
	m, fd, err := c.receive()
	if err != nil {
		return nil, err
	}
	if fd >= 0 {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%q message came with a descriptor", m.Type)
	}
	for _, t := range types {
		if m.Type == t {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%q message came out of place", m.Type)
}

// whole refuses messages that the kernel cut.
func whole(flags, fds int) error {
	switch {
	case flags&unix.MSG_TRUNC != 0:
		return fmt.Errorf("message has more than %d bytes", maxMessage)
	case flags&unix.MSG_CTRUNC != 0 || fds > 1:
		return errors.New("message came with more than one descriptor")
	}
	return nil
}

// rights are the descriptors in a control message. They are close-on-exec: the runtime asks for MSG_CMSG_CLOEXEC.
func rights(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	cs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	for i := range cs {
		got, e := unix.ParseUnixRights(&cs[i])
		if e != nil {
			err = fmt.Errorf("control message: %w", e)
		}
		fds = append(fds, got...)
	}
	return fds, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// gone tells the end of the other process from other failures.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return errPeer
	}
	return err
}

// uid asks the kernel who opened the other end.
func uid(c *net.UnixConn) (id, pid int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	if e := rc.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return 0, 0, e
	}
	if err != nil {
		return 0, 0, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	return int(cred.Uid), int(cred.Pid), nil
}

// NetNS is the number of this process's network namespace.
func NetNS() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("network namespace: %w", err)
	}
	return st.Ino, nil
}

// short gives a name of a path that fits into an address of a socket.
func short(path string) (name string, release func(), err error) {
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path)), func() { _ = unix.Close(dir) }, nil
}

// until bounds what c does next by ctx and d (0: no bound).
func until(ctx context.Context, c *net.UnixConn, d time.Duration) (stop func() bool) {
	deadline := time.Time{}
	if d > 0 {
		deadline = time.Now().Add(d)
	}
	_ = c.SetDeadline(deadline)
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}
