package streamtest_test

import (
	"context"
	"testing"

	"weft.mesh/weft/proxy/http1"
	"weft.mesh/weft/proxy/http2"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/stream/streamtest"
)

var one = streamtest.Codec{
	Name: "HTTP/1",
	Serve: func(ctx context.Context, c *netio.Conn, l streamtest.Limits, h func(context.Context, stream.Server)) error {
		return http1.ServeConn(ctx, c, http1.ServerOptions{MaxHeaderBytes: l.HeaderBytes, MaxHeaders: l.Headers, Drain: l.Drain}, h)
	},
	Client: func(_ testing.TB, c *netio.Conn) streamtest.Starter {
		return http1.NewClientConn(c, &stream.ConnInfo{}, http1.ClientOptions{})
	},
}

var two = streamtest.Codec{
	Name:        "HTTP/2",
	Multiplexed: true,
	Serve: func(ctx context.Context, c *netio.Conn, l streamtest.Limits, h func(context.Context, stream.Server)) error {
		return http2.ServeConn(ctx, c, http2.ServerOptions{MaxHeaderBytes: l.HeaderBytes, MaxHeaders: l.Headers, Drain: l.Drain}, h)
	},
	Client: func(t testing.TB, c *netio.Conn) streamtest.Starter {
		cc, err := http2.NewClientConn(context.Background(), c, &stream.ConnInfo{}, http2.ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return cc
	},
}

func TestCodecsAgree(t *testing.T) {
	for _, c := range []streamtest.Codec{one, two} {
		for _, tr := range streamtest.Transports() {
			p := streamtest.Direct(c, tr)
			t.Run(p.Name, func(t *testing.T) { streamtest.Run(t, p) })
		}
	}
}

func TestEveryTranslation(t *testing.T) {
	for _, down := range []streamtest.Codec{one, two} {
		for _, up := range []streamtest.Codec{one, two} {
			for _, tr := range streamtest.Transports()[:2] {
				p := streamtest.Through(down, up, tr)
				t.Run(p.Name, func(t *testing.T) { streamtest.Run(t, p) })
			}
		}
	}
}
