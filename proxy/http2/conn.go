package http2

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"weft.mesh/weft/proxy/netio"
)

// limits are what both sides' options have in common, defaults filled in.
type limits struct {
	headerBytes  int
	headers      int
	streamWindow int
	connWindow   int
	maxStreams   int // server: what the peer may open
	headTimeout  time.Duration
}

// conn is one connection. Its reader goroutine runs the frame loop; everybody
// else comes through streams.
type conn struct {
	nc     *netio.Conn // set at creation
	server *serverConn // set at creation; nil on the client's side
	client *ClientConn
	lim    limits
	done   chan struct{} // closed when the connection has failed or ended

	// reader only
	in       netio.Buffer
	dec      decoder
	head     header // of the frame being read
	sink     headSink
	block    []byte // a header block that CONTINUATION goes on with
	blockOf  header // its HEADERS frame; stream 0: none
	conts    int
	taken    bool // the payload of the DATA frame being read belongs to its stream
	settled  bool // the peer's first SETTINGS have come
	guard    guard
	deadline time.Time // the read deadline that is set

	mu sync.Mutex
	// mu protects the following.
	enc      encoder
	wbuf     []byte
	spare    []byte
	flushing bool
	room     sync.Cond // wbuf has been taken to be written
	streams  map[uint32]*stream
	running  int    // server: handlers; client: streams not closed
	lastPeer uint32 // the highest stream ID that the peer opened
	nextID   uint32 // client: of the next stream
	resets   [32]uint32
	resetAt  int
	peer     peerSettings
	sendWin  int       // what we may send on the connection
	recvWin  int       // what the peer may
	unacked  int       // consumed and not yet given back
	blocked  int       // streams that wait for sendWin
	early    []*stream // client: streams that wait for the first SETTINGS
	err      error
	draining drainState
	goneAway bool // the peer's GOAWAY has come
	timer    *time.Timer
	timerAt  time.Time
}

// peerSettings are the peer's limits.
type peerSettings struct {
	maxFrame   int
	window     int
	maxStreams int
	connect    bool
	received   bool
}

type drainState uint8

const (
	drainNone  drainState = iota
	drainFirst            // GOAWAY with the highest ID is out
	drainLast             // GOAWAY with the last ID that we take
)

// maxBuffered bounds what waits to be written, in bytes: data waits for room above it.
const maxBuffered = 64 << 10

// maxControl bounds it when the peer makes us answer faster than it reads.
const maxControl = 512 << 10

func newConn(nc *netio.Conn, lim limits) *conn {
	c := &conn{
		nc: nc, lim: lim, done: make(chan struct{}),
		dec: newDecoder(defaultTableSize), enc: newEncoder(),
		streams: make(map[uint32]*stream),
		peer:    peerSettings{maxFrame: minMaxFrame, window: initialWindow, maxStreams: defaultPeerStreams},
		sendWin: initialWindow, recvWin: initialWindow,
	}
	c.room.L = &c.mu
	c.guard.init()
	return c
}

// out returns the buffer to append frames to. mu is held.
func (c *conn) out() []byte {
	if c.wbuf == nil {
		if c.spare != nil {
			c.wbuf, c.spare = c.spare, nil
		} else {
			c.wbuf = netio.Get()[:0]
		}
	}
	return c.wbuf
}

// flush writes what has been appended. If somebody else is about to, or
// writes already, it will do it for us. With yield other goroutines may run first, so that the frames of
// streams that are just being served leave in the same write. mu is held, and released in between.
func (c *conn) flush(yield bool) {
	if c.flushing || len(c.wbuf) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	if yield {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	for rounds := 0; len(c.wbuf) > 0 && c.err == nil; rounds++ {
		if rounds == 4 {
			go c.flushOn() // do not keep this stream busy for the others for ever
			return
		}
		c.writeOut()
	}
	c.idleBuffers()
	c.flushing = false
	c.room.Broadcast()
}

// flushOn goes on with a flush; it ends when nothing is left or the connection fails.
func (c *conn) flushOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.wbuf) > 0 && c.err == nil {
		c.writeOut()
	}
	c.idleBuffers()
	c.flushing = false
	c.room.Broadcast()
}

// flushAside flushes on a goroutine of its own: the reader must not wait for a peer that waits for it.
func (c *conn) flushAside() {
	if c.flushing || len(c.wbuf) == 0 || c.err != nil {
		return
	}
	c.flushing = true
	go c.flushOn()
}

func (c *conn) writeOut() {
	b := c.wbuf
	c.wbuf = nil
	c.mu.Unlock()
	_, err := c.nc.Write(b)
	c.mu.Lock()
	if cap(b) <= 2*maxBuffered && c.spare == nil {
		c.spare = b[:0]
	}
	if err != nil {
		c.fail(err)
	}
	c.room.Broadcast()
}

// idleBuffers gives memory back when nothing waits.
func (c *conn) idleBuffers() {
	if len(c.wbuf) == 0 && c.wbuf != nil {
		c.putBuffer(c.wbuf)
		c.wbuf = nil
	}
	if c.spare != nil {
		c.putBuffer(c.spare)
		c.spare = nil
	}
}

func (c *conn) putBuffer(b []byte) {
	if cap(b) == netio.BufferSize { // else it has grown, and is the collector's
		netio.Put((*[netio.BufferSize]byte)(b[:netio.BufferSize]))
	}
}

// fail marks the connection as dead and wakes everybody. mu is held.
func (c *conn) fail(err error) {
	if c.err != nil {
		return
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // to a stream it is not the end of a body
	}
	c.err = err
	for _, s := range c.streams {
		s.gone()
		s.cond.Broadcast()
	}
	c.wakeEarly()
	c.room.Broadcast()
	if c.timer != nil {
		c.timer.Stop()
	}
	close(c.done)
	// The reader, and a write that waits, must end too. After an orderly end
	// (errEnded) or an error of our own the reader closes when GOAWAY is out.
	var ce *connError
	if !errors.Is(err, errEnded) && !errors.As(err, &ce) {
		_ = c.nc.Close()
	}
}

// wakeEarly wakes the streams that wait for SETTINGS. mu is held.
func (c *conn) wakeEarly() {
	for _, s := range c.early {
		s.cond.Broadcast()
	}
	c.early = nil
}

// errEnded: nothing runs any more and nothing new may.
var errEnded = errors.New("connection drained")

// end runs at the end of the frame loop, on the reader. It says goodbye and closes.
func (c *conn) end(err error) {
	var ce *connError
	c.mu.Lock()
	protocol := errors.As(err, &ce)
	if protocol && c.err == nil {
		c.goodbye(ce)
	}
	c.fail(err)
	c.idleBuffers()
	c.mu.Unlock()
	switch {
	case protocol:
		c.linger(200 * time.Millisecond)
	case errors.Is(err, errEnded):
		c.linger(time.Second) // the peer closes when it has read everything
	}
	_ = c.nc.Close()
	c.in.Release()
}

// goodbye sends what waits and GOAWAY, for at most a second. mu is held, and released in between.
func (c *conn) goodbye(ce *connError) {
	_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	c.wbuf = appendGoAway(c.out(), c.lastPeer, ce.code, ce.why)
	for c.flushing && c.err == nil && len(c.wbuf) > 0 {
		c.room.Wait() // whoever writes takes it along
	}
	c.flush(false)
	for c.flushing && c.err == nil {
		c.room.Wait()
	}
}

// linger lets the peer read our last words: closing with unread bytes would cut them off.
func (c *conn) linger(d time.Duration) {
	if c.nc.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(d))
	for total := 0; total < 256<<10; {
		c.in.Consume(c.in.Len())
		if c.nc.Fill(&c.in) != nil {
			return
		}
		total += c.in.Len()
	}
}

// control appends a small frame that the peer caused. Too many of them that it
// does not read end the connection.
func (c *conn) control(b []byte) error {
	c.wbuf = b
	if len(b) > maxControl {
		return connErr(codeCalm, "peer does not read the answers it causes")
	}
	return nil
}

// forget notes that we have reset a stream, so that what the peer sent before it knew is ignored.
func (c *conn) forget(id uint32) {
	c.resets[c.resetAt%len(c.resets)] = id
	c.resetAt++
}

func (c *conn) wasReset(id uint32) bool {
	for _, r := range c.resets {
		if r == id {
			return true
		}
	}
	return false
}

// failed is the error of a stream whose connection died. mu is held.
func (c *conn) failed() error {
	if c.err == nil {
		return net.ErrClosed
	}
	return c.err
}

// arm makes sure that the streams that wait are woken at t. mu is held.
func (c *conn) arm(t time.Time) {
	if !c.timerAt.IsZero() && !t.Before(c.timerAt) {
		return
	}
	c.timerAt = t
	d := time.Until(t)
	if c.timer == nil {
		c.timer = time.AfterFunc(d, c.tick)
	} else {
		c.timer.Reset(d)
	}
}

// tick wakes the streams whose deadline has passed and waits for the next one.
func (c *conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timerAt = time.Time{}
	if c.err != nil {
		return
	}
	now := time.Now()
	var next time.Time
	c.wakeEarly() // each looks at its own deadline
	for _, s := range c.streams {
		switch {
		case s.deadline.IsZero():
		case !s.deadline.After(now):
			s.cond.Broadcast()
		case s.waiting > 0 && (next.IsZero() || s.deadline.Before(next)):
			next = s.deadline
		}
	}
	if !next.IsZero() {
		c.arm(next)
	}
}
