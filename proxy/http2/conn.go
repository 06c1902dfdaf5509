package http2

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"weft.mesh/weft/proxy/netio"
)

// limits are what both sides' options have in common, defaults filled in.
type limits struct {
	headerBytes  int
	headers      int
	streamWindow int // at first
	connWindow   int // at first
	mostStream   int // what the windows may grow to
	mostConn     int
	maxStreams   int // server: what the peer may open
	headTimeout  time.Duration
}

// conn is one connection. Its reader goroutine runs the frame loop; everybody
// else comes through streams.
type conn struct {
	nc      *netio.Conn // set at creation
	server  *serverConn // set at creation; nil on the client's side
	client  *ClientConn
	lim     limits
	done    chan struct{}  // closed when the connection has failed or ended
	telling sync.WaitGroup // of its end
	// canWriteNow: there is a socket, so that nobody but flushOn waits for the peer to take bytes.
	canWriteNow bool                 // set at creation
	rtt         func() time.Duration // set at creation

	// reader only: whoever has the turn
	in        netio.Buffer
	dec       decoder
	head      header // of the frame being read
	sink      headSink
	block     []byte // a header block that CONTINUATION goes on with
	blockOf   header // its HEADERS frame; stream 0: none
	conts     int
	begun     bool // head is of a frame of which more is to come
	left, pad int  // of a DATA frame's payload and padding
	taken     bool // the payload of the DATA frame being read belongs to its stream
	settled   bool // the peer's first SETTINGS have come
	guard     guard
	deadline  time.Time // the read deadline that is set

	mu sync.Mutex
	// mu protects the following.
	enc      encoder
	wbuf     []byte
	spare    []byte
	flushing bool
	leaving  bool      // to be closed when the output is out
	dirty    *turn     // the last turn that will flush this connection
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
	window   int       // what it may at most
	unacked  int       // consumed and not yet given back
	blocked  int       // streams that wait for sendWin
	early    []*stream // client: streams that wait for the first SETTINGS
	err      error
	draining drainState
	goneAway bool // the peer's GOAWAY has come
	timer    *time.Timer
	timerAt  time.Time
	rest     *time.Timer // looks whether the connection idles
	resting  bool        // rest is armed
	quiet    bool        // nothing ran since rest was armed
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

func newConn(nc *netio.Conn, lim limits) *conn {
	c := &conn{
		nc: nc, lim: lim, done: make(chan struct{}), canWriteNow: nc.CanWriteNow(), rtt: nc.RTT,
		dec: newDecoder(defaultTableSize), enc: newEncoder(),
		streams: make(map[uint32]*stream),
		peer:    peerSettings{maxFrame: minMaxFrame, window: initialWindow, maxStreams: defaultPeerStreams},
		sendWin: initialWindow, recvWin: initialWindow, window: lim.connWindow,
	}
	c.room.L = &c.mu
	c.guard.init()
	return c
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
	if c.client != nil {
		c.client.dead.Store(true)
		c.client.tell()
	}
	c.tellStreams()
	c.wakeEarly()
	c.room.Broadcast()
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.rest != nil {
		c.rest.Stop()
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
			s.resumeAside()
		case s.waits() && (next.IsZero() || s.deadline.Before(next)):
			next = s.deadline
		}
	}
	if !next.IsZero() {
		c.arm(next)
	}
}
