package streamtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/proxy/stream"
)

// echo answers with the request's body, framed as the field x-length says.
func echo(_ context.Context, s stream.Server) {
	b, err := readAll(s)
	if err != nil {
		s.Abort()
		return
	}
	length := int64(len(b))
	if string(s.Request().Fields.Get("x-length")) == "unknown" {
		length = stream.UnknownLength
	}
	_ = respond(s, 200, length, b, "x-path", string(s.Request().Path))
}

func bodies(t *testing.T, p Pair) {
	c := dial(t, p, echo)
	sizes := []int{0, 1, 100, 16383, 16384, 16385, 70_000, 1_000_000}
	if !p.Direct {
		sizes = []int{0, 1, 16385, 300_000}
	}
	for _, size := range sizes {
		for _, up := range []bool{true, false} {
			for _, down := range []bool{true, false} {
				t.Run(fmt.Sprintf("%d bytes, lengths known: %v up, %v down", size, up, down), func(t *testing.T) {
					body := pattern(size)
					length, want := int64(size), "known"
					if !up {
						length = stream.UnknownLength
					}
					if !down {
						want = "unknown"
					}
					within(t, "exchange", func() {
						m, err := do(t, c.start(), request("POST", "/echo", length, "x-length", want), body, nil)
						if err != nil || m.Status != 200 || !bytes.Equal(m.Body, body) {
							t.Errorf("status %d, %d bytes, %v", m.Status, len(m.Body), err)
						}
					})
				})
			}
		}
	}
}

func many(t *testing.T, p Pair) {
	c := dial(t, p, echo)
	first := c.start()
	if !first.Fresh() {
		t.Error("the first exchange of a connection is not fresh")
	}
	first.Close()
	for i := range 200 {
		path := fmt.Sprintf("/%d?q=%s", i, strings.Repeat("z", i))
		m, err := do(t, c.start(), request("PUT", path, 5), []byte("hello"), nil)
		if err != nil {
			t.Fatal(i, err)
		}
		want := Message{Status: 200, Body: []byte("hello"), Fields: []string{"x-path: " + path}}
		if d := cmp.Diff(want, m); d != "" {
			t.Fatal(i, d)
		}
	}
}

func parallel(t *testing.T, p Pair) {
	c := dial(t, p, echo)
	c.start().Close()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for j := range 10 {
				body := pattern(i * j * 301)
				x, err := c.s.Start()
				if err != nil {
					t.Error(err)
					return
				}
				m, err := do(t, x, request("POST", name("/", i), int64(len(body))), body, nil)
				if err != nil || !bytes.Equal(m.Body, body) {
					t.Errorf("%d bytes of %d, %v", len(m.Body), len(body), err)
					return
				}
			}
		})
	}
	within(t, "50 streams", wg.Wait)
}

func trailers(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		b, _ := readAll(s)
		got := strings.Join(lines(s.RequestTrailers()), ",")
		_ = s.WriteHead(&stream.Response{Status: 200, ContentLength: stream.UnknownLength}, false)
		_ = s.WriteBody(b, false)
		var tr stream.Fields
		tr.Add("x-got", got)
		tr.Add("x-second", "2")
		_ = s.WriteTrailers(&tr)
	})
	for _, size := range []int{1, 40_000} {
		r := request("POST", "/", stream.UnknownLength)
		r.TETrailers = true
		var tr stream.Fields
		tr.Add("x-sum", "abc")
		m, err := do(t, c.start(), r, pattern(size), &tr)
		want := Message{Status: 200, Body: pattern(size), Trailers: []string{"x-got: x-sum: abc", "x-second: 2"}}
		if d := cmp.Diff(want, m); d != "" || err != nil {
			t.Error(err, d)
		}
	}
}

func heads(t *testing.T, p Pair) {
	var got struct {
		Method, Authority, Path, Cookie string
		Lines                           []string
	}
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		r := s.Request()
		got.Method, got.Authority, got.Path = string(r.Method), string(r.Authority), string(r.Path)
		got.Cookie = string(r.Fields.Get("cookie"))
		got.Lines = lines(&r.Fields)
		for _, bad := range []string{"host", "connection", "keep-alive", "te", ":path", "transfer-encoding"} {
			if r.Fields.Has(bad) {
				t.Errorf("%s is among the fields", bad)
			}
		}
		_ = respond(s, 418, 0, nil, "X-A", "1", "x-empty", "", "X-a", "2", "x-utf", "grüße")
	})
	r := request("PATCH", "/a//b/../c%2F?x=%20&y", 0, "X-One", "1", "cookie", "a=1; b=2", "x-two", "a\tb", "x-one", "again",
		"x-long", strings.Repeat("v", 9000))
	m, err := do(t, c.start(), r, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Message{Status: 418, Fields: []string{"x-a: 1", "x-empty: ", "x-a: 2", "x-utf: grüße"}}, m); d != "" {
		t.Error(d)
	}
	if got.Method != "PATCH" || got.Authority != "svc.example:80" || got.Path != "/a//b/../c%2F?x=%20&y" || got.Cookie != "a=1; b=2" {
		t.Errorf("%+v", got)
	}
	want := []string{"x-one: 1", "x-two: a\tb", "x-one: again", "x-long: " + strings.Repeat("v", 9000)}
	if d := cmp.Diff(want, got.Lines); d != "" {
		t.Error(d)
	}
}

func bodyless(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		switch string(s.Request().Path) {
		case "/head":
			r := &stream.Response{Status: 200, ContentLength: 12}
			_ = s.WriteHead(r, false)
			_ = s.WriteBody([]byte("hello, world"), true) // dropped
		case "/204":
			_ = respond(s, 204, stream.UnknownLength, nil)
		default:
			r := &stream.Response{Status: 304, ContentLength: 0}
			r.Fields.Add("content-length", "77")
			_ = s.WriteHead(r, true)
		}
	})
	for _, tt := range []struct {
		method, path string
		status       int
		length       string
	}{{"HEAD", "/head", 200, "12"}, {"GET", "/204", 204, ""}, {"GET", "/304", 304, "77"}, {"HEAD", "/head", 200, "12"}} {
		x := c.start()
		if err := x.WriteHead(request(tt.method, tt.path, 0), true); err != nil {
			t.Fatal(err)
		}
		r, err := x.ReadHead()
		if err != nil {
			t.Fatal(tt, err)
		}
		if r.Status != tt.status || string(r.Fields.Get("content-length")) != tt.length {
			t.Errorf("%v: status %d, content-length %q", tt, r.Status, r.Fields.Get("content-length"))
		}
		if b, err := readAll(x); len(b) > 0 || err != nil {
			t.Errorf("%v: body %q, %v", tt, b, err)
		}
		x.Close()
	}
}

func buffered(t *testing.T, p Pair) {
	c := dial(t, p, func(_ context.Context, s stream.Server) {
		// It may not have arrived with the head; if it is said to, it must be right and stay.
		whole, ok := s.BodyBuffered()
		b, err := readAll(s)
		again, ok2 := s.BodyBuffered()
		if err != nil || ok && !bytes.Equal(whole, b) || ok && (!ok2 || !bytes.Equal(again, b)) {
			t.Errorf("buffered %q (%v), read %q (%v), again %q (%v)", whole, ok, b, err, again, ok2)
		}
		_ = respond(s, 200, int64(len(b)), b)
	})
	for _, length := range []int64{9, stream.UnknownLength} {
		for range 20 {
			m, err := do(t, c.start(), request("POST", "/", length), []byte("buffer me"), nil)
			if err != nil || string(m.Body) != "buffer me" {
				t.Fatalf("%q %v", m.Body, err)
			}
		}
	}
	m, err := do(t, c.start(), request("GET", "/", 0), nil, nil)
	if err != nil || len(m.Body) > 0 {
		t.Fatalf("%q %v", m.Body, err)
	}
}
