package listener_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/listener"
)

func TestAnOverloadedProxyTakesNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		b := newBench(t, listener.Settings{Refuse: full.Load})
		b.apply(t, bound("a", "0.0.0.0:80", tcpChain("a", config.ChainMatch{})))
		if _, got := b.dial(t, "10.0.0.1:80", ""); got != "tcp:a" {
			t.Fatalf("served by %q", got)
		}
		full.Store(true)
		if _, got := b.dial(t, "10.0.0.1:80", ""); got != "" {
			t.Errorf("served by %q while full", got)
		}
		if n, open := b.m.Stats().Overflow.Load(), b.m.Active(); n != 1 || open != 1 {
			t.Errorf("overflow %d, %d open; want 1 and the first one", n, open)
		}
		full.Store(false)
		if _, got := b.dial(t, "10.0.0.1:80", ""); got != "tcp:a" {
			t.Errorf("served by %q after that", got)
		}
	})
}

// Under memory pressure HTTP connections are asked to go, and those that come stay.
func TestRelieveEndsConnectionsOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, listener.Settings{})
		b.apply(t, bound("a", "0.0.0.0:80", httpChain("h", config.ChainMatch{})), bound("b", "0.0.0.0:81", tcpChain("t", config.ChainMatch{})))
		old, _ := b.dial(t, "10.0.0.1:80", "")
		long, _ := b.dial(t, "10.0.0.1:81", "")
		b.m.Relieve()
		if got := line(old); got != "bye" {
			t.Errorf("the HTTP connection got %q, want to be told to end", got)
		}
		synctest.Wait()
		fresh, got := b.dial(t, "10.0.0.1:80", "")
		if got != "http:h" {
			t.Fatalf("served by %q afterwards", got)
		}
		synctest.Wait()
		if b.m.Active() != 2 {
			t.Errorf("%d connections, want the TCP one and the new one", b.m.Active())
		}
		_, _ = long.Write([]byte("x\n"))
		if got := line(long); got != "x" {
			t.Errorf("the TCP connection echoes %q", got)
		}
		b.m.Relieve()
		if got := line(fresh); got != "bye" {
			t.Errorf("the new connection got %q the next time", got)
		}
		b.m.StartDrain()
		b.m.Relieve() // nothing left to tell
	})
}
