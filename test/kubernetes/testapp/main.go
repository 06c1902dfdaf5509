// Command testapp is a workload with a server of every kind that Kubernetes
// probes: HTTP on 8080, gRPC health on 7070, TCP on 9090. It logs each probe that it got, and tells at /seen.
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
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := serve(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "testapp:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context) error {
	s := &seen{counts: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/seen", func(w http.ResponseWriter, _ *http.Request) { s.write(w) })
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
