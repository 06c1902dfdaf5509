package xdsserver

import (
	"time"

	"weft.mesh/weft/xds"
)

// Meter hears how long it takes to bring streams to what is published. Many streams call it at the same time, once or
// a few times for each snapshot: calls must neither block nor allocate.
type Meter interface {
	// Queued is how long after a snapshot was published the turn of a stream came to be told of it.
	Queued(d time.Duration)
	// Pushed is one response: how long it took to make and to hand to its connection, and the bytes of its resources.
	Pushed(typeURL string, d time.Duration, bytes int)
	// Converged is how long it took from the first change that a client had to be told of until it has answered all of it. Clients
	// that there was nothing to tell are not in it, nor is what a new one gets.
	Converged(d time.Duration)
}

// unmetered is the Meter of a server without one.
type unmetered struct{}

func (unmetered) Queued(time.Duration)              {}
func (unmetered) Pushed(string, time.Duration, int) {}
func (unmetered) Converged(time.Duration)           {}

// beginner is a Snapshot that knows when the first of the changes came that it has and the one before had not.
type beginner interface{ Began() time.Time }

// remembered is how many snapshots back a stream's lateness is told exactly. A stream that is later than that is said to be as late
// as the oldest of them.
const remembered = 64

// holder is what was published. Nothing in it changes.
type holder struct {
	s     xds.Snapshot
	seq   uint64 // 1 is the first
	at    time.Time
	began [remembered]time.Time // of this snapshot and those before it, at seq % remembered
}

// after makes the holder of the snapshot that follows; prev is nil for the first.
func (prev *holder) after(s xds.Snapshot, now time.Time) *holder {
	h := &holder{s: s, seq: 1, at: now}
	if prev != nil {
		h.seq, h.began = prev.seq+1, prev.began
	}
	began := now
	if b, ok := s.(beginner); ok && !b.Began().IsZero() {
		began = b.Began()
	}
	h.began[h.seq%remembered] = began
	return h
}

// since is when the first change came that a client does not have which has everything up to the snapshot had, one before this.
func (h *holder) since(had uint64) time.Time {
	return h.began[max(had+1, h.seq-min(h.seq, remembered)+1)%remembered]
}

// progress is how far a stream is.
type progress struct {
	seen uint64 // the newest snapshot that its turn came for
	has  uint64 // the newest that its client has; 0: none yet
	told bool   // something was sent since has
}

// turn notes that the stream's turn came while h is the newest.
func (p *progress) turn(h *holder, now time.Time, m Meter) {
	if p.seen != 0 && p.seen != h.seq {
		m.Queued(now.Sub(h.at))
	}
	p.seen = h.seq
}

// settled notes that the client has all of h.
func (p *progress) settled(h *holder, now time.Time, m Meter) {
	if p.told && p.has != 0 && p.has != h.seq {
		m.Converged(now.Sub(h.since(p.has)))
	}
	p.has, p.told = h.seq, false
}
