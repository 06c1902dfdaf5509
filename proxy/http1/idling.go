package http1

import "time"

// idling says when to look after a connection that waits for its next request: to put it away, parked or asleep, or to end it.
// It knows neither clock nor socket: all times are what has passed since the connection came. The zero value, with o, is a new one.
type idling struct {
	habits
	o      *ServerOptions
	looked uint32        // served at the last look
	next   time.Duration // when to look whether to put it away
	busy   bool          // requests may have come since the last look
	away   bool          // it was put away, and the wait that begins is the one that went on there
	stays  bool          // nobody takes it
}

// habits is what idling has to know of one that wakes.
type habits struct {
	served uint32        // requests so far, of which its owner tells it
	used   bool          // requests have come so soon after one another that it is worth waiting awake
	since  time.Duration // it idles, to within what rough allows
}

// goesOn tells a wait that begins that the look the last one has asked for will do. Then the clock need not be read.
func (i *idling) goesOn() bool {
	if !i.rough() || i.away || i.served == 1 {
		return false
	}
	i.busy = true
	return true
}

// begin is told of a wait.
func (i *idling) begin(now time.Duration) {
	if i.away {
		i.away, i.looked = false, i.served
		i.used = i.used || i.served > 0 && now-i.since < i.o.ParkAfter
	} else {
		i.used = i.used || i.served > 1 && now-i.since < i.o.ParkAfter
		i.since = now
	}
	i.busy, i.next = false, now+i.step()
}

type afterLook int

const (
	wait afterLook = iota // until due
	putAway
	end
)

// look tells what to do with a connection that waits, at due or at any other time.
func (i *idling) look(now time.Duration) afterLook {
	i.used = i.used || i.served-i.looked > 1 // one alone may be all that it came for
	i.looked = i.served
	if i.busy {
		i.busy = false
		i.since, i.next = now, now+i.step()
	}
	if at, ok := i.ends(); ok && at <= now {
		return end
	}
	if i.parks() && i.next <= now {
		return putAway
	}
	return wait
}

// due is when to look next; never, if not ok.
func (i *idling) due() (at time.Duration, ok bool) {
	at, ok = i.ends()
	if i.parks() && (!ok || i.next < at) {
		return i.next, true
	}
	return at, ok
}

// ends is when a connection has idled for too long; never, if not ok.
func (i *idling) ends() (at time.Duration, ok bool) {
	return i.since + i.o.IdleTimeout, i.o.IdleTimeout > 0
}

func (i *idling) parks() bool { return i.o.Park != nil && !i.stays }

// rough tells that it is enough to know to within ParkAfter since when it idles: one that was used between two looks is no idle one.
func (i *idling) rough() bool {
	return i.parks() && (i.o.IdleTimeout <= 0 || i.o.IdleTimeout >= 20*i.o.ParkAfter)
}

// step is how soon to look whether to put it away. Whoever was busy then is found to idle one step later at the earliest.
func (i *idling) step() time.Duration {
	after := i.o.ParkAfter
	if !i.used && i.served > 0 { // who has asked nothing yet is not to be drained before FirstRequestGrace, asleep or not
		after /= haste
	}
	if i.rough() {
		return after / 2
	}
	return after
}

// haste is by how much sooner a connection is put away that has not been seen to be used again within ParkAfter. Of many that come
// at once and then idle only a few are awake at a time, and whoever was put away too soon pays for it once.
const haste = 16
