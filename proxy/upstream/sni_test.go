package upstream

import (
	"context"
	"testing"
	"testing/synctest"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// named is a cluster whose connections ask for the server by the name in the request.
func named(max uint32) *config.Cluster {
	c := clusterOf("10.0.0.1:443")
	c.TLS = &config.UpstreamTLS{AutoSNI: true}
	c.Breakers.MaxConnections = max
	return c
}

// TestAConnectionServesTheNameThatItWasMadeFor: another name's request needs a connection on which the server proved that name.
func TestAConnectionServesTheNameThatItWasMadeFor(t *testing.T) {
	for _, proto := range []config.Protocol{config.ProtoHTTP1, config.ProtoHTTP2} {
		synctest.Test(t, func(t *testing.T) {
			cfg := named(unlimited)
			cfg.Protocol = proto
			w := newWorld(t, &fakeNet{h2: proto == config.ProtoHTTP2}, cfg)
			ask := func(host string) stream.Client {
				t.Helper()
				x, _, err := w.c().Acquire(context.Background(), &Request{Authority: []byte(host)})
				if err != nil {
					t.Fatal(err)
				}
				if c := x.(*lease).conn.HTTPConn.(*fakeConn); c.opts.SNI+":443" != host {
					t.Errorf("%s goes out on a connection to %s", host, c.opts.SNI)
				}
				return x
			}
			for range 3 {
				for _, host := range []string{"a.example:443", "b.example:443"} {
					ask(host).Close()
				}
			}
			w.expectConns(2, 2)
		})
	}
}

// TestAConnectionForAnotherNameMakesWay: with as many connections as there may be, idle ones must not keep others out.
func TestAConnectionForAnotherNameMakesWay(t *testing.T) {
	for _, proto := range []config.Protocol{config.ProtoHTTP1, config.ProtoHTTP2} {
		synctest.Test(t, func(t *testing.T) {
			cfg := named(1)
			cfg.Protocol = proto
			w := newWorld(t, &fakeNet{h2: proto == config.ProtoHTTP2}, cfg)
			first, _, err := w.c().Acquire(context.Background(), &Request{Authority: []byte("a.example")})
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan stream.Client)
			go func() { // waits for first to end, and for its place
				x, _, err := w.c().Acquire(context.Background(), &Request{Authority: []byte("b.example")})
				if err != nil {
					t.Error(err)
				}
				got <- x
			}()
			synctest.Wait()
			first.Close()
			(<-got).Close()
			w.expectConns(2, 1)
			x, _, err := w.c().Acquire(context.Background(), &Request{Authority: []byte("a.example")})
			if err != nil {
				t.Fatal(err)
			}
			x.Close()
			w.expectConns(3, 1)
		})
	}
}
