package protocol

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
)

const wsLimit = 4 << 20 // the largest message that either side takes, in bytes

// wsServer is a WebSocket server of another's making. What it does with a connection can be told by the path.
type wsServer struct {
	t     testing.TB
	ended chan error // why each connection ended, for the server
}

func (s *wsServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat.weft"}})
	if err != nil {
		s.t.Errorf("server: %v", err)
		return
	}
	c.SetReadLimit(wsLimit)
	defer func() { _ = c.CloseNow() }()
	s.ended <- s.serve(r.Context(), c, strings.TrimPrefix(r.URL.Path, "/ws/"))
}

func (s *wsServer) serve(ctx context.Context, c *websocket.Conn, do string) error {
	switch do {
	case "echo":
		return echo(ctx, c)
	case "ping":
		done := make(chan error, 1)
		go func() { done <- echo(ctx, c) }()
		if err := c.Ping(ctx); err != nil { // returns when the pong has come
			return fmt.Errorf("ping of the server: %w", err)
		}
		if err := c.Write(ctx, websocket.MessageText, []byte("pong seen")); err != nil {
			return err
		}
		return <-done
	case "close":
		return c.Close(4001, "said enough")
	case "abort":
		return c.CloseNow() // no close frame: the TCP connection ends
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	}
	return errors.New("do what? " + do)
}

// echo sends back what comes until the connection ends.
func echo(ctx context.Context, c *websocket.Conn) error {
	for {
		kind, r, err := c.Reader(ctx)
		if err != nil {
			return err
		}
		w, err := c.Writer(ctx, kind)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
}

// wsOverH2 carries the handshakes of a WebSocket client over HTTP/2 (RFC 8441): it is a round tripper that
// turns a request for an upgrade into an extended CONNECT, and the answer into a 101.
type wsOverH2 struct{ *http2.Transport }

func newWSOverH2(t testing.TB) wsOverH2 {
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return wsOverH2{tr}
}

func (x wsOverH2) RoundTrip(r *http.Request) (*http.Response, error) {
	pipe, up := io.Pipe()
	body := sentBody{pipe, make(chan struct{}), new(sync.Once)}
	q := r.Clone(r.Context())
	q.Method, q.Body = "CONNECT", body
	key := q.Header.Get("Sec-WebSocket-Key")
	for _, h := range []string{"Connection", "Upgrade", "Sec-WebSocket-Key"} { // section 5: not used
		q.Header.Del(h)
	}
	q.Header[":protocol"] = []string{"websocket"}
	resp, err := x.Transport.RoundTrip(q)
	if err != nil || resp.StatusCode != 200 {
		return resp, err
	}
	if v := resp.Header.Get("Sec-WebSocket-Accept"); v != "" {
		return nil, fmt.Errorf("the answer over HTTP/2 has sec-websocket-accept %q", v)
	}
	resp.StatusCode = 101
	resp.Header.Set("Connection", "Upgrade")
	resp.Header.Set("Upgrade", "websocket")
	resp.Header.Set("Sec-WebSocket-Accept", wsAccept(key))
	resp.Body = duplex{resp.Body, up, body.sent}
	return resp, nil
}

func wsAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// sentBody tells when the transport has sent all of it: a transport closes a body that it is done with.
type sentBody struct {
	io.ReadCloser
	sent chan struct{}
	once *sync.Once
}

func (b sentBody) Close() error {
	b.once.Do(func() { close(b.sent) })
	return b.ReadCloser.Close()
}

type duplex struct {
	io.ReadCloser
	up   *io.PipeWriter
	sent <-chan struct{} // closed when everything that was written to up is on its way
}

func (d duplex) Write(p []byte) (int, error) { return d.up.Write(p) }

// Close ends both directions. To close the response first would reset the
// stream, and the transport forgets what it has not sent by then.
func (d duplex) Close() error {
	err := d.up.Close()
	select {
	case <-d.sent:
	case <-time.After(time.Minute):
		err = errors.Join(err, errors.New("the request body was not sent within a minute"))
	}
	return errors.Join(err, d.ReadCloser.Close())
}

// wsDialer dials through a port of a proxy.
type wsDialer struct {
	port   int
	client *http.Client
	h2     bool // some hop on the way speaks HTTP/2
	mu     sync.Mutex
	pings  int // from the server; mu
}

func (d *wsDialer) dial(ctx context.Context, path string) (*websocket.Conn, *http.Response, error) {
	c, resp, err := websocket.Dial(ctx, fmt.Sprintf("http://127.0.0.1:%d%s", d.port, path), &websocket.DialOptions{
		HTTPClient: d.client, Subprotocols: []string{"chat.weft"},
		OnPingReceived: func(context.Context, []byte) bool {
			d.mu.Lock()
			d.pings++
			d.mu.Unlock()
			return true
		},
	})
	if err == nil {
		c.SetReadLimit(wsLimit)
	}
	return c, resp, err
}
