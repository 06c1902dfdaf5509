package http1

import (
	"bufio"
	"context"
	"io"
	nethttp "net/http"
	"sync"
	"testing"
	"time"
	"unsafe"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// bedded serves a connection that sleeps whenever it can.
type bedded struct {
	lot  *netio.Lot
	o    ServerOptions
	ctx  context.Context
	done chan error

	slept chan struct{}
	going func() // is called when it is about to sleep

	c    *netio.Conn
	rest Rest
}

func (b *bedded) Slept(bed int32) {
	if bed != 0 {
		b.slept <- struct{}{}
	}
}
func (b *bedded) Over(err error) { b.done <- err }
func (b *bedded) Wake(c *netio.Conn) {
	b.c = c
	b.serve(b.rest)
}

func (b *bedded) serve(rest Rest) {
	o := b.o
	o.Sleep = func(due time.Time, rest Rest) bool {
		b.rest = rest
		b.going()
		return b.lot.Sleep(b.c, due, b)
	}
	ServeOn(b.ctx, b.c, o, rest, func(_ context.Context, s stream.Server) {
		_ = s.WriteHead(&stream.Response{Status: 204}, true)
	}, func(err error) { b.done <- err })
}

func startBedded(t *testing.T, o ServerOptions) (b *bedded, ask func(), answer func() *nethttp.Response) {
	t.Helper()
	lot, err := netio.NewLot()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = lot.Run(ctx) })
	client, server := pipeTCP(t)
	t.Cleanup(func() { _ = client.Close(); cancel(); wg.Wait() })
	o.ParkAfter, o.Park = time.Millisecond, lot.Park
	b = &bedded{lot: lot, o: o, ctx: t.Context(), done: make(chan error, 1), slept: make(chan struct{}, 100), going: func() {}, c: netio.New(server)}
	rd := bufio.NewReader(client)
	return b, func() { _, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") }, func() *nethttp.Response {
		t.Helper()
		resp, err := nethttp.ReadResponse(rd, nil)
		if err != nil || resp.StatusCode != 204 {
			t.Fatalf("%v, %v", resp, err)
		}
		return resp
	}
}

func TestWhatIsKnownOfAConnectionSurvivesItsSleep(t *testing.T) {
	b, ask, answer := startBedded(t, ServerOptions{IdleTimeout: time.Hour, MaxRequests: 5})
	go b.serve(Rest{})
	for i := range 5 {
		<-b.slept
		ask()
		if resp := answer(); resp.Close != (i == 4) {
			t.Errorf("request %d: close %v", i, resp.Close)
		}
	}
	if err := <-b.done; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestARequestThatComesWhileAConnectionGoesToSleepIsAnswered(t *testing.T) {
	b, ask, answer := startBedded(t, ServerOptions{MaxRequests: 50})
	b.going = func() { go ask() }
	go b.serve(Rest{})
	for range 50 {
		<-b.slept
		answer()
	}
	if err := <-b.done; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestTheIdleTimeoutGoesOnInSleep(t *testing.T) {
	b, ask, answer := startBedded(t, ServerOptions{IdleTimeout: 60 * time.Millisecond})
	go b.serve(Rest{})
	ask()
	answer()
	begin := time.Now()
	if err := <-b.done; err != nil || time.Since(begin) < 50*time.Millisecond || b.rest.born.IsZero() {
		t.Errorf("ended after %v with %v, asleep since %v", time.Since(begin), err, b.rest.habits.since)
	}
}

// What is left of a connection that sleeps is the listener's, of 353 to 384 bytes: half of its memory would be lost between what
// has gone if that was of the same size class.
func TestWhatGoesLeavesNoHolesInWhatStays(t *testing.T) {
	if n := unsafe.Sizeof(serverConn{}); n > 352 && n <= 384 {
		t.Errorf("serverConn has %d bytes", n)
	}
}
