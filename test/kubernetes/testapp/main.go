// Command testapp is the workload of the tests. Without arguments it is a server of every kind that
// Kubernetes probes: HTTP on 8080, gRPC health on 7070, TCP on 9090; it counts each probe that it got, and tells at
// /seen; /metrics are metrics of its own. As a client it asks a URL as often as it is told, and tells at port 8081 what became of it:
//
//	testapp load URL RATE     GET /result, POST /reset
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"weft.mesh/weft/test/kubernetes/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return serve(ctx)
	}
	if len(args) != 3 || args[0] != "load" {
		return fmt.Errorf("%q: want nothing, or load URL RATE", args)
	}
	rate, err := strconv.Atoi(args[2])
	if err != nil || rate < 1 {
		return fmt.Errorf("rate %q: want requests a second", args[2])
	}
	return ask(ctx, load.Load{URL: args[1], Rate: rate, Wait: 5 * time.Second, AtOnce: 500})
}

// ask is the client.
func ask(ctx context.Context, l load.Load) error {
	r := l.Start(ctx)
	defer r.Stop()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /result", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(r.Result()) })
	mux.HandleFunc("POST /reset", func(http.ResponseWriter, *http.Request) { r.Reset() })
	web := &http.Server{Addr: ":8081", Handler: mux}
	errs := make(chan error, 1)
	go func() { errs <- web.ListenAndServe() }()
	select {
	case err := <-errs:
		return err
	case <-ctx.Done():
		return web.Shutdown(context.Background())
	}
}

func serve(ctx context.Context) error {
	s := &seen{counts: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/seen", func(w http.ResponseWriter, _ *http.Request) { s.write(w) })
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "# TYPE testapp_requests_total counter")
		fmt.Fprintln(w, "testapp_requests_total", s.total())
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.add("http " + r.URL.Path + " " + r.Header.Get("X-Probe"))
		fmt.Fprintln(w, "ok")
	})
	errs := make(chan error, 3)
	web := &http.Server{Addr: ":8080", Handler: mux}
	go func() { errs <- web.ListenAndServe() }()
	rpc := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(rpc, healthy{seen: s})
	go func() { errs <- listen(":7070", rpc.Serve) }()
	go func() { errs <- listen(":9090", s.accept) }()
	select {
	case err := <-errs:
		return err
	case <-ctx.Done():
		return web.Shutdown(context.Background())
	}
}

func listen(addr string, serve func(net.Listener) error) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return serve(l)
}

// seen counts what came, by kind.
type seen struct {
	mu     sync.Mutex // protects counts
	counts map[string]int
}

func (s *seen) add(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

func (s *seen) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.counts {
		n += c
	}
	return n
}

func (s *seen) write(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	json.NewEncoder(w).Encode(s.counts)
}

func (s *seen) accept(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		s.add("tcp")
		go func() { // ends with the connection
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

type healthy struct {
	grpc_health_v1.UnimplementedHealthServer
	seen *seen
}

func (h healthy) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.seen.add("grpc " + r.GetService())
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}
