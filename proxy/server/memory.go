package server

import (
	"context"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// quiet is how long after the last configuration change memory is given back.
const quiet = 2 * time.Second

// memory gives back to the system what bursts took: of configuration, and of traffic.
//
// Connections that idle keep no buffers, but what they had stays in pools and in the heap: those
// need two collections to empty, and a proxy that allocates nothing
// collects only every two minutes. So it is looked at every few seconds whether the process
// holds more than after the last time.
type memory struct {
	wake chan struct{}

	held   func() uint64        // bytes held, garbage and free ones too
	cpu    func() time.Duration // used by the process so far
	parked func() uint64        // how often a connection was parked: each time its goroutine's stack became free
	give   func()               // collects and returns
	drop   func()               // lets go of the program's pages
	shrunk atomic.Uint64        // times that was done after a burst of traffic

	// run only.
	settled uint64        // held after the last time
	least   uint64        // and after any: what is more than that was in use then, and may not be any more
	again   time.Duration // how long after the last time that is tried
	counted uint64        // parked then
	last    time.Time
	grown   time.Time     // since when it holds more than that; zero: it does not
	busy    time.Duration // cpu at the last look
}

func newMemory() *memory {
	return &memory{wake: make(chan struct{}, 1), held: residentHeap, cpu: processCPU, parked: func() uint64 { return 0 }, give: giveBack,
		drop: func() { dropProgramPages("/proc/self/maps") }}
}

const (
	// lookEvery is how often the memory held is looked at: a few microseconds.
	lookEvery = 2 * time.Second
	// slack is how much more than after the last time is left alone.
	slack = 4 << 20
	// quietShare of one CPU is a proxy that has next to nothing to do.
	quietShare = 0.05
	// stackSize is the stack of a goroutine that has served a request. Stacks of goroutines that have
	// ended stay with the runtime until a collection, and are not seen as growth.
	stackSize = 8 << 10
	// giveEvery is how often at most memory is given back when quiet, giveBusy how long more
	// must be held when not: it costs two collections, and faults for what is needed again.
	giveEvery = 4 * time.Second
	giveBusy  = 30 * time.Second
	// tryAgain is after how long it is tried what was in use the last time, tryMost after how many times of twice as long at most.
	tryAgain = 10 * time.Second
	tryMost  = 10 * time.Minute
)

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
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
			t.Reset(quiet)
		case <-t.C:
			m.settle(time.Now())
			m.drop()
		case now := <-look.C:
			m.look(now)
		}
	}
}

// look gives back what a burst of traffic left, once it is over or has lasted.
func (m *memory) look(now time.Time) {
	busy := m.cpu()
	used := busy - m.busy
	m.busy = busy
	stacks := (m.parked() - m.counted) * stackSize
	calm := used < time.Duration(quietShare*float64(lookEvery))
	if m.settled == 0 || m.held() < m.settled+slack && stacks < slack {
		m.grown = time.Time{}
		if calm && m.settled > m.least+slack && now.Sub(m.last) >= m.again {
			m.settle(now)
		}
		return
	}
	if m.grown.IsZero() {
		m.grown = now
	}
	if calm && now.Sub(m.last) >= giveEvery || now.Sub(m.grown) >= giveBusy {
		m.settle(now)
		m.shrunk.Add(1)
		if calm { // else they are needed
			m.drop()
		}
	}
}

// settle gives back and remembers what is left.
func (m *memory) settle(now time.Time) {
	m.give()
	before := m.settled
	m.settled, m.last, m.grown = m.held(), now, time.Time{}
	if m.least == 0 || m.settled < m.least {
		m.least = m.settled
	}
	if m.again = min(2*m.again, tryMost); m.again == 0 || m.settled > before+slack || m.settled+slack < before {
		m.again = tryAgain
	}
	m.counted = m.parked()
	m.busy = m.cpu()
}

// giveBack collects twice, because pools let go of what they hold only then, and returns
// free memory to the system.
func giveBack() {
	runtime.GC()
	debug.FreeOSMemory()
}

// residentHeap is what the runtime holds of the system's memory, as it counts for GOMEMLIMIT.
func residentHeap() uint64 {
	s := [2]metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s[:])
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

func processCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// dropProgramPages takes the pages of our own program file out of this process's
// memory. Starting and decoding configuration touch most of the program once (protobuf's descriptors above
// all), and a burst all that serves; a proxy that idles needs a fraction. The pages are clean and stay in the page cache, so what is
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
	// Concurrency is GOMAXPROCS; 0: what the CPU quota of the cgroup allows, at most two,
	// because more threads buy little for a sidecar and cost latency to the application beside it.
	Concurrency int
	// GCPercent; 0: 50. Configuration and handshakes are the only garbage, so a small heap costs nothing.
	GCPercent int
	// MemoryLimit in bytes; 0: that of the cgroup (version 1 or 2), if it has one.
	MemoryLimit uint64
}

// Tune sets the runtime's knobs and returns the memory limit that holds, 0 if there is
// none. It is for programs, not for tests.
func Tune(t Tuning) (memoryLimit uint64) {
	n := t.Concurrency
	if n <= 0 {
		n = min(runtime.GOMAXPROCS(0), 2) // the runtime has read the quota
	}
	runtime.GOMAXPROCS(n)
	if t.GCPercent <= 0 {
		t.GCPercent = 50
	}
	debug.SetGCPercent(t.GCPercent)
	limit := t.MemoryLimit
	if limit == 0 {
		limit, _ = cgroupMemory("/proc/self/cgroup", "/sys/fs/cgroup")
	}
	if limit == 0 {
		return 0
	}
	if debug.SetMemoryLimit(-1) == math.MaxInt64 { // GOMEMLIMIT, if it is set, is the operator's word
		debug.SetMemoryLimit(int64(limit / 10 * 9)) // the rest is for stacks of threads and the kernel's buffers
	}
	return limit
}
