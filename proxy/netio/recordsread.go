package netio

import (
	"bytes"
	"crypto/tls"
	"io"

	"weft.mesh/weft/proxy/netio/record"
)

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
