// Package stream is what the HTTP codecs, filters, the router and the upstream
// pools agree on: messages, the two sides of one exchange, and what is known
// of a connection and of a finished exchange.
//
// Both codecs (http1, http2) implement [Server] and [Client]; the suite in
// streamtest holds them to the same behaviour. Everything here is used by one
// goroutine unless a comment says otherwise, and nothing of a message may be
// kept after its exchange ended: its memory is reused.
package stream

import (
	"io"
	"time"
	"unsafe"
)

// Proto is the HTTP version of a message.
type Proto uint8

const (
	HTTP10 Proto = iota + 1
	HTTP11
	HTTP2
)

// String is the form of access logs: "HTTP/1.1", "HTTP/2".
func (p Proto) String() string {
	switch p {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP11:
		return "HTTP/1.1"
	case HTTP2:
		return "HTTP/2"
	}
	return "-"
}

// Length of a body that is not known in advance.
const UnknownLength int64 = -1

// Request is a request's head. Codecs fill it; filters and the router may change it.
type Request struct {
	Proto     Proto
	Method    []byte
	Scheme    []byte // "http" or "https"
	Authority []byte // Host or :authority, as received
	Path      []byte // path and query as received (:path); "*" for OPTIONS *, empty for plain CONNECT
	Fields    Fields
	// ContentLength mirrors the content-length field: 0 if there is no
	// body, UnknownLength if it is chunked or of unknown length.
	ContentLength int64
	// Upgrade is the protocol asked for by Upgrade (HTTP/1.1) or by :protocol
	// (extended CONNECT, RFC 8441), nil if none. With an upgrade the body is
	// the raw byte stream after the switch.
	Upgrade []byte
	// HasTrailers tells that the client announced "te: trailers".
	TETrailers bool

	read start // as a codec has read it
}

// start is where the parts of a request's first lines were, and how long.
type start struct {
	method, path, authority          *byte
	methodLen, pathLen, authorityLen int
}

func (r *Request) start() start {
	return start{
		unsafe.SliceData(r.Method), unsafe.SliceData(r.Path), unsafe.SliceData(r.Authority), len(r.Method), len(r.Path), len(r.Authority),
	}
}

// Vouch is for a codec that has made sure that Method is a token, that Path is a valid target or empty, and that Authority is a
// valid host or empty ([ValidToken], [ValidTarget], [ValidHost]), and whose memory does not change during the exchange.
func (r *Request) Vouch() { r.read = r.start() }

// AsRead tells that method, path and authority still are what [Request.Vouch] was about.
func (r *Request) AsRead() bool { return r.read.method != nil && r.read == r.start() }

// Reset makes the request empty and keeps memory.
func (r *Request) Reset() {
	f := r.Fields
	f.Reset()
	*r = Request{Fields: f}
}

// Response is a response's head.
type Response struct {
	Proto         Proto
	Status        int
	Fields        Fields
	ContentLength int64 // as in Request
	Upgrade       []byte
}

// Reset makes the response empty and keeps memory.
func (r *Response) Reset() {
	f := r.Fields
	f.Reset()
	*r = Response{Fields: f}
}

// Server is one exchange as a codec's server side hands it to the proxy.
// ReadBody and RequestTrailers may run on another goroutine than the Write
// methods and Flush; Gone may be called from anywhere.
type Server interface {
	Request() *Request
	// HasBody tells whether ReadBody will return anything but io.EOF at once.
	HasBody() bool
	// BodyBuffered returns the whole body if it has already been received
	// together with the head (ok), so that it can be sent again. Valid for the exchange.
	BodyBuffered() (body []byte, ok bool)
	// ReadBody returns the next piece of the body, valid until the next
	// call, never empty with a nil error, io.EOF at the end. It sends 100-continue
	// if the client waits for it. Flow control is given back as pieces are consumed.
	ReadBody() ([]byte, error)
	// RequestTrailers returns trailers after io.EOF, nil if none.
	RequestTrailers() *Fields
	// WriteHead sends a head; a status below 200 (not 101) is informational and may be
	// repeated. Output is buffered: it leaves with Flush, when the buffer fills, or at the end.
	// The codec decides framing from ContentLength and the request's method.
	WriteHead(r *Response, end bool) error
	WriteBody(p []byte, end bool) error
	WriteTrailers(t *Fields) error // ends the message
	Flush() error
	// Abort ends the exchange before its response is complete: RST_STREAM with
	// INTERNAL_ERROR or the connection is cut, so that the client can tell.
	Abort()
	// Gone tells whether the client has gone (reset, closed). It does not
	// block; for HTTP/1 it peeks at the socket.
	Gone() bool
	// Done is closed when the stream was reset or the connection closed by the
	// peer; nil for codecs that only support Gone.
	Done() <-chan struct{}
	// CloseAfter asks for the connection to end after this exchange
	// (Connection: close, GOAWAY): drain.
	CloseAfter()
}

// Client is one exchange on an upstream connection. Writes and reads may run
// on two goroutines; each direction has one.
type Client interface {
	// WriteHead may hold the bytes back until Flush, ReadHead or a full buffer, so that head and body leave in one write.
	WriteHead(r *Request, end bool) error
	WriteBody(p []byte, end bool) error
	WriteTrailers(t *Fields) error
	Flush() error
	// ReadHead flushes, waits and returns the next head, valid until the
	// next call. Status below 200 other than 101 is informational: call again.
	ReadHead() (*Response, error)
	ReadBody() ([]byte, error) // as Server.ReadBody
	Trailers() *Fields
	// SetDeadline bounds all reads and writes of this exchange from now on; zero: no bound.
	SetDeadline(t time.Time)
	// Conn tells what is known of the upstream connection.
	Conn() *ConnInfo
	// Fresh tells whether this exchange is the first on its connection, so
	// a failure is not the stale-connection race.
	Fresh() bool
	// Close ends the exchange: a complete one gives its connection back to
	// the pool, an incomplete one is reset or its connection closed. Must be called exactly once.
	Close()
}

// Readier may be implemented by a [Client] or [Server]: ReadReady tells whether
// the next ReadBody returns without waiting for the network, so that whoever
// passes the body on can put off a Flush. It is called by the reading goroutine.
type Readier interface{ ReadReady() bool }

// Waker may be implemented by a [Server]: WakeRead makes a ReadBody that waits, or comes later, return with an
// error. A response can still be written; for HTTP/1 the connection ends after it. It may be
// called from anywhere while the handler runs.
type Waker interface{ WakeRead() }

// EOF is returned by ReadBody at the end of a body.
var EOF = io.EOF
