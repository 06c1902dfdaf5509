package stream

import (
	"context"
	"sync"
	"time"
)

// ConnContext is the context of one connection, with its drain signal. It is what context.WithCancel and
// WithValue would make of several objects and a map, in one: most connections idle, and there are many. It does not end
// with its parent, from which it has values and the deadline only: whoever ends the parent cancels it. It may not be copied.
type ConnContext struct {
	parent context.Context
	drain  <-chan struct{}

	mu sync.Mutex
	// mu protects the following.
	err   error
	done  chan struct{} // made when somebody asks
	after *afterFunc    // called when it ends
}

// afterFunc is one function of ConnContext.AfterFunc.
type afterFunc struct {
	f    func()
	next *afterFunc
	of   *ConnContext
}

// Init sets the parent; it comes before everything else.
func (c *ConnContext) Init(parent context.Context) { c.parent = parent }

// SetDrain sets the drain signal, before others get the context: ch is closed when the connection should end after what it is doing
// (Connection: close, GOAWAY), because the proxy or its filter chain goes away. When time is up, the context itself ends.
func (c *ConnContext) SetDrain(ch <-chan struct{}) { c.drain = ch }

// Draining is what SetDrain was told; nil: nothing.
func (c *ConnContext) Draining() <-chan struct{} { return c.drain }

// Cancel ends the context. Further calls do nothing.
func (c *ConnContext) Cancel() {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = context.Canceled
	if c.done != nil {
		close(c.done)
	}
	list := c.after
	c.after = nil
	c.mu.Unlock()
	for ; list != nil; list = list.next {
		go list.f()
	}
}

// AfterFunc is [context.AfterFunc], which calls it for contexts that are made of this one.
func (c *ConnContext) AfterFunc(f func()) (stop func() bool) {
	a := &afterFunc{f: f, of: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
	} else {
		a.next = c.after
		c.after = a
	}
	return a.stop
}

// stop takes a out; false: it was called, or taken out before.
func (a *afterFunc) stop() bool {
	c := a.of
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := &c.after; *p != nil; p = &(*p).next {
		if *p == a {
			*p = a.next
			return true
		}
	}
	return false
}

// Done implements [context.Context].
func (c *ConnContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	return c.done
}

// Err implements [context.Context].
func (c *ConnContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Deadline implements [context.Context].
func (c *ConnContext) Deadline() (time.Time, bool) { return c.parent.Deadline() }

// Value implements [context.Context].
func (c *ConnContext) Value(key any) any {
	if key == (drainKey{}) {
		return c.drain
	}
	return c.parent.Value(key)
}

// AfterFunc is [context.AfterFunc], without the objects that it makes where ctx can do better.
func AfterFunc(ctx context.Context, f func()) (stop func() bool) {
	if a, ok := ctx.(interface{ AfterFunc(func()) func() bool }); ok {
		return a.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}
