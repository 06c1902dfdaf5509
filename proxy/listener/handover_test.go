package listener_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/listener"
)

func TestHandOverStopsAcceptingAtOnceAndLeavesConnectionsToDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, listener.Settings{AcceptWhileDraining: true, MinDrain: time.Minute})
		b.apply(t, bound("a", "0.0.0.0:80", httpChain("h", config.ChainMatch{})), bound("b", "0.0.0.0:81", tcpChain("t", config.ChainMatch{})))
		web, _ := b.dial(t, "10.0.0.1:80", "")
		long, _ := b.dial(t, "10.0.0.1:81", "")
		b.m.HandOver()
		if _, err := b.net.Dial("10.0.0.1:80"); err == nil {
			t.Error("accepts after HandOver")
		}
		if err := b.m.Apply(view(bound("c", "0.0.0.0:82", tcpChain("t", config.ChainMatch{})))); err == nil {
			t.Error("Apply after HandOver")
		}
		_, _ = web.Write([]byte("still here\n"))
		if got := line(web); got != "still here" {
			t.Errorf("before the drain: %q", got)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		res := make(chan error, 1)
		go func() { res <- b.m.Drain(ctx) }()
		if got := line(web); got != "bye" {
			t.Errorf("HTTP connection got %q, want to be told to end", got)
		}
		if err := <-res; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cut 1 connections") || time.Since(began) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if got := line(long); got != "" {
			t.Errorf("the long connection got %q", got)
		}
	})
}

func TestSocketsAreFoundByConfiguredAddressWhileTheyAreOpen(t *testing.T) {
	e := &echo{}
	m := listener.New(listener.Settings{HTTP: e, TCP: e})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	defer func() { cancel(); <-done }()
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().(*net.TCPAddr).AddrPort()
	free.Close()
	if err := m.Apply(view(bound("a", addr.String(), tcpChain("t", config.ChainMatch{})))); err != nil {
		t.Fatal(err)
	}
	if m.Socket(addr) == nil {
		t.Error("not found")
	}
	if m.Socket(netip.MustParseAddrPort("127.0.0.1:1")) != nil {
		t.Error("found another")
	}
	m.HandOver()
	if m.Socket(addr) != nil {
		t.Error("found after HandOver")
	}
}
