package listener

import (
	"time"

	"weft.mesh/weft/proxy/netio"
)

// Owner is who has given a connection to an [HTTPServer].
type Owner interface {
	// Ended is told once that the connection has.
	Ended(error)
	// Sleep gives the connection up until something comes of it, or due (zero: never): then again is called with what there is of it, on a
	// goroutine of its own; nil: it is lost. False: it cannot.
	Sleep(due time.Time, again func(*netio.Conn)) bool
}

var (
	_ Owner         = (*conn)(nil)
	_ netio.Sleeper = (*conn)(nil)
)

// Ended implements Owner. An error has been logged.
func (c *conn) Ended(error) { c.end() }

// Sleep implements Owner.
func (c *conn) Sleep(due time.Time, again func(*netio.Conn)) bool {
	nc, lot := c.nc.Load(), c.m.set.Lot
	if lot == nil || nc == nil {
		return false
	}
	c.again = again
	if !lot.Sleep(nc, due, c) {
		c.again = nil
		return false
	}
	if c.called() { // who called did not find it asleep, maybe
		c.rouse()
	}
	return true
}

// called tells whether the connection is to end, or to drain. Both are told to sleepers by rouse.
func (c *conn) called() bool {
	select {
	case <-c.ctx.Draining():
		return true
	default:
		return c.ctx.Err() != nil
	}
}

// Slept implements netio.Sleeper.
func (c *conn) Slept(bed int32) {
	if bed != 0 {
		nc := c.nc.Swap(nil)
		c.in.Add(nc.BytesRead())
		c.out.Add(nc.BytesWritten())
	}
	c.bed.Store(bed)
}

// Wake implements netio.Sleeper.
func (c *conn) Wake(nc *netio.Conn) {
	again := c.again
	c.again = nil
	if nc != nil {
		if t := nc.Socket(); t != nil {
			c.m.keepAlive(t)
		}
		c.nc.Store(nc)
		if c.ctx.Err() != nil {
			_ = nc.Close()
		}
	}
	again(nc)
}

// rouse wakes the connection, if it sleeps.
func (c *conn) rouse() {
	if n := c.bed.Load(); n != 0 {
		c.m.set.Lot.Rouse(n, c)
	}
}

// rouse wakes those who are to drain.
func (s *connections) rouse() {
	s.mu.Lock()
	var list []*conn
	for c := range s.m {
		if c.bed.Load() != 0 && c.called() {
			list = append(list, c)
		}
	}
	s.mu.Unlock()
	for _, c := range list {
		c.rouse()
	}
}
