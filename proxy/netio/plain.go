package netio

import (
	"io"
	"time"
)

// plainFill is Fill for connections without a socket.
func (c *Conn) plainFill(b *Buffer) error {
	room := b.Free()
	if room == nil {
		return ErrBufferFull
	}
	n, err := c.plainRead(room)
	b.Added(n)
	if b.Len() == 0 {
		b.Release()
	}
	return err
}

func (c *Conn) plainRead(p []byte) (int, error) {
	c.plain.Lock()
	defer c.plain.Unlock()
	return c.plainReadLocked(p)
}

func (c *Conn) plainReadLocked(p []byte) (n int, err error) {
	for n == 0 && err == nil {
		if t := c.tls.Load(); t != nil {
			n, err = t.session.(*library).Read(p) // records need a socket
		} else {
			n, err = c.nc.Read(p)
		}
	}
	c.in.Add(uint64(n))
	if n > 0 {
		return n, nil // an error will come again
	}
	return 0, err
}

// plainGone looks for the end by reading with a deadline that is about to pass; a byte that comes
// is kept for the next read. If somebody reads, they will find the end.
func (c *Conn) plainGone() bool {
	if !c.plain.TryLock() {
		return false
	}
	defer c.plain.Unlock()
	if c.peek.Len() > 0 {
		return false
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(time.Millisecond))
	n, err := c.plainReadLocked(c.peek.Free()[:1])
	due := time.Time{}
	if d := c.readDue.Load(); d != 0 {
		due = time.Unix(0, d)
	}
	_ = c.nc.SetReadDeadline(due)
	c.peek.Added(n)
	if n == 0 {
		c.peek.Release()
	}
	return err != nil && (err == io.EOF || !IsTimeout(err))
}
