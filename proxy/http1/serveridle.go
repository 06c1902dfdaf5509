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
	if !sc.armed || !sc.idling.goesOn() {
		now := sc.age()
		sc.idling.begin(now)
		sc.armIdle(now)
		sc.armed = true
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
		switch sc.idling.look(sc.age()) {
		case end:
			sc.endIdle()
			return io.EOF
		case putAway:
			if sc.park() {
				return errParked
			}
			sc.idling.stays = true
		}
		sc.setDue(sc.at(sc.idling.due()))
		sc.armed = true
	}
}

// park hands the wait over. If it returns true, the connection may be being served again already.
func (sc *serverConn) park() bool {
	sc.setDue(noDeadline)
	due := sc.at(sc.idling.ends())
	sc.mu.Lock() // onDrain comes before, or meets a parked connection
	defer sc.mu.Unlock()
	if sc.draining.Load() != 0 {
		return false
	}
	sc.idling.away = true
	if sc.o.Sleep != nil && sc.c.TLSState() == nil && sc.o.Sleep(due, Rest{sc.born, sc.idling.habits}) {
		sc.undrain() // of a connection that is another's now
		sc.uncut()
		return true
	}
	if sc.o.Park(sc.c, due, sc.run) {
		return true
	}
	sc.idling.away = false
	return false
}

// drained tells whether a connection that drains has idled for long enough. A request
// that came at the last moment is still served.
func (sc *serverConn) drained(by int64) bool {
	now, end := time.Now(), time.Unix(0, by)
	if first := sc.born.Add(FirstRequestGrace); sc.idling.served == 0 && end.Before(first) {
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
func (sc *serverConn) now() time.Time { return sc.born.Add(sc.age()) }

func (sc *serverConn) age() time.Duration { return time.Since(sc.born) }

// at is the time at which the connection has an age; no deadline, if never.
func (sc *serverConn) at(age time.Duration, ever bool) time.Time {
	if !ever {
		return noDeadline
	}
	return sc.born.Add(age)
}

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
func (sc *serverConn) armIdle(now time.Duration) {
	age, ever := sc.idling.due()
	due := sc.at(age, ever)
	if due.IsZero() || sc.due.IsZero() || sc.due.After(due) || sc.due.Before(sc.born.Add(now+(age-now)/2)) {
		sc.setDue(due)
	}
}
