package server

import (
	"testing"
	"testing/synctest"
	"time"
)

// What a burst left is given back when it is over, also if nothing is allocated that would make the collector run.
func TestMemoryIsGivenBackAfterABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held, live uint64 = 10 << 20, 10 << 20
		var cpu time.Duration
		given, dropped := 0, 0
		m := newMemory()
		m.drop = func() { dropped++ }
		m.held, m.cpu = func() uint64 { return held }, func() time.Duration { return cpu }
		m.give = func() { held = live; given++ }
		pass := func(d time.Duration, share float64) {
			for range int(d / lookEvery) {
				time.Sleep(lookEvery)
				cpu += time.Duration(share * float64(lookEvery))
				m.look(time.Now())
			}
		}
		m.settle(time.Now()) // after the first configuration
		for _, step := range []struct {
			name       string
			held, live uint64
			lasts      time.Duration
			cpu        float64
			want       int
			program    int // its pages
		}{
			{"nothing grew", 10 << 20, 10 << 20, time.Minute, 0, 0, 0},
			{"a little more is left alone", 13 << 20, 10 << 20, time.Minute, 0, 0, 0},
			{"a burst is not disturbed at once", 60 << 20, 10 << 20, 20 * time.Second, 0.9, 0, 0},
			{"but it is given back when it is over", 60 << 20, 10 << 20, 6 * time.Second, 0.01, 1, 1},
			{"once", 10 << 20, 10 << 20, time.Minute, 0, 0, 0},
			{"load that lasts gives back, rarely, and needs the program", 60 << 20, 10 << 20, 40 * time.Second, 0.5, 1, 0},
			{"what is in use stays, and is tried again ever more seldom", 60 << 20, 60 << 20, 10 * time.Minute, 0, 6, 1},
			{"not by one that has much to do", 60 << 20, 60 << 20, 10 * time.Minute, 0.5, 0, 0},
			{"its end is seen", 60 << 20, 10 << 20, 4 * time.Second, 0, 1, 0},
			{"once", 10 << 20, 10 << 20, 10 * time.Minute, 0, 0, 0},
		} {
			held, live = step.held, step.live
			before, programs := given, dropped
			pass(step.lasts, step.cpu)
			if got := given - before; got != step.want {
				t.Errorf("%s: given back %d times in %v, want %d", step.name, got, step.lasts, step.want)
			}
			if got := dropped - programs; got != step.program {
				t.Errorf("%s: the program's pages were given back %d times, want %d", step.name, got, step.program)
			}
		}
	})
}

// The stacks of connections that were parked are free, but nothing grows by that.
func TestStacksOfParkedConnectionsAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parked, given := uint64(0), 0
		m := newMemory()
		m.drop = func() {}
		m.held, m.cpu = func() uint64 { return 30 << 20 }, func() time.Duration { return 0 }
		m.parked, m.give = func() uint64 { return parked }, func() { given++ }
		m.settle(time.Now())
		for _, step := range []struct {
			parks uint64
			want  int
		}{{0, 1}, {100, 1}, {1000, 2}, {0, 2}, {10_000, 3}} {
			parked += step.parks
			for range 10 {
				time.Sleep(lookEvery)
				m.look(time.Now())
			}
			if given != step.want {
				t.Errorf("after %d more: given back %d times, want %d", step.parks, given, step.want)
			}
		}
	})
}

func TestWhatTheProcessHoldsIsMeasured(t *testing.T) {
	if n := residentHeap(); n < 1<<20 || n > 1<<36 {
		t.Errorf("%d bytes held", n)
	}
	if processCPU() <= 0 {
		t.Error("no CPU time used")
	}
}
