package upstream

import (
	"context"
	"errors"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

func (k codecs) http2(ctx, life context.Context, c *config.Cluster, nc *netio.Conn, info *stream.ConnInfo) (HTTPConn, error) {
	_ = nc.Close()
	return nil, errors.New("http2: not wired yet")
}
