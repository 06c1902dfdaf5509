package netio

import (
	"errors"
	"sync"
)

// BufferSize is the size of a pooled buffer: one TLS record, and above the
// size of nearly all message heads (16 KiB).
const BufferSize = 16 << 10

// ErrBufferFull is returned by Fill when the buffer holds as many unread bytes as its limit allows.
var ErrBufferFull = errors.New("buffer full")

var pool = sync.Pool{New: func() any { return new([BufferSize]byte) }}

// Get takes a pooled buffer, for output; its content is undefined.
func Get() *[BufferSize]byte { return pool.Get().(*[BufferSize]byte) }

// Put gives a buffer back to the pool.
func Put(b *[BufferSize]byte) { pool.Put(b) }

// Buffer is a queue of bytes read from a connection. The zero value is empty,
// holds no memory and is limited to BufferSize. It is not safe for concurrent use.
type Buffer struct {
	buf   []byte // nil or a whole pooled array, or a larger slice
	r, w  int    // buf[r:w] is unread
	limit int    // 0: BufferSize
}

// SetLimit bounds how far Fill may grow the buffer, in bytes. Below BufferSize it has no effect.
func (b *Buffer) SetLimit(n int) { b.limit = n }

// Bytes are the unread bytes, valid until the next Fill, Consume or Release.
func (b *Buffer) Bytes() []byte { return b.buf[b.r:b.w] }

// Len is the number of unread bytes.
func (b *Buffer) Len() int { return b.w - b.r }

// Holds tells whether the buffer holds memory.
func (b *Buffer) Holds() bool { return b.buf != nil }

// Consume drops the first n unread bytes. Their memory may be overwritten by the next Fill.
func (b *Buffer) Consume(n int) {
	if n > b.w-b.r {
		panic("netio: consumed more than the buffer holds")
	}
	b.r += n
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
}

// Release drops what is unread and gives the memory back.
func (b *Buffer) Release() {
	if len(b.buf) == BufferSize {
		pool.Put((*[BufferSize]byte)(b.buf))
	}
	b.buf, b.r, b.w = nil, 0, 0
}

// Free returns the room behind the unread bytes, after making some if there is
// none: by taking memory, moving the unread bytes to the front, or growing. Nil: the limit is reached.
// Bytes put there count after Added.
func (b *Buffer) Free() []byte {
	switch {
	case b.buf == nil:
		b.buf = pool.Get().(*[BufferSize]byte)[:]
	case b.w < len(b.buf):
	case b.r > 0:
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	default:
		if !b.grow() {
			return nil
		}
	}
	return b.buf[b.w:]
}

// Added counts n bytes that were put into Free as unread.
func (b *Buffer) Added(n int) { b.w += n }

// Compact moves the unread bytes to the front.
func (b *Buffer) Compact() {
	if b.r > 0 {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	}
}

// grow doubles the buffer within its limit.
func (b *Buffer) grow() bool {
	n := min(2*len(b.buf), b.limit)
	if n <= len(b.buf) {
		return false
	}
	next := make([]byte, n)
	w := copy(next, b.buf[b.r:b.w])
	limit := b.limit
	b.Release()
	*b = Buffer{buf: next, w: w, limit: limit}
	return true
}

// take moves what src holds into b, without copying if b holds nothing.
func (b *Buffer) take(src *Buffer) error {
	if b.Len() == 0 {
		limit := b.limit
		b.Release()
		*b, *src = Buffer{buf: src.buf, r: src.r, w: src.w, limit: limit}, Buffer{limit: src.limit}
		return nil
	}
	room := b.Free()
	if room == nil {
		return ErrBufferFull
	}
	n := copy(room, src.Bytes())
	b.Added(n)
	src.Consume(n)
	if src.Len() == 0 {
		src.Release()
	}
	return nil
}
