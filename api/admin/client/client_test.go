package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
)

// serve answers on one of the state directory's sockets.
func serve(t *testing.T, dir, socket string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, socket))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
}

func answer(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(v) }
}

func TestReadsWhatTheSocketsServe(t *testing.T) {
	dir := t.TempDir()
	control := http.NewServeMux()
	control.Handle("GET "+admin.PathStatus, answer(admin.ControlStatus{Version: "1", Objects: 3}))
	control.Handle("GET "+admin.PathObjects, answer(admin.ObjectList{Items: []admin.Object{{Kind: "Service", Name: "a", Raw: json.RawMessage(`{}`)}}}))
	serve(t, dir, admin.SocketControl, control)
	runtime := http.NewServeMux()
	runtime.Handle("GET "+admin.PathPods, answer(admin.PodList{Items: []admin.Pod{{Namespace: "default", Name: "p"}}}))
	serve(t, dir, admin.SocketRuntime, runtime)

	c := client.New(dir)
	defer c.Close()
	st, err := c.Status(t.Context())
	if err != nil || st.Version != "1" || st.Objects != 3 {
		t.Errorf("status = %+v, %v", st, err)
	}
	objs, err := c.Objects(t.Context())
	if err != nil || len(objs) != 1 || objs[0].Name != "a" {
		t.Errorf("objects = %+v, %v", objs, err)
	}
	pods, err := c.Pods(t.Context())
	if diff := cmp.Diff([]admin.Pod{{Namespace: "default", Name: "p"}}, pods); err != nil || diff != "" {
		t.Errorf("pods: %v\n%s", err, diff)
	}
}

func TestNobodyServes(t *testing.T) {
	c := client.New(t.TempDir())
	defer c.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("status without a control plane: error = %v, want %v", err, client.ErrNotRunning)
	}
	if _, err := c.Metrics(t.Context(), "default", "p"); !errors.Is(err, client.ErrNotRunning) {
		t.Errorf("metrics without a runtime: error = %v, want %v", err, client.ErrNotRunning)
	}
}

func TestAnErrorOfTheSocketIsPassedOn(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, admin.SocketControl, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		json.NewEncoder(w).Encode(admin.Error{Message: "the store is closed"})
	}))
	c := client.New(dir)
	defer c.Close()
	_, err := c.Objects(t.Context())
	if err == nil || !strings.Contains(err.Error(), "control.sock: /v1/objects: the store is closed") {
		t.Errorf("error = %v", err)
	}
}

// dialer plays the runtime: it answers upgrades with a proxy's admin port.
func dialer(t *testing.T, dials *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("pod") != "page-1.x" || q.Get("namespace") != "default" || q.Get("address") != "127.0.0.1:15000" || r.Header.Get("Upgrade") != "weft-dial" {
			w.WriteHeader(http.StatusNotFound)
			json.NewEncoder(w).Encode(admin.Error{Message: "no pod " + q.Get("pod")})
			return
		}
		dials.Add(1)
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: weft-dial\r\n\r\n")
		for {
			req, err := http.ReadRequest(bufio.NewReader(rw))
			if err != nil {
				return
			}
			if req.Host != "localhost:15000" || req.URL.Path != "/stats/prometheus" {
				t.Errorf("asked the proxy for %s%s", req.Host, req.URL.Path)
			}
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n")
		}
	}
}

func TestMetricsComeThroughTheRuntimeOnOneConnection(t *testing.T) {
	dir := t.TempDir()
	var dials atomic.Int32
	runtime := http.NewServeMux()
	runtime.Handle("POST "+admin.PathDial, dialer(t, &dials))
	serve(t, dir, admin.SocketRuntime, runtime)
	c := client.New(dir)
	defer c.Close()
	for range 3 {
		body, err := c.Metrics(t.Context(), "default", "page-1.x")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(body)
		body.Close()
		if err != nil || string(b) != "a 1\n" {
			t.Fatalf("metrics = %q, %v", b, err)
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("connections = %d, want 1", n)
	}
	if _, err := c.Metrics(t.Context(), "default", "other"); err == nil || !strings.Contains(err.Error(), "no pod other") {
		t.Errorf("metrics of a pod that is not: error = %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := c.Metrics(ctx, "default", "page-1.x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("metrics after the deadline: error = %v", err)
	}
}

func TestErrorsNameSocketCauseAndFix(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("x", 1<<20)
	serve(t, dir, admin.SocketControl, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case admin.PathStatus:
			w.WriteHeader(http.StatusConflict)
			json.NewEncoder(w).Encode(admin.Error{Message: "no World yet", Hint: "wait"})
		case admin.PathRoot:
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, long)
		case admin.PathObjects:
			w.Header().Set("content-length", "100")
			io.WriteString(w, `{"items":`)
		default:
			io.WriteString(w, "what?")
		}
	}))
	// A socket that nobody listens on any more.
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, admin.SocketRuntime), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()

	c := client.New(dir)
	defer c.Close()
	tests := []struct {
		name       string
		call       func() error
		want, fix  string
		notRunning bool
	}{
		{"a refusal says its reason and hint", func() error { _, err := c.Status(t.Context()); return err }, "control.sock: /v1/status: no World yet", "wait", false},
		{"a long refusal is cut", func() error { _, err := c.Root(t.Context()); return err }, "control.sock: /v1/root: answer 500 Internal Server Error: xxx", "", false},
		{"an answer that is no JSON", func() error { _, err := c.Token(t.Context(), "a", "b"); return err }, "join token for a/b: " + dir + "/control.sock: /v1/tokens: invalid character", "", false},
		{"an answer that ends early", func() error { _, err := c.Objects(t.Context()); return err }, dir + "/control.sock: /v1/objects: the answer ended early", "try again", false},
		{"a socket that was left behind", func() error { _, err := c.Pods(t.Context()); return err }, "no mesh is running here (" + dir + "/runtime.sock)", "weft up", true},
		{"no socket", func() error {
			_, err := c.Exec(t.Context(), admin.ExecRequest{}, os.Stdin, os.Stdout, os.Stderr)
			return err
		}, "no mesh is running here (" + dir + "/exec.sock)", "weft up", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.call()
			var e *client.Error
			if !errors.As(err, &e) {
				t.Fatalf("error = %v, want a client.Error", err)
			}
			if !strings.HasPrefix(err.Error(), tt.want) || len(err.Error()) > 100<<10 {
				t.Errorf("error = %.300q, want %q", err, tt.want)
			}
			if !strings.Contains(e.Fix, tt.fix) || tt.fix == "" && e.Fix != "" {
				t.Errorf("fix = %q, want %q", e.Fix, tt.fix)
			}
			if errors.Is(err, client.ErrNotRunning) != tt.notRunning {
				t.Errorf("is ErrNotRunning: %v", !tt.notRunning)
			}
		})
	}
}

func TestAStoppedMeshIsNotWaitedForForEver(t *testing.T) {
	// The socket's own goroutines cannot be in a bubble of fake time: the bound
	// is tried with a context that a test can afford.
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, admin.SocketControl)) // accepts in the kernel, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := client.New(dir)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("the test's patience"))
	defer cancel()
	_, err = c.Status(ctx)
	if err == nil || !strings.Contains(err.Error(), "the test's patience") {
		t.Errorf("error = %v", err)
	}
}

func TestTailOfLogs(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, admin.SocketRuntime, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		fmt.Fprintf(w, "%v %q %s", q.Has("tail"), q.Get("tail"), q.Get("pod"))
	}))
	c := client.New(dir)
	for tail, want := range map[int]string{client.AllLines: `false "" p`, 0: `true "0" p`, 7: `true "7" p`} {
		var b strings.Builder
		if err := c.Logs(t.Context(), client.LogOptions{Pod: "p", Tail: tail}, &b); err != nil || b.String() != want {
			t.Errorf("tail %d: %s, %v; want %s", tail, b.String(), err, want)
		}
	}
}
