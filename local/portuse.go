package local

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// PortError says that a port of the machine cannot be opened.
type PortError struct {
	Name    string // of the listener: "ingress"
	Address string
	Err     error
	// Owner is who listens there, like "nginx (process 812)"; "" when it is not known:
	// the processes of other users keep it to themselves.
	Owner string
}

func (e *PortError) Error() string {
	s := fmt.Sprintf("local: open the %s port %s: %v", e.Name, e.Address, cause(e.Err))
	if e.Owner != "" {
		s += ": " + e.Owner + " has it"
	}
	return s
}

func (e *PortError) Unwrap() error { return e.Err }

// InUse tells that somebody else listens there.
func (e *PortError) InUse() bool { return errors.Is(e.Err, syscall.EADDRINUSE) }

// cause is an error without the address that it repeats.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

func portError(name, address string, err error) *PortError {
	e := &PortError{Name: name, Address: address, Err: err}
	if e.InUse() {
		if _, port, err := net.SplitHostPort(address); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				e.Owner = portOwner("/proc", uint16(n))
			}
		}
	}
	return e
}

const (
	portPatience = 1500 * time.Millisecond // for a port that is in use
	portRetry    = 50 * time.Millisecond
)

// openPort listens. A port that is in use is tried again for a little: the
// processes of a mesh that was killed a moment ago may just be ending.
func openPort(name, address string) (net.Listener, error) {
	for end := time.Now().Add(portPatience); ; time.Sleep(portRetry) {
		ln, err := net.Listen("tcp", address)
		if err == nil {
			return ln, nil
		}
		if e := portError(name, address, err); !e.InUse() || time.Now().After(end) {
			return nil, e
		}
	}
}

// portOwner finds the process that listens on a TCP port, as far as this user may know.
func portOwner(proc string, port uint16) string {
	// The thread's own view: the process's is that of its first thread, which may be at work in a pod's namespace.
	tables := filepath.Join(proc, "thread-self/net")
	inodes := append(listening(filepath.Join(tables, "tcp"), port), listening(filepath.Join(tables, "tcp6"), port)...)
	if len(inodes) == 0 {
		return ""
	}
	dirs, _ := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	for _, d := range dirs {
		fds, err := os.ReadDir(filepath.Join(d, "fd"))
		if err != nil {
			continue // another user's, or gone
		}
		for _, fd := range fds {
			to, err := os.Readlink(filepath.Join(d, "fd", fd.Name()))
			if err == nil && slices.Contains(inodes, to) {
				return processName(d)
			}
		}
	}
	return ""
}

func processName(dir string) string {
	name, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return "process " + filepath.Base(dir)
	}
	return fmt.Sprintf("%s (process %s)", bytes.TrimSpace(name), filepath.Base(dir))
}

// stateListen is TCP_LISTEN as the kernel's tables show it.
const stateListen = "0A"

// listening lists the sockets ("socket:[inode]") that listen on a port by one of the kernel's tables.
func listening(table string, port uint16) []string {
	b, err := os.ReadFile(table)
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != stateListen {
			continue
		}
		_, hexPort, _ := strings.Cut(f[1], ":")
		if p, err := hex.DecodeString(hexPort); err == nil && len(p) == 2 && uint16(p[0])<<8|uint16(p[1]) == port {
			out = append(out, "socket:["+f[9]+"]")
		}
	}
	return out
}
