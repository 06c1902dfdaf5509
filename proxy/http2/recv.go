package http2

import "weft.mesh/weft/proxy/netio"

// recv is a queue of received body bytes in pooled buffers.
type recv struct {
	bufs []*[netio.BufferSize]byte
	r, w int  // bufs[0][r:] … bufs[last][:w] is unread
	lent int  // bytes at r that were handed out and are dropped by the next call
	keep bool // what was read stays in memory: somebody holds the whole
}

func (q *recv) len() int {
	if len(q.bufs) == 0 {
		return 0
	}
	return (len(q.bufs)-1)*netio.BufferSize + q.w - q.r - q.lent
}

// put copies p into the queue.
func (q *recv) put(p []byte) {
	for len(p) > 0 {
		if len(q.bufs) == 0 || q.w == netio.BufferSize {
			if len(q.bufs) == 0 {
				q.r, q.lent = 0, 0
			}
			q.bufs = append(q.bufs, netio.Get())
			q.w = 0
		}
		n := copy(q.bufs[len(q.bufs)-1][q.w:], p)
		q.w += n
		p = p[n:]
	}
}

// next hands out the first run of bytes, valid until the next call of next or drop.
func (q *recv) next() []byte {
	q.back()
	if len(q.bufs) == 0 {
		return nil
	}
	end := netio.BufferSize
	if len(q.bufs) == 1 {
		end = q.w
	}
	q.lent = end - q.r
	return q.bufs[0][q.r:end]
}

// back takes back what was handed out.
func (q *recv) back() {
	if q.lent == 0 {
		return
	}
	q.r += q.lent
	q.lent = 0
	if q.keep {
		return
	}
	if q.r == netio.BufferSize || len(q.bufs) == 1 && q.r == q.w {
		netio.Put(q.bufs[0])
		n := copy(q.bufs, q.bufs[1:])
		q.bufs[n] = nil
		q.bufs = q.bufs[:n]
		q.r = 0
	}
}

// hold returns all n bytes of a body, if they are in one buffer and none was
// read before the first hold; they then stay until drop.
func (q *recv) hold(n int) ([]byte, bool) {
	if !q.keep && (len(q.bufs) != 1 || q.len() != n || q.r > 0) {
		return nil, false
	}
	q.keep = true
	return q.bufs[0][:n], true
}

// drop empties the queue and returns how many bytes were never handed out. What was
// handed out last may be overwritten.
func (q *recv) drop() int {
	n := q.len()
	for i, b := range q.bufs {
		netio.Put(b)
		q.bufs[i] = nil
	}
	*q = recv{bufs: q.bufs[:0]}
	return n
}
