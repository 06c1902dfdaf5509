package http2

import (
	"runtime"
	"time"

	"weft.mesh/weft/proxy/netio"
)

// maxBuffered bounds what waits to be written, in bytes: data waits for room above it.
const maxBuffered = 64 << 10

// maxControl bounds it when the peer makes us answer faster than it reads.
const maxControl = 512 << 10

// yieldFrom is with how many running streams a flush lets others run first. Yielding wakes
// another thread if there is an idle one, so it must be likely that somebody else has frames for the same write.
const yieldFrom = 4

// out returns the buffer to append frames to. mu is held.
func (c *conn) out() []byte {
	if c.wbuf == nil {
		if c.spare != nil {
			c.wbuf, c.spare = c.spare, nil
		} else {
			c.wbuf = netio.Get()[:0]
		}
	}
	return c.wbuf
}

// flush writes what has been appended. If somebody else is about to, or
// writes already, it will do it for us. With yield other goroutines may run first, so that the frames of
// streams that are just being served leave in the same write. It does not wait for the peer: what the
// kernel does not take at once is written by a goroutine of its own. (Without a socket it does wait.)
// mu is held, and released in between.
func (c *conn) flush(yield bool) {
	if c.flushing || len(c.wbuf) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	if yield && c.running >= yieldFrom {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	for rounds := 0; len(c.wbuf) > 0 && c.err == nil; rounds++ {
		if rounds == 4 || !c.writeOut() {
			go c.flushOn() // do not keep this goroutine busy for the others for ever
			return
		}
	}
	c.flushed()
}

// flushAside is flush for those who may not wait, whatever the connection is made of.
func (c *conn) flushAside() {
	switch {
	case c.canWriteNow:
		c.flush(false)
	case !c.flushing && len(c.wbuf) > 0 && c.err == nil:
		c.flushing = true
		go c.flushOn()
	}
}

// flushOn goes on with a flush, waiting for the peer; it ends when nothing is left or the connection fails.
func (c *conn) flushOn() {
	var err error
	if c.canWriteNow {
		err = c.nc.WriteKept()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.fail(err)
	}
	c.room.Broadcast()
	for len(c.wbuf) > 0 && c.err == nil {
		if !c.writeOut() {
			c.mu.Unlock()
			err := c.nc.WriteKept()
			c.mu.Lock()
			if err != nil {
				c.fail(err)
			}
			c.room.Broadcast()
		}
	}
	c.flushed()
}

// writeOut writes once. false: the kernel has not taken all. mu is held, and released in between.
func (c *conn) writeOut() (done bool) {
	b := c.wbuf
	c.wbuf = nil
	c.mu.Unlock()
	var err error
	if done = true; c.canWriteNow {
		done, err = c.nc.WriteNow(b)
	} else {
		_, err = c.nc.Write(b)
	}
	c.mu.Lock()
	if cap(b) <= 2*maxBuffered && c.spare == nil {
		c.spare = b[:0]
	}
	if err != nil {
		c.fail(err)
		return true
	}
	if done {
		c.room.Broadcast()
	}
	return done
}

// flushed: nothing waits any more, or never will leave. mu is held.
func (c *conn) flushed() {
	if c.running == 0 {
		c.idleBuffers()
	}
	c.flushing = false
	c.room.Broadcast()
	if c.leaving && len(c.wbuf) == 0 {
		c.quit()
	}
}

// idleBuffers gives memory back when nothing waits.
func (c *conn) idleBuffers() {
	if len(c.wbuf) == 0 && c.wbuf != nil {
		c.putBuffer(c.wbuf)
		c.wbuf = nil
	}
	if c.spare != nil {
		c.putBuffer(c.spare)
		c.spare = nil
	}
}

func (c *conn) putBuffer(b []byte) {
	if cap(b) == netio.BufferSize { // else it has grown, and is the collector's
		netio.Put((*[netio.BufferSize]byte)(b[:netio.BufferSize]))
	}
}

// leave ends a connection on which nothing runs, as soon as what waits is out. mu is held.
func (c *conn) leave() {
	if c.leaving || c.err != nil {
		return
	}
	c.leaving = true
	c.flushAside()
	if !c.flushing {
		c.quit()
	}
}

// quit: the last words are out. mu is held.
func (c *conn) quit() {
	if c.err != nil {
		return
	}
	if c.client != nil {
		c.fail(errClosed)
		return
	}
	c.fail(errEnded)
	go func() { _ = c.nc.CloseWrite() }() // a TLS goodbye may wait for the peer, and whoever is here may not
	// The client closes when it has read everything; wake the reader if it does not.
	_ = c.nc.SetReadDeadline(time.Now().Add(time.Second))
}
