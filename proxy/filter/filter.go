// Package filter is the contract between the HTTP connection manager (and the
// TCP path) and the filters. Each filter is a package of its own below this
// one; filterset lists them. A filter value is one compiled configuration:
// immutable, shared by all streams, safe for concurrent use.
package filter

import (
	"context"
	"time"

	"weft.mesh/weft/proxy/stream"
)

// HTTP sees the head of every request and response that passes its chain. Calls
// come on the stream's goroutine and may block; ctx work must end when the stream ends.
type HTTP interface {
	// Name is the filter's name in Envoy's configuration, "envoy.filters.http.rbac".
	Name() string
	// Request may change the head, or end the exchange with a reply of its own.
	Request(s *Stream) Verdict
	// Response may change the head of the final response, also of a local reply.
	Response(s *Stream)
}

// Ender is a filter that wants to see the finished exchange (telemetry).
type Ender interface {
	End(s *Stream)
}

// Upstreamer is a filter that wants to change a request once it is known which
// upstream connection it goes to. It is called for every attempt, before the head is written.
type Upstreamer interface {
	Upstream(s *Stream, c *stream.ConnInfo)
}

// BodyWatcher is a filter that wants to see bodies pass, without changing them.
type BodyWatcher interface {
	// Watch begins to watch an exchange that goes to an upstream; nil: not interested.
	Watch(s *Stream) BodyWatch
}

// BodyWatch watches the bodies of one exchange. Pieces may not be kept. Request
// and response pieces may come from different goroutines; Done comes when both have ended, before End.
type BodyWatch interface {
	RequestBody(p []byte)
	ResponseBody(p []byte)
	Done(s *Stream)
}

// Transcoder is a filter that may speak another protocol with the client than with those behind it.
type Transcoder interface {
	// Transcode is called after Request has let an exchange pass, and before the filters behind. It may change
	// the request's head, and returns what reads and writes in the place of srv; nil: it has no part in this exchange.
	// If it does and sets Info.GRPC, replies of the proxy still are plain HTTP, which it may translate.
	Transcode(s *Stream, srv stream.Server) stream.Server
}

// Network sees a new connection before the last network filter takes it.
type Network interface {
	Name() string
	// Connection returns false (and details for the log) to close the connection.
	Connection(c *stream.ConnInfo) (ok bool, details string)
}

// Stream is what a filter sees of one exchange.
type Stream struct {
	Conn *stream.ConnInfo
	Req  *stream.Request
	Resp *stream.Response // nil before there is one
	Info *stream.Info
	// Upstream is the connection of the last attempt, to which Resp belongs unless it is Direct; nil before there is one.
	Upstream *stream.ConnInfo
	// PerRoute is the chosen route's typed_per_filter_config, compiled, by
	// filter name; nil map if there is none.
	PerRoute map[string]any
	// Direct tells that Resp was made by the proxy, not by an upstream.
	Direct bool
	// Sleep waits, and returns false if the client went away before.
	Sleep func(d time.Duration) bool
	// Context ends with the stream. It is made on first use.
	Context func() context.Context
	// State is scratch memory of the filter chain, one slot for each filter by its index in the chain.
	State []any
}

// Verdict is what a filter decided. The zero value continues.
type Verdict struct{ Reply *Reply }

// Continue passes the request on.
var Continue = Verdict{}

// Reply is a response made by the proxy.
type Reply struct {
	Status   int
	Body     []byte
	Headers  []Header
	Details  string // response code details, e.g. "rbac_access_denied_matched_policy[none]"
	Flags    stream.Flags
	GRPCCode int  // used instead of Status for gRPC requests; 0: mapped from Status (gRPC's HTTP mapping)
	Bare     bool // the route's operations on response headers do not apply
}

// Header is a field of a Reply.
type Header struct{ Name, Value string }

// End stops the chain with a reply.
func End(r *Reply) Verdict { return Verdict{r} }
