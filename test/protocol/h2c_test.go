package protocol

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"weft.mesh/weft/proxy/proxytest"
)

const (
	h2cSettings = "AAMAAABkAAQAAAEA" // 100 streams, windows of 256 bytes
	h2cOffer    = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: " + h2cSettings + "\r\n"
)

// h2cApp answers with what it was sent.
func h2cApp(t *testing.T) *proxytest.App {
	app := proxytest.StartApp(t, "app")
	app.Handle(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		for _, h := range []string{"Upgrade", "Connection", "HTTP2-Settings"} {
			if v := r.Header.Get(h); v != "" {
				t.Errorf("the upstream was sent %s: %s", h, v)
			}
		}
		w.Header().Set("x-path", r.URL.Path)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Header.Get("x-who"), b)
		_, _ = io.WriteString(w, strings.Repeat("z", 2000)) // more than a window
	})
	return app
}

func TestH2CByUpgrade(t *testing.T) {
	app := h2cApp(t)
	r := startRig(t, rigOptions{app: app.Port})
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprintf("preface with the request %v", early), func(t *testing.T) {
			hello := http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // and empty SETTINGS
			send := "GET /first HTTP/1.1\r\nHost: app\r\nX-Who: Me\r\n" + h2cOffer + "\r\n"
			if early { // the RFC has the client wait for the 101, but what came with the request is the connection's next
				send += hello
			}
			c := dialRaw(t, r.plain, send)
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil || resp.StatusCode != 101 || !strings.EqualFold(resp.Header.Get("Upgrade"), "h2c") {
				t.Fatalf("%+v, %v", resp, err)
			}
			if !early {
				if _, err := io.WriteString(c, hello); err != nil {
					t.Fatal(err)
				}
			}
			h := &h2conn{Conn: c.Conn, Framer: http2.NewFramer(c, c.r), dec: hpack.NewDecoder(4096, nil)}
			h.enc = hpack.NewEncoder(&h.block)
			body := h.answer(t, 1, 256)
			if !strings.HasPrefix(body, "GET Me ") || len(body) != 2000+len("GET Me ") {
				t.Errorf("stream 1: %.20q, %d bytes", body, len(body))
			}
			if err := h.request(3, false, "POST", "/second", "x-who", "You"); err != nil {
				t.Fatal(err)
			}
			if err := h.WriteData(3, true, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			if body := h.answer(t, 3, 256); !strings.HasPrefix(body, "POST You hello") {
				t.Errorf("stream 3: %.20q", body)
			}
		})
	}
}

// answer reads the response on a stream, giving each byte back to the windows, and fails if the sender exceeds its first window.
func (h *h2conn) answer(t *testing.T, id uint32, window int) string {
	t.Helper()
	var body strings.Builder
	for first := true; ; {
		f, err := h.next()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			fields, err := h.dec.DecodeFull(f.HeaderBlockFragment())
			if err != nil || f.StreamID != id || fields[0].Value != "200" {
				t.Fatalf("stream %d: %v, %v", f.StreamID, fields, err)
			}
		case *http2.DataFrame:
			n := len(f.Data())
			if first && n > window {
				t.Fatalf("%d bytes into a window of %d", n, window)
			}
			first = false
			body.Write(f.Data())
			if f.StreamEnded() {
				return body.String()
			}
			if n > 0 {
				_ = h.WriteWindowUpdate(0, uint32(n))
				_ = h.WriteWindowUpdate(id, uint32(n))
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			t.Fatalf("%v", f)
		}
	}
}

func TestH2CIsNotSwitchedToWhereItMustNot(t *testing.T) {
	app := h2cApp(t)
	r := startRig(t, rigOptions{app: app.Port})
	for name, head := range map[string]string{
		"a body":                         "POST / HTTP/1.1\r\nHost: app\r\n" + h2cOffer + "Content-Length: 5\r\n\r\nhello",
		"a chunked body":                 "POST / HTTP/1.1\r\nHost: app\r\n" + h2cOffer + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"no HTTP2-Settings":              "GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
		"two HTTP2-Settings":             "GET / HTTP/1.1\r\nHost: app\r\n" + h2cOffer + "HTTP2-Settings: " + h2cSettings + "\r\n\r\n",
		"settings that are none":         "GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAT_____\r\n\r\n",
		"settings not in Connection":     "GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: " + h2cSettings + "\r\n\r\n",
		"upgrade not in Connection":      "GET / HTTP/1.1\r\nHost: app\r\nConnection: HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: " + h2cSettings + "\r\n\r\n",
		"h2, which is TLS's":             "GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2\r\nHTTP2-Settings: " + h2cSettings + "\r\n\r\n",
		"a request from another proxy":   "GET / HTTP/1.1\r\nHost: app\r\nX-Forwarded-For: 192.0.2.1\r\n" + h2cOffer + "\r\n",
		"a connection that is to end":    "GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n" + h2cOffer + "\r\n",
		"an expectation with no content": "GET / HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\n" + h2cOffer + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, r.plain, head)
			resp, err := http.ReadResponse(c.r, nil)
			if name == "h2, which is TLS's" {
				if err != nil || resp.StatusCode != 403 { // a protocol like any other, and not in the list
					t.Fatalf("%+v, %v", resp, err)
				}
				return
			}
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%+v, %v", resp, err)
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil || strings.Contains(head, "hello") != strings.Contains(string(b), "hello") {
				t.Errorf("%.30q, %v", b, err)
			}
		})
	}
	t.Run("over TLS", func(t *testing.T) {
		c, err := r.dialTLS("http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: app\r\n"+h2cOffer+"\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%+v, %v", resp, err)
		}
	})
	t.Run("a preface that does not come", func(t *testing.T) {
		before := app.Count()
		c := dialRaw(t, r.plain, "GET /x HTTP/1.1\r\nHost: app\r\n"+h2cOffer+"\r\n")
		if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 101 {
			t.Fatalf("%+v, %v", resp, err)
		}
		if _, err := io.WriteString(c, "GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil { // HTTP/1.1 is over
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c.r); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
		if n := app.Count() - before; n > 1 || n == 1 && app.Last().URL.Path != "/x" {
			t.Errorf("%d requests reached the application, the last for %s", n, app.Last().URL.Path)
		}
	})
}

// TestH2CByUpgradeWithOtherPrograms: curl and nghttp2's client switch, and get what they asked for.
func TestH2CByUpgradeWithOtherPrograms(t *testing.T) {
	app := h2cApp(t)
	r := startRig(t, rigOptions{app: app.Port})
	run := func(t *testing.T, name string, args ...string) string {
		t.Helper()
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("SKIPPED: no %s on PATH", name)
		}
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	url := "http://127.0.0.1:" + strconv.Itoa(r.plain) + "/" + strconv.FormatInt(time.Now().UnixNano(), 36)
	t.Run("curl", func(t *testing.T) {
		out := run(t, "curl", "-sv", "--http2", "--max-time", "20", "-H", "x-who: curl", url+"/1", url+"/2")
		if !strings.Contains(out, "101 Switching Protocols") || strings.Count(out, "GET curl ") != 2 || strings.Count(out, "HTTP/2 200") != 2 {
			t.Error(out)
		}
		out = run(t, "curl", "-sv", "--http2", "--max-time", "20", "-H", "x-who: curl", "-d", "hello", url)
		if !strings.Contains(out, "POST curl hello") { // with a body it stays HTTP/1.1
			t.Error(out)
		}
	})
	t.Run("nghttp", func(t *testing.T) {
		out := run(t, "nghttp", "-uv", "-t", "20", "-H", "x-who: nghttp", url)
		if !strings.Contains(out, "HTTP Upgrade success") || !strings.Contains(out, "GET nghttp ") || !strings.Contains(out, ":status: 200") {
			t.Error(out)
		}
	})
}
