package upstream

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

func TestHTTP1ConnectionsAreReusedLastFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &fakeNet{}, clusterOf("10.0.0.1:80"))
		a, _ := w.get()
		b, _ := w.get()
		w.expectConns(2, 2)
		last := b.(*lease).conn
		a.Close()
		b.Close()
		c, _ := w.get()
		if c.(*lease).conn != last {
			t.Error("not the connection used last")
		}
		c.Close()
		w.expectConns(2, 2)
	})
}

func TestAnExchangeTellsWhetherMoreIsThere(t *testing.T) {
	bubble(t, "for one flush instead of three", func(t *testing.T) {
		w := newWorld(t, &fakeNet{}, clusterOf("10.0.0.1:80"))
		x, _ := w.get()
		defer x.Close()
		if r, ok := x.(stream.Readier); !ok || !r.ReadReady() {
			t.Errorf("the pool hides the codec's ReadReady (%T)", x)
		}
	})
}

// However short it idled: bytes that nobody asked for would answer the next request.
func TestAnIdleConnectionIsCheckedBeforeUse(t *testing.T) {
	for _, idle := range []time.Duration{0, time.Millisecond, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, &fakeNet{}, clusterOf("10.0.0.1:80"))
			a, _ := w.get()
			a.Close()
			w.net.conns[0].usable = false // the peer closed it, or sent something
			time.Sleep(idle)
			b, _ := w.get()
			b.Close()
			w.expectConns(2, 1)
			if n := w.c().conns.Load(); n != 1 {
				t.Errorf("%d connections counted after %s, want 1", n, idle)
			}
		})
	}
}

// A look at a socket is a system call, at whose end the kernel may take the processor away.
func TestNobodyWaitsForALookAtAnIdleConnection(t *testing.T) {
	w := newWorld(t, &fakeNet{}, clusterOf("10.0.0.1:80"))
	x, _ := w.get()
	p := x.(*lease).conn.pool
	x.Close()
	looks := 0
	w.net.conns[0].looked = func() {
		looks++
		if !p.mu.TryLock() {
			t.Error("the pool's mutex is held")
			return
		}
		p.mu.Unlock()
	}
	x, _ = w.get()
	x.Close()
	if looks != 1 {
		t.Errorf("%d looks at the connection, want 1", looks)
	}
	w.expectConns(1, 1)
}

func TestABrokenConnectionIsNotReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &fakeNet{}, clusterOf("10.0.0.1:80"))
		a, _ := w.get()
		w.net.conns[0].broken = true
		a.Close()
		w.expectConns(1, 0)
	})
}

func TestConnectionsWearOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, h2 := range []bool{false, true} {
			cfg := clusterOf("10.0.0.1:80")
			cfg.MaxRequestsPerConn = 3
			if h2 {
				cfg.Protocol = config.ProtoHTTP2
			}
			w := newWorld(t, &fakeNet{}, cfg)
			for range 7 {
				x, _ := w.get()
				x.Close()
			}
			w.expectConns(3, 1)
		}
	})
}

func TestHTTP2ExchangesShareAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Protocol = config.ProtoHTTP2
		w := newWorld(t, &fakeNet{streams: 10, delay: time.Second}, cfg)
		var wg sync.WaitGroup
		xs := make([]stream.Client, 10)
		for i := range xs {
			wg.Go(func() { xs[i], _ = w.get() })
		}
		wg.Wait()
		w.expectConns(1, 1)
		more, _ := w.get() // an eleventh needs another
		w.expectConns(2, 2)
		for _, x := range append(xs, more) {
			x.Close()
		}
		if s := w.c().Snapshot(); s.Requests != 0 || s.Pending != 0 || s.Conns != 2 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAFailedConnectionFailsAllWhoWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Protocol = config.ProtoHTTP2
		w := newWorld(t, &fakeNet{delay: time.Second, fail: func(netip.AddrPort) error { return syscall.ECONNREFUSED }}, cfg)
		start := time.Now()
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				e := w.refused(&Request{})
				if e.Flag != stream.FlagUpstreamConnectFailure || !e.Unsent || e.Details != "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}" {
					t.Errorf("%+v", e)
				}
			})
		}
		wg.Wait()
		if d := time.Since(start); d != time.Second {
			t.Errorf("took %v, want one attempt", d)
		}
		if s := w.c().Snapshot(); s.Conns != 0 || s.Requests != 0 || s.Pending != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestConnectTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.ConnectTimeout = 2 * time.Second
		w := newWorld(t, &fakeNet{delay: time.Hour}, cfg)
		start := time.Now()
		e := w.refused(&Request{})
		if !e.Timeout || e.Details != "upstream_reset_before_response_started{connection_timeout}" || e.Flag != stream.FlagUpstreamConnectFailure || time.Since(start) != 2*time.Second {
			t.Errorf("%+v after %v", e, time.Since(start))
		}
	})
}

func TestACallerThatLeavesStopsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &fakeNet{delay: time.Hour}, clusterOf("10.0.0.1:80"))
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		e := w.refused(&Request{Slow: func() context.Context { return ctx }})
		if e.Side != stream.Downstream {
			t.Errorf("%+v", e)
		}
		if s := w.c().Snapshot(); s.Conns != 0 || s.Requests != 0 || s.Pending != 0 || s.Hosts[0].RqError != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestBreakers(t *testing.T) {
	overflow := func(e *stream.Error) {
		t.Helper()
		if e != ErrOverflow {
			t.Errorf("%v, want an overflow", e)
		}
	}
	bubble(t, "requests", func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Breakers.MaxRequests = 1
		w := newWorld(t, &fakeNet{}, cfg)
		x, _ := w.get()
		overflow(w.refused(&Request{}))
		x.Close()
		x, _ = w.get()
		x.Close()
	})
	bubble(t, "connections make requests wait for each other", func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Breakers.MaxConnections = 1
		w := newWorld(t, &fakeNet{}, cfg)
		x, _ := w.get()
		time.AfterFunc(3*time.Second, x.Close)
		start := time.Now()
		y, _ := w.get()
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("waited %v, want 3s", d)
		}
		y.Close()
		w.expectConns(1, 1)
	})
	bubble(t, "a dropped connection makes room for who waits", func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Breakers.MaxConnections = 1
		w := newWorld(t, &fakeNet{}, cfg)
		x, _ := w.get()
		w.net.conns[0].broken = true
		time.AfterFunc(time.Second, x.Close)
		y, _ := w.get()
		y.Close()
		w.expectConns(2, 1)
	})
	bubble(t, "pending", func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Breakers.MaxConnections, cfg.Breakers.MaxPending = 1, 1
		w := newWorld(t, &fakeNet{}, cfg)
		x, _ := w.get()
		done := make(chan struct{})
		go func() {
			defer close(done)
			y, _ := w.get()
			y.Close()
		}()
		synctest.Wait()
		overflow(w.refused(&Request{}))
		x.Close()
		<-done
		if s := w.c().Snapshot(); s.PendingOverflow != 1 || s.Pending != 0 {
			t.Errorf("%+v", s)
		}
	})
	bubble(t, "waiting ends with the deadline", func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Breakers.MaxConnections = 1
		w := newWorld(t, &fakeNet{}, cfg)
		x, _ := w.get()
		defer x.Close()
		e := w.refused(&Request{Deadline: time.Now().Add(time.Second)})
		if e.Flag != stream.FlagUpstreamTimeout {
			t.Errorf("%+v", e)
		}
		if n := len(x.(*lease).conn.pool.waiters); n != 0 {
			t.Errorf("%d still wait", n)
		}
	})
	bubble(t, "every endpoint may have one connection", func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80", "10.0.0.2:80")
		cfg.LB.Policy = config.RoundRobin
		cfg.Breakers.MaxConnections = 1
		w := newWorld(t, &fakeNet{}, cfg)
		x, hx := w.get()
		y, hy := w.get()
		if hx == hy {
			t.Error("round robin gave one endpoint twice")
		}
		x.Close()
		y.Close()
	})
	bubble(t, "retry budget", func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Breakers.RetryBudgetPercent, cfg.Breakers.RetryBudgetMin = 50, 1
		w := newWorld(t, &fakeNet{}, cfg)
		if !w.c().BeginRetry() || w.c().BeginRetry() {
			t.Error("without requests the minimum of one retry holds")
		}
		var xs []stream.Client
		for range 6 {
			x, _ := w.get()
			xs = append(xs, x)
		}
		if !w.c().BeginRetry() || !w.c().BeginRetry() || w.c().BeginRetry() {
			t.Error("six requests allow three retries")
		}
		for _, x := range xs {
			x.Close()
		}
	})
}

// bubble is a subtest in fake time.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestFreshMeansANewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, &fakeNet{}, clusterOf("10.0.0.1:80"))
		x, h := w.get()
		x.Close()
		y, _, err := w.c().Acquire(context.Background(), &Request{Fresh: true, On: h})
		if err != nil {
			t.Fatal(err)
		}
		y.Close()
		w.expectConns(2, 2)
	})
}

func TestFreshMeansOneNewSharedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Protocol = config.ProtoHTTP2
		w := newWorld(t, &fakeNet{}, cfg)
		x, h := w.get()
		y, _, err := w.c().Acquire(context.Background(), &Request{Fresh: true, On: h})
		if err != nil {
			t.Fatal(err)
		}
		x.Close()
		y.Close()
		w.expectConns(2, 2)
	})
}

func TestAnHTTP2RequestIsNotHandedAnHTTP1Connection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := clusterOf("10.0.0.1:80")
		cfg.Protocol, cfg.Breakers.MaxConnections = config.ProtoDownstream, 1
		w := newWorld(t, &fakeNet{}, cfg)
		x, _ := w.get()
		time.AfterFunc(time.Second, x.Close)
		y, _, err := w.c().Acquire(context.Background(), &Request{Proto: stream.HTTP2, Deadline: time.Now().Add(2 * time.Second)})
		if err == nil {
			if !y.(*lease).conn.Multiplexed() {
				t.Error("got an HTTP/1 connection")
			}
			y.Close()
		}
		if n := len(x.(*lease).conn.pool.waiters); n != 0 {
			t.Errorf("%d still wait", n)
		}
	})
}

func TestIdleConnectionsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, proto := range []config.Protocol{config.ProtoHTTP1, config.ProtoHTTP2} {
			cfg := clusterOf("10.0.0.1:80")
			cfg.IdleTimeout, cfg.Protocol = 30*time.Second, proto
			w := newWorld(t, &fakeNet{}, cfg)
			stop := w.run()
			x, _ := w.get()
			time.Sleep(time.Minute)
			w.expectConns(1, 1) // in use
			x.Close()
			time.Sleep(29 * time.Second)
			w.expectConns(1, 1)
			time.Sleep(10 * time.Second)
			w.expectConns(1, 0)
			stop()
		}
	})
}

func TestALPNDecidesWhatIsSpoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, h2 := range []bool{true, false} {
			cfg := clusterOf("10.0.0.1:80")
			cfg.Protocol = config.ProtoALPN
			w := newWorld(t, &fakeNet{h2: h2}, cfg)
			x, _ := w.get()
			y, _ := w.get()
			if all, _ := w.net.count(); all != map[bool]int{true: 1, false: 2}[h2] {
				t.Errorf("h2 %v: %d connections for two exchanges", h2, all)
			}
			x.Close()
			y.Close()
		}
	})
}

func TestErrorsOfTheDialerAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := &stream.Error{Side: stream.Upstream, Op: "handshake", Flag: stream.FlagUpstreamConnectFailure, Details: "upstream_reset_before_response_started{remote_connection_failure|TLS_error:_x}", Err: errors.New("x")}
		w := newWorld(t, &fakeNet{fail: func(netip.AddrPort) error { return own }}, clusterOf("10.0.0.1:80"))
		if e := w.refused(&Request{}); e.Details != own.Details || !e.Unsent {
			t.Errorf("%+v", e)
		}
	})
}

func TestAcquireDoesNotAllocate(t *testing.T) {
	for _, proto := range []config.Protocol{config.ProtoHTTP1} {
		cfg := clusterOf("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
		cfg.Protocol = proto
		w := newWorld(t, &fakeNet{}, cfg)
		r := &Request{}
		once := func() {
			r.Random += 0x9e3779b97f4a7c15
			x, _, err := w.c().Acquire(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			x.Close()
		}
		for range 20 {
			once()
		}
		if n := testing.AllocsPerRun(1000, once); n > 1 { // one is the fake's exchange
			t.Errorf("protocol %d: allocs = %v, want at most 1", proto, n)
		}
	}
}

func TestAConnectionsErrorIsNotChangedForAnotherRequest(t *testing.T) {
	w := newWorld(t, &fakeNet{}, clusterOf("10.0.0.1:80"))
	shared := &stream.Error{Side: stream.Upstream, Flag: stream.FlagUpstreamReset, Details: "of the whole connection", Err: errors.New("gone")}
	if e := connectError(w.c(), nil, shared); !e.Unsent || e.Details != shared.Details {
		t.Errorf("%+v", e)
	}
	if shared.Unsent { // a stream that has sent its request would be retried
		t.Error("the error that the connection's other streams have says that nothing was sent")
	}
}
