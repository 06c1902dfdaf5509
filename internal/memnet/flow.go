package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// flow is one direction of a connection: a bounded queue of bytes with an end.
type flow struct {
	latency  time.Duration // set at creation
	capacity int           // set at creation

	mu   sync.Mutex
	cond sync.Cond // any change below

	// mu protects the following.
	buf     []byte // buf[off:] was written and not read
	off     int
	written int64 // bytes ever written
	read    int64 // bytes ever read

	transit []arrival // with latency: when the bytes up to an offset arrive
	end     error     // what a read returns after the last byte; nil while open
	endAt   time.Time // when end arrives

	resetAt int64 // written count at which the connection is reset; -1 never
	stallAt int64 // read count beyond which nothing is delivered; -1 never
	tripped bool  // resetAt was reached

	writing    bool  // a Write is in progress; others wait, so that writes do not mix
	writeErr   error // what a write returns; nil while open
	readErr    error // what a read returns at once; nil while the reader is open
	discard    bool  // the reader does not want the data (CloseRead)
	readLimit  deadline
	writeLimit deadline
}

// arrival says that the bytes before offset can be read from time at on.
type arrival struct {
	offset int64
	at     time.Time
}

func newFlow(l Link) *flow {
	f := &flow{latency: l.Latency, capacity: l.Buffer, resetAt: -1, stallAt: -1}
	if f.capacity <= 0 {
		f.capacity = DefaultBuffer
	}
	if l.ResetAfter > 0 {
		f.resetAt = l.ResetAfter
	}
	if l.StallAfter > 0 {
		f.stallAt = l.StallAfter
	}
	f.cond.L = &f.mu
	return f
}

// readable returns how many bytes have arrived and may be delivered. mu is held.
func (f *flow) readable() int {
	n := f.written - f.read
	if f.latency > 0 {
		arrived := f.read
		now := time.Now()
		for len(f.transit) > 0 && f.transit[0].offset <= f.read {
			f.transit = f.transit[1:]
		}
		for _, a := range f.transit {
			if a.at.After(now) {
				break
			}
			arrived = a.offset
		}
		n = arrived - f.read
	}
	if f.stallAt >= 0 {
		n = min(n, max(f.stallAt-f.read, 0))
	}
	return int(n)
}

// ended reports whether the end of the flow has arrived. mu is held.
func (f *flow) ended() bool {
	return f.end != nil && f.read == f.written && (f.stallAt < 0 || f.read < f.stallAt) && !f.endAt.After(time.Now())
}

// Read takes bytes out of the flow, waiting for the first.
func (f *flow) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if f.readErr != nil {
			return 0, f.readErr
		}
		if f.readLimit.passed {
			return 0, os.ErrDeadlineExceeded
		}
		if len(p) == 0 {
			return 0, nil
		}
		if n := f.readable(); n > 0 {
			return f.take(p, n), nil
		}
		if f.ended() {
			return 0, f.end
		}
		f.cond.Wait()
	}
}

// take moves up to n bytes to p. mu is held.
func (f *flow) take(p []byte, n int) int {
	n = copy(p, f.buf[f.off:f.off+n])
	f.off += n
	f.read += int64(n)
	if f.off == len(f.buf) {
		f.buf, f.off = f.buf[:0], 0
	}
	f.cond.Broadcast()
	return n
}

// Write puts all of p into the flow, waiting for room.
func (f *flow) Write(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.writing {
		if err := f.writable(); err != nil {
			return 0, err
		}
		f.cond.Wait()
	}
	f.writing = true
	defer func() {
		f.writing = false
		f.cond.Broadcast()
	}()
	for {
		if err := f.writable(); err != nil {
			return n, err
		}
		room := min(f.room(), len(p))
		f.put(p[:room])
		n, p = n+room, p[room:]
		if len(p) == 0 {
			return n, nil // also when this used up the bytes before a reset
		}
		if room > 0 {
			continue
		}
		f.cond.Wait()
	}
}

// writable returns why nothing can be written now. mu is held.
func (f *flow) writable() error {
	if f.writeErr != nil {
		return f.writeErr
	}
	if f.writeLimit.passed {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// room returns how many bytes may be written now. mu is held.
func (f *flow) room() int {
	n := f.capacity - (len(f.buf) - f.off)
	if f.resetAt >= 0 {
		n = int(min(int64(n), f.resetAt-f.written))
	}
	return max(n, 0)
}

// put appends p, which fits. mu is held.
func (f *flow) put(p []byte) {
	if len(p) == 0 {
		return
	}
	defer f.cond.Broadcast()
	if f.discard {
		f.written += int64(len(p))
		f.read += int64(len(p))
		f.trip()
		return
	}
	if f.off > 0 && len(f.buf)+len(p) > cap(f.buf) {
		f.buf, f.off = f.buf[:copy(f.buf, f.buf[f.off:])], 0
	}
	f.buf = append(f.buf, p...)
	f.written += int64(len(p))
	if f.latency > 0 {
		f.transit = append(f.transit, arrival{f.written, time.Now().Add(f.latency)})
		time.AfterFunc(f.latency, f.wake)
	}
	f.trip()
}

// trip resets the flow when the bytes that its link lets through are used up. mu is held.
func (f *flow) trip() {
	if f.resetAt >= 0 && f.written >= f.resetAt {
		f.tripped = true
		f.finish(syscall.ECONNRESET, syscall.ECONNRESET)
	}
}

// hasTripped reports whether the link's reset happened in this direction.
func (f *flow) hasTripped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tripped
}

// finish ends the flow: the reader gets end after the data, a writer gets
// writeErr at once. The first end wins. mu is held.
func (f *flow) finish(end, writeErr error) {
	if f.writeErr == nil {
		f.writeErr = writeErr
	}
	if f.end == nil {
		f.end = end
		f.endAt = time.Now().Add(f.latency)
		if f.latency > 0 {
			time.AfterFunc(f.latency, f.wake)
		}
	}
	f.cond.Broadcast()
}

// closeWriter is the writer's orderly end; its later writes get err.
func (f *flow) closeWriter(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == net.ErrClosed {
		f.writeErr = err // tell the owner of a closed connection that, whatever was before
	}
	f.finish(io.EOF, err)
}

// closeReader makes reads return err at once. Data that is here is dropped. What
// is written later is dropped too when writeErr is nil; else writes fail with it.
func (f *flow) closeReader(err, writeErr error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readErr = err
	f.discard = true
	f.buf, f.off, f.read, f.transit = nil, 0, f.written, nil
	if writeErr != nil && f.writeErr == nil {
		f.writeErr = writeErr
	}
	f.cond.Broadcast()
}

// reset breaks the flow: what was written before still arrives, then the reader
// gets ECONNRESET; a writer gets writeErr at once.
func (f *flow) reset(writeErr error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.end == io.EOF && !f.ended() {
		f.end = nil // a reset replaces an end that has not arrived yet
	}
	if writeErr == net.ErrClosed {
		f.writeErr = writeErr
	}
	f.finish(syscall.ECONNRESET, writeErr)
}

// stallAfter stops delivery after n more bytes were read; negative lets it go on.
func (f *flow) stallAfter(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stallAt = -1
	if n >= 0 {
		f.stallAt = f.read + n
	}
	f.cond.Broadcast()
}

// resetAfter resets the flow after n more bytes were written, n > 0.
func (f *flow) resetAfter(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resetAt = f.written + n
}

func (f *flow) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cond.Broadcast()
}

func (f *flow) setReadDeadline(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readLimit.set(f, t)
}

func (f *flow) setWriteDeadline(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writeLimit.set(f, t)
}

// deadline is a moment after which operations fail. The flow's mu protects it.
type deadline struct {
	passed bool
	timer  *time.Timer
}

// set replaces the deadline; the zero time means none.
func (d *deadline) set(f *flow, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.passed = false
	if t.IsZero() {
		f.cond.Broadcast()
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.passed = true
		f.cond.Broadcast()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if d.timer == timer { // not replaced meanwhile
			d.passed = true
			f.cond.Broadcast()
		}
	})
	d.timer = timer
}
