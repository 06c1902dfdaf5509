package server

import (
	"context"
	"runtime"
	"runtime/debug"
	rtmetrics "runtime/metrics"
	"syscall"
	"time"
)

// memory gives back to the system what bursts took: the objects that are read at the start, and a thousand proxies
// that connect at once, need several times of what stays. The runtime gives back by itself, but slowly, and pools are
// only emptied by two collections, which a control plane that has little to do makes every two minutes.
type memory struct {
	held func() uint64  // bytes held, garbage and free ones too
	cpu  func() float64 // seconds of processor time used so far
	give func(all bool) // collects and gives back; all: what pools keep too
	gc   func(int) int  // sets after which growth is collected, in percent, and returns what was set
	come func() int     // proxies that come now, and are brought up to date

	// run only.
	percent int           // what gc was told; 0: the operator has chosen (GOGC)
	settled uint64        // held after the last time; 0 before the first
	least   uint64        // and after any: what is more than that was in use then, and may not be any more
	again   time.Duration // how long after the last time that is tried
	last    time.Time     // when that was
	busy    float64       // cpu at the last look
	grown   time.Time     // since when it holds more than that; zero: it does not
}

const (
	// lookEvery is how often it is looked at what is held, which costs a few microseconds.
	lookEvery = 2 * time.Second
	// slack, and a quarter of what was held after the last time, is how much more is left alone: as much comes and goes
	// between two collections, and giving it back would only cost two more.
	slack = 16 << 20
	// quietShare of one processor is a control plane that has little to do.
	quietShare = 0.05
	// giveEvery is how often at most memory is given back when quiet, giveBusy how long more must be held when not.
	giveEvery = 6 * time.Second
	giveBusy  = time.Minute
	// tryAgain is after how long it is tried what was in use the last time, tryMost after how many times of twice as long at most.
	tryAgain = 10 * time.Second
	tryMost  = 10 * time.Minute
	// burstGC is after which growth, in percent, is collected while a burst lasts: what it needs at most is what a machine must
	// have for us. plainGC otherwise: changes that never end grow the heap by that, and it is a machine's too.
	burstGC, plainGC = 40, 50
	// defaultGC is the runtime's, if the operator has not chosen.
	defaultGC = 100
)

func newMemory(come func() int) *memory {
	return &memory{held: heldMemory, cpu: usedCPU, give: giveBack, gc: debug.SetGCPercent, come: come}
}

func (m *memory) run(ctx context.Context) error {
	m.begin()
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			m.look(now)
		}
	}
}

// begin takes the start for a burst, unless the operator has chosen.
func (m *memory) begin() {
	m.percent = burstGC
	if was := m.gc(burstGC); was != defaultGC {
		m.percent = 0
		m.gc(was)
	}
}

// pace has growth collected sooner while a burst lasts.
func (m *memory) pace() {
	percent := plainGC
	if m.settled == 0 || m.come() > 0 {
		percent = burstGC
	}
	if m.percent != 0 && m.percent != percent {
		m.percent = percent
		m.gc(percent)
	}
}

// look gives back what a burst left, once it is over or has lasted.
func (m *memory) look(now time.Time) {
	m.pace()
	busy := m.cpu()
	calm := busy-m.busy < quietShare*lookEvery.Seconds()
	m.busy = busy
	if m.held() < m.settled+m.settled/4+slack {
		m.grown = time.Time{}
		if calm && m.settled > m.least+slack && now.Sub(m.last) >= m.again {
			m.settle(now, true)
		}
		return
	}
	if m.grown.IsZero() {
		m.grown = now
	}
	if calm && now.Sub(m.last) >= giveEvery || now.Sub(m.grown) >= giveBusy {
		m.settle(now, calm)
	}
}

// settle gives back and remembers what is left.
func (m *memory) settle(now time.Time, all bool) {
	m.give(all)
	before := m.settled
	m.settled, m.last, m.grown, m.busy = m.held(), now, time.Time{}, m.cpu()
	if m.least == 0 || m.settled < m.least {
		m.least = m.settled
	}
	if m.again = min(2*m.again, tryMost); m.again == 0 || m.settled > before+slack || m.settled+slack < before {
		m.again = tryAgain
	}
}

// giveBack collects twice to empty pools: what they keep is only in the second.
func giveBack(all bool) {
	if all {
		runtime.GC()
	}
	debug.FreeOSMemory() // collects too
}

// heldMemory is what the runtime holds of the system's memory, as it counts for GOMEMLIMIT.
func heldMemory() uint64 {
	s := [2]rtmetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	rtmetrics.Read(s[:])
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// usedCPU is what the process has used, of user and system.
func usedCPU() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
