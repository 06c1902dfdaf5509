package process

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Times and bounds of EndMarked.
const (
	markedPoll  = 20 * time.Millisecond // between looks
	markedKills = 50                    // looks after the grace before it gives up
	maxEnviron  = 8 << 20               // bytes of one process's environment that are read
)

// EndMarked ends every process whose environment has the entry mark
// ("NAME=value"): SIGTERM, and SIGKILL after grace or when ctx ends. It returns
// when none is left, with the number that it found at first. A program that
// drops the entry from its environment is not found. With a /proc that is not
// of our own PID namespace it does nothing: its numbers are others' here.
func EndMarked(ctx context.Context, mark string, grace time.Duration) int {
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return 0
	}
	found := signalMarked(mark, unix.SIGTERM)
	if found == 0 {
		return 0
	}
	limit, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for limit.Err() == nil {
		pause(limit)
		if signalMarked(mark, 0) == 0 {
			return found
		}
	}
	for range markedKills { // again and again: they may start others meanwhile
		if signalMarked(mark, unix.SIGKILL) == 0 {
			break
		}
		pause(context.Background())
	}
	return found
}

func pause(ctx context.Context) {
	t := time.NewTimer(markedPoll)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// signalMarked sends sig (0: nothing) to the marked processes and counts them.
func signalMarked(mark string, sig unix.Signal) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	n := 0
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		if signalIfMarked(pid, dir, mark, sig) {
			n++
		}
	}
	return n
}

// signalIfMarked holds on to the process while it looks: its number may belong
// to another one a moment later.
func signalIfMarked(pid int, dir, mark string, sig unix.Signal) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if !hasEntry(filepath.Join(dir, "environ"), mark) {
		return false
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// hasEntry reads an environment as proc(5) shows it: entries that end in zero
// bytes. It is empty for processes that have ended.
func hasEntry(path, entry string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	env, err := io.ReadAll(io.LimitReader(f, maxEnviron))
	if err != nil {
		return false
	}
	for e := range bytes.SplitSeq(env, []byte{0}) {
		if string(e) == entry {
			return true
		}
	}
	return false
}
