package tcp

import (
	"errors"
	"io"
	"net"
	"time"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/transport/exchange"
)

const (
	// spliceAfter: splicing costs two pipes, and the runtime takes its thread for
	// blocked; for small messages it does not pay. Measured: 1.6× the time of a
	// read and a write for ping-pong of 200 bytes, 0.46× for bulk. So this much must come in one go.
	spliceAfter = 64 << 10
	// largeChunk is what no exchange of small messages brings in one read.
	largeChunk = netio.BufferSize / 4
	// spliceChunk is how much is moved before counters and the idle time are brought up to date.
	spliceChunk = 1 << 20
	// preambleTimeout bounds how long a client that began its preamble may take to end it.
	preambleTimeout = 10 * time.Second
)

// side names a pump's direction.
type side uint8

const (
	fromDown side = iota
	fromUp
)

// copyBoth runs both directions until both have ended.
func (s *session) copyBoth(wantPeer bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.direction(fromUp)
	}()
	if !wantPeer || s.readPeer() {
		s.direction(fromDown)
	}
	<-done
}

// readPeer reads the client's preamble. Its first byte may be long in coming:
// Envoy sends it with the application's first bytes, and the server may speak first.
func (s *session) readPeer() bool {
	_, err := s.down.Peek(1)
	if err == nil {
		_ = s.down.SetReadDeadline(time.Now().Add(preambleTimeout))
		w, rerr := exchange.Read(s.down)
		_ = s.down.SetReadDeadline(time.Time{})
		if err = rerr; err == nil {
			s.mu.Lock()
			s.peer = w
			if !s.opened {
				s.reportLocked(stream.ReportOpen)
			}
			s.mu.Unlock()
			s.touch()
			return true
		}
	}
	if errors.Is(err, io.EOF) && s.down.Buffered() == 0 { // ended without a word: pass it on
		s.halfClose(fromDown)
		return false
	}
	s.broken(fromDown, err)
	return false
}

// direction copies until the source ends, and passes the end on.
func (s *session) direction(from side) {
	src, dst := s.down, s.up.Conn
	if from == fromUp {
		src, dst = dst, src
	}
	readErr, writeErr := s.pump(src, dst, from)
	switch {
	case writeErr != nil:
		s.broken(other(from), writeErr)
	case errors.Is(readErr, io.EOF):
		s.halfClose(from)
	default:
		s.broken(from, readErr)
	}
}

func other(x side) side { return 1 - x }

// halfClose passes on that one side will send no more.
func (s *session) halfClose(from side) {
	dst := s.up.Conn
	if from == fromUp {
		dst = s.down
	}
	if err := dst.CloseWrite(); err != nil {
		s.broken(other(from), err)
	}
}

// broken ends both sides because one of them broke. A reset goes on as a
// reset; so does any other failure, because the data is not complete.
func (s *session) broken(who side, err error) {
	if errors.Is(err, net.ErrClosed) { // we closed it: the reason is recorded where that was done
		_ = s.down.Close()
		_ = s.up.Conn.Close()
		return
	}
	s.mu.Lock()
	if s.termination == "" && s.flags == 0 {
		if who == fromDown {
			s.flags, s.termination = stream.FlagDownstreamTermination, "downstream_remote_reset"
		} else {
			s.flags, s.termination = stream.FlagUpstreamTermination, "upstream_remote_reset"
			s.upErr = err
		}
	}
	s.mu.Unlock()
	s.down.Abort()
	s.up.Conn.Abort()
}

// pump copies from src to dst. Exactly one of the errors is not nil; io.EOF is the source's orderly end.
func (s *session) pump(src, dst *netio.Conn, from side) (readErr, writeErr error) {
	count, back := &s.in, &s.out
	if from == fromUp {
		count, back = back, count
	}
	var b netio.Buffer
	defer b.Release()
	var one run
	for {
		if err := src.Fill(&b); err != nil {
			return err, nil
		}
		s.touch()
		n, err := dst.Write(b.Bytes())
		count.Add(uint64(n))
		if err != nil {
			return nil, err
		}
		b.Consume(n)
		if one.add(n, back.Load()) <= spliceAfter {
			continue
		}
		r, okR := src.TCP()
		w, okW := dst.TCP()
		if okR && okW {
			b.Release()
			return s.splice(r, w, src, dst, from)
		}
	}
}

// run counts the bytes that came in one go: in large reads, or without any in the other
// direction in between, which is how questions and answers come.
type run struct {
	bytes int
	back  uint64 // bytes of the other direction at the last read
}

// add counts a read of n bytes while the other direction stands at back, and returns the bytes so far.
func (r *run) add(n int, back uint64) int {
	if n < largeChunk && back != r.back {
		r.bytes = 0
	}
	r.back = back
	r.bytes += n
	return r.bytes
}

// splice lets the kernel move the bytes.
func (s *session) splice(r, w *net.TCPConn, src, dst *netio.Conn, from side) (readErr, writeErr error) {
	count := &s.in
	if from == fromUp {
		count = &s.out
	}
	s.splicing.Store(true)
	for {
		n, err := w.ReadFrom(&io.LimitedReader{R: r, N: spliceChunk})
		count.Add(uint64(n))
		if n > 0 {
			s.touch()
		}
		switch {
		case err != nil:
			return s.blame(err, src, dst)
		case n < spliceChunk:
			return io.EOF, nil
		}
	}
}

// blame finds out which side a splice failed on, which its error does not say.
func (s *session) blame(err error, src, dst *netio.Conn) (readErr, writeErr error) {
	if !errors.Is(err, net.ErrClosed) && dst.Gone() && !src.Gone() {
		return nil, err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "write" {
		return nil, err
	}
	return err, nil
}
