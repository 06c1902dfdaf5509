package http2

import "weft.mesh/weft/proxy/netio"

// smallBody is the size of the piece of memory that a stream keeps for itself: most messages of unary calls
// fit, and a pooled buffer for each stream would be 16 KiB of memory for some hundred bytes.
const smallBody = 1 << 10

// recv is a queue of received body bytes, in small first and then in pooled buffers.
type recv struct {
	bufs  [][]byte
	r, w  int    // bufs[0][r:] … bufs[last][:w] is unread
	lent  int    // bytes at r that were handed out and are dropped by the next call
	size  int    // unread bytes, those handed out included
	keep  bool   // what was read stays in memory: somebody holds the whole
	small []byte // made when first needed, and kept
}

func (q *recv) len() int { return q.size - q.lent }

// put copies p into the queue.
func (q *recv) put(p []byte) {
	q.size += len(p)
	for len(p) > 0 {
		if last := len(q.bufs) - 1; last < 0 || q.w == len(q.bufs[last]) {
			q.more(len(p))
		}
		n := copy(q.bufs[len(q.bufs)-1][q.w:], p)
		q.w += n
		p = p[n:]
	}
}

// more appends a buffer for what comes next, n bytes or more.
func (q *recv) more(n int) {
	if len(q.bufs) == 1 && q.r == 0 && len(q.bufs[0]) == smallBody {
		b := netio.Get()[:] // all stays in one piece, see hold
		copy(b, q.bufs[0][:q.w])
		q.bufs[0] = b
		return
	}
	q.w = 0
	if len(q.bufs) > 0 || n > smallBody {
		if len(q.bufs) == 0 {
			q.r, q.lent = 0, 0
		}
		q.bufs = append(q.bufs, netio.Get()[:])
		return
	}
	q.r, q.lent = 0, 0
	if q.small == nil {
		q.small = make([]byte, smallBody)
	}
	q.bufs = append(q.bufs, q.small)
}

// next hands out the first run of bytes, valid until the next call of next or drop.
func (q *recv) next() []byte {
	q.back()
	if len(q.bufs) == 0 {
		return nil
	}
	end := len(q.bufs[0])
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
	q.size -= q.lent
	q.lent = 0
	if q.keep {
		return
	}
	if q.r == len(q.bufs[0]) || len(q.bufs) == 1 && q.r == q.w {
		q.release(q.bufs[0])
		n := copy(q.bufs, q.bufs[1:])
		q.bufs[n] = nil
		q.bufs = q.bufs[:n]
		q.r = 0
	}
}

func (q *recv) release(b []byte) {
	if len(b) == netio.BufferSize {
		netio.Put((*[netio.BufferSize]byte)(b))
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
		q.release(b)
		q.bufs[i] = nil
	}
	*q = recv{bufs: q.bufs[:0], small: q.small}
	return n
}
