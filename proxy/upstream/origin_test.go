package upstream

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// A PROXY header names the client: its connections serve nobody else.
func TestConnectionsWithAProxyHeaderServeOneClient(t *testing.T) {
	for _, proto := range []config.Protocol{config.ProtoHTTP1, config.ProtoHTTP2} {
		synctest.Test(t, func(t *testing.T) {
			c := clusterOf("10.0.0.1:80")
			c.ProxyProtocol, c.Protocol, c.IdleTimeout = 2, proto, time.Hour
			w := newWorld(t, &fakeNet{}, c)
			stop := w.run()
			defer stop()
			from := func(port uint16) *stream.ConnInfo {
				return &stream.ConnInfo{Remote: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.7"), port), Local: netip.MustParseAddrPort("198.51.100.1:443")}
			}
			call := func(i *stream.ConnInfo) {
				t.Helper()
				x, _, err := w.c().Acquire(context.Background(), &Request{Conn: i})
				if err != nil {
					t.Fatal(err)
				}
				if o := x.(*lease).conn.HTTPConn.(*fakeConn).opts; o.ProxyProtocol != 2 || o.Downstream.Remote != i.Remote {
					t.Errorf("the connection speaks for %v with version %d, want %v and 2", o.Downstream.Remote, o.ProxyProtocol, i.Remote)
				}
				x.Close()
			}
			a, b := from(1), from(2)
			call(a)
			call(b)
			call(a)
			call(b)
			w.expectConns(2, 2)
			time.Sleep(originIdle + 2*housekeeping) // the clients may be gone
			synctest.Wait()
			w.expectConns(2, 0)
			h := w.c().cur.Load().all[0]
			if n := len(h.origins.m); n != 0 {
				t.Errorf("%d pools are kept for clients that are gone", n)
			}
			call(a)
			w.expectConns(3, 1)
			next := *c
			next.Endpoints = nil
			w.apply(&next)
			synctest.Wait()
			w.expectConns(3, 0)
			if n := w.c().conns.Load(); n != 0 {
				t.Errorf("%d connections are counted, want none", n)
			}
		})
	}
}

// The version is part of what connections are: a change makes new ones.
func TestAnEndpointsTransportMatchSaysWhetherAHeaderIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clusterOf("10.0.0.1:80")
		c.ProxyProtocol = 1
		c.Endpoints[0].Transport = map[string]string{"tlsMode": "istio"}
		c.TLSMatches = []config.TransportMatch{{Match: map[string]string{"tlsMode": "istio"}}}
		w := newWorld(t, &fakeNet{}, c)
		for i, want := range []uint8{0, 2} {
			x, _ := w.get()
			if got := x.(*lease).conn.HTTPConn.(*fakeConn).opts.ProxyProtocol; got != want {
				t.Errorf("version %d, want %d", got, want)
			}
			x.Close()
			next := *c
			next.TLSMatches = []config.TransportMatch{{Match: c.TLSMatches[0].Match, ProxyProtocol: 2}}
			w.apply(&next)
			w.expectConns(i+1, i) // the first went when its settings did
		}
	})
}

func TestIdleConnectionsAreClosedWhenMemoryIsShort(t *testing.T) {
	for _, proxy := range []uint8{0, 2} {
		synctest.Test(t, func(t *testing.T) {
			c := clusterOf("10.0.0.1:80")
			c.ProxyProtocol = proxy
			w := newWorld(t, &fakeNet{}, c)
			busy, _ := w.get()
			idle, _ := w.get()
			idle.Close()
			w.expectConns(2, 2)
			w.m.CloseIdle()
			w.expectConns(2, 1)
			busy.Close()
			again, _ := w.get() // the pool goes on
			w.expectConns(2, 1)
			again.Close()
			if n := w.c().conns.Load(); n != 1 {
				t.Errorf("%d connections counted, want 1", n)
			}
		})
	}
}
