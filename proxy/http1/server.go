package http1

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// ServeConn serves a connection until it ends, and closes it. Handler h runs on the calling goroutine,
// once for each request; the exchange is complete, or cut, when h returns, and nothing of it may be
// used afterwards. It returns nil if the connection ended between requests or
// was handed over by an upgrade, else what ended it. The end of ctx cuts the connection.
func ServeConn(ctx context.Context, c *netio.Conn, o ServerOptions, h func(ctx context.Context, s stream.Server)) error {
	var err error
	o.Park, o.Sleep = nil, nil
	Serve(ctx, c, o, h, func(e error) { err = e })
	return err
}

// Serve is ServeConn for connections that may be parked: it returns when the connection is, or has ended.
// done is told what ended it, once, on the goroutine that served it last.
func Serve(ctx context.Context, c *netio.Conn, o ServerOptions, h func(ctx context.Context, s stream.Server), done func(error)) {
	ServeOn(ctx, c, o, Rest{}, h, done)
}

// Rest is what is left of the codec of a connection that sleeps. The zero value is one that has not begun.
type Rest struct {
	born   time.Time
	habits habits
}

// ServeOn is Serve for a connection that has slept.
func ServeOn(ctx context.Context, c *netio.Conn, o ServerOptions, rest Rest, h func(ctx context.Context, s stream.Server), done func(error)) {
	sc := &serverConn{c: c, o: o.filled(), scheme: http, ctx: ctx, handle: h, done: done}
	slept := !rest.born.IsZero()
	if !slept {
		rest.born = time.Now()
	}
	sc.born, sc.idling = rest.born, idling{o: sc.o, habits: rest.habits, away: slept}
	sc.in.head.SetLimit(sc.o.MaxHeaderBytes)
	if c.TLSState() != nil {
		sc.scheme = https
	}
	if sc.o.WriteStallTimeout > 0 {
		c.SetWriteStall(sc.o.WriteStallTimeout)
	}
	sc.uncut = stream.AfterFunc(ctx, c.Abort)
	sc.undrain = netio.OnClose(sc.o.Drain, sc.onDrain)
	sc.run()
}

// filled has the defaults.
func (o ServerOptions) filled() *ServerOptions {
	o.MaxHeaderBytes = orDefault(o.MaxHeaderBytes, DefaultMaxHeaderBytes)
	o.MaxHeaders = orDefault(o.MaxHeaders, DefaultMaxHeaders)
	if o.DrainBody == 0 {
		o.DrainBody = DefaultDrainBody
	}
	if o.ParkAfter <= 0 {
		o.ParkAfter = DefaultParkAfter
	}
	return &o
}

// run serves until the connection ends or is parked; then it may be running again already.
func (sc *serverConn) run() {
	err := sc.serve(sc.ctx, sc.handle)
	if err == errParked {
		return
	}
	sc.in.release()
	_ = sc.c.Close()
	sc.undrain()
	sc.uncut()
	sc.done(err)
}

// errParked: somebody else waits for the connection now, and nothing of it may be touched any more.
var errParked = errors.New("parked")

// serverConn is the server's side of one connection; its goroutine owns it.
type serverConn struct {
	c      *netio.Conn
	o      *ServerOptions
	scheme []byte
	in     input
	idling idling
	born   time.Time

	// set by Serve
	ctx     context.Context // of the connection, which outlives any call
	handle  func(context.Context, stream.Server)
	done    func(error)
	uncut   func() bool
	undrain func()

	armed bool      // the deadline that is set is the one that idling asked for
	first time.Time // when the first byte of the current request was seen
	due   time.Time // the read deadline that is set; zero: none

	draining atomic.Int64 // unix nanoseconds until which a draining connection may idle; 0: it does not drain

	mu   sync.Mutex
	idle bool // guarded by mu: waiting for a request
}

// onDrain runs on another goroutine.
func (sc *serverConn) onDrain() {
	idle := DefaultDrainIdle
	if sc.o.DrainIdle != nil {
		idle = sc.o.DrainIdle()
	}
	if sc.o.DrainTime != nil {
		idle = max(idle, sc.o.DrainTime())
	}
	by := time.Now().Add(idle)
	sc.draining.Store(by.UnixNano())
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.idle {
		_ = sc.c.SetReadDeadline(by) // ends the wait then; an error means it has ended
	}
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// turnRequests is how many pipelined requests a connection has served before the others have their turn.
const turnRequests = 8

func (sc *serverConn) serve(ctx context.Context, h func(context.Context, stream.Server)) error {
	for ahead := 1; ; ahead++ {
		if sc.in.head.Len() == 0 {
			ahead = 0
		} else if ahead%turnRequests == 0 {
			netio.GiveWay() // whoever pipelines without end takes turns with the other connections
		}
		if err := sc.await(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		x := exchanges.Get().(*exchange)
		more, err := sc.one(ctx, x, h)
		x.clear()
		exchanges.Put(x)
		if err != nil || !more {
			return err
		}
		sc.in.next()
	}
}

func (sc *serverConn) setDue(t time.Time) {
	sc.armed = false
	if t.Equal(sc.due) {
		return
	}
	sc.due = t
	_ = sc.c.SetReadDeadline(t) // fails only on a closed connection, as will the read
}

// armBody sets the deadline of the request's end, counted from its first byte.
func (sc *serverConn) armBody() {
	if sc.o.RequestTimeout <= 0 {
		sc.setDue(time.Time{})
		return
	}
	if sc.first.IsZero() {
		sc.first = sc.now() // the head has just come, whole
	}
	sc.setDue(sc.first.Add(sc.o.RequestTimeout))
}

// readHead reads a head to its end, parses it into x and returns its length.
// The rest of the buffer is what follows it.
func (sc *serverConn) readHead(x *exchange) (int, *protoError, error) {
	// Nearly always it is all there, and sound. Whatever else it is, the slow way says.
	n, perr := parseRequest(sc.in.head.Bytes(), &x.req, &x.ctl, sc.o.MaxHeaders)
	if n > 0 && n <= sc.o.MaxHeaderBytes && perr == nil {
		return n, nil, nil
	}
	n, perr, err := sc.awaitHead()
	if err != nil || perr != nil {
		return 0, perr, err
	}
	x.req.Reset()
	x.ctl = control{}
	n, perr = parseRequest(sc.in.head.Bytes()[:n], &x.req, &x.ctl, sc.o.MaxHeaders)
	return n, perr, nil
}

// awaitHead waits for the end of a head and returns its length.
func (sc *serverConn) awaitHead() (int, *protoError, error) {
	looked := 0
	for {
		b := sc.in.head.Bytes()
		n, perr := headEnd(b, looked)
		if perr == nil && n == 0 {
			perr = hopeless(b, sc.o.MaxHeaderBytes)
		}
		if perr == nil && n > sc.o.MaxHeaderBytes {
			perr = tooLarge(b[:sc.o.MaxHeaderBytes])
		}
		if perr != nil || n > 0 {
			return n, perr, nil
		}
		if looked == 0 {
			sc.armHead()
		}
		looked = len(b)
		if err := sc.c.Fill(&sc.in.head); err != nil {
			if err == netio.ErrBufferFull {
				return 0, tooLarge(b), nil
			}
			if netio.IsTimeout(err) {
				return 0, refuse(408, "request_header_timeout"), nil
			}
			return 0, nil, err
		}
	}
}

// armHead starts the clock of an incomplete head.
func (sc *serverConn) armHead() {
	sc.first = time.Now()
	var due time.Time
	if d := sc.o.HeaderTimeout; d > 0 {
		due = sc.first.Add(d)
	}
	if d := sc.o.RequestTimeout; d > 0 && (due.IsZero() || sc.first.Add(d).Before(due)) {
		due = sc.first.Add(d)
	}
	sc.setDue(due)
}

// hopeless refuses an incomplete head that no further byte can mend.
func hopeless(b []byte, limit int) *protoError {
	for i, c := range b {
		if c == ' ' && i > 0 {
			break
		}
		if !stream.TokenByte(c) {
			return refuse(400, detailsCodec)
		}
	}
	if len(b) >= limit {
		return tooLarge(b)
	}
	return nil
}

func tooLarge(b []byte) *protoError {
	for _, c := range b {
		if c == '\n' {
			return refuse(431, detailsTooLarge)
		}
	}
	return refuse(414, detailsTooLarge)
}

// one serves one request; more tells that another may follow.
func (sc *serverConn) one(ctx context.Context, x *exchange, h func(context.Context, stream.Server)) (more bool, err error) {
	x.begin(sc)
	n, perr, err := sc.readHead(x)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return false, err
	}
	if perr == nil && x.req.Proto == stream.HTTP10 && !sc.o.AllowHTTP10 {
		perr = refuse(426, detailsLowVersion)
	}
	if perr != nil {
		sc.answer(x, perr)
		return false, perr
	}
	sc.in.off = n
	sc.idling.served++
	x.accept()
	if x.ctl.h2Count == 1 && sc.o.H2C != nil && x.mayTurnH2C() {
		if serve := sc.o.H2C(&x.req, x.ctl.h2Settings); serve != nil {
			return false, sc.turnH2C(ctx, x, serve)
		}
	}
	h(ctx, x)
	return x.finish()
}

// answer refuses a request in the codec's own name and ends the connection.
func (sc *serverConn) answer(x *exchange, perr *protoError) {
	if sc.o.OnProtocolError != nil {
		sc.o.OnProtocolError(perr.status, perr.details)
	}
	x.w.str(statusLine(perr.status))
	if perr.status == 426 {
		x.w.str("Upgrade: HTTP/1.1\r\n")
	}
	x.w.str("Content-Length: 0\r\nConnection: close\r\n\r\n")
	x.w.flush()
	sc.linger()
}

// Bounds of lingering.
const (
	lingerTime  = time.Second
	lingerBytes = 8 << 20 // what a client has on its way when a response comes early; the time bounds what it costs
)

// linger ends our side and reads on for a little, because closing with unread bytes would reset the
// connection, and the client might lose the response (RFC 9112 section 9.6).
func (sc *serverConn) linger() {
	sc.in.release()
	if sc.c.CloseWrite() != nil {
		return
	}
	_ = sc.c.SetReadDeadline(time.Now().Add(lingerTime))
	var b netio.Buffer
	defer b.Release()
	for total := 0; total < lingerBytes; {
		if sc.c.Fill(&b) != nil {
			return
		}
		total += b.Len()
		b.Consume(b.Len())
	}
}
