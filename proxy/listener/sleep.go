package listener

import (
	"time"

	"weft.mesh/weft/proxy/netio"
)

// Owner is who has given a connection to an [HTTPServer].
type Owner interface {
	// Ended is told once that the connection has.
	Ended(error)
	// Sleep gives the connection up until there is something to read: then again is called with what there is of it, on a goroutine of its own. With nil it
	// has ended: due (zero: never) has passed, or it was cut, drained or lost. False: it cannot sleep.
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
	// Whoever cut it or had it drain a moment ago has not found it asleep.
	if c.ctx.Err() != nil {
		c.drop()
	} else if c.drains() {
		c.hasten(c.m.drainBy())
	}
	return true
}

// drains tells whether the connection is to end when it has idled for a little.
func (c *conn) drains() bool {
	select {
	case <-c.ctx.Draining():
		return true
	default:
		return false
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
	if t := nc.Socket(); t != nil {
		c.m.keepAlive(t)
	}
	c.nc.Store(nc)
	if c.ctx.Err() != nil { // whoever cut it has found it neither asleep nor awake
		_ = nc.Close()
	}
	c.goOn(nc)
}

// Over implements netio.Sleeper.
func (c *conn) Over(err error) {
	if err != nil {
		c.m.set.Log.Warn("an idle connection is lost: it could not be taken up again", "listener", c.info.Listener, "remote", c.info.Remote.String(), "cause", err)
	}
	c.goOn(nil)
}

func (c *conn) goOn(nc *netio.Conn) {
	again := c.again
	c.again = nil
	again(nc)
}

// drop ends the connection if it sleeps.
func (c *conn) drop() {
	if n := c.bed.Load(); n != 0 {
		c.m.set.Lot.Drop(n, c)
	}
}

// hasten ends the connection, if it sleeps, at a time. It is not woken for that.
func (c *conn) hasten(by time.Time) {
	if n := c.bed.Load(); n != 0 {
		c.m.set.Lot.Hasten(n, c, by)
	}
}

// drainBy is when an idle connection that is told now to drain may be ended.
func (m *Manager) drainBy() time.Time { return time.Now().Add(m.set.DrainIdle()) }

// drainSleepers tells those who sleep, who do not watch their drain signal, that it was given.
func (m *Manager) drainSleepers() {
	by := m.drainBy() // one for all: the lot looks once
	m.conns.mu.Lock()
	defer m.conns.mu.Unlock()
	for c := range m.conns.m {
		if c.bed.Load() != 0 && c.drains() { // its goroutine may still be setting up who does not sleep
			c.hasten(by)
		}
	}
}
