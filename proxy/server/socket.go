package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	connectTimeout = 5 * time.Second
	maxFile        = 1 << 20 // bytes of a file that a resource names
)

// control marks a socket.
func control(mark int) func(network, address string, c syscall.RawConn) error {
	if mark == 0 {
		return nil
	}
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) }); e != nil {
			return e
		}
		if err != nil {
			return fmt.Errorf("mark socket: %w", err)
		}
		return nil
	}
}

// canMark tries whether this process may mark sockets.
func canMark(mark int) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark) == nil
}

// dialControl connects to the control plane.
func (s *Server) dialControl(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: connectTimeout, Control: control(s.set.Mark)}
	return d.DialContext(ctx, "tcp", address)
}

// resolver asks the name servers of resolv.conf, or ours if one is set, over marked sockets.
func (s *Server) resolver() *net.Resolver {
	d := net.Dialer{Timeout: connectTimeout, Control: control(s.set.Mark)}
	if !s.set.DNSServer.IsValid() {
		return &net.Resolver{PreferGo: true, Dial: d.DialContext}
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, s.set.DNSServer.String())
	}}
}

// readFile reads a file that a resource names.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		return nil, fmt.Errorf("more than %d bytes", maxFile)
	}
	return b, err
}
