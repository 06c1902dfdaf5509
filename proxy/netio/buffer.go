package netio

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
)

// BufferSize is the size of a pooled buffer: one TLS record, and above the
// size of nearly all message heads (16 KiB).
const BufferSize = 16 << 10

// WideSize is what a wide buffer holds (64 KiB): of a large body, as much as one system call moves.
const WideSize = maxChunk

// maxWide bounds the wide buffers that are in use at the same time, to 4 MiB for the process: they spare
// time, so whoever gets none does with BufferSize.
const maxWide = 64

// ErrBufferFull is returned by Fill when the buffer holds as many unread bytes as its limit allows.
var ErrBufferFull = errors.New("buffer full")

var (
	pool     = sync.Pool{New: func() any { return new([BufferSize]byte) }}
	widePool = sync.Pool{New: func() any { return new([WideSize]byte) }}
	wideUsed atomic.Int32
)

// Get takes a pooled buffer, for output; its content is undefined.
func Get() *[BufferSize]byte { return pool.Get().(*[BufferSize]byte) }

// Put gives a buffer back to the pool.
func Put(b *[BufferSize]byte) { pool.Put(b) }

// Buffer is a queue of bytes read from a connection. The zero value is empty,
// holds no memory and is limited to BufferSize. It is not safe for concurrent use.
type Buffer struct {
	buf   []byte // nil or a whole pooled array, or a larger slice
	r, w  int    // buf[r:w] is unread
	limit int32  // 0: BufferSize
	want  bool   // see SetWide
	wide  bool   // buf is of widePool
}

// SetLimit bounds how far Fill may grow the buffer, in bytes. Below BufferSize it has no effect.
func (b *Buffer) SetLimit(n int) { b.limit = int32(min(n, math.MaxInt32)) }

// SetWide says whether the memory that the buffer takes next, or has while nothing in it is unread, should be of WideSize: for the
// bulk of a body that comes faster than it is read. What the buffer holds stays where it is.
func (b *Buffer) SetWide(wide bool) {
	b.want = wide
	if b.buf != nil && b.r == b.w && b.wide != wide {
		b.Release()
	}
}

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
	switch {
	case b.wide:
		widePool.Put((*[WideSize]byte)(b.buf))
		wideUsed.Add(-1)
	case len(b.buf) == BufferSize:
		pool.Put((*[BufferSize]byte)(b.buf))
	}
	b.buf, b.r, b.w, b.wide = nil, 0, 0, false
}

// Free returns the room behind the unread bytes, after making some if there is
// none: by taking memory, moving the unread bytes to the front, or growing. Nil: the limit is reached.
// Bytes put there count after Added.
func (b *Buffer) Free() []byte {
	switch {
	case b.buf == nil:
		b.get()
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

// get takes memory.
func (b *Buffer) get() {
	if b.want {
		if wideUsed.Add(1) <= maxWide {
			b.buf, b.wide = widePool.Get().(*[WideSize]byte)[:], true
			return
		}
		wideUsed.Add(-1)
	}
	b.buf = pool.Get().(*[BufferSize]byte)[:]
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
	n := min(2*len(b.buf), int(b.limit))
	if n <= len(b.buf) {
		return false
	}
	next := make([]byte, n)
	w := copy(next, b.buf[b.r:b.w])
	b.Release()
	b.buf, b.w = next, w
	return true
}

// Replace drops what b holds and moves what src holds into it, with its memory; b keeps its own limit. Wide memory
// does not count any more then, and is the collector's: only who asked for it is trusted to give it back.
func (b *Buffer) Replace(src *Buffer) {
	b.Release()
	if src.wide {
		wideUsed.Add(-1)
	}
	b.buf, b.r, b.w = src.buf, src.r, src.w
	src.buf, src.r, src.w, src.wide = nil, 0, 0, false
}

// take moves what src holds into b, without copying if b holds nothing.
func (b *Buffer) take(src *Buffer) error {
	if b.Len() == 0 {
		b.Replace(src)
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
