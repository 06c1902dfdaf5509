package protocol

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// startEchoApp serves what the traffic of this file needs on one port: POST bodies sent back, WebSocket
// echo below /ws, gRPC's interop service.
func startEchoApp(t testing.TB) (port int) {
	t.Helper()
	g := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(g, interop.NewTestServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: h2c.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.Header.Get("content-type"), "application/grpc"):
			g.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/ws"):
			if c, err := websocket.Accept(w, r, nil); err == nil {
				_ = echo(r.Context(), c)
				_ = c.CloseNow()
			}
		default:
			_, _ = io.Copy(w, r.Body)
		}
	}), &http2.Server{MaxConcurrentStreams: 1000})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); g.Stop(); <-done })
	return l.Addr().(*net.TCPAddr).Port
}

// openLoop sends requests at their times, whether earlier ones were answered or not: HTTP/1.1 on kept and on
// new connections, HTTP/2, and TLS on new connections. Each body must come back. No client repeats a request
// that was sent (they are POSTs), except those that HTTP/2 says were not looked at. On a machine that cannot
// keep up it sends later, instead of piling up more than maxFlight.
type openLoop struct {
	rate  int // per second
	urls  [4]string
	kinds [4]*http.Client

	mu sync.Mutex
	// mu protects the following.
	times    []time.Duration
	failures []string
}

// maxFlight bounds the requests that run at once.
const maxFlight = 300

// mix is which kind each of ten requests is.
var mix = [10]int{0, 2, 1, 0, 2, 3, 0, 2, 1, 0}

func newOpenLoop(t testing.TB, r *rig, rate int) *openLoop {
	kept := &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Second}
	fresh := &http.Transport{DisableKeepAlives: true}
	h2 := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	overTLS := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(func() { kept.CloseIdleConnections(); h2.CloseIdleConnections() })
	l := &openLoop{rate: rate}
	for i, rt := range []http.RoundTripper{kept, fresh, h2, overTLS} {
		port, scheme := r.plain, "http"
		if i == 3 {
			port, scheme = r.tls, "https"
		}
		l.urls[i] = fmt.Sprintf("%s://127.0.0.1:%d/echo", scheme, port)
		l.kinds[i] = &http.Client{Transport: rt, Timeout: time.Minute}
	}
	return l
}

// run sends until ctx ends and waits for all answers.
func (l *openLoop) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	start := time.Now()
	began := start
	flight := make(chan struct{}, maxFlight)
	for i := 0; ; i++ {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(l.rate))
		if d := time.Until(due); d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return
		}
		flight <- struct{}{}
		if behind := time.Since(due); behind > time.Second {
			began, due = began.Add(behind), due.Add(behind) // what it did not send is not made up for
		}
		wg.Go(func() {
			defer func() { <-flight }()
			err := l.one(mix[i%len(mix)], i)
			took := time.Since(due)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.times = append(l.times, took)
			if err != nil {
				l.failures = append(l.failures, fmt.Sprintf("%v: %v", time.Since(start).Round(time.Millisecond), err))
			}
		})
	}
}

func (l *openLoop) one(kind, i int) error {
	body := fmt.Sprintf("request %d of kind %d", i, kind)
	resp, err := l.kinds[kind].Post(l.urls[kind], "text/plain", strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("kind %d: %w", kind, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("kind %d: body: %w", kind, err)
	}
	if resp.StatusCode != 200 || string(b) != body {
		return fmt.Errorf("kind %d: %d %.100q, want what was sent: %q", kind, resp.StatusCode, b, body)
	}
	return nil
}

// result is how many requests there were and how long they took.
func (l *openLoop) result() (n int, p50, p99, longest time.Duration, failures []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.times)
	if n = len(l.times); n > 0 {
		p50, p99, longest = l.times[n/2], l.times[n*99/100], l.times[n-1]
	}
	return n, p50, p99, longest, l.failures
}

// longStream is a stream that is kept open; ping sends something and waits for the echo.
type longStream struct {
	name  string
	ping  func() error
	close func()
}

// streamPause is between the pings of a stream.
const streamPause = 250 * time.Millisecond

// untilItEnds pings until that fails, and tells when that was.
func (s *longStream) untilItEnds() (time.Time, error) {
	defer s.close()
	for {
		if err := s.ping(); err != nil {
			return time.Now(), err
		}
		time.Sleep(streamPause)
	}
}

const streamTimeout = time.Minute

func openWebSocket(port int) (*longStream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	dial, stop := context.WithTimeout(ctx, streamTimeout)
	defer stop()
	c, _, err := websocket.Dial(dial, fmt.Sprintf("ws://127.0.0.1:%d/ws", port), nil)
	if err != nil {
		cancel()
		return nil, err
	}
	return &longStream{"WebSocket", func() error {
		ctx, cancel := context.WithTimeout(ctx, streamTimeout)
		defer cancel()
		if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			return err
		}
		_, b, err := c.Read(ctx)
		if err == nil && string(b) != "hello" {
			err = fmt.Errorf("got %q", b)
		}
		return err
	}, func() { cancel(); _ = c.CloseNow() }}, nil
}

func openGRPC(conn *grpc.ClientConn) (*longStream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s, err := testgrpc.NewTestServiceClient(conn).FullDuplexCall(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	return &longStream{"gRPC stream", func() error {
		if err := s.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 5}}, Payload: &testgrpc.Payload{Body: []byte("hello")}}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		_, err := s.Recv()
		return err
	}, cancel}, nil
}

func openTCP(port int) (*longStream, error) {
	c, err := dial(port)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 5)
	return &longStream{"TCP connection", func() error {
		_ = c.SetDeadline(time.Now().Add(streamTimeout))
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, b)
		return err
	}, func() { _ = c.Close() }}, nil
}

// openStreams opens n WebSockets and n gRPC streams on a few connections, and some TCP connections, and uses each once.
func openStreams(t testing.TB, n, ws, grpcPort, tcp int) []*longStream {
	t.Helper()
	var all []*longStream
	add := func(s *longStream, err error) {
		t.Helper()
		if err == nil {
			err = s.ping()
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	for range n {
		add(openWebSocket(ws))
	}
	for i := 0; i < n; i += 10 {
		conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", grpcPort), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		for range min(10, n-i) {
			add(openGRPC(conn))
		}
	}
	for range n / 10 {
		add(openTCP(tcp))
	}
	return all
}
