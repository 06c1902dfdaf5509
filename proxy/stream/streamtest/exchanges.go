package streamtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/proxy/stream"
)

func informational(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		hint := &stream.Response{Status: 103}
		hint.Fields.Add("x-hint", "1")
		_ = s.WriteHead(&stream.Response{Status: 100}, false) // nobody asked: swallowed
		_ = s.WriteHead(hint, false)
		_ = s.WriteHead(hint, false)
		_ = respond(s, 200, 2, []byte("ok"))
	})
	x := c.start()
	defer x.Close()
	if err := x.WriteHead(request("GET", "/", 0), true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := x.ReadHead()
		if err != nil || r.Status != 103 || string(r.Fields.Get("x-hint")) != "1" {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	m, err := receive(x)
	if err != nil || m.Status != 200 || string(m.Body) != "ok" {
		t.Errorf("%+v, %v", m, err)
	}
}

func expect(t *testing.T, p Pair) {
	c := dial(t, p, echo)
	x := c.start()
	defer x.Close()
	if err := x.WriteHead(request("POST", "/", 3, "expect", "100-continue"), false); err != nil {
		t.Fatal(err)
	}
	within(t, "100-continue", func() {
		r, err := x.ReadHead()
		if err != nil || r.Status != 100 {
			t.Errorf("%+v, %v", r, err)
			return
		}
		if err := x.WriteBody([]byte("abc"), true); err != nil {
			t.Error(err)
		}
		m, err := receive(x)
		if err != nil || string(m.Body) != "abc" {
			t.Errorf("%+v, %v", m, err)
		}
	})
}

// early: the server answers and never reads the body.
func early(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		_ = respond(s, 413, 4, []byte("much"))
	})
	for _, size := range []int{10, 100_000, 4 << 20} {
		within(t, "early response", func() {
			m, err := do(t, c.start(), request("POST", "/", int64(size)), pattern(size), nil)
			if err != nil || m.Status != 413 || string(m.Body) != "much" {
				t.Errorf("%d bytes: %+v, %v", size, m, err)
			}
		})
	}
}

// duplex answers each piece before the next is sent.
func duplex(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		_ = s.WriteHead(&stream.Response{Status: 200, ContentLength: stream.UnknownLength}, false)
		_ = s.Flush()
		for {
			p, err := s.ReadBody()
			if err != nil {
				break
			}
			if s.WriteBody(bytes.ToUpper(p), false) != nil || s.Flush() != nil {
				return
			}
		}
		_ = s.WriteBody(nil, true)
	})
	x := c.start()
	defer x.Close()
	within(t, "duplex", func() {
		if err := x.WriteHead(request("POST", "/", stream.UnknownLength), false); err != nil {
			t.Error(err)
			return
		}
		if r, err := x.ReadHead(); err != nil || r.Status != 200 {
			t.Error(r, err)
			return
		}
		for _, word := range []string{"alpha", "beta", "gamma", strings.Repeat("delta", 100)} {
			if err := errors.Join(x.WriteBody([]byte(word), false), x.Flush()); err != nil {
				t.Error(err)
				return
			}
			var got []byte
			for len(got) < len(word) {
				p, err := x.ReadBody()
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, p...)
			}
			if string(got) != strings.ToUpper(word) {
				t.Errorf("%q", got)
			}
		}
		if err := x.WriteBody(nil, true); err != nil {
			t.Error(err)
		}
		if b, err := readAll(x); err != nil || len(b) > 0 {
			t.Errorf("%q %v", b, err)
		}
	})
}

func aborts(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		switch string(s.Request().Path) {
		case "/head":
		case "/length":
			_ = s.WriteHead(&stream.Response{Status: 200, ContentLength: 100}, false)
			_ = s.WriteBody([]byte("half"), false)
			_ = s.Flush()
		default:
			_ = s.WriteHead(&stream.Response{Status: 200, ContentLength: stream.UnknownLength}, false)
			_ = s.WriteBody([]byte("half"), false)
			_ = s.Flush()
		}
		if string(s.Request().Path) != "/silent" {
			s.Abort()
		}
	})
	for _, path := range []string{"/head", "/length", "/chunked", "/silent"} {
		within(t, path, func() {
			m, err := do(t, c.start(), request("GET", path, 0), nil, nil)
			e, ok := stream.AsError(err)
			if !ok || e.Side != stream.Upstream || !e.Reset || e.Unsent {
				t.Errorf("%s: %+v, %v", path, m, err)
				return
			}
			// What was read of the head may be lost with a reset, so only its wording before a head is sure.
			if path == "/head" && !strings.HasPrefix(e.Details, "upstream_reset_before_response_started{") {
				t.Errorf("details %q", e.Details)
			}
		})
	}
}

func leaves(t *testing.T, p Pair) {
	noticed := make(chan error, 1)
	started := make(chan struct{}, 1)
	c := dial(t, p, func(ctx context.Context, s stream.Server) {
		started <- struct{}{}
		_, err := readAll(s)
		noticed <- err
		s.Abort()
	})
	x := c.start()
	if err := errors.Join(x.WriteHead(request("POST", "/", 100), false), x.WriteBody([]byte("part"), false), x.Flush()); err != nil {
		t.Fatal(err)
	}
	<-started
	x.Close()
	within(t, "leaving", func() {
		err := <-noticed
		if e, ok := stream.AsError(err); !ok || e.Side != stream.Downstream {
			t.Errorf("the server saw %v", err)
		}
	})
}

func upgrade(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		if string(s.Request().Upgrade) != "websocket" || string(s.Request().Method) != "GET" {
			t.Errorf("request %q upgrade %q", s.Request().Method, s.Request().Upgrade)
			s.Abort()
			return
		}
		r := &stream.Response{Status: 101, Upgrade: []byte("websocket")}
		r.Fields.Add("x-accept", "yes")
		if err := errors.Join(s.WriteHead(r, false), s.Flush()); err != nil {
			t.Error(err)
		}
		for {
			p, err := s.ReadBody()
			if err != nil {
				break
			}
			if errors.Join(s.WriteBody(p, false), s.Flush()) != nil {
				return
			}
		}
		_ = s.WriteBody([]byte("bye"), true)
	})
	r := request("GET", "/chat", 0)
	r.Upgrade = []byte("websocket")
	raw(t, c.start(), r, 101)
}

func tunnel(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		if string(s.Request().Method) != "CONNECT" || string(s.Request().Authority) != "db:5432" || len(s.Request().Path) > 0 {
			t.Errorf("%s %s %s", s.Request().Method, s.Request().Authority, s.Request().Path)
		}
		_ = s.WriteHead(&stream.Response{Status: 200, ContentLength: stream.UnknownLength}, false)
		_ = s.Flush()
		for {
			p, err := s.ReadBody()
			if err != nil {
				break
			}
			if errors.Join(s.WriteBody(p, false), s.Flush()) != nil {
				return
			}
		}
		_ = s.WriteBody([]byte("bye"), true)
	})
	r := request("CONNECT", "", stream.UnknownLength)
	r.Authority, r.Path = []byte("db:5432"), nil
	raw(t, c.start(), r, 200)
}

// raw talks over a raw stream: an echo, then half-close.
func raw(t *testing.T, x stream.Client, r *stream.Request, status int) {
	defer x.Close()
	within(t, "raw stream", func() {
		if err := x.WriteHead(r, false); err != nil {
			t.Error(err)
			return
		}
		resp, err := x.ReadHead()
		if err != nil || resp.Status != status {
			t.Errorf("%+v, %v", resp, err)
			return
		}
		want := pattern(200_000)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := errors.Join(x.WriteBody(want[:5], false), x.Flush(), x.WriteBody(want[5:], false), x.Flush(), x.WriteBody(nil, true)); err != nil {
				t.Error(err)
			}
		})
		got, err := readAll(x)
		wg.Wait()
		if err != nil || !bytes.Equal(got, append(want, "bye"...)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func upgradeRefused(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		_ = respond(s, 403, 2, []byte("no"))
	})
	for range 3 {
		r := request("GET", "/chat", 0)
		r.Upgrade = []byte("websocket")
		x := c.start()
		within(t, "refused upgrade", func() {
			if err := x.WriteHead(r, false); err != nil {
				t.Error(err)
				return
			}
			m, err := receive(x)
			if err != nil || m.Status != 403 || string(m.Body) != "no" {
				t.Errorf("%+v, %v", m, err)
			}
			_ = x.WriteBody(nil, true)
			x.Close()
		})
	}
}

func injection(t *testing.T, p Pair) {
	seen := make(chan string, 10)
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		seen <- string(s.Request().Path)
		bad := &stream.Response{Status: 200}
		bad.Fields.Add("x-a", "1\r\nx-b: 2")
		if err := s.WriteHead(bad, true); err == nil {
			t.Error("a response field with a line break was accepted")
		}
		_ = respond(s, 500, 0, nil)
	})
	for _, f := range [][2]string{{"x-a", "1\r\nx-b: 2"}, {"x-a", "1\n"}, {"x-a", "\x00"}, {"x a", "1"}, {"x-a:", "1"}, {"", "1"}, {"x\r\ny", ""}} {
		x := c.start()
		err := x.WriteHead(request("GET", "/bad", 0, f[0], f[1]), true)
		if e, ok := stream.AsError(err); !ok || e.Side != stream.Ours || !e.Unsent {
			t.Errorf("%q: %v", f, err)
		}
		x.Close()
	}
	for _, bad := range []string{"/a b", "/a\r\nx: y", "/\x7f"} {
		x := c.start()
		if err := x.WriteHead(request("GET", bad, 0), true); err == nil {
			t.Errorf("path %q was accepted", bad)
		}
		x.Close()
	}
	m, err := do(t, c.start(), request("GET", "/good", 0), nil, nil)
	if err != nil || m.Status != 500 || len(m.Fields) > 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if path := <-seen; path != "/good" {
		t.Errorf("the server saw %q", path)
	}
}

func lengths(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		if _, err := readAll(s); err != nil {
			s.Abort()
			return
		}
		body := []byte("12345")
		_ = s.WriteHead(&stream.Response{Status: 200, ContentLength: 7}, false)
		if string(s.Request().Path) == "/long" {
			body = []byte("123456789")
		}
		if err := s.WriteBody(body, true); err == nil {
			t.Errorf("%d bytes were accepted for 7", len(body))
		}
	})
	for _, path := range []string{"/short", "/long"} {
		if m, err := do(t, c.start(), request("GET", path, 0), nil, nil); err == nil {
			t.Errorf("%s: %+v", path, m)
		}
	}
	for _, body := range []string{"12345", "123456789"} {
		x := c.start()
		if err := x.WriteHead(request("POST", "/", 7), false); err != nil {
			t.Fatal(err)
		}
		if err := x.WriteBody([]byte(body), true); err == nil {
			t.Errorf("%d bytes were accepted for 7", len(body))
		}
		x.Close()
	}
}

func deadlines(t *testing.T, p Pair) {
	release := make(chan struct{})
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		if string(s.Request().Path) == "/body" {
			_ = s.WriteHead(&stream.Response{Status: 200, ContentLength: 10}, false)
			_ = s.WriteBody([]byte("1"), false)
			_ = s.Flush()
		}
		<-release
		s.Abort()
	})
	defer close(release)
	for _, path := range []string{"/head", "/body"} {
		x := c.start()
		x.SetDeadline(time.Now().Add(30 * time.Millisecond))
		within(t, path, func() {
			m, err := do(t, x, request("GET", path, 0), nil, nil)
			e, ok := stream.AsError(err)
			if !ok || !e.Timeout || e.Side != stream.Upstream || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %+v, %v", path, m, err)
			}
		})
	}
	if errors.Is(io.EOF, os.ErrDeadlineExceeded) {
		t.Fatal("unreachable")
	}
}

func limits(t *testing.T, p Pair) {
	for what, fields := range map[string][]string{
		"too many bytes": {"x-long", strings.Repeat("v", 5000)},
		"too many lines": strings.Split(strings.Repeat("x-a,1,", 30)+"x-b,2", ","),
	} {
		c := dial(t, p, func(_ context.Context, s stream.Server) {
			t.Errorf("%s: the handler was called", what)
			_ = respond(s, 200, 0, nil)
		})
		c.l = Limits{HeaderBytes: 4096, Headers: 20}
		m, err := do(t, c.start(), request("GET", "/", 0, fields...), nil, nil)
		if err != nil || m.Status != 431 {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
}

func drains(t *testing.T, p Pair) {
	drain := make(chan struct{})
	begun := make(chan struct{})
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		if string(s.Request().Path) == "/slow" {
			close(begun)
			<-drain
		}
		_ = respond(s, 200, 2, []byte("ok"))
	})
	c.l.Drain = drain
	if m, err := do(t, c.start(), request("GET", "/", 0), nil, nil); err != nil || string(m.Body) != "ok" {
		t.Fatal(m, err)
	}
	go func() {
		<-begun
		close(drain)
	}()
	within(t, "drain", func() {
		m, err := do(t, c.start(), request("GET", "/slow", 0), nil, nil)
		if err != nil || string(m.Body) != "ok" {
			t.Errorf("the running exchange: %+v, %v", m, err)
		}
		// The connection ends by itself: sooner or later it takes nothing new.
		for {
			x, err := c.s.Start()
			if err != nil {
				return
			}
			if _, err := do(t, x, request("GET", "/", 0), nil, nil); err != nil {
				return
			}
		}
	})
}
