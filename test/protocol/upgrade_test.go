package protocol

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// raw is a connection whose bytes the test writes itself.
type raw struct {
	net.Conn
	r *bufio.Reader
}

func dialRaw(t testing.TB, port int, send string) *raw {
	t.Helper()
	c, err := dial(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	return &raw{c, bufio.NewReader(c)}
}

// head reads a response's head. The method of its request decides what follows.
func (c *raw) head(t testing.TB, method string) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (c *raw) echoes(t testing.TB, msg string) {
	t.Helper()
	if _, err := io.WriteString(c, msg); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != msg {
		t.Fatalf("%q came back as %q, %v", msg, got, err)
	}
}

// closeWrite ends our side.
func (c *raw) closeWrite(t testing.TB) {
	t.Helper()
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// switching is an application that switches to any protocol asked for, or to a tunnel on CONNECT, and
// sends back what comes until its client ends; then it says goodbye.
func switching(t testing.TB) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		if r.Method == "CONNECT" {
			_, _ = fmt.Fprintf(rw, "HTTP/1.1 200 OK\r\nx-target: %s\r\n\r\n", r.Host)
		} else {
			_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		}
		_ = rw.Flush()
		_, _ = io.Copy(c, rw)
		time.Sleep(300 * time.Millisecond) // until proxies have looked for clients that left
		_, _ = io.WriteString(c, "goodbye")
	}
}

func TestAnyProtocolThatIsListedIsSwitchedTo(t *testing.T) {
	app := proxytest.StartApp(t, "app")
	for _, between := range []string{"http", "http2"} {
		t.Run("over "+between, func(t *testing.T) {
			p := startPair(t, pairOptions{app: app.Port, between: between, upgrades: "SPDY/3.1"})
			app.Handle(switching(t))
			c := dialRaw(t, p.port, "GET /exec HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: spdy/3.1\r\n\r\nearly")
			resp := c.head(t, "GET")
			if resp.StatusCode != 101 || !strings.EqualFold(resp.Header.Get("Upgrade"), "spdy/3.1") || !strings.EqualFold(resp.Header.Get("Connection"), "upgrade") {
				t.Fatalf("%d %v", resp.StatusCode, resp.Header)
			}
			early := make([]byte, 5)
			if _, err := io.ReadFull(c.r, early); err != nil || string(early) != "early" { // sent before the answer, and not before it was passed on
				t.Fatalf("%q, %v", early, err)
			}
			c.echoes(t, "hello")
			c.closeWrite(t)
			if rest, err := io.ReadAll(c.r); err != nil || string(rest) != "goodbye" {
				t.Errorf("after our end came %q, %v", rest, err)
			}
			refused := dialRaw(t, p.port, "GET /exec HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			if resp := refused.head(t, "GET"); resp.StatusCode != 403 {
				t.Errorf("a protocol that is not listed: %d", resp.StatusCode)
			}
		})
	}
}

func TestCONNECTNeedsToBeAllowed(t *testing.T) {
	app := proxytest.StartApp(t, "app")
	const connect = "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n"
	p := startPair(t, pairOptions{app: app.Port})
	if resp := dialRaw(t, p.port, connect).head(t, "CONNECT"); resp.StatusCode != 403 {
		t.Errorf("not allowed: %d", resp.StatusCode)
	}
	if app.Count() != 0 {
		t.Error("it was passed on")
	}
}

func TestCONNECTOpensATunnelWhereItIsAllowed(t *testing.T) {
	app := proxytest.StartApp(t, "app")
	for _, between := range []string{"http", "http2"} {
		t.Run("over "+between, func(t *testing.T) {
			p := startPair(t, pairOptions{app: app.Port, between: between, upgrades: "CONNECT", match: "connect_matcher: {}"})
			app.Handle(switching(t))
			c := dialRaw(t, p.port, "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n")
			if resp := c.head(t, "CONNECT"); resp.StatusCode != 200 || resp.Header.Get("x-target") != "db:5432" {
				t.Fatalf("%d %v", resp.StatusCode, resp.Header)
			}
			c.echoes(t, "select 1")
			c.closeWrite(t)
			if rest, err := io.ReadAll(c.r); err != nil || string(rest) != "goodbye" {
				t.Errorf("after our end came %q, %v", rest, err)
			}
			app.Handle(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such host", 502) })
			c = dialRaw(t, p.port, "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n")
			resp := c.head(t, "CONNECT")
			b, err := io.ReadAll(resp.Body)
			if resp.StatusCode != 502 || err != nil || string(b) != "no such host\n" {
				t.Errorf("refused: %d %q %v", resp.StatusCode, b, err)
			}
		})
	}
}

// TestUpgradedStreamsHaveTheTimeoutsOfStreams: route timeouts do not bound them, idle time and the longest duration do.
func TestUpgradedStreamsHaveTheTimeoutsOfStreams(t *testing.T) {
	t.Parallel() // waits more than it works
	app := proxytest.StartApp(t, "app")
	const upgrade = "GET / HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
	for _, tc := range []struct {
		name    string
		o       pairOptions
		quiet   bool // nothing is sent on the stream
		details string
	}{
		{"idle by the manager", pairOptions{manager: "stream_idle_timeout: 1.5s"}, true, "stream_idle_timeout"},
		{"idle by the route", pairOptions{route: "idle_timeout: 1.5s"}, true, "stream_idle_timeout"},
		{"too long by the manager", pairOptions{manager: "common_http_protocol_options: {max_stream_duration: 2s}"}, false, "max_duration_timeout"},
		{"too long by the route", pairOptions{route: "max_stream_duration: {max_stream_duration: 2s}"}, false, "max_duration_timeout"},
	} {
		for _, between := range []string{"http", "http2"} {
			t.Run(tc.name+" over "+between, func(t *testing.T) {
				tc.o.app, tc.o.between, tc.o.timeout, tc.o.upgrades = app.Port, between, "1s", "echo"
				p := startPair(t, tc.o)
				app.Handle(switching(t))
				begin := time.Now()
				c := dialRaw(t, p.port, upgrade)
				if resp := c.head(t, "GET"); resp.StatusCode != 101 {
					t.Fatal(resp.StatusCode)
				}
				c.echoes(t, "hello")
				written := make(chan error, 1)
				if tc.quiet {
					written <- nil
				} else {
					go func() { // moves for as long as it may
						_, err := io.WriteString(c, "x")
						for ; err == nil; _, err = io.WriteString(c, "x") {
							time.Sleep(50 * time.Millisecond)
						}
						written <- err
					}()
				}
				// Whoever looks first is told of a reset, nobody after it. After an end in order the writer gets EPIPE.
				if _, err := io.Copy(io.Discard, c.r); err == nil {
					if err = <-written; !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("it ended in order; what was written then: %v", err)
					}
				}
				if d := time.Since(begin); d < 1400*time.Millisecond { // longer than the route's timeout, at least about as long as it may
					t.Errorf("it ended after %v", d)
				}
				p.logged(t, tc.details)
			})
		}
	}
}
