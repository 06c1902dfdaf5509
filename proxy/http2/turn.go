package http2

import "errors"

// turn is the right to read a connection. Whoever has it also runs, on its own stack, what becomes
// possible by what it reads: the handlers of requests that have come whole, and the second half
// of exchanges whose response has ([clientStream.Await]). So in the steady state
// a unary call wakes nobody: the reader of the client's connection takes it to the upstream's
// output, and the reader of the upstream's connection takes the answer to the client's.
//
// What runs so must not wait. Whoever has to passes the turn on first: another
// goroutine goes on reading, and this one is an ordinary one from then on. A turn
// is passed at most once; its fields belong to the goroutine that has, or had, it.
type turn struct {
	c      *conn
	passed bool
	parked bool    // the exchange that ran waits for its upstream, and belongs to somebody else now
	dirty  []*conn // have output of exchanges that ran in this turn
	batch  []resumed
	at     int // of batch, what is before it is taken
}

// errPassed ends the frame loop of a goroutine that has passed its turn on.
var errPassed = errors.New("somebody else reads now")

// on tells whether t is a turn and still has the right to read. It may be nil.
func (t *turn) on() bool { return t != nil && !t.passed }

// mark notes that c has output, which flush sends. c.mu is held.
func (t *turn) mark(c *conn) {
	if c.dirty == t || len(c.wbuf) == 0 {
		return
	}
	c.dirty = t
	t.dirty = append(t.dirty, c)
}

// flush sends what the exchanges of this turn have appended to other connections. No lock is held.
func (t *turn) flush() {
	for i, c := range t.dirty {
		t.dirty[i] = nil
		c.mu.Lock()
		if c.dirty == t {
			c.dirty = nil
		}
		if c.client != nil && c.canWriteNow {
			c.flush(true)
		} else {
			c.flushAside()
		}
		c.mu.Unlock()
	}
	t.dirty = t.dirty[:0]
}

// pass lets another goroutine read. No lock is held.
func (t *turn) pass() {
	if !t.on() {
		return
	}
	t.passed = true
	t.flush()
	t.handOn()
	t.c.readElsewhere()
}

// readElsewhere starts a goroutine that goes on reading.
func (c *conn) readElsewhere() {
	next := &turn{c: c}
	if c.server != nil {
		c.server.readElsewhere(next)
		return
	}
	go c.client.read(next)
}

// work runs what the frames that were read have made possible, then sends what came of it. It
// ends early when the turn was passed on.
func (c *conn) work(t *turn) error {
	if c.server != nil {
		c.server.runAll(t)
	} else {
		c.client.resumeAll(t)
	}
	if t.passed {
		return errPassed
	}
	t.flush()
	c.mu.Lock()
	err := c.err
	c.flushAside()
	c.mu.Unlock()
	return err
}
