package http2

import "time"

// restAfter is how long a connection must have no streams before it gives back what it keeps
// for the next ones. It looks only every restAfter, so it may be twice as long.
const restAfter = 2 * time.Second

// maxFree is how many streams a connection keeps for itself. A pool for all would do, but streams begin on one
// processor and end on another, which makes pools search.
const maxFree = 16

// mayRest is called when the last stream has ended. mu is held.
func (c *conn) mayRest() {
	c.quiet = true
	if c.client != nil && !c.flushing {
		c.idleBuffers()
	}
	if c.resting || c.err != nil {
		return
	}
	c.resting = true
	if c.rest == nil {
		c.rest = time.AfterFunc(restAfter, c.atRest)
	} else {
		c.rest.Reset(restAfter)
	}
}

// atRest gives memory back if nothing has run since it was armed, and looks again later if something has.
func (c *conn) atRest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
	case c.running > 0: // the last one to end arms it again
		c.resting = false
	case !c.quiet:
		c.quiet = true
		c.rest.Reset(restAfter)
	default:
		c.resting = false
		c.release()
	}
}

// release gives back what is of use only while streams run. mu is held.
func (c *conn) release() {
	if !c.flushing {
		c.idleBuffers()
	}
	if c.server != nil {
		c.server.release()
	} else {
		c.client.release()
	}
}

func (sc *serverConn) release() {
	for _, s := range sc.free {
		serverStreams.Put(s)
	}
	sc.free = nil
	for _, w := range sc.idlers {
		close(w)
	}
	sc.idlers = nil
}

func (cc *ClientConn) release() {
	for _, s := range cc.free {
		clientStreams.Put(s)
	}
	cc.free = nil
}

// newStream takes a stream. mu is held.
func (sc *serverConn) newStream() *serverStream {
	sc.quiet = false
	if n := len(sc.free); n > 0 {
		s := sc.free[n-1]
		sc.free[n-1] = nil
		sc.free = sc.free[:n-1]
		return s
	}
	return serverStreams.Get().(*serverStream)
}

func (cc *ClientConn) newStream() *clientStream {
	cc.quiet = false
	if n := len(cc.free); n > 0 {
		s := cc.free[n-1]
		cc.free[n-1] = nil
		cc.free = cc.free[:n-1]
		return s
	}
	return clientStreams.Get().(*clientStream)
}
