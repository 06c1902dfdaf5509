package netio

import (
	"crypto/tls"
	"errors"
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
