// Package streamtest holds HTTP codecs to one behaviour: the suite runs the same
// exchanges against any pair of a server and a client (http1 with http1, http2 with http2,
// and, through a small forwarding proxy, each of the four ways from one to the other).
//
// It is for tests only.
package streamtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/proxy/stream"
)

// Handler serves one exchange.
type Handler func(ctx context.Context, s stream.Server)

// Starter is the client's side of a connection.
type Starter interface {
	Start() (stream.Client, error)
	Close()
}

// Limits are what the suite sets on a server.
type Limits struct {
	HeaderBytes, Headers int
	Drain                <-chan struct{}
}

// Pair is a way to get a server and its client. Connect returns connected
// ones; a closed connection is replaced by calling it again. It cleans up with t.
type Pair struct {
	Name    string
	Connect func(t testing.TB, l Limits, h Handler) Starter
	// Multiplexed tells that one connection takes several exchanges at once.
	Multiplexed bool
	// Direct tells that nothing stands between client and server.
	Direct bool
}

// Run runs the suite.
func Run(t *testing.T, p Pair) {
	t.Run("bodies of all sizes and framings pass both ways", func(t *testing.T) { bodies(t, p) })
	t.Run("one connection serves many exchanges", func(t *testing.T) { many(t, p) })
	t.Run("trailers pass both ways", func(t *testing.T) { trailers(t, p) })
	t.Run("heads come through unchanged", func(t *testing.T) { heads(t, p) })
	t.Run("responses without a body", func(t *testing.T) { bodyless(t, p) })
	t.Run("informational responses", func(t *testing.T) { informational(t, p) })
	t.Run("a client that expects 100 gets it when the body is read", func(t *testing.T) { expect(t, p) })
	t.Run("a response may come before the request's body", func(t *testing.T) { early(t, p) })
	t.Run("both directions stream at once", func(t *testing.T) { duplex(t, p) })
	t.Run("an abort is no end of a body", func(t *testing.T) { aborts(t, p) })
	t.Run("a client that leaves is noticed", func(t *testing.T) { leaves(t, p) })
	t.Run("an upgrade turns both sides into raw streams", func(t *testing.T) { upgrade(t, p) })
	t.Run("a refused upgrade is an ordinary response", func(t *testing.T) { upgradeRefused(t, p) })
	t.Run("CONNECT opens a tunnel", func(t *testing.T) { tunnel(t, p) })
	t.Run("fields that would break the framing are refused", func(t *testing.T) { injection(t, p) })
	t.Run("a body must have the announced length", func(t *testing.T) { lengths(t, p) })
	t.Run("a buffered body can be read and kept", func(t *testing.T) { buffered(t, p) })
	t.Run("a deadline ends a wait", func(t *testing.T) { deadlines(t, p) })
	if p.Direct {
		t.Run("a head beyond the limits is answered with 431", func(t *testing.T) { limits(t, p) })
		t.Run("a drain lets the running exchange finish", func(t *testing.T) { drains(t, p) })
	}
	if p.Multiplexed {
		t.Run("exchanges run side by side", func(t *testing.T) { parallel(t, p) })
	}
}

// conn is a client that reconnects when its connection took its leave.
type conn struct {
	t testing.TB
	p Pair
	l Limits
	h Handler
	s Starter
}

func dial(t testing.TB, p Pair, h Handler) *conn { return &conn{t: t, p: p, h: h} }

// start begins an exchange, on a new connection if it must be.
func (c *conn) start() stream.Client {
	c.t.Helper()
	if c.s != nil {
		if x, err := c.s.Start(); err == nil {
			return x
		}
		c.s.Close()
	}
	c.s = c.p.Connect(c.t, c.l, c.h)
	x, err := c.s.Start()
	if err != nil {
		c.t.Fatal(err)
	}
	return x
}

// Message is one side of an exchange, for tests.
type Message struct {
	Status   int
	Body     []byte
	Fields   []string // "name: value", in order
	Trailers []string
}

// lines are the fields that a test looks at.
func lines(f *stream.Fields) []string {
	if f == nil {
		return nil
	}
	var out []string
	for _, l := range f.All() {
		if n := bytes.ToLower(l.Name); bytes.HasPrefix(n, []byte("x-")) {
			out = append(out, string(n)+": "+string(l.Value))
		}
	}
	return out
}

type bodyReader interface{ ReadBody() ([]byte, error) }

func readAll(r bodyReader) ([]byte, error) {
	var b []byte
	for {
		p, err := r.ReadBody()
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return b, err
		}
		if len(p) == 0 {
			return b, errors.New("empty piece without error")
		}
		b = append(b, p...)
	}
}

// request makes a head; length as in stream.Request.
func request(method, path string, length int64, fields ...string) *stream.Request {
	r := &stream.Request{Method: []byte(method), Scheme: []byte("http"), Authority: []byte("svc.example:80"), Path: []byte(path), ContentLength: length}
	for i := 0; i < len(fields); i += 2 {
		r.Fields.Add(fields[i], fields[i+1])
	}
	return r
}

// do runs a whole exchange, the request's body on a goroutine of its own.
func do(t testing.TB, x stream.Client, r *stream.Request, body []byte, trailers *stream.Fields) (Message, error) {
	t.Helper()
	defer x.Close()
	end := len(body) == 0 && trailers == nil && r.ContentLength <= 0
	if err := x.WriteHead(r, end); err != nil {
		return Message{}, err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if !end {
		wg.Go(func() { _ = send(x, body, trailers) }) // a failure shows in what is read
	}
	return receive(x)
}

func send(x stream.Client, body []byte, trailers *stream.Fields) error {
	for len(body) > 50_000 {
		if err := x.WriteBody(body[:50_000], false); err != nil {
			return err
		}
		body = body[50_000:]
	}
	if trailers == nil {
		return x.WriteBody(body, true)
	}
	if len(body) > 0 {
		if err := x.WriteBody(body, false); err != nil {
			return err
		}
	}
	return x.WriteTrailers(trailers)
}

func receive(x stream.Client) (Message, error) {
	r, err := x.ReadHead()
	for err == nil && r.Status < 200 && r.Status != 101 {
		r, err = x.ReadHead()
	}
	if err != nil {
		return Message{}, err
	}
	m := Message{Status: r.Status, Fields: lines(&r.Fields)}
	m.Body, err = readAll(x)
	m.Trailers = lines(x.Trailers())
	return m, err
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 / 5)
	}
	return b
}

// respond answers with body; length as in stream.Response.
func respond(s stream.Server, status int, length int64, body []byte, fields ...string) error {
	r := &stream.Response{Status: status, ContentLength: length}
	for i := 0; i < len(fields); i += 2 {
		r.Fields.Add(fields[i], fields[i+1])
	}
	if len(body) == 0 {
		return s.WriteHead(r, true)
	}
	if err := s.WriteHead(r, false); err != nil {
		return err
	}
	return s.WriteBody(body, true)
}

// within fails the test if f takes longer than any healthy run does.
func within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s: no end in sight", what)
	}
}

func name(args ...any) string { return fmt.Sprint(args...) }
