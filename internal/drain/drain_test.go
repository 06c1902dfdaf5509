package drain

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func begin(t *testing.T, g *Group) func() {
	t.Helper()
	done, ok := g.Begin()
	if !ok {
		t.Fatal("Begin refused work before draining")
	}
	return done
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestDrainOfAnIdleGroupReturnsAtOnce(t *testing.T) {
	g := New()
	begin(t, g)()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Drain(ended); err != nil {
		t.Errorf("Drain of an idle group with an ended context = %v, want nil", err)
	}
	if !isClosed(g.Draining()) || !isClosed(g.Idle()) || isClosed(g.Cut()) {
		t.Errorf("draining %t idle %t cut %t, want true true false", isClosed(g.Draining()), isClosed(g.Idle()), isClosed(g.Cut()))
	}
	if _, ok := g.Begin(); ok {
		t.Error("Begin accepted work after Drain")
	}
}

func TestDrainWaitsForTheLastItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New()
		for _, d := range []time.Duration{time.Second, 5 * time.Second, 3 * time.Second} {
			done := begin(t, g)
			time.AfterFunc(d, done)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got != 5*time.Second {
			t.Errorf("Drain took %v, want 5s", got)
		}
		if n := g.Active(); n != 0 {
			t.Errorf("Active() = %d after Drain, want 0", n)
		}
	})
}

func TestDrainCutsAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New()
		for _, d := range []time.Duration{time.Second, 90 * time.Second} {
			time.AfterFunc(d, begin(t, g))
		}
		polite := begin(t, g)
		go func() { // work that heeds the cut
			<-g.Cut()
			polite()
		}()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		err := g.Drain(ctx)
		var cut *CutError
		if !errors.As(err, &cut) || cut.Items != 2 {
			t.Fatalf("Drain = %v, want a CutError with 2 items", err)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain = %v, want it to wrap the context's error", err)
		}
		if got := time.Since(start); got != 30*time.Second {
			t.Errorf("cut after %v, want 30s", got)
		}
		if isClosed(g.Idle()) {
			t.Error("idle although an item runs on")
		}
		<-g.Idle()
		if got := time.Since(start); got != 90*time.Second {
			t.Errorf("idle after %v, want 90s", got)
		}
	})
}

func TestStartAnnouncesWithoutWaiting(t *testing.T) {
	g := New()
	done := begin(t, g)
	g.Start()
	g.Start()
	if !isClosed(g.Draining()) || isClosed(g.Idle()) {
		t.Errorf("draining %t idle %t, want true false", isClosed(g.Draining()), isClosed(g.Idle()))
	}
	if _, ok := g.Begin(); ok {
		t.Error("Begin accepted work after Start")
	}
	done()
	if !isClosed(g.Idle()) {
		t.Error("not idle after the last item")
	}
}

func TestSeveralDrainersAllReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New()
		time.AfterFunc(10*time.Second, begin(t, g))
		var cut atomic.Int32
		var wg sync.WaitGroup
		for _, limit := range []time.Duration{time.Second, 5 * time.Second, time.Minute} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				if g.Drain(ctx) != nil {
					cut.Add(1)
				}
			})
		}
		wg.Wait()
		if cut.Load() != 2 {
			t.Errorf("%d drains were cut, want the two with short deadlines", cut.Load())
		}
	})
}

func TestEndingAnItemTwicePanics(t *testing.T) {
	for _, draining := range []bool{false, true} {
		g := New()
		done := begin(t, g)
		if draining {
			g.Start()
		}
		done()
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("draining %t: no panic", draining)
				}
			}()
			done()
		}()
	}
}

// TestNothingBeginsAfterDrain hammers Begin while draining: after Drain returned
// nil, no item may be running.
func TestNothingBeginsAfterDrain(t *testing.T) {
	for range 200 {
		g := New()
		var running atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					done, ok := g.Begin()
					if !ok {
						return
					}
					running.Add(1)
					running.Add(-1)
					done()
				}
			})
		}
		if err := g.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := running.Load(); n != 0 {
			t.Fatalf("%d items ran after Drain returned", n)
		}
		wg.Wait()
		if n := g.Active(); n != 0 {
			t.Fatalf("Active() = %d at the end, want 0", n)
		}
	}
}

func TestBeginDoesNotAllocate(t *testing.T) {
	g := New()
	if n := testing.AllocsPerRun(1000, func() {
		done, _ := g.Begin()
		done()
	}); n != 0 {
		t.Errorf("allocs per item = %v, want 0", n)
	}
}

func BenchmarkBeginParallel(b *testing.B) {
	b.ReportAllocs()
	g := New()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if done, ok := g.Begin(); ok {
				done()
			}
		}
	})
}
