package upstream

import (
	"context"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/http1"
	"weft.mesh/weft/proxy/http2"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// HTTPConn is an upstream connection as the pools see it.
type HTTPConn interface {
	// Start begins an exchange; an error means that nothing was sent.
	Start() (stream.Client, error)
	// Multiplexed tells whether exchanges share it (HTTP/2).
	Multiplexed() bool
	// Idle tells whether an HTTP/1 connection can take another exchange after the last one.
	Idle() bool
	// Usable tells whether it still stands; for an idle HTTP/1 connection that looks at the socket.
	Usable() bool
	// CanTakeStream tells whether one more exchange fits.
	CanTakeStream() bool
	// Streams is the number of exchanges running.
	Streams() int
	// Close takes no more exchanges and ends the connection; those that run on a shared one end first.
	// A pool cannot know that nothing runs: an exchange may just begin.
	Close()
}

// Connector makes HTTP connections. ctx is that of the attempt, not of the connection.
type Connector interface {
	Connect(ctx context.Context, c *config.Cluster, ep *config.Endpoint, tls *config.UpstreamTLS, proto config.Protocol, o DialOptions) (HTTPConn, error)
}

// codecs is the Connector over a Dialer and the two codecs.
type codecs struct{ set Settings }

// writeStall is how long an upstream may take nothing of what is sent to it.
const writeStall = 5 * time.Minute

func (k codecs) Connect(ctx context.Context, c *config.Cluster, ep *config.Endpoint, tls *config.UpstreamTLS, proto config.Protocol, o DialOptions) (HTTPConn, error) {
	nc, info, err := k.set.Dialer.Dial(ctx, ep, c, tls, o)
	if err != nil {
		return nil, err
	}
	if proto == config.ProtoHTTP2 || proto == config.ProtoALPN && (info.ALPN == "h2" || info.ALPN == "istio-h2") {
		return k.http2(ctx, c, nc, info)
	}
	return http1Conn{http1.NewClientConn(nc, info, http1.ClientOptions{
		MaxHeaderBytes: k.set.MaxHeaderBytes, MaxHeaders: k.set.MaxHeaders, WriteStallTimeout: writeStall,
	})}, nil
}

func (k codecs) http2(ctx context.Context, c *config.Cluster, nc *netio.Conn, info *stream.ConnInfo) (HTTPConn, error) {
	cc, err := http2.NewClientConn(ctx, nc, info, http2.ClientOptions{
		MaxHeaderBytes: k.set.MaxHeaderBytes, MaxHeaders: k.set.MaxHeaders, WriteStallTimeout: writeStall, MaxStreams: c.MaxConcurrentStreams,
	})
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return http2Conn{cc}, nil
}

// http2Conn adapts the HTTP/2 codec.
type http2Conn struct{ *http2.ClientConn }

func (c http2Conn) Multiplexed() bool { return true }
func (c http2Conn) Idle() bool        { return c.Streams() == 0 }
func (c http2Conn) Close()            { c.Shut() }

// Usable tells whether the connection still takes streams, now or when others have ended.
func (c http2Conn) Usable() bool {
	return c.Err() == nil && (c.Streams() > 0 || c.CanTakeStream())
}

// http1Conn adapts the HTTP/1 codec.
type http1Conn struct{ *http1.ClientConn }

func (c http1Conn) Multiplexed() bool   { return false }
func (c http1Conn) CanTakeStream() bool { return c.Idle() }
func (c http1Conn) Streams() int {
	if c.Idle() {
		return 0
	}
	return 1
}
