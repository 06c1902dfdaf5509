package server

import (
	"testing"
	"time"
)

func TestMemoryIsGivenBackAfterABurst(t *testing.T) {
	now, held, used, given, pools := time.Unix(1000, 0), uint64(100<<20), 0.0, 0, 0
	m := &memory{held: func() uint64 { return held }, cpu: func() float64 { return used }, give: func(all bool) {
		if given++; all {
			pools++
		}
		held = 100 << 20
	}, come: func() int { return 0 }}
	look := func(share float64, want int, why string) {
		t.Helper()
		now, used = now.Add(lookEvery), used+share*lookEvery.Seconds()
		m.look(now)
		if given != want {
			t.Fatalf("%s: given back %d times, want %d", why, given, want)
		}
	}
	look(1, 0, "it starts")
	look(0.01, 1, "it has started")
	held += 30 << 20
	look(0.01, 1, "what comes between two collections")
	held += 200 << 20
	look(1, 1, "a burst")
	look(0.01, 2, "after the burst")
	held += 200 << 20
	look(0.01, 2, "so soon after that")
	look(1, 2, "and a long one")
	m.grown = now
	for range int(giveBusy/lookEvery) - 1 {
		look(1, 2, "a long burst")
	}
	look(1, 3, "a burst that has lasted")
	look(1, 3, "nothing more is held")
	if pools != 2 {
		t.Errorf("pools were emptied %d times, want only when there was little to do", pools)
	}
}

// What was in use when memory was given back is tried again, ever more seldom, also if nothing grows after that.
func TestMemoryThatWasInUseIsTriedAgain(t *testing.T) {
	now, held, inUse, given := time.Unix(1000, 0), uint64(100<<20), uint64(0), 0
	m := &memory{held: func() uint64 { return held }, cpu: func() float64 { return 0 }, give: func(bool) { given++; held = 100<<20 + inUse }, come: func() int { return 0 }}
	look := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(lookEvery)
			m.look(now)
		}
	}
	look(lookEvery)
	if look(10 * time.Minute); given != 1 {
		t.Fatalf("given back %d times though nothing is held", given)
	}
	held, inUse = held+150<<20, 100<<20
	look(10 * time.Minute)
	if tries := given - 1; tries < 5 || tries > 8 {
		t.Errorf("%d tries in ten minutes", tries)
	}
	inUse = 0
	look(tryMost + lookEvery)
	if held != 100<<20 {
		t.Errorf("%d MB are held when they are not in use any more", held>>20)
	}
	was := given
	if look(time.Hour); given != was {
		t.Errorf("given back %d times more though nothing is held", given-was)
	}
}

func TestABurstIsCollectedSooner(t *testing.T) {
	for _, operator := range []int{defaultGC, 200} {
		percent, held, coming, now := operator, uint64(100<<20), 0, time.Unix(1000, 0)
		m := &memory{held: func() uint64 { return held }, cpu: func() float64 { return 0 }, give: func(bool) {}, come: func() int { return coming },
			gc: func(p int) int { was := percent; percent = p; return was }}
		want := func(p int, when string) {
			t.Helper()
			if operator != defaultGC {
				p = operator
			}
			if percent != p {
				t.Errorf("%s: %d percent, want %d", when, percent, p)
			}
		}
		look := func() { now = now.Add(lookEvery); m.look(now) }
		m.begin()
		want(burstGC, "at the start")
		look()
		want(burstGC, "before it has settled")
		look()
		want(plainGC, "settled")
		coming = 3
		look()
		want(burstGC, "while proxies come")
		coming = 0
		look()
		want(plainGC, "when all are there")
	}
}

func TestWhatTheRuntimeSaysOfMemoryAndTime(t *testing.T) {
	giveBack(true)
	if n := heldMemory(); n < 1<<20 || n > 64<<30 {
		t.Errorf("%d bytes held", n)
	}
	if s := usedCPU(); s <= 0 {
		t.Errorf("%v seconds used after two collections", s)
	}
}
