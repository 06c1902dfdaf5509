// Package drain ends work in an orderly way: stop accepting, let what runs
// finish, and cut what is left at a deadline.
//
// A [Group] counts work items (connections, streams, requests). It promises
// that after Drain was called no new item begins, and that Drain returns as
// soon as the last item is done or its context ends. It does not close
// sockets: work watches [Group.Draining] (announce the end: "Connection: close",
// GOAWAY) and [Group.Cut] (give up now). Safe for concurrent use; beginning and
// ending an item is one atomic operation each and does not allocate. It starts
// no goroutine.
package drain

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// drainingBit marks a group that accepts no more work; the bits below count items.
const drainingBit = 1 << 62

// Group is a set of work items that can be drained. Make it with [New].
type Group struct {
	state atomic.Int64 // drainingBit | number of items

	draining chan struct{} // closed by the first Start
	cut      chan struct{} // closed when a Drain ran out of time
	idle     chan struct{} // closed when draining and no item is left

	startOnce, cutOnce, idleOnce sync.Once

	end func() // g.done, made once so that Begin does not allocate
}

// New returns a group that accepts work.
func New() *Group {
	g := &Group{
		draining: make(chan struct{}),
		cut:      make(chan struct{}),
		idle:     make(chan struct{}),
	}
	g.end = g.done
	return g
}

// Begin counts one more item and returns the function that ends it, which the
// caller must call exactly once. After Drain or Start it returns ok false and no
// function: refuse the work.
func (g *Group) Begin() (done func(), ok bool) {
	if g.state.Load()&drainingBit != 0 {
		return nil, false
	}
	if g.state.Add(1)&drainingBit != 0 { // draining began in between
		g.done()
		return nil, false
	}
	return g.end, true
}

func (g *Group) done() {
	switch n := g.state.Add(-1); {
	case n == drainingBit:
		g.idleOnce.Do(func() { close(g.idle) })
	case n&^drainingBit < 0 || n < 0 || n == drainingBit-1:
		panic("drain: a work item was ended twice")
	}
}

// Active returns the number of items that have begun and not ended.
func (g *Group) Active() int { return int(g.state.Load() &^ drainingBit) }

// Draining is closed when the group stops accepting work.
func (g *Group) Draining() <-chan struct{} { return g.draining }

// Cut is closed when a Drain ran out of time: work still running must end now.
func (g *Group) Cut() <-chan struct{} { return g.cut }

// Idle is closed when the group is draining and its last item has ended, be it
// in time or after the cut.
func (g *Group) Idle() <-chan struct{} { return g.idle }

// Start stops accepting work and closes Draining, without waiting. Further calls do nothing.
func (g *Group) Start() {
	g.startOnce.Do(func() {
		if g.state.Or(drainingBit) == 0 { // the value before: nothing was running
			g.idleOnce.Do(func() { close(g.idle) })
		}
		close(g.draining)
	})
}

// Drain stops accepting work and waits until every item has ended. When ctx ends
// first, it closes Cut and returns a [*CutError] that says how many items were
// still running. It does not wait for the cut items; use [Group.Idle] for that.
// It may be called more than once and from several goroutines: the first
// context to end cuts.
func (g *Group) Drain(ctx context.Context) error {
	g.Start()
	select {
	case <-g.idle:
		return nil
	default:
	}
	select {
	case <-g.idle:
		return nil
	case <-ctx.Done():
	}
	n := g.Active()
	if n == 0 {
		return nil
	}
	g.cutOnce.Do(func() { close(g.cut) })
	return &CutError{Items: n, Cause: context.Cause(ctx)}
}

// CutError says that a drain ran out of time.
type CutError struct {
	Items int   // work items that were still running
	Cause error // why the drain's context ended
}

func (e *CutError) Error() string {
	return fmt.Sprintf("drain: cut %d work items that had not finished: %v", e.Items, e.Cause)
}

func (e *CutError) Unwrap() error { return e.Cause }
