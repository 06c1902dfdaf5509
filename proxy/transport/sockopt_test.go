package transport_test

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var errNotPermitted error = syscall.EPERM

// sockopt reads an option of a socket.
func sockopt(t *testing.T, c *net.TCPConn, name string) int {
	t.Helper()
	opts := map[string][2]int{
		"mark": {unix.SOL_SOCKET, unix.SO_MARK}, "keepalive": {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		"idle": {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, "interval": {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, "count": {unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	}
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var v int
	if cerr := rc.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), opts[name][0], opts[name][1]) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return v
}
