package http2

import "weft.mesh/weft/proxy/netio"

// tellAtOnce is how many streams of a connection that has failed end at once.
const tellAtOnce = 4

// tellStreams tells all streams that the connection has failed. Of many, which all would
// run before anybody else's next request, the most are told by a goroutine that lets others go first. Until
// they are told they only wait; whatever they ask is answered with the error. mu is held.
func (c *conn) tellStreams() {
	var later []uint32
	n := 0
	for id, s := range c.streams {
		if n++; n <= tellAtOnce {
			s.tell()
		} else {
			later = append(later, id)
		}
	}
	if later != nil {
		c.telling.Go(func() { c.tellLater(later) }) // waited for after the reader's end, which comes after this
	}
}

// tellLater tells streams, those that are still there.
func (c *conn) tellLater(ids []uint32) {
	for len(ids) > 0 {
		netio.GiveWay()
		n := min(tellAtOnce, len(ids))
		c.mu.Lock()
		for _, id := range ids[:n] {
			if s := c.streams[id]; s != nil {
				s.tell()
			}
		}
		c.mu.Unlock()
		ids = ids[n:]
	}
}

// tell wakes whoever waits for a stream whose connection has failed. mu is held.
func (s *stream) tell() {
	s.gone()
	s.cond.Broadcast()
	s.resumeAside()
}
