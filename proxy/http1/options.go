package http1

import (
	"context"
	"time"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// Defaults, Envoy's where it has one.
const (
	DefaultMaxHeaderBytes = 60 << 10 // max_request_headers_kb
	DefaultMaxHeaders     = 100      // max_headers_count
	DefaultDrainBody      = 64 << 10
	// DefaultParkAfter: parking and coming back costs a few microseconds, and a stack that has to grow again.
	DefaultParkAfter = 3 * time.Second
	DefaultDrainIdle = 2 * time.Second
	// FirstRequestGrace is how old a draining connection may get that has asked nothing yet: its first request is on
	// its way, and a client that has just connected does not expect to be turned away.
	FirstRequestGrace = time.Second
)

// ServerOptions bound what a client may do. The zero value has the defaults and no timeouts.
type ServerOptions struct {
	MaxHeaderBytes int // of a head, and of trailers; 0: DefaultMaxHeaderBytes
	MaxHeaders     int // lines; 0: DefaultMaxHeaders

	IdleTimeout       time.Duration // between requests; 0: none
	HeaderTimeout     time.Duration // from the first byte of a head to its end; 0: none
	RequestTimeout    time.Duration // from the first byte of a request to its end; 0: none
	WriteStallTimeout time.Duration // while the client takes nothing; 0: none

	// MaxRequests on a connection, after which it is closed; 0: no bound (max_requests_per_connection).
	MaxRequests uint32
	// DrainTime is asked when Drain is closed, and is DrainIdle if it is longer; nil: zero. A drain
	// that has time (a hot restart) need not close a connection before its next request came.
	DrainTime func() time.Duration
	// AllowHTTP10 accepts HTTP/1.0; otherwise it is answered with 426 as Envoy does.
	AllowHTTP10 bool
	// DrainBody is how much of a request body that nobody read is read and dropped so that the
	// connection can go on; 0: DefaultDrainBody.
	DrainBody int64
	// Drain, when closed, lets the running exchange finish, announces the end with
	// "Connection: close", and ends a connection that stays idle for DrainIdle.
	Drain <-chan struct{}
	// DrainIdle is how long a draining connection waits for a request that may be on its way: closing
	// at once would lose it, and only a client knows whether it may be sent again. It is asked when Drain is
	// closed; nil: DefaultDrainIdle. 0 ends the connection at once, because what it belongs to should serve nothing
	// more, unless it has asked nothing yet and is younger than FirstRequestGrace.
	DrainIdle func() time.Duration
	// H2C, if set, is asked about a request that may become the first of an HTTP/2 connection ("Upgrade: h2c", RFC
	// 7540 section 3.2): on plain TCP, over HTTP/1.1, without a body, with one HTTP2-Settings, and Connection names
	// both. The value is not decoded. It returns what serves the rest of the connection, after our 101 and
	// from the client's preface on, or nil: then the request is served as it came. It may not keep the request.
	H2C func(r *stream.Request, settings []byte) func(ctx context.Context, c *netio.Conn) error
	// Park, if set, takes over the wait for the next request once a connection has idled for ParkAfter, so that
	// no goroutine waits: see [netio.Lot.Park]. Only [Serve] parks.
	Park func(c *netio.Conn, due time.Time, wake func()) bool
	// Sleep, if set, is asked before Park for connections without TLS: it gives the whole connection up, and what it has been told goes to
	// [ServeOn] with the connection that there is later: see [netio.Lot.Sleep]. After true nothing of the connection is used any more.
	Sleep func(due time.Time, rest Rest) bool
	// ParkAfter 0: DefaultParkAfter. Where the idle time-out is much longer, or there is none, it is between half of it and all of it. A
	// connection that has had a request, but no two within ParkAfter, is parked after a sixteenth already.
	ParkAfter time.Duration
	// OnProtocolError is told of a request that the codec itself has refused:
	// the status it answered and why, in the words of Envoy's response code details.
	OnProtocolError func(status int, details string)
}

// ClientOptions bound what an upstream may do. The zero value has the defaults.
type ClientOptions struct {
	MaxHeaderBytes    int // of a head, and of trailers; 0: DefaultMaxHeaderBytes
	MaxHeaders        int // lines; 0: DefaultMaxHeaders
	WriteStallTimeout time.Duration
	// OnRelease is called at the end of each exchange, on the goroutine that closed it: reusable
	// tells that the connection can take another one. Otherwise it is closed already.
	OnRelease func(c *ClientConn, reusable bool)
}

func orDefault(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}
