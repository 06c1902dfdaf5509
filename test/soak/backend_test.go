package soak

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
)

// backend is an upstream that speaks HTTP/1.1 and h2c on one port, gRPC on another, and an
// echo over TCP on a third. It can go away and come back on the same ports.
type backend struct {
	y     *tally
	ports [3]int // HTTP, gRPC, TCP
	mu    sync.Mutex
	stop  func() // nil while down
}

const (
	portHTTP = iota
	portGRPC
	portTCP
)

func newBackend(t testing.TB, y *tally) *backend {
	b := &backend{y: y}
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.kill)
	return b
}

// start listens on the backend's ports, which it chooses the first time.
func (b *backend) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ls [3]net.Listener
	for i := range ls {
		var err error
		for range 100 { // a connection of a client may have the port for a moment
			if ls[i], err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", b.ports[i])); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			return err
		}
		b.ports[i] = ls[i].Addr().(*net.TCPAddr).Port
	}
	conns := &connSet{m: map[net.Conn]struct{}{}}
	srv := &http.Server{Handler: http.HandlerFunc(b.http), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1000}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(8 << 20))
	g.RegisterService(&echoService, b)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(trackListener{ls[portHTTP], conns}) })
	wg.Go(func() { _ = g.Serve(trackListener{ls[portGRPC], conns}) })
	wg.Go(func() { serveEcho(trackListener{ls[portTCP], conns}, &wg) })
	b.stop = func() {
		for _, l := range ls {
			_ = l.Close()
		}
		conns.reset()
		_ = srv.Close()
		g.Stop()
		wg.Wait()
	}
	return nil
}

// kill resets every connection and refuses new ones.
func (b *backend) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
}

// connSet is the open connections of a backend, to be reset.
type connSet struct {
	mu     sync.Mutex
	m      map[net.Conn]struct{}
	closed bool
}

func (s *connSet) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.m {
		resetConn(c)
	}
}

func resetConn(c net.Conn) {
	if t, ok := c.(*trackConn); ok {
		c = t.Conn
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

type trackListener struct {
	net.Listener
	s *connSet
}

func (l trackListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.closed {
		resetConn(c)
	} else {
		l.s.m[c] = struct{}{}
	}
	return &trackConn{c, l.s}, nil
}

type trackConn struct {
	net.Conn
	s *connSet
}

func (c *trackConn) Close() error {
	c.s.mu.Lock()
	delete(c.s.m, c.Conn)
	c.s.mu.Unlock()
	return c.Conn.Close()
}

func (c *trackConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// http answers with what the request determines, or as badly as it asks for.
func (b *backend) http(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, f := q.Get("id"), fault(q.Get("fault"))
	n, err := strconv.Atoi(q.Get("n"))
	if err != nil || id == "" || r.Header.Get("x-id") != id {
		b.y.fail("an upstream got %s %s with x-id %q", r.Method, r.URL, r.Header.Get("x-id"))
		http.Error(w, "bad request", 400)
		return
	}
	if r.Header.Get("upgrade") == "soak" {
		b.upgrade(w, id)
		return
	}
	resp := want{id: id, size: n, sum: "early"}
	if f != early {
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil {
			panic(http.ErrAbortHandler) // the client went away, or the proxy
		}
		resp.sum = hex.EncodeToString(h.Sum(nil)[:8])
		if got := r.Header.Get("x-sum"); got != resp.sum {
			b.y.fail("an upstream got a complete body with sum %s for %s %s, which was sent with %s", resp.sum, r.Method, r.URL, got)
		}
	}
	b.respond(w, r, resp, f, q.Get("flush") != "")
	if f == early {
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

func (b *backend) respond(w http.ResponseWriter, r *http.Request, resp want, f fault, flush bool) {
	rc := http.NewResponseController(w)
	if f == resetHead || f == midHead {
		b.resetNow(w, r, "HTTP/1.1 200 OK\r\nx-so", f == midHead)
	}
	w.Header().Set("x-id", resp.id)
	w.Header().Set("x-soak", resp.mark())
	w.Header().Set("content-type", "application/octet-stream")
	if flush {
		w.Header().Set("trailer", "x-end")
		defer w.Header().Set("x-end", resp.mark())
	} else {
		w.Header().Set("content-length", strconv.Itoa(resp.size))
	}
	if f == early {
		_ = rc.EnableFullDuplex()
	}
	w.WriteHeader(200)
	if r.Method == "HEAD" {
		return
	}
	body, piece, sent := resp.body(), make([]byte, 32<<10), 0
	for sent < resp.size {
		p := piece
		if flush || f == slow {
			p = piece[:1+rand.IntN(len(piece))]
		}
		if (f == midBody || f == cutBody) && sent >= resp.size/2 {
			_ = rc.Flush()
			b.cut(w, r, f)
		}
		k, _ := body.Read(p)
		sent += k
		if _, err := w.Write(p[:k]); err != nil {
			return
		}
		if flush || f == slow {
			_ = rc.Flush()
		}
		if f == slow {
			time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
		}
	}
}

// resetNow ends an exchange before its head is whole.
func (b *backend) resetNow(w http.ResponseWriter, r *http.Request, head string, some bool) {
	if r.ProtoMajor == 2 {
		panic(http.ErrAbortHandler)
	}
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if some {
		_, _ = io.WriteString(c, head)
		time.Sleep(time.Millisecond)
	}
	resetConn(c)
	panic(http.ErrAbortHandler)
}

// cut ends an exchange in the middle of its body.
func (b *backend) cut(w http.ResponseWriter, r *http.Request, f fault) {
	if r.ProtoMajor == 1 && f == midBody {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			resetConn(c)
		}
	}
	panic(http.ErrAbortHandler) // closes, or RST_STREAM
}

// upgrade switches to the echo.
func (b *backend) upgrade(w http.ResponseWriter, id string) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: soak\r\nx-id: %s\r\n\r\n", id)
	_ = rw.Flush()
	echo(c, rw.Reader, id)
}

// echo gives back what comes, changed by the connection's key, until it ends.
func echo(c net.Conn, r io.Reader, id string) {
	_, err := io.Copy(c, &xorReader{r, keyOf(id)})
	if err == nil {
		if cw, ok := c.(interface{ CloseWrite() error }); ok {
			_ = cw.CloseWrite()
		}
	}
}

// serveEcho serves "id\n" and then the echo.
func serveEcho(l net.Listener, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			br := bufio.NewReader(c)
			id, err := br.ReadString('\n')
			if err != nil || len(id) > 100 {
				return
			}
			if _, err := io.WriteString(c, "hello "+id); err != nil {
				return
			}
			echo(c, br, id[:len(id)-1])
		})
	}
}
