package netio

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"weft.mesh/weft/proxy/netio/record"
)

// recordBuf holds one record, and the beginning of another.
const recordBuf = 18 << 10

var recordPool = sync.Pool{New: func() any { return new([recordBuf]byte) }}

// maxUseless bounds records without data in a row: tickets, key updates, empty ones.
const maxUseless = 32

// records is a session of TLS 1.3 whose records are sealed and opened here.
type records struct {
	r *raw

	// reader only
	in       *record.Half
	messages record.Messages
	useless  int
	held     []byte // of recordPool, or widePool within a read; nil: nothing is held
	from, to int    // held[from:to] is not opened yet
	plain    []byte // in held: opened and not read yet
	err      error  // of every read from now on

	asked atomic.Bool // the peer wants to see new keys before our next record

	mu sync.Mutex
	// mu protects the following.
	out  *record.Half
	over error // of every write from now on
}

// errOver is what a write gets after close_notify.
var errOver = errors.New("write after close_notify")

// newRecords takes over from a shim.
func newRecords(s *shim, opens, seals *record.Half, client bool) *records {
	t := &records{r: s.c.raw, in: opens, out: seals, messages: record.Messages{Client: client}}
	if s.pre.Len() > 0 {
		t.hold(false)
		t.to = copy(t.held, s.pre.Bytes())
	}
	s.pre.Release()
	return t
}

// hold takes memory.
func (t *records) hold(wide bool) {
	if wide && wideUsed.Add(1) <= maxWide {
		t.held = widePool.Get().(*[WideSize]byte)[:]
		return
	} else if wide {
		wideUsed.Add(-1)
	}
	t.held = recordPool.Get().(*[recordBuf]byte)[:]
}

// release gives memory back: wide one always, as nobody would if the connection was closed, else if nothing is in it.
func (t *records) release() {
	wide := len(t.held) == WideSize
	if t.held == nil || !wide && (t.from < t.to || len(t.plain) > 0) {
		return
	}
	t.plain = bytes.Clone(t.plain) // of wide memory: what did not fit because it was padded
	left, old := t.held[t.from:t.to], t.held
	t.held, t.from, t.to = nil, 0, 0
	if len(left) > recordBuf {
		t.held = bytes.Clone(left)
	} else if len(left) > 0 {
		t.hold(false)
		copy(t.held, left)
	}
	t.to = len(left)
	switch {
	case wide:
		putWide(old)
	case len(old) == recordBuf:
		putRecord(old)
	}
}

func (t *records) ahead() bool {
	if len(t.plain) > 0 {
		return true
	}
	n, err := record.Len(t.held[t.from:t.to])
	return err != nil || n > 0 && n <= t.to-t.from
}

func (t *records) read(fd uintptr, p []byte) (int, error) {
	defer t.release()
	for {
		if n := t.openHeld(p); n > 0 {
			return n, nil
		}
		if t.err != nil {
			return 0, t.err
		}
		if err := t.receive(fd, len(p) > BufferSize); err != nil {
			return 0, err
		}
	}
}

// receive reads once from the socket.
func (t *records) receive(fd uintptr, wide bool) error {
	if t.held == nil {
		t.hold(wide)
	} else if wide && len(t.held) == recordBuf {
		t.widen()
	}
	if t.from > 0 && len(t.held)-t.from < record.MaxLen {
		t.to = copy(t.held, t.held[t.from:t.to])
		t.from = 0
	}
	n, err := t.r.tryRaw(fd, t.held[t.to:])
	t.to += n
	if err == nil || err == errWouldBlock {
		return err
	}
	if err == io.EOF && t.from < t.to {
		err = io.ErrUnexpectedEOF
	}
	t.err, t.from, t.to = err, 0, 0
	return err
}

// widen moves what is held.
func (t *records) widen() {
	old := t.held
	if t.hold(true); len(t.held) == len(old) {
		putRecord(t.held)
		t.held = old
		return
	}
	t.from, t.to = 0, copy(t.held, old[t.from:t.to])
	putRecord(old)
}

// openHeld reads what is held into p.
func (t *records) openHeld(p []byte) (n int) {
	for n < len(p) {
		if len(t.plain) > 0 {
			m := copy(p[n:], t.plain)
			t.plain = t.plain[m:]
			n += m
			continue
		}
		if t.err != nil {
			return n
		}
		size, err := record.Len(t.held[t.from:t.to])
		if err == nil && (size == 0 || size > t.to-t.from || n > 0 && !record.Fits(size, p[n:])) {
			return n
		}
		if err == nil {
			n, err = t.open(t.held[t.from:t.from+size], p, n)
			t.from += size
		}
		if err != nil {
			t.fail(err)
		}
	}
	return n
}

// open opens a record into p[n:], if it has room, and returns how far p is filled then. The error is an alert to
// send, or else the peer's or the end.
func (t *records) open(rec, p []byte, n int) (int, error) {
	typ, content, err := t.in.Open(p[n:], rec)
	if err != nil {
		return n, err
	}
	if typ == record.TypeData && len(content) > 0 && !t.messages.Pending() {
		t.useless = 0
		if &content[0] == &p[n] {
			return n + len(content), nil
		}
		t.plain = content
		return n, nil
	}
	if t.useless++; t.useless > maxUseless {
		return n, record.AlertUnexpectedMessage
	}
	return n, t.control(typ, content)
}

// control takes a record that is not data.
func (t *records) control(typ byte, content []byte) error {
	if t.messages.Pending() && typ != record.TypeHandshake {
		return record.AlertUnexpectedMessage
	}
	switch typ {
	case record.TypeData: // empty
		return nil
	case record.TypeAlert:
		if len(content) != 2 {
			return record.AlertDecodeError
		}
		switch alert := tls.AlertError(content[1]); alert {
		case record.AlertCloseNotify:
			return io.EOF
		case record.AlertUserCanceled:
			return nil
		default:
			return t.opError("remote error", alert)
		}
	case record.TypeHandshake:
		update, asked, err := t.messages.Take(content)
		if err != nil || !update {
			return err
		}
		if asked {
			t.asked.Store(true)
		}
		if t.in.Update() != nil {
			return record.AlertInternalError
		}
		return nil
	}
	return record.AlertUnexpectedMessage
}

// fail ends reading. If the error is an alert of ours the peer is told, and nothing can be written any more.
func (t *records) fail(err error) {
	t.from, t.to = 0, 0
	alert, ours := err.(tls.AlertError)
	if !ours {
		t.err = err
		return
	}
	t.err = t.opError("local error", alert)
	if t.mu.TryLock() { // who writes must not hold us up, and has filled the socket maybe
		t.sayLocked(alert, 2)
		t.over = t.err
		t.mu.Unlock()
	}
}

func (t *records) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: t.r.c.nc.LocalAddr(), Addr: t.r.c.nc.RemoteAddr(), Err: err}
}

// sayLocked sends an alert if that can be done at once, as the last thing. mu is held.
func (t *records) sayLocked(alert tls.AlertError, level byte) {
	if t.over != nil || t.r.keeps.Load() > 0 {
		return
	}
	t.over = errOver
	var mem [record.Overhead + 2]byte
	mem[record.HeaderLen], mem[record.HeaderLen+1] = level, byte(alert)
	_, _ = t.r.writeNow(t.out.Seal(mem[:record.HeaderLen+2], record.TypeAlert))
}

func (t *records) close() error {
	if t.mu.TryLock() {
		t.sayLocked(record.AlertCloseNotify, 1)
		t.mu.Unlock()
	}
	return t.r.c.shut()
}

func (t *records) closeWrite() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over != nil {
		return t.over
	}
	t.over = errOver
	mem := recordPool.Get().(*[recordBuf]byte)
	defer recordPool.Put(mem)
	mem[record.HeaderLen], mem[record.HeaderLen+1] = 1, byte(record.AlertCloseNotify)
	_, err := t.r.writeAll(t.out.Seal(mem[:record.HeaderLen+2], record.TypeAlert))
	return err
}

func (t *records) write(head, body, tail []byte) (done int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	parts := [3][]byte{head, body, tail}
	left := len(head) + len(body) + len(tail)
	mem, put := memory(left)
	defer put(mem)
	for left > 0 && err == nil {
		if t.over != nil {
			return done, t.over
		}
		var end, n int
		if end, err = t.renew(mem); err != nil {
			t.over = err
			return done, err
		}
		for left > n && len(mem)-end > record.Overhead {
			room := mem[end : end+min(record.HeaderLen+record.MaxPlain, len(mem)-end-record.Overhead+record.HeaderLen)]
			m := record.HeaderLen
			for i := range parts {
				k := copy(room[m:], parts[i])
				parts[i] = parts[i][k:]
				m += k
			}
			n += m - record.HeaderLen
			end += len(t.out.Seal(room[:m], record.TypeData))
		}
		if _, err = t.r.writeAll(mem[:end]); err != nil {
			t.over = err
			return done, err
		}
		done += n
		left -= n
	}
	return done, nil
}

// renew puts a key update before what is to be written, if one is due. mu is held.
func (t *records) renew(mem []byte) (int, error) {
	if !t.asked.Swap(false) && !t.out.Worn() {
		return 0, nil
	}
	rec := t.out.Seal(append(mem[:record.HeaderLen], record.KeyUpdate(false)...), record.TypeHandshake)
	return len(rec), t.out.Update()
}

// memory to seal so many bytes in, or a part of them.
func memory(n int) (mem []byte, put func([]byte)) {
	if n > record.MaxPlain {
		if wideUsed.Add(1) <= maxWide {
			return widePool.Get().(*[WideSize]byte)[:], putWide
		}
		wideUsed.Add(-1)
	}
	return recordPool.Get().(*[recordBuf]byte)[:], putRecord
}

func putRecord(mem []byte) { recordPool.Put((*[recordBuf]byte)(mem)) }

func putWide(mem []byte) {
	widePool.Put((*[WideSize]byte)(mem))
	wideUsed.Add(-1)
}
