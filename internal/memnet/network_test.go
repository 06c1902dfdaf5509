package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func listen(t *testing.T, n *Network, address string) *Listener {
	t.Helper()
	l, err := n.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestAddressesAreTCPAddresses(t *testing.T) {
	n := New(Link{})
	l := listen(t, n, "10.1.2.3:80")
	c, err := n.DialFrom(t.Context(), netip.MustParseAddr("10.9.9.9"), "10.1.2.3:80")
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]struct {
		got  net.Addr
		want string
	}{
		"client local":  {c.LocalAddr(), "10.9.9.9:40000"},
		"client remote": {c.RemoteAddr(), "10.1.2.3:80"},
		"server local":  {s.LocalAddr(), "10.1.2.3:80"},
		"server remote": {s.RemoteAddr(), "10.9.9.9:40000"},
		"listener":      {l.Addr(), "10.1.2.3:80"},
	} {
		tcp, ok := a.got.(*net.TCPAddr)
		if !ok || tcp.AddrPort().String() != a.want {
			t.Errorf("%s address = %v (%T), want TCP address %s", name, a.got, a.got, a.want)
		}
	}
}

func TestDialing(t *testing.T) {
	n := New(Link{})
	n.SetHost("reviews", netip.MustParseAddr("10.0.0.7"))
	listen(t, n, "10.0.0.7:9080")
	listen(t, n, ":81")
	closed := listen(t, n, "10.0.0.7:82")
	_ = closed.Close()
	tests := []struct {
		name, network, address string
		want                   error // nil: connects
		wantAs                 any
	}{
		{"an address", "tcp", "10.0.0.7:9080", nil, nil},
		{"a name", "tcp", "reviews:9080", nil, nil},
		{"an address in IPv6 form", "tcp", "[::ffff:10.0.0.7]:9080", nil, nil},
		{"a listener for every address", "tcp", "192.0.2.1:81", nil, nil},
		{"nobody there", "tcp", "10.0.0.8:9080", syscall.ECONNREFUSED, nil},
		{"another port", "tcp", "reviews:80", syscall.ECONNREFUSED, nil},
		{"a closed listener", "tcp", "10.0.0.7:82", syscall.ECONNREFUSED, nil},
		{"an unknown name", "tcp", "ratings:9080", nil, new(*net.DNSError)},
		{"no port", "tcp", "reviews", nil, new(*net.AddrError)},
		{"a named port", "tcp", "reviews:http", nil, new(*net.AddrError)},
		{"another network", "udp", "reviews:9080", nil, new(net.UnknownNetworkError)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := n.DialContext(t.Context(), tt.network, tt.address)
			switch {
			case tt.wantAs != nil:
				if !errors.As(err, tt.wantAs) {
					t.Errorf("error %v (%T), want %T", err, err, tt.wantAs)
				}
			case !errors.Is(err, tt.want):
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if (err == nil) != (c != nil) {
				t.Errorf("connection %v with error %v", c, err)
			}
		})
	}
	if _, err := n.Listen(":81"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second Listen = %v, want EADDRINUSE", err)
	}
	if a, b := listen(t, n, "10.0.0.7:0"), listen(t, n, "10.0.0.7:0"); a.AddrPort() == b.AddrPort() || a.AddrPort().Port() == 0 {
		t.Errorf("port 0 gave %v and %v, want two free ports", a.AddrPort(), b.AddrPort())
	}
}

func TestDialingTakesARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Link{Latency: 20 * time.Millisecond})
		listen(t, n, "10.0.0.1:80")
		start := time.Now()
		if _, err := n.Dial("10.0.0.1:80"); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got != 40*time.Millisecond {
			t.Errorf("dialing took %v, want two latencies", got)
		}
	})
}

func TestABlackHoleHoldsTheDialer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Link{})
		listen(t, n, "10.0.0.1:80")
		n.SetLink(netip.MustParseAddrPort("10.0.0.1:80"), Link{Blackhole: true})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := n.DialContext(ctx, "tcp", "10.0.0.1:80")
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("error %v, want a timeout", err)
		}
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("dialer gave up after %v, want 3s", got)
		}
	})
}

func TestAFullQueueHoldsTheDialer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Link{})
		l := listen(t, n, "10.0.0.1:80")
		for range backlog {
			if _, err := n.Dial("10.0.0.1:80"); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		time.AfterFunc(time.Second, func() { _, _ = l.Accept() })
		if _, err := n.Dial("10.0.0.1:80"); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got != time.Second {
			t.Errorf("connected after %v, want to wait 1s for room", got)
		}
	})
}

func TestClosingAListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Link{})
		l := listen(t, n, "10.0.0.1:80")
		waiting, err := n.Dial("10.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection that was not accepted: %v, want ECONNRESET", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept = %v, want net.ErrClosed", err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close = %v, want net.ErrClosed", err)
		}
		l = listen(t, n, "10.0.0.1:80") // the address is free again
		time.AfterFunc(time.Second, func() { _ = l.Close() })
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("blocked Accept = %v, want net.ErrClosed", err)
		}
	})
}

// TestHTTPInFakeTime is what the package is for: an hour of real net/http code in no time.
func TestHTTPInFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Link{Latency: time.Millisecond})
		n.SetHost("slow", netip.MustParseAddr("10.0.0.1"))
		l := listen(t, n, "10.0.0.1:80")
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Hour)
			_, _ = io.WriteString(w, r.RemoteAddr)
		})}
		go func() { _ = server.Serve(l) }()
		client := &http.Client{Transport: &http.Transport{DialContext: n.DialContext}}
		start := time.Now()
		resp, err := client.Get("http://slow/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "127.0.0.1:40000" {
			t.Errorf("body %q, %v", body, err)
		}
		if got, want := time.Since(start), time.Hour+4*time.Millisecond; got != want {
			t.Errorf("took %v, want %v: connect, request and response over 1ms each way", got, want)
		}
		_ = resp.Body.Close()
		client.CloseIdleConnections()
		_ = server.Close()
	})
}
