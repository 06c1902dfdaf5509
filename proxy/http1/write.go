package http1

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// writer collects what one message sends, so that a head and a small body leave in one write.
type writer struct {
	c *netio.Conn
	// alone tells that only one goroutine writes this message, so that mu, which costs more than a small write into memory, is
	// left alone. It is set before the first write.
	alone bool
	mu    sync.Mutex
	// mu protects the following.
	mem  *[netio.BufferSize]byte // nil when nothing is buffered
	n    int
	sent int   // how many writes of this exchange were begun
	err  error // the first failure of a write; lasting

	eager atomic.Bool // somebody waits for the answer: do not hold anything back
}

func (w *writer) reset(c *netio.Conn) {
	w.release()
	w.c, w.sent, w.err, w.alone = c, 0, nil, false
	lower(&w.eager)
}

// lower makes b false. A store costs as much as a lock, and it nearly always is.
func lower(b *atomic.Bool) {
	if b.Load() {
		b.Store(false)
	}
}

func (w *writer) lock() {
	if !w.alone {
		w.mu.Lock()
	}
}

func (w *writer) unlock() {
	if !w.alone {
		w.mu.Unlock()
	}
}

func (w *writer) tryLock() bool { return w.alone || w.mu.TryLock() }

func (w *writer) release() {
	if w.mem != nil {
		netio.Put(w.mem)
	}
	w.mem, w.n = nil, 0
}

func (w *writer) str(s string) {
	if w.mem != nil && len(s) <= len(w.mem)-w.n { // and w.err is nil
		w.n += copy(w.mem[w.n:], s)
		return
	}
	for len(s) > 0 && w.err == nil {
		n := copy(w.room(), s)
		w.n += n
		s = s[n:]
	}
}

func (w *writer) bytes(p []byte) {
	if w.mem != nil && len(p) <= len(w.mem)-w.n {
		w.n += copy(w.mem[w.n:], p)
		return
	}
	for len(p) > 0 && w.err == nil {
		n := copy(w.room(), p)
		w.n += n
		p = p[n:]
	}
}

// room is free memory; it sends what is there if all of it is used.
func (w *writer) room() []byte {
	if w.mem == nil {
		w.mem = netio.Get()
	}
	if w.n == len(w.mem) {
		w.flush()
		w.mem = netio.Get()
	}
	return w.mem[w.n:]
}

func (w *writer) int(n int64, base int) {
	var b [20]byte
	if base == 10 && n >= 0 {
		w.bytes(stream.AppendUint(b[:0], uint64(n)))
		return
	}
	w.bytes(strconv.AppendInt(b[:0], n, base))
}

// flush sends what is buffered and gives the memory back.
func (w *writer) flush() {
	if w.n > 0 && w.err == nil {
		w.sent++
		_, w.err = w.c.Write(w.mem[:w.n])
	}
	w.release()
}

// payload sends p, and tail behind it: by copying if both fit beside what is buffered, else at once without.
func (w *writer) payload(p []byte, tail string) {
	if w.err != nil {
		return
	}
	if w.n+len(p)+len(tail) <= netio.BufferSize {
		w.bytes(p)
		w.str(tail)
		return
	}
	var head []byte
	if w.n > 0 {
		head = w.mem[:w.n]
	}
	w.sent++
	w.err = w.c.WriteParts(head, p, stringBytes(tail))
	w.release()
}

// chunk sends p as one chunk.
func (w *writer) chunk(p []byte, end bool) {
	if len(p) > 0 {
		w.int(int64(len(p)), 16)
		w.str("\r\n")
		if end {
			w.payload(p, "\r\n0\r\n\r\n")
		} else {
			w.payload(p, "\r\n")
		}
	} else if end {
		w.str("0\r\n\r\n")
	}
}

// errInjection is what a field that would break the message's framing causes.
var errInjection = errors.New("field name or value has characters that HTTP/1 cannot carry")

// field sends one line; names and values that would break the message are refused.
func (w *writer) field(name, value []byte) bool {
	if !stream.ValidToken(name) || !stream.ValidValue(value) {
		return false
	}
	w.line(name, value)
	return true
}

// line sends one line as it is.
func (w *writer) line(name, value []byte) {
	if n := len(name) + len(value) + 4; w.mem != nil && w.n+n <= len(w.mem) {
		b := w.mem[w.n:]
		i := copy(b, name)
		b[i], b[i+1] = ':', ' '
		i += 2 + copy(b[i+2:], value)
		b[i], b[i+1] = '\r', '\n'
		w.n += n
		return
	}
	w.bytes(name)
	w.str(": ")
	w.bytes(value)
	w.str("\r\n")
}

// fields sends what is not the codec's own. Lines that a codec has checked and that
// lie behind one another in its buffer are copied in one go.
func (w *writer) fields(f *stream.Fields) bool {
	all := f.All()
	for i := 0; i < len(all); {
		if text, next := f.Run(i); text != nil {
			w.bytes(text)
			i = next
			continue
		}
		switch l := &all[i]; {
		case l.Checked():
			w.line(l.Name, l.Value)
		case lookup(l.Name) == other && !w.field(l.Name, l.Value):
			return false
		}
		i++
	}
	return true
}

// trailers sends the last chunk and the trailer lines.
func (w *writer) trailers(t *stream.Fields) bool {
	w.str("0\r\n")
	if t != nil && !w.fields(t) {
		return false
	}
	w.str("\r\n")
	return true
}

// mark is a place in the output to which undo can go back.
type mark struct{ n, sent int }

func (w *writer) mark() mark { return mark{w.n, w.sent} }

// undo drops what came after m; false: some of it has left.
func (w *writer) undo(m mark) bool {
	if w.sent != m.sent {
		return false
	}
	w.n = m.n
	return true
}

// settle sends everything if somebody waits for the answer. mu is held, and released.
func (w *writer) settle() error {
	for {
		if w.eager.Load() {
			w.flush()
		}
		err := w.err
		if w.alone {
			return err
		}
		w.mu.Unlock()
		// A reader that came while mu was held could not flush: do it for it.
		if err != nil || !w.eager.Load() || !w.mu.TryLock() {
			return err
		}
		if w.n == 0 {
			w.mu.Unlock()
			return nil
		}
	}
}
