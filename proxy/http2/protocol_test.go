package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/netio"
	msg "weft.mesh/weft/proxy/stream"
)

// wire is the other end of one of our connections, frame by frame.
type wire struct {
	t   *testing.T
	c   *memnet.Conn
	fr  *xhttp2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer
	dec *hpack.Decoder

	mu  sync.Mutex
	log []string // what came, one line for each frame
	end chan struct{}
}

func newWire(t *testing.T, c *memnet.Conn) *wire {
	w := &wire{t: t, c: c, fr: xhttp2.NewFramer(c, c), end: make(chan struct{})}
	w.enc = hpack.NewEncoder(&w.buf)
	w.dec = hpack.NewDecoder(defaultTableSize, nil)
	return w
}

// listen notes all frames until the connection ends.
func (w *wire) listen() {
	defer close(w.end)
	for {
		f, err := w.fr.ReadFrame()
		if err != nil {
			return
		}
		line := w.describe(f)
		w.mu.Lock()
		w.log = append(w.log, line)
		w.mu.Unlock()
	}
}

func (w *wire) describe(f xhttp2.Frame) string {
	h := f.Header()
	switch f := f.(type) {
	case *xhttp2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %v", f.LastStreamID, f.ErrCode)
	case *xhttp2.RSTStreamFrame:
		return fmt.Sprintf("RST %d %v", h.StreamID, f.ErrCode)
	case *xhttp2.HeadersFrame:
		fields, err := w.dec.DecodeFull(f.HeaderBlockFragment())
		if err != nil {
			w.t.Error(err)
		}
		s := fmt.Sprintf("HEADERS %d", h.StreamID)
		for _, f := range fields {
			s += " " + f.Name + "=" + f.Value
		}
		if f.StreamEnded() {
			s += " END"
		}
		return s
	case *xhttp2.DataFrame:
		s := fmt.Sprintf("DATA %d %d", h.StreamID, len(f.Data()))
		if f.StreamEnded() {
			s += " END"
		}
		return s
	case *xhttp2.PingFrame:
		return fmt.Sprintf("PING ack=%v", f.IsAck())
	case *xhttp2.SettingsFrame:
		return fmt.Sprintf("SETTINGS ack=%v", f.IsAck())
	case *xhttp2.WindowUpdateFrame:
		return fmt.Sprintf("WINDOW %d %d", h.StreamID, f.Increment)
	}
	return h.String()
}

// frames waits until nothing moves and returns what came, without the greeting.
func (w *wire) frames() []string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, l := range w.log {
		if !strings.HasPrefix(l, "SETTINGS") && !strings.HasPrefix(l, "WINDOW 0") {
			out = append(out, l)
		}
	}
	return out
}

func (w *wire) has(line string) bool {
	for _, l := range w.frames() {
		if strings.HasPrefix(l, line) {
			return true
		}
	}
	return false
}

func (w *wire) block(fields ...string) []byte {
	w.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = w.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return append([]byte(nil), w.buf.Bytes()...)
}

// headers sends a HEADERS frame; errors show in what the peer does.
func (w *wire) headers(id uint32, end bool, fields ...string) {
	_ = w.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: w.block(fields...), EndStream: end, EndHeaders: true})
}

var get = []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"}
var post = []string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a"}

// withServer runs f against a server in a bubble of fake time.
func withServer(t *testing.T, o ServerOptions, h func(context.Context, msg.Server), f func(t *testing.T, w *wire)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(memnet.Link{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = ServeConn(t.Context(), netio.New(b), o, h)
		}()
		w := newWire(t, a)
		_, _ = a.Write([]byte(preface))
		_ = w.fr.WriteSettings()
		go w.listen()
		f(t, w)
		_ = a.Close()
		<-done
		<-w.end
	})
}

func ok(_ context.Context, s msg.Server) {
	for {
		if _, err := s.ReadBody(); err != nil {
			break
		}
	}
	_ = s.WriteHead(&msg.Response{Status: 200}, true)
}

func TestFloodsEndTheConnection(t *testing.T) {
	for name, flood := range map[string]func(w *wire, i int) error{
		"streams reset at once": func(w *wire, i int) error {
			w.headers(uint32(2*i+1), false, post...)
			return w.fr.WriteRSTStream(uint32(2*i+1), xhttp2.ErrCodeCancel)
		},
		"malformed requests": func(w *wire, i int) error {
			w.headers(uint32(2*i+1), true, ":method", "GET")
			return nil
		},
		"pings":         func(w *wire, _ int) error { return w.fr.WritePing(false, [8]byte{}) },
		"settings":      func(w *wire, _ int) error { return w.fr.WriteSettings() },
		"priorities":    func(w *wire, _ int) error { return w.fr.WritePriority(1, xhttp2.PriorityParam{StreamDep: 3}) },
		"unknown types": func(w *wire, _ int) error { return w.fr.WriteRawFrame(0x77, 0, 0, nil) },
		"empty data": func(w *wire, i int) error {
			if i == 0 {
				w.headers(1, false, post...)
			}
			return w.fr.WriteData(1, false, nil)
		},
		"windows": func(w *wire, _ int) error { return w.fr.WriteWindowUpdate(0, 1) },
		"continuations": func(w *wire, i int) error {
			if i == 0 {
				return w.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: w.block(get...)})
			}
			return w.fr.WriteContinuation(1, false, nil)
		},
		"one endless header block": func(w *wire, i int) error {
			if i == 0 {
				return w.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: w.block(get...)})
			}
			return w.fr.WriteContinuation(1, false, w.block("x-a", strings.Repeat("v", 10_000)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var running, most atomic.Int32
			h := func(_ context.Context, s msg.Server) {
				n := running.Add(1)
				defer running.Add(-1)
				most.Store(max(most.Load(), n))
				ok(nil, s)
			}
			withServer(t, ServerOptions{MaxConcurrentStreams: 10}, h, func(t *testing.T, w *wire) {
				for i := range 2600 {
					if flood(w, i) != nil {
						break
					}
				}
				if !w.has("GOAWAY") || !strings.Contains(strings.Join(w.frames(), "\n"), "ENHANCE_YOUR_CALM") {
					got := w.frames()
					t.Errorf("the flood goes on: %q", got[max(0, len(got)-3):])
				}
				if most.Load() > 20 {
					t.Errorf("%d handlers ran at once", most.Load())
				}
			})
		})
	}
}

func TestAPeerThatDoesNotReadIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(memnet.Link{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = ServeConn(t.Context(), netio.New(b), ServerOptions{}, ok)
		}()
		w := newWire(t, a)
		_, _ = a.Write([]byte(preface))
		_ = w.fr.WriteSettings()
		// Useful work in between keeps the flood counter down; the answers pile up.
		for i := range 200_000 {
			if w.fr.WritePing(false, [8]byte{}) != nil {
				break
			}
			if i%5 == 0 {
				w.headers(uint32(i/5*2+1), true, get...)
			}
			_ = a.SetWriteDeadline(time.Now().Add(time.Minute))
		}
		_ = a.Close()
		<-done
	})
}

func TestMoreStreamsThanAllowedAreRefused(t *testing.T) {
	var told []string
	withServer(t, ServerOptions{MaxConcurrentStreams: 3, OnProtocolError: tellTo(&told)}, func(_ context.Context, s msg.Server) {
		<-s.Done()
	}, func(t *testing.T, w *wire) {
		for i := range 5 {
			w.headers(uint32(2*i+1), false, post...)
		}
		want := []string{"RST 7 REFUSED_STREAM", "RST 9 REFUSED_STREAM"}
		if d := cmp.Diff(want, w.frames()); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"503 http2.too_many_streams", "503 http2.too_many_streams"}, told); d != "" {
			t.Error(d)
		}
	})
}

func tellTo(told *[]string) func(int, string) {
	return func(status int, details string) { *told = append(*told, fmt.Sprint(status, " ", details)) }
}

// TestWhatEndsAConnectionIsTold: the access log has a line for each refused message, also if it was no request.
func TestWhatEndsAConnectionIsTold(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(w *wire)
		want []string
	}{
		"a frame of the wrong size": {
			do:   func(w *wire) { _ = w.fr.WriteRawFrame(xhttp2.FramePing, 0, 0, []byte("x")) },
			want: []string{"400 http2.connection_error{FRAME_SIZE_ERROR:_PING_of_wrong_size}"},
		},
		"a header block that cannot be decoded": {
			do: func(w *wire) {
				_ = w.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff}, EndHeaders: true})
			},
			want: []string{"400 http2.connection_error{COMPRESSION_ERROR:_header_block_cannot_be_decoded}"},
		},
		"a flood": {
			do: func(w *wire) {
				for range maxIdleFrames + 1 {
					_ = w.fr.WriteRawFrame(0x77, 0, 0, nil)
				}
			},
			want: []string{"400 http2.connection_error{ENHANCE_YOUR_CALM:_too_many_frames_without_effect}"},
		},
		"an orderly end": {do: func(w *wire) { _ = w.c.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			var told []string
			withServer(t, ServerOptions{OnProtocolError: tellTo(&told)}, ok, func(t *testing.T, w *wire) {
				synctest.Wait()
				tc.do(w)
				synctest.Wait()
				if d := cmp.Diff(tc.want, told); d != "" {
					t.Error(d)
				}
			})
		})
	}
}

func TestMalformedRequestsResetTheirStream(t *testing.T) {
	with := func(extra ...string) []string { return append(append([]string(nil), get...), extra...) }
	for name, fields := range map[string][]string{
		"no method":                  {":scheme", "http", ":path", "/", ":authority", "a"},
		"no scheme":                  {":method", "GET", ":path", "/", ":authority", "a"},
		"no path":                    {":method", "GET", ":scheme", "http", ":authority", "a"},
		"an empty path":              {":method", "GET", ":scheme", "http", ":path", "", ":authority", "a"},
		"a path without a slash":     {":method", "GET", ":scheme", "http", ":path", "a", ":authority", "a"},
		"a path with a space":        {":method", "GET", ":scheme", "http", ":path", "/a b", ":authority", "a"},
		"a path with CRLF":           {":method", "GET", ":scheme", "http", ":path", "/a\r\nx: y", ":authority", "a"},
		"an asterisk with GET":       {":method", "GET", ":scheme", "http", ":path", "*", ":authority", "a"},
		"two methods":                {":method", "GET", ":method", "GET", ":scheme", "http", ":path", "/"},
		"a method with a space":      {":method", "G T", ":scheme", "http", ":path", "/"},
		"an authority with a slash":  {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a/b"},
		"an authority with user":     {":method", "GET", ":scheme", "http", ":path", "/", ":authority", "me@a"},
		"a status":                   with(":status", "200"),
		"an unknown pseudo-header":   with(":foo", "x"),
		"a late pseudo-header":       {":method", "GET", ":scheme", "http", "x", "y", ":path", "/"},
		"an upper-case name":         with("X-Up", "x"),
		"a name with a space":        with("x y", "x"),
		"an empty name":              with("", "x"),
		"a value with CRLF":          with("x", "a\r\nb: c"),
		"a value with NUL":           with("x", "a\x00b"),
		"a value with a space ahead": with("x", " a"),
		"a value with a tab behind":  with("x", "a\t"),
		"connection":                 with("connection", "close"),
		"transfer-encoding":          with("transfer-encoding", "chunked"),
		"upgrade":                    with("upgrade", "x"),
		"keep-alive":                 with("keep-alive", "1"),
		"te gzip":                    with("te", "gzip"),
		"another host":               with("host", "b"),
		"two hosts":                  with("host", "a", "host", "a"),
		"two lengths":                with("content-length", "0", "content-length", "0"),
		"a length that is no number": with("content-length", "x"),
		"a length without a body":    with("content-length", "5"),
		"CONNECT with a path":        {":method", "CONNECT", ":path", "/", ":authority", "a:1"},
		"CONNECT without authority":  {":method", "CONNECT"},
		"a protocol without CONNECT": with(":protocol", "websocket"),
	} {
		t.Run(name, func(t *testing.T) {
			var refused []string
			withServer(t, ServerOptions{OnProtocolError: tellTo(&refused)}, func(context.Context, msg.Server) {
				t.Error("the handler was called")
			}, func(t *testing.T, w *wire) {
				w.headers(1, true, fields...)
				if d := cmp.Diff([]string{"RST 1 PROTOCOL_ERROR"}, w.frames()); d != "" {
					t.Error(d)
				}
			})
			if d := cmp.Diff([]string{"400 " + detailsHeader}, refused); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestBodiesThatDoNotMatchTheirLength(t *testing.T) {
	for name, send := range map[string]func(w *wire){
		"too little": func(w *wire) { _ = w.fr.WriteData(1, true, []byte("ab")) },
		"too much":   func(w *wire) { _ = w.fr.WriteData(1, true, []byte("abcd")) },
		"trailers too early": func(w *wire) {
			w.headers(1, true, "x-t", "1")
		},
		"headers in the middle":      func(w *wire) { w.headers(1, false, "x-t", "1") },
		"a pseudo-header at the end": func(w *wire) { w.headers(1, true, ":path", "/") },
	} {
		t.Run(name, func(t *testing.T) {
			withServer(t, ServerOptions{}, func(_ context.Context, s msg.Server) {
				var err error
				for err == nil {
					_, err = s.ReadBody()
				}
				if e, ok := msg.AsError(err); !ok || e.Side != msg.Downstream || e.Flag != msg.FlagDownstreamProtocolErr {
					t.Errorf("the handler saw %v", err)
				}
			}, func(t *testing.T, w *wire) {
				w.headers(1, false, append(append([]string(nil), post...), "content-length", "3")...)
				send(w)
				if d := cmp.Diff([]string{"RST 1 PROTOCOL_ERROR"}, w.frames()); d != "" {
					t.Error(d)
				}
			})
		})
	}
}

func TestAReaderThatWaitsHoldsTheSenderBack(t *testing.T) {
	const window = 70_000
	var read chan int // made inside the bubble
	withServer(t, ServerOptions{StreamWindow: window, ConnWindow: 1 << 20}, func(_ context.Context, s msg.Server) {
		for n := range read {
			for n > 0 {
				p, err := s.ReadBody()
				if err != nil {
					t.Error(err)
					return
				}
				n -= len(p)
			}
		}
		s.Abort()
	}, func(t *testing.T, w *wire) {
		read = make(chan int)
		w.headers(1, false, post...)
		for range window / 10_000 {
			_ = w.fr.WriteData(1, false, make([]byte, 10_000))
		}
		if w.has("WINDOW 1") || w.has("RST") {
			t.Errorf("before anything was read: %q", w.frames())
		}
		read <- window
		if !w.has("WINDOW 1") {
			t.Errorf("after all was read: %q", w.frames())
		}
		synctest.Wait()
		for range 2 * window / 10_000 { // more than was given back
			_ = w.fr.WriteData(1, false, make([]byte, 10_000))
		}
		if !w.has("RST 1 FLOW_CONTROL_ERROR") {
			t.Errorf("beyond the window: %q", w.frames())
		}
		close(read)
	})
}

func TestUnreadBodiesDoNotCloseTheConnectionsWindow(t *testing.T) {
	withServer(t, ServerOptions{StreamWindow: 65535, ConnWindow: 65535}, func(_ context.Context, s msg.Server) {
		_ = s.WriteHead(&msg.Response{Status: 200}, true) // never reads
	}, func(t *testing.T, w *wire) {
		sent, given := 0, 65535
		for i := range 50 {
			id := uint32(2*i + 1)
			w.headers(id, false, post...)
			synctest.Wait()
			if given-sent < 10_000 {
				t.Fatalf("stream %d: %d of %d bytes are left", id, given-sent, given)
			}
			_ = w.fr.WriteData(id, true, make([]byte, 10_000))
			sent += 10_000
			synctest.Wait()
			w.mu.Lock()
			given = 65535
			for _, l := range w.log {
				var n int
				if _, err := fmt.Sscanf(l, "WINDOW 0 %d", &n); err == nil {
					given += n
				}
			}
			w.mu.Unlock()
		}
	})
}

func TestSendingStaysWithinTheWindows(t *testing.T) {
	withServer(t, ServerOptions{}, func(_ context.Context, s msg.Server) {
		_ = s.WriteHead(&msg.Response{Status: 200, ContentLength: 100_000}, false)
		_ = s.WriteBody(make([]byte, 100_000), true)
	}, func(t *testing.T, w *wire) {
		count := func() (n int) {
			for _, l := range w.frames() {
				var id, size int
				if _, err := fmt.Sscanf(l, "DATA %d %d", &id, &size); err == nil {
					n += size
				}
			}
			return n
		}
		w.headers(1, true, get...)
		if n := count(); n != 65535 {
			t.Errorf("%d bytes in the initial window", n)
		}
		_ = w.fr.WriteWindowUpdate(1, 10)
		if n := count(); n != 65535 {
			t.Errorf("%d bytes with a closed connection window", n)
		}
		_ = w.fr.WriteWindowUpdate(0, 100_000)
		if n := count(); n != 65545 {
			t.Errorf("%d bytes, the stream's window allows 65545", n)
		}
		_ = w.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 65535 + 20})
		if n := count(); n != 65565 {
			t.Errorf("%d bytes after SETTINGS, want 65565", n)
		}
		_ = w.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
		_ = w.fr.WriteWindowUpdate(1, 65_000) // the window is negative before
		if n := count(); n != 65565 {
			t.Errorf("%d bytes with a negative window", n)
		}
		_ = w.fr.WriteWindowUpdate(1, 100_000)
		if n := count(); n != 100_000 {
			t.Errorf("%d bytes at the end", n)
		}
	})
}

func TestDrainTakesTwoSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		drain := make(chan struct{})
		a, b := memnet.Pipe(memnet.Link{})
		done := make(chan error, 1)
		go func() { done <- ServeConn(t.Context(), netio.New(b), ServerOptions{Drain: drain}, ok) }()
		w := newWire(t, a)
		_, _ = a.Write([]byte(preface))
		_ = w.fr.WriteSettings()
		go w.listen()
		w.headers(1, false, post...)
		synctest.Wait()
		close(drain)
		if d := cmp.Diff([]string{"GOAWAY 2147483647 NO_ERROR", "PING ack=false"}, w.frames()); d != "" {
			t.Error(d)
		}
		w.headers(3, true, get...) // it was on its way
		synctest.Wait()
		_ = w.fr.WritePing(true, [8]byte(drainPing))
		if got := w.frames(); got[len(got)-1] != "GOAWAY 3 NO_ERROR" {
			t.Errorf("%q", got)
		}
		w.headers(5, true, get...) // too late
		_ = w.fr.WriteData(1, true, nil)
		got := w.frames()
		if d := cmp.Diff([]string{"RST 5 REFUSED_STREAM", "HEADERS 1 :status=200 content-length=0 END"}, got[len(got)-2:]); d != "" {
			t.Error(d)
		}
		<-w.end // the server ends its side by itself
		_ = a.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestServerTimeouts(t *testing.T) {
	for name, tt := range map[string]struct {
		o     ServerOptions
		send  func(w *wire)
		want  string
		after time.Duration
	}{
		"no settings":            {ServerOptions{HeaderTimeout: 5 * time.Second}, func(w *wire) { _, _ = w.c.Write([]byte(preface)) }, "GOAWAY 0 SETTINGS_TIMEOUT", 5 * time.Second},
		"half a preface":         {ServerOptions{HeaderTimeout: 5 * time.Second}, func(w *wire) { _, _ = w.c.Write([]byte(preface[:10])) }, "GOAWAY 0 SETTINGS_TIMEOUT", 5 * time.Second},
		"something else":         {ServerOptions{}, func(w *wire) { _, _ = w.c.Write([]byte("GET / HTTP/1.1\r\n\r\n")) }, "GOAWAY 0 PROTOCOL_ERROR", 0},
		"half a header block":    {ServerOptions{HeaderTimeout: 5 * time.Second}, halfBlock, "GOAWAY 0 ENHANCE_YOUR_CALM", 5 * time.Second},
		"idle":                   {ServerOptions{IdleTimeout: 7 * time.Second}, greet, "GOAWAY 0 NO_ERROR", 7 * time.Second},
		"idle after its streams": {ServerOptions{IdleTimeout: 7 * time.Second}, slowStream, "GOAWAY 1 NO_ERROR", 27 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := memnet.Pipe(memnet.Link{})
				start := time.Now()
				var took time.Duration
				done := make(chan struct{})
				go func() {
					defer close(done)
					_ = ServeConn(t.Context(), netio.New(b), tt.o, ok)
				}()
				w := newWire(t, a)
				go w.listen()
				tt.send(w)
				<-w.end
				took = time.Since(start)
				_ = a.Close()
				<-done
				if !w.has(tt.want) || took != tt.after {
					t.Errorf("after %v: %q", took, w.frames())
				}
			})
		})
	}
}

func greet(w *wire) {
	_, _ = w.c.Write([]byte(preface))
	_ = w.fr.WriteSettings()
}

func halfBlock(w *wire) {
	greet(w)
	_ = w.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: w.block(get...)})
}

func slowStream(w *wire) {
	greet(w)
	w.headers(1, false, post...)
	time.Sleep(20 * time.Second)
	_ = w.fr.WriteData(1, true, nil)
}

// withClient runs f with a client of ours and the server's end of the wire.
func withClient(t *testing.T, f func(t *testing.T, cc *ClientConn, w *wire)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, b := memnet.Pipe(memnet.Link{})
		cc, err := NewClientConn(t.Context(), netio.New(a), &msg.ConnInfo{}, ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w := newWire(t, b)
		if _, err := io.ReadFull(b, make([]byte, len(preface))); err != nil {
			t.Fatal(err)
		}
		go w.listen()
		f(t, cc, w)
		cc.Close()
		<-cc.Done()
		_ = b.Close()
		<-w.end
	})
}

func begin(t *testing.T, cc *ClientConn, end bool) msg.Client {
	t.Helper()
	x, err := cc.Start()
	if err != nil {
		t.Fatal(err)
	}
	r := &msg.Request{Method: []byte("POST"), Scheme: []byte("http"), Path: []byte("/"), Authority: []byte("a"), ContentLength: msg.UnknownLength}
	if end {
		r.ContentLength = 0
	}
	if err := errors.Join(x.WriteHead(r, end), x.Flush()); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestWhatAnUpstreamDoesToAStream(t *testing.T) {
	for name, tt := range map[string]struct {
		do      func(w *wire)
		details string
		flag    msg.Flags
		unsent  bool
	}{
		"refuses it":          {func(w *wire) { _ = w.fr.WriteRSTStream(1, xhttp2.ErrCodeRefusedStream) }, "upstream_reset_before_response_started{remote_refused_stream_reset}", msg.FlagUpstreamReset, true},
		"resets it":           {func(w *wire) { _ = w.fr.WriteRSTStream(1, xhttp2.ErrCodeInternal) }, "upstream_reset_before_response_started{remote_reset}", msg.FlagUpstreamReset, false},
		"goes away before it": {func(w *wire) { _ = w.fr.WriteGoAway(0, xhttp2.ErrCodeNo, nil) }, "upstream_reset_before_response_started{remote_refused_stream_reset}", msg.FlagUpstreamReset, true},
		"closes":              {func(w *wire) { _ = w.c.Close() }, "upstream_reset_before_response_started{connection_termination}", msg.FlagUpstreamTermination, false},
		"pushes": {func(w *wire) {
			_ = w.fr.WritePushPromise(xhttp2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: w.block(get...), EndHeaders: true})
		}, "upstream_reset_before_response_started{protocol_error}", msg.FlagUpstreamProtocolErr, false},
		"sends no status":  {func(w *wire) { w.headers(1, true, "x", "y") }, "upstream_reset_before_response_started{protocol_error}", msg.FlagUpstreamProtocolErr, false},
		"sends 101":        {func(w *wire) { w.headers(1, false, ":status", "101") }, "upstream_reset_before_response_started{protocol_error}", msg.FlagUpstreamProtocolErr, false},
		"sends data first": {func(w *wire) { _ = w.fr.WriteData(1, true, []byte("x")) }, "upstream_reset_before_response_started{protocol_error}", msg.FlagUpstreamProtocolErr, false},
		"ends with 103":    {func(w *wire) { w.headers(1, true, ":status", "103") }, "upstream_reset_before_response_started{protocol_error}", msg.FlagUpstreamProtocolErr, false},
	} {
		t.Run(name, func(t *testing.T) {
			withClient(t, func(t *testing.T, cc *ClientConn, w *wire) {
				_ = w.fr.WriteSettings()
				x := begin(t, cc, false)
				defer x.Close()
				tt.do(w)
				_, err := x.ReadHead()
				e, ok := msg.AsError(err)
				if !ok || e.Details != tt.details || e.Flag != tt.flag || e.Unsent != tt.unsent || e.Refused != tt.unsent || e.Side != msg.Upstream {
					t.Errorf("%+v", err)
				}
			})
		})
	}
}

// TestAStreamOnAConnectionThatJustEndedSaysThatNothingWasSent: whoever has it sends it again elsewhere, and
// is told so by the response that is not there too.
func TestAStreamOnAConnectionThatJustEndedSaysThatNothingWasSent(t *testing.T) {
	for name, end := range map[string]func(w *wire){
		"closed":    func(w *wire) { _ = w.c.Close() },
		"goes away": func(w *wire) { _ = w.fr.WriteGoAway(0, xhttp2.ErrCodeNo, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			withClient(t, func(t *testing.T, cc *ClientConn, w *wire) {
				_ = w.fr.WriteSettings()
				begin(t, cc, true).Close() // the connection is not fresh
				x, err := cc.Start()
				if err != nil {
					t.Fatal(err)
				}
				defer x.Close()
				end(w)
				synctest.Wait()
				_ = x.WriteHead(&msg.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("a")}, true)
				_, err = x.ReadHead()
				if e, ok := msg.AsError(err); !ok || !e.Unsent || e.Refused || e.Side != msg.Upstream || e.Flag != msg.FlagUpstreamTermination || x.Fresh() {
					t.Errorf("%+v", err)
				}
			})
		})
	}
}

func TestStreamsBelowTheLastIDFinishAfterGoAway(t *testing.T) {
	withClient(t, func(t *testing.T, cc *ClientConn, w *wire) {
		_ = w.fr.WriteSettings()
		one, two := begin(t, cc, true), begin(t, cc, true)
		_ = w.fr.WriteGoAway(1, xhttp2.ErrCodeNo, nil)
		synctest.Wait()
		if cc.CanTakeStream() {
			t.Error("a connection that goes away takes streams")
		}
		if _, err := cc.Start(); err == nil {
			t.Error("a stream was started after GOAWAY")
		}
		if _, err := two.ReadHead(); err == nil {
			t.Error("the second stream was answered")
		}
		two.Close()
		w.headers(1, true, ":status", "204")
		if r, err := one.ReadHead(); err != nil || r.Status != 204 {
			t.Errorf("%+v %v", r, err)
		}
		one.Close()
		<-cc.Done() // nothing is left to do
	})
}

func TestTheUpstreamsLimitOfStreams(t *testing.T) {
	withClient(t, func(t *testing.T, cc *ClientConn, w *wire) {
		_ = w.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2})
		synctest.Wait()
		one, two := begin(t, cc, true), begin(t, cc, true)
		if _, err := cc.Start(); err == nil || cc.CanTakeStream() || cc.Streams() != 2 {
			t.Errorf("a third stream: %v", err)
		}
		one.Close()
		if !w.has("RST 1 CANCEL") {
			t.Errorf("%q", w.frames())
		}
		three := begin(t, cc, true)
		two.Close()
		three.Close()
	})
}

func TestDeadlinesInFakeTime(t *testing.T) {
	withClient(t, func(t *testing.T, cc *ClientConn, w *wire) {
		_ = w.fr.WriteSettings()
		start := time.Now()
		var wg sync.WaitGroup
		for i := 1; i <= 20; i++ {
			x := begin(t, cc, true)
			x.SetDeadline(start.Add(time.Duration(i) * time.Second))
			wg.Go(func() {
				defer x.Close()
				_, err := x.ReadHead()
				if e, ok := msg.AsError(err); !ok || !e.Timeout || time.Since(start) != time.Duration(i)*time.Second {
					t.Errorf("deadline %d: after %v: %v", i, time.Since(start), err)
				}
			})
		}
		wg.Wait()
		x := begin(t, cc, true) // a deadline that moves while it is waited for
		x.SetDeadline(time.Now().Add(time.Hour))
		begin := time.Now()
		wg.Go(func() {
			if _, err := x.ReadHead(); err == nil || time.Since(begin) != time.Minute {
				t.Errorf("after %v: %v", time.Since(begin), err)
			}
		})
		synctest.Wait()
		x.SetDeadline(time.Now().Add(time.Minute))
		wg.Wait()
		x.Close()
	})
}

func TestAnUpgradeNeedsTheUpstreamsConsent(t *testing.T) {
	for _, consent := range []uint32{0, 1} {
		withClient(t, func(t *testing.T, cc *ClientConn, w *wire) {
			x, err := cc.Start()
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			go func() {
				time.Sleep(time.Second) // the upstream is slow to greet
				_ = w.fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingEnableConnectProtocol, Val: consent})
			}()
			x.SetDeadline(time.Now().Add(5 * time.Second))
			err = x.WriteHead(&msg.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("a"), Upgrade: []byte("websocket")}, false)
			if e, ok := msg.AsError(err); consent == 0 && (!ok || !e.Unsent) || consent == 1 && err != nil {
				t.Errorf("consent %d: %v", consent, err)
			}
			_ = x.Flush()
			if sent := w.has("HEADERS 1 :method=CONNECT"); sent != (consent == 1) {
				t.Errorf("consent %d: %q", consent, w.frames())
			}
		})
	}
}
