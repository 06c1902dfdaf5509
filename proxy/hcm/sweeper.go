package hcm

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// sweepEvery is how often waiting exchanges are looked at. A timer for each
// exchange would cost more than all the rest of watching it.
const sweepEvery = 100 * time.Millisecond

// Sweeper watches over exchanges that are being forwarded: it ends those whose
// client has gone, that were idle for too long, or that ran for too long, to within 100 ms.
type Sweeper struct {
	shards [16]shard
	turn   atomic.Uint32
}

type shard struct {
	mu   sync.Mutex
	head *exchange // mu
	n    int       // mu
}

// NewSweeper makes a sweeper; it does nothing before Run.
func NewSweeper() *Sweeper { return &Sweeper{} }

// Run sweeps until ctx ends.
func (s *Sweeper) Run(ctx context.Context) error {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			s.sweep(now)
		}
	}
}

func (s *Sweeper) sweep(now time.Time) {
	for i := range s.shards {
		s.shards[i].sweep(now)
	}
}

func (h *shard) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for x := h.head; x != nil; x = x.watch.next {
		if why := x.look(now); why != notCut {
			x.cutNow(why)
		}
	}
}

// look is called with the shard's mutex held, so the exchange cannot end meanwhile.
func (x *exchange) look(now time.Time) cut {
	w := &x.watch
	if p := w.progress.Load(); p != w.seen || w.quiet.IsZero() {
		w.seen, w.quiet, w.looks = p, now, 0
	}
	w.looks++
	cfg := x.m.cfg
	// The order matters: between the two looks the upstream may have agreed to a tunnel, and the client have ended its side of that.
	if w.looks > 1 && w.waiting.Load() && x.clientLeft() && w.waiting.Load() {
		return cutGone
	}
	idle := cfg.StreamIdleTimeout
	if d := time.Duration(w.idle.Load()); d > 0 {
		idle = d
	}
	if idle > 0 && now.Sub(w.quiet) >= idle {
		return cutIdle
	}
	longest := cfg.MaxStreamDuration
	if d := time.Duration(w.longest.Load()); d > 0 {
		longest = d
	}
	if longest > 0 && now.Sub(x.info.Start) >= longest {
		return cutDuration
	}
	return notCut
}

func (x *exchange) clientLeft() bool {
	if done := x.srv.Done(); done != nil {
		select {
		case <-done:
			return true
		default:
		}
	}
	return x.srv.Gone()
}

// startWatch puts the exchange under the sweeper's eyes; further calls do nothing.
func (x *exchange) startWatch() {
	s := x.m.deps.Sweeper
	if s == nil || x.watch.on {
		return
	}
	w := &x.watch
	w.on = true
	w.shard = &s.shards[s.turn.Add(1)%uint32(len(s.shards))]
	if !w.waiting.Load() {
		w.waiting.Store(true)
	}
	w.shard.mu.Lock()
	defer w.shard.mu.Unlock()
	w.seen, w.quiet, w.looks = w.progress.Load(), time.Time{}, 0
	w.prev, w.next = nil, w.shard.head
	if w.next != nil {
		w.next.watch.prev = x
	}
	w.shard.head = x
	w.shard.n++
}

func (x *exchange) unwatch() {
	w := &x.watch
	if !w.on {
		return
	}
	w.shard.mu.Lock()
	if w.prev != nil {
		w.prev.watch.next = w.next
	} else {
		w.shard.head = w.next
	}
	if w.next != nil {
		w.next.watch.prev = w.prev
	}
	w.shard.n--
	w.shard.mu.Unlock()
	w.on, w.next, w.prev, w.shard = false, nil, nil, nil
}

// Active is the number of exchanges being watched.
func (s *Sweeper) Active() int {
	n := 0
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		n += h.n
		h.mu.Unlock()
	}
	return n
}
