package http1

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// parker serves one connection that may be parked.
type parker struct {
	t      *testing.T
	lot    *netio.Lot
	client net.Conn
	rd     *bufio.Reader
	cancel context.CancelFunc // of the connection
	drain  chan struct{}
	err    error // set before done is closed
	done   chan struct{}
	parks  atomic.Int64
}

func startParker(t *testing.T, o ServerOptions, secure bool) *parker {
	t.Helper()
	p := &parker{t: t, drain: make(chan struct{}), done: make(chan struct{})}
	var err error
	if p.lot, err = netio.NewLot(); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.lot.Run(run) })
	a, b := pipeTCP(t)
	c := netio.New(b)
	p.client = a
	if secure {
		certs := httptest.NewUnstartedServer(nil)
		certs.StartTLS()
		cfg := certs.TLS.Clone()
		cfg.NextProtos = nil
		certs.Close()
		shaken := make(chan error)
		go func() { shaken <- c.StartTLSServer(run, cfg) }()
		tc := tls.Client(a, &tls.Config{InsecureSkipVerify: true})
		if e := tc.HandshakeContext(run); e != nil {
			t.Fatal(e)
		}
		if e := <-shaken; e != nil {
			t.Fatal(e)
		}
		p.client = tc
	}
	p.rd = bufio.NewReader(p.client)
	ctx, cancel := context.WithCancel(run)
	p.cancel = cancel
	o.Drain, o.ParkAfter = p.drain, time.Millisecond
	park := o.Park
	if park == nil {
		park = p.lot.Park
	}
	o.Park = func(c *netio.Conn, due time.Time, wake func()) bool {
		p.parks.Add(1)
		return park(c, due, wake)
	}
	go Serve(ctx, c, o, func(_ context.Context, s stream.Server) {
		_ = s.WriteHead(&stream.Response{Status: 204}, true)
	}, func(err error) { p.err = err; close(p.done) })
	t.Cleanup(func() {
		stop()
		_ = a.Close()
		<-p.done
		wg.Wait()
	})
	return p
}

func pipeTCP(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// ask sends one request and reads its response.
func (p *parker) ask() {
	p.t.Helper()
	_, _ = io.WriteString(p.client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := nethttp.ReadResponse(p.rd, nil)
	if err != nil || resp.StatusCode != 204 {
		p.t.Fatalf("%v, %v", resp, err)
	}
}

// parked waits until the connection is parked.
func (p *parker) parked() {
	p.t.Helper()
	for p.lot.Parked() == 0 {
		select {
		case <-p.done:
			p.t.Fatalf("the connection ended: %v", p.err)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestAParkedConnectionGoesOn(t *testing.T) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			p := startParker(t, ServerOptions{IdleTimeout: time.Hour, HeaderTimeout: time.Minute}, secure)
			p.parked() // before the first request
			for range 20 {
				p.ask()
				p.ask()
				p.parked()
			}
			// A head that comes in pieces, the first of which wakes.
			for _, piece := range []string{"GE", "T / HTTP/1.1\r\nHo", "st: a\r\n\r\n"} {
				_, _ = io.WriteString(p.client, piece)
				time.Sleep(3 * time.Millisecond)
			}
			if resp, err := nethttp.ReadResponse(p.rd, nil); err != nil || resp.StatusCode != 204 {
				t.Fatalf("%v, %v", resp, err)
			}
			p.parked()
			_ = p.client.Close()
			if <-p.done; p.err != nil {
				t.Errorf("ended with %v", p.err)
			}
		})
	}
}

func TestAParkedConnectionEnds(t *testing.T) {
	for name, end := range map[string]func(p *parker){
		"by the client":  func(p *parker) { _ = p.client.Close() },
		"by its context": func(p *parker) { p.cancel() },
		"by the drain":   func(p *parker) { close(p.drain) },
	} {
		t.Run(name, func(t *testing.T) {
			p := startParker(t, ServerOptions{IdleTimeout: time.Hour, DrainIdle: func() time.Duration { return 10 * time.Millisecond }}, false)
			p.ask()
			p.parked()
			end(p)
			<-p.done
			if p.err != nil && !errors.Is(p.err, net.ErrClosed) {
				t.Errorf("ended with %v", p.err)
			}
		})
	}
}

func TestTheIdleTimeoutGoesOnWhileParked(t *testing.T) {
	p := startParker(t, ServerOptions{IdleTimeout: 50 * time.Millisecond}, false)
	p.ask()
	begin := time.Now()
	<-p.done
	if d := time.Since(begin); d < 45*time.Millisecond || p.err != nil || p.parks.Load() == 0 {
		t.Errorf("ended after %v with %v, parked %d times", d, p.err, p.parks.Load())
	}
}

func TestAConnectionThatCannotBeParkedWaitsAsBefore(t *testing.T) {
	p := startParker(t, ServerOptions{IdleTimeout: 100 * time.Millisecond, Park: func(*netio.Conn, time.Time, func()) bool { return false }}, false)
	for range 3 {
		p.ask()
		time.Sleep(3 * time.Millisecond)
	}
	<-p.done
	if p.err != nil || p.parks.Load() != 1 {
		t.Errorf("ended with %v, tried to park %d times, want once", p.err, p.parks.Load())
	}
}
