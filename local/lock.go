package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is the file whose lock says that a mesh runs in a state directory.
// The kernel lets go of it when the last process of the mesh is gone, however
// that came about.
const lockName = "lock"

// RunningError says that another mesh has the state directory.
type RunningError struct {
	StateDir string
	PID      int // of the weft command that started it; 0 if unknown
}

func (e *RunningError) Error() string {
	return fmt.Sprintf("local: a mesh is running already in %s (weft has process ID %d): stop it with weft down, or use another state directory", e.StateDir, e.PID)
}

// takeLock locks the state directory, making it if need be.
func takeLock(stateDir string) (*os.File, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("local: make state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(stateDir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("local: open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &RunningError{StateDir: stateDir, PID: readPID(f)}
		}
		return nil, fmt.Errorf("local: lock %s: %w", f.Name(), err)
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}

func readPID(f *os.File) int {
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	return pid
}

// Running says whether a mesh runs in the state directory, and the process ID
// of the weft command that started it.
func Running(stateDir string) (pid int, running bool) {
	f, err := os.Open(filepath.Join(stateDir, lockName))
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return readPID(f), true
	}
	return 0, false
}

// AwaitEnd waits until no mesh runs in the state directory: all its processes
// are gone then.
func AwaitEnd(ctx context.Context, stateDir string) error {
	for {
		pid, running := Running(stateDir)
		if !running {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("local: the mesh in %s (weft has process ID %d) has not ended: %w", stateDir, pid, ctx.Err())
		}
	}
}
