package http1

import (
	"io"
	"time"

	"weft.mesh/weft/proxy/netio"
)

// How a server's connection waits for its next request: with a goroutine, then parked or asleep, until it comes, drains or has idled for too long.

// await waits for the first byte of a request, holding no memory. io.EOF: an orderly end.
func (sc *serverConn) await() error {
	sc.first = time.Time{}
	for {
		if n := leadingCRLF(sc.in.head.Bytes()); n > 0 {
			sc.in.head.Consume(n)
		}
		if sc.in.head.Len() > 0 {
			return nil
		}
		if err := sc.awaitFill(); err != nil {
			return err
		}
	}
}

func (sc *serverConn) awaitFill() error {
	if sc.armed && sc.rough() && !sc.wasParked && sc.served != 1 {
		sc.busy = true // when the deadline comes it is seen that it was not idle
	} else {
		now := sc.now()
		if sc.wasParked {
			sc.wasParked, sc.looked = false, sc.served
			sc.used = sc.used || sc.served > 0 && now.Sub(sc.idleSince) < sc.o.ParkAfter
		} else {
			sc.idleSince = now
		}
		sc.parkAt = now.Sub(sc.born) + sc.parkStep()
		sc.armIdle(now)
		sc.armed, sc.busy = true, false
	}
	sc.setIdle(true)
	for {
		if by := sc.draining.Load(); by != 0 && sc.drained(by) {
			sc.endIdle()
			return io.EOF
		}
		err := sc.c.Fill(&sc.in.head)
		if err == nil {
			sc.endIdle()
			return nil
		}
		if !netio.IsTimeout(err) {
			sc.endIdle()
			return idleEnd(err)
		}
		if sc.draining.Load() != 0 {
			continue
		}
		now := sc.now()
		sc.used = sc.used || sc.served-sc.looked > 1 // one alone may be all that it came for
		sc.looked = sc.served
		if sc.busy {
			sc.busy = false
			sc.idleSince, sc.parkAt = now, now.Sub(sc.born)+sc.parkStep()
		}
		if d := sc.o.IdleTimeout; d > 0 && !sc.idleSince.Add(d).After(now) {
			sc.endIdle()
			return io.EOF
		}
		if sc.parks() && sc.parkAt <= now.Sub(sc.born) {
			if sc.park() {
				return errParked
			}
			sc.noPark = true
		}
		sc.setDue(sc.idleDue())
		sc.armed = true
	}
}

// rough tells that it is enough to know to within ParkAfter since when a connection idles. Then the clock need not be read for
// each request: a connection that was used between two looks is no idle one.
func (sc *serverConn) rough() bool {
	return sc.parks() && (sc.o.IdleTimeout <= 0 || sc.o.IdleTimeout >= 20*sc.o.ParkAfter)
}

// parkStep is when to look next whether to park. Whoever was busy then is found to idle one step later at the earliest.
func (sc *serverConn) parkStep() time.Duration {
	after := sc.o.ParkAfter
	if !sc.used && sc.served > 0 { // who has asked nothing yet is not to be drained before FirstRequestGrace, asleep or not
		after /= haste
	}
	if sc.rough() {
		return after / 2
	}
	return after
}

// haste is by how much sooner a connection is parked that has not been seen to be used again within ParkAfter. Of many that come
// at once and then idle only a few are awake at a time, and whoever was parked too soon pays for it once.
const haste = 16

func (sc *serverConn) parks() bool { return sc.o.Park != nil && !sc.noPark }

// park hands the wait over. If it returns true, the connection may be being served again already.
func (sc *serverConn) park() bool {
	sc.setDue(noDeadline)
	var due time.Time
	if d := sc.o.IdleTimeout; d > 0 {
		due = sc.idleSince.Add(d)
	}
	sc.mu.Lock() // onDrain comes before, or meets a parked connection
	defer sc.mu.Unlock()
	if sc.draining.Load() != 0 {
		return false
	}
	if sc.o.Sleep != nil && sc.c.TLSState() == nil && sc.o.Sleep(due, Rest{sc.served, sc.used, sc.born, sc.idleSince}) {
		sc.undrain() // of a connection that is another's now
		sc.uncut()
		return true
	}
	sc.wasParked = true
	if sc.o.Park(sc.c, due, sc.run) {
		return true
	}
	sc.wasParked = false
	return false
}

// drained tells whether a connection that drains has idled for long enough. A request
// that came at the last moment is still served.
func (sc *serverConn) drained(by int64) bool {
	now, end := time.Now(), time.Unix(0, by)
	if first := sc.born.Add(FirstRequestGrace); sc.served == 0 && end.Before(first) {
		end = first
	}
	if !now.Before(end) {
		if sc.c.Quiet() {
			return true
		}
		end = now.Add(time.Second)
	}
	sc.due = noDeadline // onDrain may have set another one at the same moment
	sc.setDue(end)
	return false
}

// now is the time, for half the cost of time.Now.
func (sc *serverConn) now() time.Time { return sc.born.Add(time.Since(sc.born)) }

func (sc *serverConn) setIdle(idle bool) {
	sc.mu.Lock()
	sc.idle = idle
	sc.mu.Unlock()
}

// endIdle undoes the deadline that onDrain may have set at the same moment.
func (sc *serverConn) endIdle() {
	sc.setIdle(false)
	if sc.draining.Load() != 0 {
		sc.due = time.Unix(1, 0)
		sc.setDue(noDeadline)
	}
}

// idleEnd: however the client leaves between requests is its right.
func idleEnd(err error) error {
	if netio.IsReset(err) {
		return io.EOF
	}
	return err
}

// armIdle sets the deadline of an idle connection, but not for each request anew: when it fires early, awaitFill moves it.
func (sc *serverConn) armIdle(now time.Time) {
	due := sc.idleDue()
	if due.IsZero() || sc.due.IsZero() || sc.due.After(due) || sc.due.Before(now.Add(due.Sub(now)/2)) {
		sc.setDue(due)
	}
}

// idleDue is when to look after an idle connection: to park or to end it; zero: never.
func (sc *serverConn) idleDue() time.Time {
	due := noDeadline
	if d := sc.o.IdleTimeout; d > 0 {
		due = sc.idleSince.Add(d)
	}
	if park := sc.born.Add(sc.parkAt); sc.parks() && (due.IsZero() || park.Before(due)) {
		due = park
	}
	return due
}
