package grpcstream

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Stream is one call. Its methods never wait, and may be called by anybody at any time, also after it has ended.
type Stream struct {
	c      *conn
	id     uint32
	gzip   bool // the client takes gzip
	packed bool // what it sends may be
	cancel context.CancelFunc

	// protected by c.mu
	recv     Receiver // nil: nobody has taken it yet
	in       []byte   // came, and was not told yet
	busy     bool     // somebody tells what came
	spoke    bool     // something was told
	eof      bool     // the client says no more
	left     int64    // window that the client has
	owed     int64    // window to be given back
	held     int64    // of it what the connection's window has not got back either
	send     int64    // the client's window
	queue    [][]byte // to be sent, the first of it from sent on; begins as one
	one      [1][]byte
	sent     int
	queued   int
	full     bool // was said to be
	answered bool // the head of the answer is sent
	listed   bool // it is in c.ready
	ending   bool // trailers come after the queue, with err
	err      error
	ended    bool
}

// maxQueued is how much may wait for the client before it is not listened to any more.
const maxQueued = 64 << 10

// open begins a stream; c.mu is held.
func (c *conn) open(f frame, h head) {
	ctx := peer.NewContext(c.srv.ctx, &peer.Peer{Addr: c.sock.RemoteAddr(), LocalAddr: c.sock.LocalAddr(), AuthInfo: c.info})
	var cancel context.CancelFunc
	if h.timeout > 0 && h.timeout < math.MaxInt64 {
		ctx, cancel = context.WithTimeout(ctx, h.timeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	s := &c.only
	if s.c != nil {
		s = &Stream{}
	}
	*s = Stream{c: c, id: f.stream, gzip: h.gzip, packed: h.encoding == "gzip", cancel: cancel, left: plainWindow, send: c.initial, eof: f.flags&flagEndStream != 0}
	c.streams[s.id] = s
	if h.timeout > 0 {
		context.AfterFunc(ctx, func() {
			if ctx.Err() == context.DeadlineExceeded {
				s.End(status.FromContextError(ctx.Err()).Err())
			}
		})
	}
	if err := h.refusal(); err != nil {
		s.end(err)
		return
	}
	c.srv.wg.Go(func() {
		recv, err := c.srv.set.Accept(ctx, s)
		if err != nil {
			s.End(err)
			return
		}
		s.accepted(recv)
	})
}

// accepted lets the client speak.
func (s *Stream) accepted(recv Receiver) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.ended {
		c.srv.wg.Go(recv.Closed)
		return
	}
	s.recv = recv
	s.left += plainWindow - waitWindow
	c.ctl = appendWindowUpdate(c.ctl, s.id, plainWindow-waitWindow)
	s.deliver(nil)
	c.flush()
}

// Gzip tells whether the client takes messages that are compressed.
func (s *Stream) Gzip() bool { return s.gzip }

// PrefixSize is what is before each message: whether it is compressed, and its length.
const PrefixSize = 5

// AppendPrefix begins a message; SetPrefix completes it.
func AppendPrefix(b []byte) []byte { return append(b, 0, 0, 0, 0, 0) }

// SetPrefix completes a message that is all of b.
func SetPrefix(b []byte, compressed bool) {
	b[0] = 0
	if compressed {
		b[0] = 1
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-PrefixSize))
}

// Send sends a message with its prefix, which must not be changed any more.
func (s *Stream) Send(b []byte) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.ended || s.ending {
		return
	}
	s.queue = append(s.queue, b)
	s.queued += len(b)
	s.list()
	c.flush()
}

// Full tells that the client has much to take before it is told more. Drained is called when it has, if Full was true.
func (s *Stream) Full() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.full = s.full || s.queued > maxQueued
	return s.full
}

// End ends the stream after what was sent. Nil is OK.
func (s *Stream) End(err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.end(err)
	s.c.flush()
}

// end is called with c.mu.
func (s *Stream) end(err error) {
	if s.ended || s.ending {
		return
	}
	s.ending, s.err = true, err
	s.list()
	s.cancel()
}

// list puts a stream where flush looks.
func (s *Stream) list() {
	if !s.listed {
		s.listed = true
		s.c.ready = append(s.c.ready, s)
	}
}

// drop forgets a stream; c.mu is held.
func (s *Stream) drop() {
	if s.ended {
		return
	}
	s.ended = true
	s.queue, s.queued, s.in = nil, 0, nil
	s.c.giveBack(s.held)
	s.held = 0
	delete(s.c.streams, s.id)
	if s.c.spoke == s {
		s.c.spoke = nil
	}
	s.cancel()
	if recv := s.recv; recv != nil {
		s.recv = nil // the connection has the memory of its first stream as long as it lives, but not what that had
		s.c.srv.wg.Go(recv.Closed)
	}
	if s.c.leaving && len(s.c.streams) == 0 {
		s.c.until = time.Now().Add(lingerTime)
	}
}

// data is a frame of a message; mu is held.
func (c *conn) data(f *frame) error {
	if f.stream == 0 || f.stream > c.last && !c.leaving {
		return fatal(codeProtocol, "DATA of no stream")
	}
	b, err := f.unpadded()
	if err != nil {
		return err
	}
	n := int64(len(f.payload))
	if c.recv -= n; c.recv < 0 {
		return fatal(codeFlowControl, "the client sends more than its window")
	}
	s := c.spoke
	if s == nil || s.id != f.stream || s.ended {
		s = c.streams[f.stream]
		c.spoke = s
	}
	if s == nil || s.eof {
		c.giveBack(n)
		c.flush()
		return c.cheap()
	}
	if s.left -= n; s.left < 0 {
		return fatal(codeFlowControl, "the client sends more than a stream's window")
	}
	if len(b) == 0 && f.flags&flagEndStream == 0 {
		if err := c.cheap(); err != nil {
			return err
		}
	}
	s.owed, s.held = s.owed+n, s.held+n
	s.eof = f.flags&flagEndStream != 0
	s.deliver(b)
	c.flush()
	return nil
}

// giveBack gives window of the connection back.
func (c *conn) giveBack(n int64) {
	if c.owed += n; c.owed >= plainWindow/2 {
		c.recv += c.owed
		c.ctl = appendWindowUpdate(c.ctl, 0, uint32(c.owed))
		c.owed = 0
	}
}

// deliver tells what came: what waits, and what is here directly. c.mu is held, but not while it tells.
func (s *Stream) deliver(direct []byte) {
	c := s.c
	if s.busy || s.recv == nil {
		s.in = append(s.in, direct...)
		return
	}
	s.busy = true
	for !s.ended && !s.ending && !s.full {
		if len(s.in) > 0 && len(direct) > 0 {
			s.in, direct = append(s.in, direct...), nil
		}
		b, waited := s.in, len(s.in) > 0
		if !waited {
			b = direct
		}
		msg, n, err := s.cut(b)
		if err != nil {
			s.end(err)
			break
		}
		if n == 0 {
			break
		}
		recv := s.recv
		c.mu.Unlock()
		err = recv.Message(msg)
		c.mu.Lock()
		s.spoke = true
		switch {
		case s.ended: // meanwhile: nothing is kept
		case waited:
			s.in = s.in[n:]
		default:
			direct = direct[n:]
		}
		if err != nil {
			s.end(err)
		}
		s.full = s.full || s.queued > maxQueued
	}
	if s.busy = false; s.ended || s.ending {
		s.in, direct = nil, nil
	}
	if len(direct) > 0 {
		if s.in == nil {
			s.in = make([]byte, 0, s.expected(direct))
		}
		s.in = append(s.in, direct...)
	}
	if len(s.in) == 0 {
		s.in = nil
	}
	if s.full {
		s.relieve()
		return
	}
	if s.eof {
		s.end(nil) // what is left is no message
	}
	s.credit()
}

// expected is how much memory the beginning of a message asks for.
func (s *Stream) expected(b []byte) int {
	if len(b) < PrefixSize {
		return len(b)
	}
	return max(len(b), min(PrefixSize+int(binary.BigEndian.Uint32(b[1:])), 256<<10))
}

// credit gives window back for what came; c.mu is held.
func (s *Stream) credit() {
	s.c.giveBack(s.held)
	s.held = 0
	if s.owed >= plainWindow/2 && !s.ended && !s.ending {
		s.left += s.owed
		s.c.ctl = appendWindowUpdate(s.c.ctl, s.id, uint32(s.owed))
		s.owed = 0
	}
}

// cut takes a message from the beginning of b; n is 0 if it is not whole.
func (s *Stream) cut(b []byte) (msg []byte, n int, err error) {
	if len(b) < PrefixSize {
		return nil, 0, nil
	}
	size := int64(binary.BigEndian.Uint32(b[1:]))
	if size > int64(s.c.srv.set.MaxMessage) {
		return nil, 0, status.Errorf(codes.ResourceExhausted, "a message of %d bytes, at most %d", size, s.c.srv.set.MaxMessage)
	}
	if int64(len(b)) < PrefixSize+size {
		return nil, 0, nil
	}
	n = PrefixSize + int(size)
	msg = b[PrefixSize:n]
	switch {
	case b[0] == 0:
	case b[0] == 1 && s.packed:
		if msg, err = unpack(msg, s.c.srv.set.MaxMessage); err != nil {
			return nil, 0, err
		}
	default:
		return nil, 0, status.Error(codes.Internal, "a message is compressed, but grpc-encoding does not say how")
	}
	return msg, n, nil
}

var unpackers sync.Pool // of *gzip.Reader

func unpack(b []byte, most int) ([]byte, error) {
	z, _ := unpackers.Get().(*gzip.Reader)
	if z == nil {
		z = new(gzip.Reader)
	}
	if err := z.Reset(bytes.NewReader(b)); err != nil {
		return nil, status.Errorf(codes.Internal, "a message cannot be unpacked: %v", err)
	}
	defer unpackers.Put(z)
	out, err := io.ReadAll(io.LimitReader(z, int64(most)+1))
	if err != nil {
		return nil, status.Errorf(codes.Internal, "a message cannot be unpacked: %v", err)
	}
	if len(out) > most {
		return nil, status.Errorf(codes.ResourceExhausted, "a message is larger than %d bytes", most)
	}
	return out, nil
}
