package http2

import (
	"slices"
	"time"

	msg "weft.mesh/weft/proxy/stream"
)

// Join implements [msg.Awaiter].
func (s *clientStream) Join(srv msg.Server) bool {
	d, ok := srv.(*serverStream)
	if ok {
		s.down, s.turn = d, d.turn
	}
	return ok
}

// Await implements [msg.Awaiter].
func (s *clientStream) Await(resume func()) bool {
	d, c := s.down, s.c
	if d == nil || !d.turn.on() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.headDone || len(s.interims) > 0 || s.dead() != nil || !s.localEnd {
		return false
	}
	if !s.deadline.IsZero() {
		if !time.Now().Before(s.deadline) {
			return false
		}
		c.arm(s.deadline)
	}
	d.c.server.workers.Add(1)
	d.turn.parked = true
	d.turn, s.turn = nil, nil
	s.resume = resume
	return true
}

// queue notes a stream whose exchange can go on. mu is held.
func (cc *ClientConn) queue(s *clientStream) {
	if !s.queued {
		s.queued = true
		cc.ready = append(cc.ready, s)
	}
}

// next takes the first of the queue. mu is held.
func (cc *ClientConn) next() *clientStream {
	if cc.readyAt == len(cc.ready) {
		return nil
	}
	s := cc.ready[cc.readyAt]
	cc.ready[cc.readyAt] = nil
	if cc.readyAt++; cc.readyAt == len(cc.ready) {
		cc.ready, cc.readyAt = cc.ready[:0], 0
	}
	s.queued = false
	return s
}

// resumeAll goes on with the exchanges whose response has come: here if it is whole, else,
// as it will have to be waited for, on a goroutine of its own.
func (cc *ClientConn) resumeAll(t *turn) {
	t.batch = t.batch[:0]
	cc.mu.Lock()
	for s := cc.next(); s != nil; s = cc.next() {
		t.batch = append(t.batch, resumed{s, s.taken(), s.remoteEnd || s.dead() != nil})
	}
	cc.mu.Unlock()
	for t.at = 0; t.at < len(t.batch); {
		if r := t.take(); r.whole && !t.passed {
			r.s.carryOn(t, r.f)
		} else {
			go r.s.carryOn(nil, r.f)
		}
	}
}

// take takes the next exchange of the batch.
func (t *turn) take() resumed {
	r := t.batch[t.at]
	t.batch[t.at] = resumed{}
	t.at++
	return r
}

// handOn lets others go on with what is left of the batch, because this goroutine is going to wait.
func (t *turn) handOn() {
	for t.at < len(t.batch) {
		r := t.take()
		go r.s.carryOn(nil, r.f)
	}
}

// resumed is an exchange that a reader goes on with.
type resumed struct {
	s     *clientStream
	f     func()
	whole bool // its response is: nothing will have to be waited for
}

// resumeRest goes on with what is queued when nobody reads any more.
func (cc *ClientConn) resumeRest() {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	for s := cc.next(); s != nil; s = cc.next() {
		go s.carryOn(nil, s.taken())
	}
}

// resumeAside goes on with one exchange: its time is over, or the connection has failed. mu is held.
func (cc *ClientConn) resumeAside(s *clientStream) {
	if s.queued {
		s.queued = false
		i := slices.Index(cc.ready, s)
		cc.ready = slices.Delete(cc.ready, i, i+1)
	}
	go s.carryOn(nil, s.taken())
}

// taken takes what Await was given. mu is held.
func (s *clientStream) taken() func() {
	f := s.resume
	s.resume = nil
	return f
}

// carryOn runs the rest of an exchange, up to its end or its next Await. The goroutine without a turn is
// one of the downstream connection's workers, which waits for it.
func (s *clientStream) carryOn(t *turn, f func()) {
	d := s.down
	d.turn, s.turn = t, t
	if t != nil {
		t.parked = false
	}
	f()
	if t != nil && t.parked {
		return
	}
	sc := d.c.server
	sc.mu.Lock()
	sc.close(d)
	sc.mu.Unlock()
	sc.workers.Done()
}
