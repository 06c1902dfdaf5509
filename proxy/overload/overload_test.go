package overload

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// process is memory in use, garbage beside it, and what was asked of it.
type process struct{ live, garbage, collections, shrinks atomic.Int64 }

func (p *process) manager(limit uint64) *Manager {
	return New(Settings{
		MemoryLimit: limit, Memory: func() uint64 { return uint64(p.live.Load() + p.garbage.Load()) },
		Collect: func() { p.garbage.Store(0); p.collections.Add(1) }, Shrink: func() { p.shrinks.Add(1) },
	})
}

func TestActionsFollowThePressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p process
		m := p.manager(1000)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = m.Run(ctx) }()
		defer func() { cancel(); <-done }()
		for _, step := range []struct {
			name                    string
			live, garbage           int64
			shrink, stop, refuse    bool
			collections, shrinks    int64 // at least so many more
			noCollection, noShrinks bool
		}{
			{"calm", 500, 100, false, false, false, 0, 0, true, true},
			{"garbage is no pressure", 500, 490, false, false, false, 1, 0, false, true},
			{"what idles goes first", 760, 0, true, false, false, 1, 1, false, false},
			{"then requests are turned away", 860, 0, true, true, false, 1, 0, false, false},
			{"then connections", 910, 0, true, true, true, 1, 0, false, false},
			{"just below nothing changes", 880, 0, true, true, true, 0, 0, false, false},
			{"connections are taken again first", 860, 0, true, true, false, 0, 0, false, false},
			{"all is well again", 600, 0, false, false, false, 0, 0, true, true},
		} {
			c, s := p.collections.Load(), p.shrinks.Load()
			p.live.Store(step.live)
			p.garbage.Store(step.garbage)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			got := [3]bool{m.Active(ShrinkHeap), m.Active(StopRequests), m.Active(RefuseConnections)}
			if want := [3]bool{step.shrink, step.stop, step.refuse}; got != want {
				t.Errorf("%s: actions %v, want %v", step.name, got, want)
			}
			if ok := m.Begin(); ok == step.stop {
				t.Errorf("%s: a request is admitted: %t", step.name, ok)
			}
			if m.Refuse() != step.refuse {
				t.Errorf("%s: a connection is refused: %t", step.name, !step.refuse)
			}
			c, s = p.collections.Load()-c, p.shrinks.Load()-s
			if c < step.collections || step.noCollection && c > 0 || c > 3 {
				t.Errorf("%s: %d collections in 3 s", step.name, c)
			}
			if s < step.shrinks || step.noShrinks && s > 0 || s > 1 {
				t.Errorf("%s: asked %d times to let go in 3 s", step.name, s)
			}
		}
		if m.Stats().Requests.Load() == 0 || m.Stats().Connections.Load() == 0 {
			t.Error("nothing was counted")
		}
	})
}

// A burst that fills the memory between two collections is not waited for.
func TestAnEmergencyDoesNotWaitForTheNextCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p process
		m := p.manager(1000)
		p.live.Store(800)
		m.look(time.Now()) // collects
		p.live.Store(990)
		m.look(time.Now())
		if !m.Active(StopRequests) || !m.Active(RefuseConnections) || p.collections.Load() != 1 {
			t.Errorf("requests: %t, connections: %t, %d collections", m.Active(StopRequests), m.Active(RefuseConnections), p.collections.Load())
		}
	})
}

func TestACollectionThatTakesLongIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p process
		m := p.manager(1000)
		m.set.Collect = func() { time.Sleep(time.Second); p.collections.Add(1) }
		p.live.Store(800)
		for range 400 {
			m.look(time.Now())
			time.Sleep(every)
		}
		if n := p.collections.Load(); n < 3 || n > 6 {
			t.Errorf("%d collections of 1 s in 100 s, want at most one part in 20", n)
		}
	})
}

func TestRequestsAreBounded(t *testing.T) {
	m := New(Settings{MaxStreams: 2})
	if !m.Begin() || !m.Begin() || m.Begin() {
		t.Fatal("want two requests admitted and the third turned away")
	}
	m.End()
	if !m.Begin() {
		t.Error("none is admitted although one ended")
	}
	if n := m.Stats().Requests.Load(); n != 1 {
		t.Errorf("%d counted as turned away, want 1", n)
	}
	if n := testing.AllocsPerRun(100, func() { m.End(); m.Begin(); m.Refuse() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
