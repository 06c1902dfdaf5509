package netio

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/internal/sockcall"
)

// maxChunk bounds one system call, because the scheduler cannot stop the thread in it.
const maxChunk = sockcall.Most

// raw is the TCP path: steps run inside RawConn.Read and RawConn.Write. The
// step functions are made once for each connection, so that no call allocates.
type raw struct {
	c  *Conn
	rc syscall.RawConn
	fd uintptr

	// own is held for a system call that is made without rc, which costs as much as a small one itself.
	// It keeps the descriptor from being closed, and its number from being used anew, meanwhile.
	own  sync.Mutex
	shut bool // guarded by own: fd is not to be used any more

	// reader only
	fillStep func(fd uintptr) bool
	readStep func(fd uintptr) bool
	buf      *Buffer
	send     []byte // to be written before fillStep reads
	p        []byte
	n        int
	err      error

	quietStep func(fd uintptr)
	isQuiet   bool

	// broken is the error that a peek has seen: the kernel tells it once only, and
	// the next read would take the reset for an orderly end.
	broken atomic.Uint32

	// writer only (with TLS: holder of crypto/tls's output lock)
	writeStep func(fd uintptr) bool
	out       [3][]byte
	wrote     int
	writeErr  error
	stalled   bool
	noWait    atomic.Bool // WriteNow is running

	// what WriteNow kept; guarded by the descriptor's write lock, which steps hold
	kept     []byte
	keeps    atomic.Int64 // len(kept)
	keptStep func(fd uintptr) bool
	keptErr  error // of WriteKept's caller
}

// newRaw returns nil if the socket is closed already.
func newRaw(c *Conn, rc syscall.RawConn) *raw {
	r := &raw{c: c, rc: rc}
	if rc.Control(func(fd uintptr) { r.fd = fd }) != nil {
		return nil
	}
	r.fillStep, r.readStep, r.writeStep, r.quietStep, r.keptStep = r.doFill, r.doRead, r.doWrite, r.doQuiet, r.doKept
	return r
}

// close closes the socket.
func (r *raw) close() error {
	r.own.Lock()
	r.shut = true
	r.own.Unlock()
	r.c.unpark() // while the descriptor's number is still its own
	return r.c.nc.Close()
}

// writeNow writes as much of p as the kernel takes at once. If that is not all, and there is no error, write must see to the rest.
func (r *raw) writeNow(p []byte) (int, error) {
	if len(p) > maxChunk || r.c.writeDue.Load() != 0 || r.keeps.Load() > 0 { // a deadline that has passed forbids it
		return 0, nil
	}
	r.own.Lock()
	if r.shut {
		r.own.Unlock()
		return 0, nil
	}
	n, errno := sockcall.Write(r.fd, p)
	r.own.Unlock()
	switch errno {
	case 0:
		return n, nil
	case syscall.EAGAIN, syscall.EINTR:
		return 0, nil
	}
	return 0, r.opError("write", errno)
}

// fill writes send, if any, and appends at least one byte to b.
func (r *raw) fill(send []byte, b *Buffer) error {
	r.send, r.buf, r.n, r.err = send, b, 0, nil
	err := r.rc.Read(r.fillStep)
	r.send, r.buf = nil, nil
	if r.n > 0 {
		r.c.in.Add(uint64(r.n))
		return nil
	}
	if b.Len() == 0 {
		b.Release()
	}
	if r.err != nil {
		return r.err
	}
	return err
}

// doFill is one attempt of fill: true ends the wait.
func (r *raw) doFill(fd uintptr) bool {
	if r.send != nil {
		send := r.send
		r.send = nil
		if _, err := r.c.Write(send); err != nil {
			r.err = err
			return true
		}
		// The answer cannot be here yet, and the poller was re-armed before we wrote:
		// wait without a read that finds nothing. Decrypted bytes do not wake anybody.
		if !r.c.ahead() {
			return false
		}
	}
	room := r.buf.Free()
	if room == nil {
		r.err = ErrBufferFull
		return true
	}
	n, err := r.try(fd, room)
	if n > 0 {
		r.buf.Added(n)
		r.n = n
		if n >= maxRecord && len(room) > n {
			r.moreRecords(fd, room[n:])
		}
		return true
	}
	if err == errWouldBlock {
		if r.buf.Len() == 0 {
			r.buf.Release()
		}
		return false
	}
	r.err = err
	return true
}

// maxRecord is the plaintext of a full TLS record (RFC 8446 section 5.1).
const maxRecord = 16 << 10

// moreRecords fills what is left of a wide buffer's room. crypto/tls reads one record at a time; behind a full one there nearly
// always is another. An error is told again by the next read.
func (r *raw) moreRecords(fd uintptr, room []byte) {
	for len(room) > 0 && r.c.tls.Load() != nil {
		n, _ := r.try(fd, room)
		if n <= 0 {
			return
		}
		r.buf.Added(n)
		r.n += n
		room = room[n:]
	}
}

// read is net.Conn's Read.
func (r *raw) read(p []byte) (int, error) {
	r.p, r.n, r.err = p, 0, nil
	err := r.rc.Read(r.readStep)
	r.p = nil
	if r.n > 0 {
		r.c.in.Add(uint64(r.n))
		return r.n, nil
	}
	if r.err != nil {
		return 0, r.err
	}
	return 0, err
}

func (r *raw) doRead(fd uintptr) bool {
	n, err := r.try(fd, r.p)
	if err == errWouldBlock && n == 0 {
		return false
	}
	r.n, r.err = n, err
	return true
}

// try reads once without waiting: errWouldBlock if nothing is there. With n > 0 the error is nil.
func (r *raw) try(fd uintptr, p []byte) (int, error) {
	if t := r.c.tls.Load(); t != nil {
		return t.read(fd, p)
	}
	return r.tryRaw(fd, p)
}

func (r *raw) tryRaw(fd uintptr, p []byte) (int, error) {
	if len(p) > maxChunk {
		p = p[:maxChunk]
	}
	for {
		n, errno := sockcall.Read(fd, p)
		switch errno {
		case 0:
			if n == 0 {
				if errno := r.broken.Load(); errno != 0 {
					return 0, r.opError("read", syscall.Errno(errno))
				}
				return 0, io.EOF
			}
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, errWouldBlock
		default:
			return 0, r.opError("read", errno)
		}
	}
}

// writeAll writes p whole, below TLS. It waits as long as it must.
func (r *raw) writeAll(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.writeNow(p)
	if err != nil || n == len(p) {
		return n, err
	}
	if r.keeps.Load() > 0 && r.c.shim != nil && r.c.shim.closing.Load() {
		return n, errWouldBlock // a goodbye does not wait for WriteKept, which has the descriptor
	}
	m, err := r.write(p[n:], nil, nil)
	return n + m, err
}

// write writes the parts whole, below TLS, in as few system calls as possible. It waits as long as it must.
func (r *raw) write(head, body, tail []byte) (int, error) {
	r.out[0], r.out[1], r.out[2] = head, body, tail
	r.wrote, r.writeErr = 0, nil
	err := r.rc.Write(r.writeStep)
	if r.stalled {
		r.unstall()
	}
	r.out = [3][]byte{}
	if r.writeErr != nil {
		err = r.writeErr
	}
	return r.wrote, err
}

func (r *raw) doWrite(fd uintptr) bool {
	for {
		errno := r.writeOutKept(fd)
		n := 0
		if errno == 0 {
			n, errno = r.writeOnce(fd)
		}
		switch errno {
		case 0:
			if r.advance(n) {
				return true
			}
		case syscall.EINTR:
		case syscall.EAGAIN:
			if r.c.shim != nil && r.c.shim.closing.Load() {
				r.writeErr = errWouldBlock // a goodbye does not wait
				return true
			}
			if r.keep() {
				return true
			}
			r.armStall()
			return false
		default:
			r.writeErr = r.opError("write", errno)
			return true
		}
	}
}

// advance drops n written bytes and tells whether all is written.
func (r *raw) advance(n int) bool {
	r.wrote += n
	left := 0
	for i := range r.out {
		m := min(n, len(r.out[i]))
		r.out[i] = r.out[i][m:]
		n -= m
		left += len(r.out[i])
	}
	return left == 0
}

// chunkLines is what the chunked coding puts around a piece of a body at most: it leaves with the piece.
const chunkLines = 32

// writeOnce makes one system call with at most maxChunk bytes, and chunkLines.
func (r *raw) writeOnce(fd uintptr) (int, syscall.Errno) {
	var iov [3]syscall.Iovec
	n, room := 0, maxChunk+chunkLines
	for _, p := range r.out {
		if p = p[:min(len(p), room)]; len(p) > 0 {
			iov[n].Base = &p[0]
			iov[n].SetLen(len(p))
			room -= len(p)
			n++
		}
	}
	switch n {
	case 0:
		return 0, 0
	case 1:
		return sockcall.Write(fd, unsafe.Slice(iov[0].Base, iov[0].Len))
	}
	return sysWritev(fd, iov[:n])
}

// armStall sets the deadline by which the peer must have taken some bytes.
func (r *raw) armStall() {
	d := r.c.stall.Load()
	if d == 0 {
		return
	}
	due := time.Now().Add(time.Duration(d))
	if w := r.c.writeDue.Load(); w != 0 && w < due.UnixNano() {
		return
	}
	r.stalled = true
	_ = r.c.nc.SetWriteDeadline(due) // it fails on a closed connection only, and so will the wait
}

// unstall puts the user's own deadline back.
func (r *raw) unstall() {
	r.stalled = false
	var t time.Time
	if w := r.c.writeDue.Load(); w != 0 {
		t = time.Unix(0, w)
	}
	_ = r.c.nc.SetWriteDeadline(t)
}

// gone peeks at the socket.
func (r *raw) gone() bool {
	gone := false
	err := r.rc.Control(func(fd uintptr) {
		n, errno := sockcall.Peek(fd)
		switch {
		case errno == syscall.EAGAIN || errno == syscall.EINTR:
		case errno != 0 || n == 0:
			gone = true
			r.broken.CompareAndSwap(0, uint32(errno))
		default: // bytes wait; did the end come behind them?
			gone = ended(int(fd))
		}
	})
	return err != nil || gone
}

// quiet: open, and nothing there.
func (r *raw) quiet() bool {
	r.own.Lock()
	if r.shut {
		r.own.Unlock()
		return false
	}
	_, errno := sockcall.Peek(r.fd)
	r.own.Unlock()
	switch {
	case errno == syscall.EAGAIN:
		return !r.c.ahead()
	case errno == syscall.EINTR:
	case errno != 0:
		r.broken.CompareAndSwap(0, uint32(errno))
		return false
	case r.c.tls.Load() == nil:
		return false
	}
	r.isQuiet = false
	err := r.rc.Control(r.quietStep)
	return err == nil && r.isQuiet
}

// doQuiet takes TLS 1.3 tickets and key updates on the way. What was decrypted stays to be read.
func (r *raw) doQuiet(fd uintptr) {
	_, errno := sockcall.Peek(fd)
	switch {
	case errno == syscall.EAGAIN:
		r.isQuiet = !r.c.ahead()
	case errno == syscall.EINTR:
	case errno != 0:
		r.broken.CompareAndSwap(0, uint32(errno))
	case r.c.tls.Load() != nil:
		peek := &r.c.peek // empty: Quiet has looked
		n, err := r.try(fd, peek.Free())
		if n > 0 {
			peek.Added(n)
			r.c.in.Add(uint64(n))
		} else {
			peek.Release()
		}
		r.isQuiet = n == 0 && err == errWouldBlock
	}
}

// ended asks the kernel whether the peer's FIN has arrived.
func ended(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return true
	}
	switch info.State {
	case unix.BPF_TCP_CLOSE_WAIT, unix.BPF_TCP_LAST_ACK, unix.BPF_TCP_CLOSING, unix.BPF_TCP_TIME_WAIT, unix.BPF_TCP_CLOSE:
		return true
	}
	return false
}

func (r *raw) opError(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: r.c.nc.LocalAddr(), Addr: r.c.nc.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}
