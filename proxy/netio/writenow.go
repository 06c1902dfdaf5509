package netio

import (
	"syscall"

	"weft.mesh/weft/internal/sockcall"
)

// CanWriteNow tells whether WriteNow works: there is a socket.
func (c *Conn) CanWriteNow() bool { return c.raw != nil }

// WriteNow writes p without waiting for the peer. What the kernel does not take at once
// is kept (copied), and done is false: then WriteKept must be called, which waits, before anything else is written.
// It is for whoever may not be held up by this peer, like the reader of another
// connection. Without a socket it must not be called.
func (c *Conn) WriteNow(p []byte) (done bool, err error) {
	r := c.raw
	r.noWait.Store(true)
	_, err = c.Write(p)
	r.noWait.Store(false)
	if err != nil {
		return false, err
	}
	return r.keeps.Load() == 0, nil
}

// WriteKept waits until what WriteNow kept is with the kernel.
func (c *Conn) WriteKept() error {
	r := c.raw
	r.keptErr = nil
	err := r.rc.Write(r.keptStep)
	if r.stalled {
		r.unstall()
	}
	if r.keptErr != nil {
		return r.keptErr
	}
	return err
}

// doKept is WriteKept's step; the descriptor's write lock is held.
func (r *raw) doKept(fd uintptr) bool {
	switch errno := r.writeOutKept(fd); errno {
	case 0:
		return true
	case syscall.EAGAIN:
		r.armStall()
		return false
	default:
		r.keptErr = r.opError("write", errno)
		return true
	}
}

// writeOutKept writes what was kept before: EAGAIN if the kernel does not take all. The descriptor's write lock is held.
func (r *raw) writeOutKept(fd uintptr) syscall.Errno {
	for len(r.kept) > 0 {
		n, errno := sockcall.Write(fd, r.kept[:min(len(r.kept), maxChunk)])
		switch errno {
		case 0:
			r.kept = r.kept[n:]
			r.keeps.Store(int64(len(r.kept)))
		case syscall.EINTR:
		default:
			return errno
		}
	}
	r.kept = nil
	return 0
}

// keep takes what is left of the parts, if the writer may not wait; false: it must wait itself.
// crypto/tls may write from the reader's goroutine meanwhile, which is why noWait is looked at twice: either
// we see that WriteNow has returned, or it sees what we keep.
func (r *raw) keep() bool {
	if !r.noWait.Load() {
		return false
	}
	for i, p := range r.out {
		r.kept = append(r.kept, p...)
		r.wrote += len(p)
		r.out[i] = nil
	}
	r.keeps.Store(int64(len(r.kept)))
	return r.noWait.Load()
}
