package adminapi_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/observe/adminapi"
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

	c := adminapi.New(dir)
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
	c := adminapi.New(t.TempDir())
	defer c.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, adminapi.ErrNotRunning) {
		t.Errorf("status without a control plane: error = %v, want %v", err, adminapi.ErrNotRunning)
	}
	if _, err := c.Metrics(t.Context(), "default", "p"); !errors.Is(err, adminapi.ErrNotRunning) {
		t.Errorf("metrics without a runtime: error = %v, want %v", err, adminapi.ErrNotRunning)
	}
}

func TestAnErrorOfTheSocketIsPassedOn(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, admin.SocketControl, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		json.NewEncoder(w).Encode(admin.Error{Message: "the store is closed"})
	}))
	c := adminapi.New(dir)
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
	c := adminapi.New(dir)
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
