package grpcstream

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// patience is how long a connection may be without a call before it is the gRPC server's.
const patience = 5 * time.Second

// smallRead is what each connection has to read into: an acknowledgement fits. What does not is read into one of bigs.
const smallRead = 512

var bigs = sync.Pool{New: func() any { return new([2 * (frameHeader + maxFrame)]byte) }}

// conn is one connection. What comes is read and handled in its turns, of which there is one at a time; whoever sends does so under mu.
type conn struct {
	srv  *Server
	sock *sock
	nc   net.Conn // over sock, with TLS

	state atomic.Int32 // of its turns
	slow  atomic.Bool  // the last one took long
	young atomic.Bool  // what it says may have to wait for others

	// of its turn
	small  [smallRead]byte
	big    *[2 * (frameHeader + maxFrame)]byte // nil: it reads into small
	in     []byte                              // not handled yet; in small, in big, or begin's own
	hpack  *hpack.Decoder
	block  []byte // of headers that are not complete…
	opener frame  // …and the frame that they began with; stream 0: none is open
	empty  bool   // all that had come was taken when work ended
	linger int    // bytes that are still read, and not looked at; 0: it does not linger
	info   credentials.AuthInfo

	mu      sync.Mutex // protects the following
	streams map[uint32]*Stream
	spoke   *Stream   // the stream of the last message; mostly there is one…
	only    Stream    // …and this is the memory of the first
	ready   []*Stream // have something to send, each once; begins as one
	one     [1]*Stream
	ctl     []byte    // frames of the connection itself
	send    int64     // the client's window for the connection
	initial int64     // its window for each new stream
	recv    int64     // what the client may still send
	owed    int64     // window that is to be given back
	last    uint32    // the newest stream
	late    bool      // the kernel is full: sock's onSent goes on
	newest  time.Time // when the last stream was opened
	leaving bool      // GOAWAY was sent
	dead    bool
	spoken  bool      // the client said something since…
	heard   time.Time // …it was last noted that it had
	asked   time.Time // PING without an answer; zero: none
	retire  time.Time // when it is told to end; zero: never
	until   time.Time // when it is ended, whatever the client does; zero: it is not
	calm    int       // frames that cost the client nothing, since…
	calmed  time.Time // …then
}

func newConn(s *Server, sock *sock) *conn {
	c := &conn{srv: s, sock: sock, nc: sock, send: plainWindow, initial: plainWindow, recv: plainWindow, streams: map[uint32]*Stream{}, heard: time.Now(), retire: s.age()}
	return c
}

// begin says hello and reads until the first call, whose path it returns; "" if there is none for a while. It handles
// nothing: what it read is in in.
func (c *conn) begin() (path string, err error) {
	if _, err := c.nc.Write(appendHello(nil, c.srv.set.MaxStreams)); err != nil {
		return "", err
	}
	c.nc.SetReadDeadline(time.Now().Add(patience))
	c.in = make([]byte, 0, 1<<10)
	for {
		path, done, err := firstPath(c.in)
		if done || err != nil {
			return path, err
		}
		if len(c.in) == cap(c.in) {
			c.in = append(c.in, 0)[:len(c.in)]
		}
		n, err := c.nc.Read(c.in[len(c.in):cap(c.in)])
		if c.in = c.in[:len(c.in)+n]; err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && len(c.in) >= len(preface) {
				return "", nil
			}
			return "", err
		}
	}
}

// maxBegin bounds what is read before the first call.
const maxBegin = 4 * maxFrame

// firstPath looks for the first call in what a client said so far.
func firstPath(b []byte) (path string, done bool, err error) {
	if n := min(len(b), len(preface)); string(b[:n]) != preface[:n] {
		return "", false, fatal(codeProtocol, "no HTTP/2 preface")
	}
	if len(b) > maxBegin {
		return "", false, fatal(codeCalm, "too much before the first call")
	}
	if len(b) < len(preface) {
		return "", false, nil
	}
	var block []byte
	for b = b[len(preface):]; ; {
		f, n, _, err := cutFrame(b)
		if n == 0 || err != nil {
			return "", false, err
		}
		b = b[n:]
		switch f.kind {
		case frameHeaders:
			part, err := f.block()
			if err != nil {
				return "", false, err
			}
			block = append(block, part...)
		case frameContinuing:
			block = append(block, f.payload...)
		default:
			continue
		}
		if f.flags&flagEndHeaders != 0 {
			h, err := readHead(newDecoder(), block)
			return h.path, true, err
		}
	}
}

// taken is what begin has read.
func (c *conn) taken() []byte {
	b := c.in
	c.in = nil
	return b
}

// run serves what begin has read, or ends with its error, and has the poller serve what comes.
func (c *conn) run(info credentials.AuthInfo, err error) {
	c.info, c.hpack = info, newDecoder()
	c.state.Store(running)
	c.young.Store(true)
	fd, failed := c.sock.adopt(c.sentLate)
	if failed == nil {
		failed = c.srv.poller.add(c, fd)
	}
	if err = cmp.Or(failed, err); err == nil {
		c.in = c.in[len(preface):]
		err = c.frames()
	}
	if err != nil {
		c.shut(err)
	}
	c.turns(true)
}

// A connection is idle, or it is its turn; again: something has come since that began.
const (
	idle int32 = iota
	running
	again
	gone // and will have no turn any more
)

// rouse notes events, and tells whether it is to have a turn now.
func (c *conn) rouse(events uint32) bool {
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.sock.ended.Store(true)
	}
	if events&unix.EPOLLOUT != 0 {
		c.sock.writable()
	}
	for {
		switch was := c.state.Load(); was {
		case idle:
			if c.state.CompareAndSwap(idle, running) {
				return true
			}
		case running:
			if c.state.CompareAndSwap(running, again) {
				return false
			}
		default:
			return false
		}
	}
}

// alone tells that a turn may take long, or wait.
func (c *conn) alone() bool { return c.young.Load() || c.slow.Load() }

// slowTurn is how long others may wait for a turn.
const slowTurn = time.Millisecond

// turns has the connection's turn, and another as long as something has come meanwhile: on a goroutine of its own, if that goes on.
func (c *conn) turns(alone bool) {
	for began := time.Now(); c.state.Load() != gone; {
		more := c.turn()
		switch {
		case c.state.Load() == gone:
			return
		case !more && c.state.CompareAndSwap(running, idle):
			c.slow.Store(time.Since(began) > slowTurn)
			return
		}
		c.state.Store(running)
		if !alone {
			c.srv.wg.Go(func() { c.turns(true) })
			return
		}
	}
}

// turn handles what has come, and tells whether there may be more.
func (c *conn) turn() (more bool) {
	c.sock.dry = false
	if c.linger > 0 {
		c.discard()
		return false
	}
	err := c.work()
	switch {
	case err == nil:
		return true
	case !errors.Is(err, errWouldBlock):
		c.shut(err)
	}
	return false
}

// turnReads is how much is read in one turn, which others wait for.
const turnReads = 16

// work handles what has come. Its error is errWouldBlock if that was all, and nil if there may be more.
func (c *conn) work() error {
	first := c.empty // crypto/tls has nothing that came before
	c.empty, c.sock.tls.whole = false, 0
	for range turnReads {
		full, err := c.fill()
		if err == nil {
			err = c.frames()
		}
		if err == nil && first && !full && c.big == nil && c.sock.dry && (c.srv.set.TLS == nil || c.sock.tls.single()) {
			err = errWouldBlock // as the next read would say, which also gives a big buffer back
		}
		if first = false; err != nil {
			c.empty = errors.Is(err, errWouldBlock)
			return err
		}
	}
	return nil
}

// frames handles all that are whole.
func (c *conn) frames() error {
	for {
		f, n, _, err := cutFrame(c.in)
		if n == 0 || err != nil {
			return err
		}
		if err := c.handle(&f); err != nil {
			return err
		}
		c.in = c.in[n:]
	}
}

// fill reads more, into the smallest buffer that will do, and tells whether that is full now.
func (c *conn) fill() (full bool, err error) {
	_, _, want, err := cutFrame(c.in)
	if err != nil {
		return false, err
	}
	to := c.small[:]
	if want > smallRead || len(c.in) > smallRead {
		if c.big == nil {
			c.big = bigs.Get().(*[2 * (frameHeader + maxFrame)]byte)
		}
		to = c.big[:]
	}
	kept := copy(to, c.in)
	if want <= smallRead && kept <= smallRead && c.big != nil {
		bigs.Put(c.big)
		c.big = nil
	}
	n, err := c.nc.Read(to[kept:])
	c.in = to[:kept+n]
	if n > 0 {
		return kept+n == len(to), nil // an error comes again
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return false, err
}

// handle does what a frame asks for.
func (c *conn) handle(f *frame) error {
	if c.opener.stream != 0 && (f.kind != frameContinuing || f.stream != c.opener.stream) {
		return fatal(codeProtocol, "a header block is not continued")
	}
	switch f.kind {
	case frameHeaders:
		return c.headers(f)
	case frameContinuing:
		return c.continued(f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return net.ErrClosed
	}
	c.spoken = true
	if f.kind == frameData {
		return c.data(f)
	}
	if f.kind != frameWindowUpdate {
		if err := c.cheap(); err != nil {
			return err
		}
	}
	var err error
	switch f.kind {
	case framePriority, frameGoAway: // the first is deprecated, after the second the client only goes on with its streams
	case frameReset:
		err = c.reset(f)
	case frameSettings:
		err = c.settings(f)
	case framePing:
		err = c.ping(f)
	case frameWindowUpdate:
		err = c.windowUpdate(f)
	case framePush:
		err = fatal(codeProtocol, "a client pushes")
	}
	c.flush()
	return err
}

// maxCheap is how many frames in a second may cost the client next to nothing.
const maxCheap = 500

func (c *conn) cheap() error {
	if c.calm++; c.calm > maxCheap {
		return fatal(codeCalm, "too many frames")
	}
	return nil
}

// headers begins a stream, or ends one with trailers.
func (c *conn) headers(f *frame) error {
	part, err := f.block()
	if err != nil {
		return err
	}
	if f.stream == 0 {
		return fatal(codeProtocol, "HEADERS without a stream")
	}
	c.opener, c.block = frame{flags: f.flags, stream: f.stream}, part
	if f.flags&flagEndHeaders == 0 {
		c.block = append([]byte(nil), part...) // the buffer is read into again
		return nil
	}
	return c.opened()
}

func (c *conn) continued(f *frame) error {
	if c.opener.stream == 0 {
		return fatal(codeProtocol, "CONTINUATION of nothing")
	}
	if len(f.payload) == 0 || len(c.block)+len(f.payload) > maxHeaderBlock {
		return fatal(codeCalm, "a header block is too long")
	}
	c.block = append(c.block, f.payload...)
	if f.flags&flagEndHeaders == 0 {
		return nil
	}
	return c.opened()
}

// opened has a whole header block.
func (c *conn) opened() error {
	f := c.opener
	h, err := readHead(c.hpack, c.block)
	c.opener, c.block = frame{}, nil
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.flush()
	if f.stream <= c.last {
		if s := c.streams[f.stream]; s != nil && f.flags&flagEndStream != 0 {
			s.end(nil) // trailers
			return nil
		}
		return c.cheap() // of a stream that has ended
	}
	if f.stream%2 == 0 {
		return fatal(codeProtocol, "a stream with an even number")
	}
	switch {
	case c.leaving:
		return nil // it was told so, and makes the call on another connection
	case h.path != c.srv.set.Method:
		c.goAway(codeNone, "this connection is for "+c.srv.set.Method)
		return nil
	}
	c.last, c.newest = f.stream, time.Now()
	c.young.Store(true)
	if len(c.streams) >= c.srv.set.MaxStreams {
		c.ctl = appendReset(c.ctl, f.stream, codeRefused)
		return c.cheap()
	}
	c.open(f, h)
	return nil
}

func (c *conn) reset(f *frame) error {
	if len(f.payload) != 4 {
		return fatal(codeFrameSize, "RST_STREAM has not 4 bytes")
	}
	if f.stream == 0 || f.stream > c.last && !c.leaving {
		return fatal(codeProtocol, "RST_STREAM of no stream")
	}
	if s := c.streams[f.stream]; s != nil {
		s.drop()
	}
	return nil
}

func (c *conn) settings(f *frame) error {
	if f.stream != 0 || len(f.payload)%6 != 0 || f.flags&flagAck != 0 && len(f.payload) > 0 {
		return fatal(codeFrameSize, "malformed SETTINGS")
	}
	if f.flags&flagAck != 0 {
		return nil
	}
	for b := f.payload; len(b) > 0; b = b[6:] {
		if binary.BigEndian.Uint16(b) != setInitialWindow {
			continue // nothing that we send depends on another
		}
		v := int64(binary.BigEndian.Uint32(b[2:]))
		if v > maxWindow {
			return fatal(codeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE is too large")
		}
		for _, s := range c.streams {
			if err := s.widen(v - c.initial); err != nil {
				return err
			}
		}
		c.initial = v
	}
	c.ctl = appendHead(c.ctl, 0, frameSettings, flagAck, 0)
	return nil
}

func (c *conn) ping(f *frame) error {
	if len(f.payload) != 8 || f.stream != 0 {
		return fatal(codeFrameSize, "malformed PING")
	}
	if f.flags&flagAck == 0 {
		c.ctl = append(appendHead(c.ctl, 8, framePing, flagAck, 0), f.payload...)
	}
	return nil
}

func (c *conn) windowUpdate(f *frame) error {
	if len(f.payload) != 4 {
		return fatal(codeFrameSize, "WINDOW_UPDATE has not 4 bytes")
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	if n == 0 {
		return fatal(codeProtocol, "WINDOW_UPDATE of nothing")
	}
	if f.stream == 0 {
		if c.send += n; c.send > maxWindow {
			return fatal(codeFlowControl, "the window is too large")
		}
		for _, s := range c.streams {
			s.waits()
		}
		return nil
	}
	s := c.streams[f.stream]
	if s == nil {
		return c.cheap()
	}
	return s.widen(n)
}

// look is called now and then.
func (c *conn) look(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.until.IsZero() && now.After(c.until) || c.late && c.sock.stalls(now) {
		c.kill()
		return
	}
	if c.dead || c.last == 0 {
		return
	}
	if c.young.Load() && now.Sub(c.newest) >= c.srv.set.Youth && c.heardOf() {
		c.young.Store(false)
	}
	if now.Sub(c.calmed) >= time.Second {
		c.calm, c.calmed = 0, now
	}
	if c.spoken {
		c.spoken, c.heard = false, now
	}
	switch {
	case !c.asked.IsZero() && c.heard.Before(c.asked) && now.Sub(c.asked) >= c.srv.set.Answer:
		c.kill()
		return
	case now.Sub(c.heard) >= c.srv.set.KeepAlive && !c.heard.Before(c.asked):
		c.asked = now
		c.ctl = append(appendHead(c.ctl, 8, framePing, 0, 0), "keepaliv"...)
	}
	if !c.retire.IsZero() && !now.Before(c.retire) {
		if c.leaving && !now.Before(c.retire.Add(c.srv.set.AgeGrace)) {
			c.kill()
			return
		}
		c.goAway(codeNone, "the connection is old")
	}
	c.flush()
}

// goAway lets no new streams in; mu is held.
func (c *conn) goAway(code uint32, why string) {
	if c.leaving {
		return
	}
	c.leaving = true
	c.ctl = appendGoAway(c.ctl, c.last, code, why)
	if len(c.streams) == 0 {
		c.until = time.Now().Add(lingerTime) // for the client to close it
	}
}

// kill ends it at once; mu is held. The reader does the rest.
func (c *conn) kill() {
	c.dead = true
	c.sock.stop()
}

// abort is kill for those who do not hold mu.
func (c *conn) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kill()
}

// heardOf tells that there was a message on each stream; mu is held.
func (c *conn) heardOf() bool {
	for _, s := range c.streams {
		if !s.spoke {
			return false
		}
	}
	return true
}

// lingerTime is how long a client may take to end a connection that we have ended, and lingerBytes what it may still send.
const lingerTime, lingerBytes = time.Second, 1 << 20

// shut ends the connection in its turn.
func (c *conn) shut(err error) {
	c.mu.Lock()
	var e *connError
	broken := errors.As(err, &e) && !c.dead && c.sock.own
	if broken {
		c.srv.set.Log.Debug("http2: a client's connection ends", "client", c.sock.RemoteAddr().String(), "error", e)
		c.ctl = appendGoAway(c.ctl, c.last, e.code, e.why)
		c.flush()
	}
	c.dead = true
	for _, s := range c.streams {
		s.drop()
	}
	if broken && c.sock.leave() == nil {
		// The kernel would else throw away what the client has not read yet, and with it why.
		c.until, c.linger = time.Now().Add(lingerTime), lingerBytes
	}
	c.mu.Unlock()
	if c.linger == 0 {
		c.close()
	}
}

// discard reads what is under way.
func (c *conn) discard() {
	for {
		n, err := c.sock.Read(c.small[:])
		if c.linger -= n; errors.Is(err, errWouldBlock) {
			return
		}
		if err != nil || c.linger <= 0 {
			c.close()
			return
		}
	}
}

// close lets go of everything, in its turn.
func (c *conn) close() {
	c.state.Store(gone)
	if c.sock.own {
		c.srv.poller.remove(c.sock.fd)
	}
	c.nc.Close()
	if c.big != nil {
		bigs.Put(c.big)
		c.big = nil
	}
	c.srv.remove(c)
}
