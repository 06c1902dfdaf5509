package upstream

import (
	"context"

	"weft.mesh/weft/proxy/config"
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
	Close()
}

// Connector makes HTTP connections. ctx is that of the attempt, life that of the connection.
type Connector interface {
	Connect(ctx, life context.Context, c *config.Cluster, ep *config.Endpoint, tls *config.UpstreamTLS, proto config.Protocol, o DialOptions) (HTTPConn, error)
}

// codecs is the Connector over a Dialer and the two codecs.
type codecs struct{ set Settings }

func (k codecs) Connect(ctx, life context.Context, c *config.Cluster, ep *config.Endpoint, tls *config.UpstreamTLS, proto config.Protocol, o DialOptions) (HTTPConn, error) {
	nc, info, err := k.set.Dialer.Dial(ctx, ep, c, tls, o)
	if err != nil {
		return nil, err
	}
	_ = info
	_ = life
	_ = nc
	panic("codecs are not wired yet")
}
