package hcm

import (
	"sync/atomic"
	"time"
)

// times are the deadlines of forwarding. The pump sets some of them when the request is complete. Where there is no pump only the
// exchange's own goroutine changes them: it need not lock to look.
type times struct {
	began time.Time // when the request was complete
	route time.Time // deadline of the whole exchange; zero: none
	try   time.Time // deadline of this try; zero: none
}

// next is the deadline that comes first, zero if there is none.
func (t *times) next() time.Time {
	if t.route.IsZero() || !t.try.IsZero() && t.try.Before(t.route) {
		return t.try
	}
	return t.route
}

// requestComplete starts the clock of the route's time-out.
func (x *exchange) requestComplete(now time.Time) {
	if x.up.timeout <= 0 && x.up.body.pump == nil {
		x.times.began = now
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.times.began = now
	if x.up.timeout > 0 {
		x.times.route = now.Add(x.up.timeout)
		x.bound()
	}
}

// setDeadline bounds a new try by the route's time-out and the try's own.
func (x *exchange) setDeadline() {
	r := x.up.forward.Retry
	limited := r != nil && r.PerTryTimeout > 0 && !x.info.Upgrade
	if !limited && x.up.timeout <= 0 && x.times.try.IsZero() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.times.try = time.Time{}
	if limited {
		x.times.try = time.Now().Add(r.PerTryTimeout)
	}
	x.bound()
}

// tryDone lifts the try's own deadline: once there is a response to pass on, only the route's counts.
func (x *exchange) tryDone() {
	if x.times.try.IsZero() { // only this goroutine sets it
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.times.try = time.Time{}
	if x.client != nil && x.cutReason() == notCut {
		x.client.SetDeadline(x.times.route)
	}
}

// bound sets the deadline of the running upstream exchange, unless it was cut already. mu is held.
func (x *exchange) bound() {
	if d := x.times.next(); x.client != nil && x.cutReason() == notCut && !d.IsZero() {
		x.client.SetDeadline(d)
	}
}

// deadline is that of the whole exchange, zero if there is none (yet).
func (x *exchange) deadline() time.Time {
	if x.up.timeout <= 0 {
		return time.Time{}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.times.route
}

// overdue tells whether the time of the whole exchange is over.
func (x *exchange) overdue() bool {
	d := x.deadline()
	return !d.IsZero() && !time.Now().Before(d)
}

// tryTimedOut tells whether a time-out was that of the try, not of the whole exchange.
func (x *exchange) tryTimedOut() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := &x.times
	return !t.try.IsZero() && t.next().Equal(t.try)
}

// serviceTime is how long the upstream took from the end of the request to the response's head.
func (x *exchange) serviceTime() time.Duration {
	if x.up.body.pump != nil {
		x.mu.Lock()
		defer x.mu.Unlock()
	}
	if x.times.began.IsZero() {
		return time.Since(x.info.Start) // it answered before the request was complete
	}
	return time.Since(x.times.began)
}

// now is the time, to be told to others too: for half the cost of time.Now, which reads two clocks. A change of the
// system's clock is seen within a second.
func now() time.Time {
	if c := lastClock.Load(); c != nil {
		if d := time.Since(*c); d >= 0 && d < time.Second {
			return c.Add(d)
		}
	}
	t := time.Now()
	lastClock.Store(&t)
	return t
}

// lastClock is when both clocks were read last.
var lastClock atomic.Pointer[time.Time]
