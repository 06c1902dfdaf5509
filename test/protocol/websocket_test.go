package protocol

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"weft.mesh/weft/proxy/proxytest"
)

// wsWays are the ways that a WebSocket may take: what its client speaks, and what the sidecars speak. The
// server speaks HTTP/1.1. The first goes through one proxy in a process of its own, the others through two with mTLS.
var wsWays = []struct {
	name          string
	h2            bool // the client's side
	pair, between string
}{
	{"h1", false, "", ""},
	{"h2 to h1", true, "", ""},
	{"h1 in mTLS", false, "pair", "http"},
	{"h1 to h2 in mTLS to h1", false, "pair", "http2"},
	{"h2 to h1 in mTLS", true, "pair", "http"},
	{"h2 to h2 in mTLS to h1", true, "pair", "http2"},
}

// eachWay runs a test on each of the ways, with its own server.
func eachWay(t *testing.T, test func(t *testing.T, ctx context.Context, d *wsDialer, s *wsServer, app *proxytest.App)) {
	app := proxytest.StartApp(t, "app")
	alone := startRig(t, rigOptions{app: app.Port})
	pairs := map[string]*pair{}
	for _, w := range wsWays {
		if w.pair != "" && pairs[w.between] == nil {
			pairs[w.between] = startPair(t, pairOptions{app: app.Port, between: w.between})
		}
	}
	for _, w := range wsWays {
		t.Run(w.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			d := &wsDialer{port: alone.plain, client: &http.Client{}, h2: w.h2 || w.between == "http2"}
			if w.pair != "" {
				d.port = pairs[w.between].port
			}
			if w.h2 {
				d.client.Transport = newWSOverH2(t)
			} else {
				tr := &http.Transport{}
				t.Cleanup(tr.CloseIdleConnections)
				d.client.Transport = tr
			}
			s := &wsServer{t: t, ended: make(chan error, 10)}
			app.Handle(s.ServeHTTP)
			test(t, ctx, d, s, app)
		})
	}
}

func mustDial(t *testing.T, ctx context.Context, d *wsDialer, path string) *websocket.Conn {
	t.Helper()
	c, _, err := d.dial(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func (s *wsServer) end(t *testing.T, ctx context.Context) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-ctx.Done():
		t.Fatal("the server's connection did not end")
		return nil
	}
}

func TestWebSocketsPassEveryWay(t *testing.T) {
	eachWay(t, func(t *testing.T, ctx context.Context, d *wsDialer, s *wsServer, _ *proxytest.App) {
		c := mustDial(t, ctx, d, "/ws/echo")
		if c.Subprotocol() != "chat.weft" {
			t.Errorf("subprotocol %q", c.Subprotocol())
		}
		big := make([]byte, 1<<20)
		rand.NewChaCha8([32]byte{1}).Read(big)
		for _, m := range []struct {
			kind  websocket.MessageType
			data  []byte
			piece int // size of a fragment
		}{
			{websocket.MessageText, []byte("hello"), 0},
			{websocket.MessageText, nil, 0},
			{websocket.MessageText, []byte("in three pieces"), 5},
			{websocket.MessageBinary, []byte{0, 1, 2, 255}, 1},
			{websocket.MessageBinary, big, 0},
			{websocket.MessageBinary, big, 60_000},
		} {
			sent := make(chan error, 1)
			go func() { sent <- send(ctx, c, m.kind, m.data, m.piece) }() // the echo must be read meanwhile
			kind, got, err := c.Read(ctx)
			if err != nil || kind != m.kind || !bytes.Equal(got, m.data) {
				t.Fatalf("%v of %d bytes came back as %v of %d, %v", m.kind, len(m.data), kind, len(got), err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
			t.Error(err)
		}
		if err := s.end(t, ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure || !strings.Contains(err.Error(), "done") {
			t.Errorf("the server saw %v", err)
		}
	})
}

// send sends a message in fragments of piece bytes, or in one.
func send(ctx context.Context, c *websocket.Conn, kind websocket.MessageType, data []byte, piece int) error {
	if piece == 0 {
		return c.Write(ctx, kind, data)
	}
	w, err := c.Writer(ctx, kind)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		n := min(piece, len(data))
		if _, err := w.Write(data[:n]); err != nil { // a frame
			return err
		}
		data = data[n:]
	}
	return w.Close()
}

func TestWebSocketPingsAndPongsPassBothWays(t *testing.T) {
	eachWay(t, func(t *testing.T, ctx context.Context, d *wsDialer, _ *wsServer, _ *proxytest.App) {
		c := mustDial(t, ctx, d, "/ws/ping")
		_, got, err := c.Read(ctx) // answers the server's ping meanwhile
		if err != nil || string(got) != "pong seen" {
			t.Fatalf("%q, %v", got, err)
		}
		d.mu.Lock()
		if d.pings != 1 {
			t.Errorf("%d pings came", d.pings)
		}
		d.mu.Unlock()
		reading := c.CloseRead(ctx)
		if err := c.Ping(ctx); err != nil {
			t.Errorf("ping of the client: %v", err)
		}
		_ = c.CloseNow()
		<-reading.Done()
	})
}

func TestWebSocketCloseCodesPassBothWays(t *testing.T) {
	eachWay(t, func(t *testing.T, ctx context.Context, d *wsDialer, s *wsServer, _ *proxytest.App) {
		c := mustDial(t, ctx, d, "/ws/close")
		_, _, err := c.Read(ctx)
		if websocket.CloseStatus(err) != 4001 || !strings.Contains(err.Error(), "said enough") {
			t.Errorf("the client saw %v", err)
		}
		if err := s.end(t, ctx); err != nil {
			t.Errorf("the server saw %v", err)
		}
		c = mustDial(t, ctx, d, "/ws/echo")
		if err := c.Close(3999, "gone fishing"); err != nil {
			t.Error(err)
		}
		if err := s.end(t, ctx); websocket.CloseStatus(err) != 3999 || !strings.Contains(err.Error(), "gone fishing") {
			t.Errorf("the server saw %v", err)
		}
	})
}

func TestAWebSocketThatEndsAbruptlyEndsOnTheOtherSide(t *testing.T) {
	eachWay(t, func(t *testing.T, ctx context.Context, d *wsDialer, s *wsServer, _ *proxytest.App) {
		c := mustDial(t, ctx, d, "/ws/abort")
		if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil || websocket.CloseStatus(err) != -1 {
			t.Errorf("the client saw %v", err)
		}
		_ = s.end(t, ctx)
		c = mustDial(t, ctx, d, "/ws/echo")
		if err := c.Write(ctx, websocket.MessageText, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Read(ctx); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseNow()
		if err := s.end(t, ctx); err == nil || ctx.Err() != nil {
			t.Errorf("the server saw %v", err)
		}
	})
}

func TestAWebSocketThatTheServerRefusesIsAnswered(t *testing.T) {
	eachWay(t, func(t *testing.T, ctx context.Context, d *wsDialer, _ *wsServer, app *proxytest.App) {
		for _, status := range []int{403, 426, 200, 404} {
			app.Handle(func(w http.ResponseWriter, r *http.Request) {
				if status == 426 {
					w.Header().Set("Upgrade", "something/2")
				}
				w.WriteHeader(status)
				_, _ = io.WriteString(w, "not here")
			})
			_, resp, err := d.dial(ctx, "/ws/echo")
			if err == nil {
				t.Fatalf("%d: a WebSocket", status)
			}
			want, text := status, "not here"
			if status == 200 && d.h2 {
				want, text = 502, "the upstream did not switch protocols" // over HTTP/2 a 200 would say that it did
			}
			if resp == nil || resp.StatusCode != want {
				t.Fatalf("%d: %+v, %v", status, resp, err)
			}
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != text {
				t.Errorf("%d: %q, %v", status, b, err)
			}
		}
	})
}
