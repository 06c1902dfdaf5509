package proxytest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// App is an HTTP server beside a proxy. It counts requests; what it answers can be changed.
type App struct {
	Port int

	mu sync.Mutex
	// mu protects the following.
	requests []*http.Request
	handler  http.HandlerFunc
}

// StartApp serves HTTP/1.1 and HTTP/2 without TLS on a free port of 127.0.0.1.
// It answers "name method path" and its own name in x-app, unless Handle says otherwise.
func StartApp(t testing.TB, name string) *App {
	t.Helper()
	a := &App{}
	a.handler = func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("x-app", name)
		fmt.Fprintf(w, "%s %s %s %s", name, r.Method, r.URL.RequestURI(), body)
	}
	l := listen(t)
	a.Port = l.Addr().(*net.TCPAddr).Port
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: h2c.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.requests = append(a.requests, r.Clone(r.Context()))
		h := a.handler
		a.mu.Unlock()
		h(w, r)
	}), &http2.Server{})}
	serve(t, func() error { return srv.Serve(l) }, func() { _ = srv.Close() })
	return a
}

// Handle changes what the app answers.
func (a *App) Handle(h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handler = h
}

// Count is the number of requests so far.
func (a *App) Count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.requests)
}

// Last is the latest request, without its body; nil if there was none.
func (a *App) Last() *http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.requests) == 0 {
		return nil
	}
	return a.requests[len(a.requests)-1]
}

// StartGRPC serves gRPC's interop service on a free port.
func StartGRPC(t testing.TB) (port int) {
	t.Helper()
	l := listen(t)
	g := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(g, interop.NewTestServer())
	serve(t, func() error { return g.Serve(l) }, g.Stop)
	return l.Addr().(*net.TCPAddr).Port
}

// StartEcho serves TCP: what comes is sent back, with half-close.
func StartEcho(t testing.TB) (port int) {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	serve(t, func() error {
		defer wg.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	}, func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func serve(t testing.TB, run func() error, stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
}

// Call sends a request over a connection of its own and returns status, headers and body.
func Call(t testing.TB, method string, port int, path string, header ...string) (int, http.Header, string) {
	t.Helper()
	status, h, body, err := TryCall(method, port, path, header...)
	if err != nil {
		t.Fatal(err)
	}
	return status, h, body
}

// TryCall is Call for callers that expect failures.
func TryCall(method string, port int, path string, header ...string) (int, http.Header, string, error) {
	req, err := http.NewRequest(method, "http://127.0.0.1:"+strconv.Itoa(port)+path, nil)
	if err != nil {
		return 0, nil, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	c := http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err
}
