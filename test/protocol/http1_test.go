package protocol

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// rawUpstream is a server whose bytes a test writes itself: each connection is given to serve. It keeps what it reads.
type rawUpstream struct {
	port int

	mu   sync.Mutex
	got  strings.Builder // mu: all that it has read
	conn int             // mu: how many connections it has had
}

func startRaw(t *testing.T, serve func(c net.Conn, r *bufio.Reader)) *rawUpstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &rawUpstream{port: l.Addr().(*net.TCPAddr).Port}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.conn++
			u.mu.Unlock()
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				serve(c, bufio.NewReader(io.TeeReader(c, u)))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return u
}

// Write keeps what was read.
func (u *rawUpstream) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.got.Write(p)
}

func (u *rawUpstream) text() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.got.String()
}

// awaitHead reads up to the end of a head.
func awaitHead(r *bufio.Reader) bool {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == "\r\n" {
			return true
		}
	}
}

// exchangeRaw sends text to the rig and reads what comes until the connection ends.
func exchangeRaw(t *testing.T, r *rig, text string, half bool) string {
	t.Helper()
	c := dialRaw(t, r.plain, text)
	if half {
		c.closeWrite(t)
	}
	b, err := io.ReadAll(c.r)
	if err != nil {
		t.Errorf("after %q: %v", b, err)
	}
	return string(b)
}

func TestRequestHeadersKeepTheirCase(t *testing.T) {
	up := startRaw(t, func(c net.Conn, r *bufio.Reader) {
		if awaitHead(r) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-From-App: A\r\nCONTENT-LENGTH: 2\r\n\r\nok")
		}
	})
	r := startRig(t, rigOptions{app: up.port})
	out := exchangeRaw(t, r, "GET /Path?Q HTTP/1.1\r\nHost: App\r\nX-CamelCase: Value\r\nx-lower: v\r\nX-UPPER: V\r\nConnection: close\r\n\r\n", false)
	for _, want := range []string{"GET /Path?Q HTTP/1.1\r\n", "X-CamelCase: Value\r\n", "x-lower: v\r\n", "X-UPPER: V\r\n"} {
		if !strings.Contains(up.text(), want) {
			t.Errorf("the upstream got %q, without %q", up.text(), want)
		}
	}
	if !strings.Contains(out, "X-From-App: A\r\n") || !strings.HasSuffix(out, "\r\n\r\nok") {
		t.Errorf("%q", out)
	}
}

// TestAClientThatEndsItsSideIsStillAnswered: a client may end its side behind its request (nc -N). As with Envoy it is taken
// for gone if the answer then takes long.
func TestAClientThatEndsItsSideIsStillAnswered(t *testing.T) {
	up := startRaw(t, func(c net.Conn, r *bufio.Reader) {
		for awaitHead(r) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	r := startRig(t, rigOptions{app: up.port})
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /direct HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		out := exchangeRaw(t, r, text, true)
		if n := strings.Count(text, "GET"); strings.Count(out, "HTTP/1.1 200 OK\r\n") != n {
			t.Errorf("%d requests were answered with %q", n, out)
		}
	}
}

// TestInterimAnswersPassThroughTheMesh: 103 comes before the answer, more than once, with its fields; 100 only to whom it was asked by.
func TestInterimAnswersPassThroughTheMesh(t *testing.T) {
	up := startRaw(t, func(c net.Conn, r *bufio.Reader) {
		for awaitHead(r) {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n")
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	p := startPair(t, pairOptions{app: up.port})
	c := dialRaw(t, p.port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	for _, link := range []string{"</a.css>", "</b.css>"} {
		if resp := c.head(t, "GET"); resp.StatusCode != 103 || resp.Header.Get("Link") != link {
			t.Fatalf("%d %v, want a 103 with %s", resp.StatusCode, resp.Header, link)
		}
	}
	if resp := c.head(t, "GET"); resp.StatusCode != 200 {
		t.Errorf("%d", resp.StatusCode)
	}
}

// TestAnswersWithoutBodies: HEAD, 204 and 304 keep the connection and the length that they name.
func TestAnswersWithoutBodies(t *testing.T) {
	up := startRaw(t, func(c net.Conn, r *bufio.Reader) {
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			status := map[string]string{"/head": "200 OK", "/204": "204 No Content", "/304": "304 Not Modified"}[q.URL.Path]
			length := "Content-Length: 1234\r\n"
			if q.URL.Path == "/204" {
				length = ""
			}
			_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nETag: \"x\"\r\n%s\r\n", status, length)
		}
	})
	p := startPair(t, pairOptions{app: up.port})
	c := dialRaw(t, p.port, "")
	for _, tc := range []struct {
		method, path string
		status       int
		length       string
	}{{"HEAD", "/head", 200, "1234"}, {"GET", "/204", 204, ""}, {"GET", "/304", 304, "1234"}, {"HEAD", "/304", 304, "1234"}} {
		if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", tc.method, tc.path); err != nil {
			t.Fatal(err)
		}
		resp := c.head(t, tc.method) // on the same connection: what one leaves behind would be the next one's
		if resp.StatusCode != tc.status || resp.Header.Get("Content-Length") != tc.length || resp.Header.Get("Transfer-Encoding") != "" || resp.Header.Get("ETag") != `"x"` {
			t.Errorf("%s %s: %d %v", tc.method, tc.path, resp.StatusCode, resp.Header)
		}
	}
}

// TestAnAnswerMayComeWhileTheBodyFlows: what the server says early arrives, without the client having sent all.
func TestAnAnswerMayComeWhileTheBodyFlows(t *testing.T) {
	for _, status := range []string{"413 Payload Too Large", "200 OK"} {
		up := startRaw(t, func(c net.Conn, r *bufio.Reader) {
			if awaitHead(r) {
				_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly")
				_, _ = io.CopyN(io.Discard, r, 1000)
			}
		})
		p := startPair(t, pairOptions{app: up.port})
		c := dialRaw(t, p.port, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"+strings.Repeat("x", 100_000))
		resp := c.head(t, "POST")
		b, err := io.ReadAll(resp.Body)
		if fmt.Sprint(resp.StatusCode) != status[:3] || string(b) != "early" || err != nil || !resp.Close {
			t.Errorf("%d %q %v, closes %v", resp.StatusCode, b, err, resp.Close)
		}
	}
}

// TestAClientThatStopsSendingIsGivenUp: a body that stops counts as an idle stream, however little of it is missing, and is the client's fault.
func TestAClientThatStopsSendingIsGivenUp(t *testing.T) {
	t.Parallel()                                                                           // waits more than it works
	up := startRaw(t, func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }) // waits for a whole request
	for name, o := range map[string]rigOptions{"idle": {app: up.port, streamIdle: "0.5s"}, "too long": {app: up.port, longest: "0.5s"}} {
		r := startRig(t, o)
		for _, length := range []string{"10", "100000"} {
			t.Run(name+", HTTP/1.1, of "+length, func(t *testing.T) {
				c := dialRaw(t, r.plain, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "+length+"\r\n\r\nabc")
				if resp := c.head(t, "POST"); resp.StatusCode != 408 || !resp.Close {
					t.Errorf("%d, closes %v", resp.StatusCode, resp.Close)
				}
			})
			t.Run(name+", HTTP/2, of "+length, func(t *testing.T) {
				h, err := r.dialH2(r.plain)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = h.Close() }()
				if err := h.request(1, false, "POST", "/", "content-length", length); err != nil {
					t.Fatal(err)
				}
				if err := h.WriteData(1, false, []byte("abc")); err != nil {
					t.Fatal(err)
				}
				if s := h.statusOf(t, 1); s != "408" {
					t.Error(s)
				}
				if err := h.request(3, true, "GET", "/direct"); err != nil { // the connection goes on
					t.Fatal(err)
				}
				if s := h.statusOf(t, 3); s != "200" {
					t.Error(s)
				}
			})
		}
		t.Run(name+", with nothing missing", func(t *testing.T) {
			c := dialRaw(t, r.plain, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
			if resp := c.head(t, "POST"); resp.StatusCode != 504 || resp.Close {
				t.Errorf("%d, closes %v", resp.StatusCode, resp.Close)
			}
		})
	}
}

// statusOf reads frames up to the head of the response on a stream.
func (h *h2conn) statusOf(t *testing.T, id uint32) string {
	t.Helper()
	for {
		f, err := h.next()
		if err != nil {
			t.Fatal(err)
		}
		head, ok := f.(*http2.HeadersFrame)
		if !ok {
			continue // an end of another stream
		}
		fields, err := h.dec.DecodeFull(head.HeaderBlockFragment())
		if err != nil {
			t.Fatal(err)
		}
		if head.StreamID == id {
			return fields[0].Value
		}
	}
}
