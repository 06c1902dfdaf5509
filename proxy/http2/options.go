package http2

import "time"

// Defaults.
const (
	DefaultMaxHeaderBytes = 60 << 10  // Envoy: max_request_headers_kb
	DefaultMaxHeaders     = 100       // Envoy: max_headers_count
	DefaultMaxStreams     = 1000      // max_concurrent_streams; Envoy has no bound
	DefaultStreamWindow   = 256 << 10 // initial_stream_window_size: what one stream may hold in memory
	DefaultConnWindow     = 1 << 20   // initial_connection_window_size
	DefaultWriteStall     = 30 * time.Second
)

// ServerOptions bound what a client may do. The zero value has the defaults and no timeouts.
type ServerOptions struct {
	MaxHeaderBytes       int    // of a decoded head or trailers, counted as RFC 9113 section 6.5.2; 0: DefaultMaxHeaderBytes
	MaxHeaders           int    // lines; 0: DefaultMaxHeaders
	MaxConcurrentStreams uint32 // 0: DefaultMaxStreams
	StreamWindow         uint32 // at least 65,535; 0: DefaultStreamWindow, and it grows
	ConnWindow           uint32 // at least 65,535; 0: DefaultConnWindow, and it grows

	IdleTimeout       time.Duration // without streams; 0: none
	HeaderTimeout     time.Duration // for the preface, SETTINGS, and an unfinished header block; 0: none
	WriteStallTimeout time.Duration // while the client takes nothing; 0: DefaultWriteStall

	// DrainTime is asked when Drain is closed: GOAWAY is sent at a random moment within it, so that clients do
	// not all come back at once. Nil: zero.
	DrainTime func() time.Duration
	// MaxRequests on a connection, after which it is drained; 0: no bound (max_requests_per_connection).
	MaxRequests uint32
	// Drain, when closed, announces the end with GOAWAY, lets streams finish and ends the connection.
	Drain <-chan struct{}
	// Upgrade is the request that came before the preface, nil if none did.
	Upgrade *Upgrade
	// OnProtocolError is told of a request that the codec itself has refused:
	// the status it answered (400 also when it could only reset the stream, 503 for one that it refused) and why, as
	// Envoy's response code details; and once, with 400, of an error that ends the connection.
	// It runs on the reader and must neither wait nor call into the connection.
	OnProtocolError func(status int, details string)
}

// ClientOptions bound what an upstream may do. The zero value has the defaults.
type ClientOptions struct {
	MaxHeaderBytes    int
	MaxHeaders        int
	StreamWindow      uint32
	ConnWindow        uint32
	WriteStallTimeout time.Duration
	// MaxStreams bounds concurrent streams below what the upstream allows; 0: no bound of our own.
	MaxStreams uint32
	// OnRelease is called when a stream has ended, on the goroutine that closed it: there may be room for another.
	OnRelease func(c *ClientConn)
}

func orDefault[T int | uint32 | time.Duration](n, def T) T {
	if n <= 0 {
		return def
	}
	return n
}
