// Package admin serves a proxy's own HTTP interfaces: Envoy's admin paths on
// 127.0.0.1:15000, and on their own ports what Istio's agent serves: merged metrics and
// health on 15020, readiness on 15021, the proxy's metrics on 15090.
//
// It shows and asks; what it shows comes through [Settings], what it asks for (drain,
// quit, log level) is done by whoever made them. Private keys are never shown.
//
// The admin interface is for loopback only: a request whose Host is not a
// loopback name or address is refused (a web page cannot reach it by DNS rebinding), and
// everything that changes state needs POST. The other ports serve read-only pages to
// anyone, and quit and drain to loopback peers only.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/identity"
	"weft.mesh/weft/proxy/upstream"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

// Resource is one accepted resource.
type Resource struct {
	*xds.Resource
	At time.Time // when it was accepted
}

// Refused is the last refusal of a resource.
type Refused struct {
	Name, Reason string
	At           time.Time
}

// Listener is a listener as it serves.
type Listener struct {
	Name    string
	Address netip.AddrPort
	Bound   bool // has a socket of its own
}

// Metrics writes metrics in the Prometheus text format.
type Metrics interface{ WriteText(w io.Writer) error }

// Info is what /server_info says.
type Info struct {
	Version string
	NodeID  string
	Cluster string
	Role    string // sidecar or router
	// Node is how the proxy introduces itself to the control plane at ControlPlane (host:port); nil, "": not known.
	Node         *corev3.Node
	ControlPlane string
	Started      time.Time
	// Epoch counts hot restarts; FirstStarted is when the first process of the line started.
	Epoch        uint32
	HotRestart   string // the versions of the hot restart protocol, or disabled
	FirstStarted time.Time
	Config       any // further details of the control plane connection, as JSON
	Connection   string
}

// Settings of a [Server]. Functions are called on request goroutines and must be safe for concurrent use.
type Settings struct {
	// Addresses; empty ones are not served. Admin must be loopback.
	Admin, Status, Ready, Metrics string

	Resources func(typeURL string) []Resource
	Refused   func(typeURL string) []Refused
	View      func() *config.View
	Clusters  func() []upstream.ClusterSnapshot
	Listeners func() []Listener
	Identity  *identity.Source // nil: none
	Registry  Metrics
	// Names is the table that the pod's DNS queries are answered from, nil before the first. A nil function: nobody asks here.
	Names func() map[string]nds.Info
	Info  func() Info
	// Healthy tells whether the proxy is ready, and why not.
	Healthy func() (ok bool, why string)
	// State is Envoy's: LIVE, DRAINING, PRE_INITIALIZING, INITIALIZING.
	State func() string
	Level *slog.LevelVar
	// Drain begins to drain listeners; Quit ends the proxy (gracefully).
	Drain func()
	Quit  func()
	// Arrived changes with each connection and request from others to the workload; nil: it never does.
	Arrived func() uint64
	// AppMetrics is the URL of the application's own metrics, added to those of Status; "": none.
	AppMetrics string
	// AppProbes are probes of the application by the path of Status that calls them (see [ParseAppProbes]); AppIP is
	// where it is called, the pod's address; zero: 127.0.0.1.
	AppProbes map[string]AppProbe
	AppIP     netip.Addr
	// Listen replaces net.Listen; for tests.
	Listen func(network, address string) (net.Listener, error)
	Log    *slog.Logger
}

// Bounds of the servers.
const (
	headerTimeout = 5 * time.Second
	writeTimeout  = 2 * time.Minute // a CPU profile takes 30 s
	idleTimeout   = time.Minute
	maxHeader     = 32 << 10
	shutdownTime  = time.Second
	handOverTime  = 10 * time.Second
	finishPoll    = 5 * time.Millisecond
)

// Server serves the interfaces. Make it with [New].
type Server struct {
	set     Settings
	servers []*http.Server
	socks   []net.Listener
	byAddr  map[string]net.Listener // by configured address
	handed  atomic.Bool
	conns   atomic.Int64 // that are open

	quietAsks chan struct{} // a place for each that waits
}

// New opens the sockets; nothing is served before [Server.Run].
func New(s Settings) (*Server, error) {
	if s.Listen == nil {
		s.Listen = net.Listen
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Arrived == nil {
		s.Arrived = func() uint64 { return 0 }
	}
	if s.Admin != "" {
		if err := loopbackOnly(s.Admin); err != nil {
			return nil, err
		}
	}
	srv := &Server{set: s, byAddr: map[string]net.Listener{}, quietAsks: make(chan struct{}, maxQuietAsks)}
	for _, x := range []struct {
		addr    string
		handler http.Handler
	}{
		{s.Admin, guard(srv.adminPages())}, {s.Status, srv.statusPages()}, {s.Ready, srv.readyPages()}, {s.Metrics, srv.metricsPages()},
	} {
		if x.addr == "" {
			continue
		}
		ln, err := s.Listen("tcp", x.addr)
		if err != nil {
			srv.Close()
			return nil, fmt.Errorf("admin: %w", err)
		}
		srv.socks = append(srv.socks, ln)
		srv.byAddr[x.addr] = ln
		srv.servers = append(srv.servers, &http.Server{
			Handler: x.handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: 30 * time.Second, WriteTimeout: writeTimeout,
			IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
			ConnState: srv.count,
		})
	}
	return srv, nil
}

func loopbackOnly(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("admin: address %q: %w", addr, err)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("admin: address %q: the admin interface is for loopback only", addr)
	}
	return nil
}

// Addrs lists the bound addresses in the order admin, status, ready, metrics, without those not served.
func (s *Server) Addrs() []net.Addr {
	var out []net.Addr
	for _, l := range s.socks {
		out = append(out, l.Addr())
	}
	return out
}

// Socket is the socket of a configured address, for a process that takes over from this one; nil: there is none.
func (s *Server) Socket(addr string) syscall.Conn {
	c, _ := s.byAddr[addr].(syscall.Conn)
	return c
}

// HandOver stops accepting: another process serves on the same sockets. Run, which is to end then, gives the
// requests that were accepted before more time: nobody expects them to fail.
func (s *Server) HandOver() {
	s.handed.Store(true)
	s.Close()
}

// Close closes the sockets: of a server that was never run, or see HandOver.
func (s *Server) Close() {
	for _, l := range s.socks {
		_ = l.Close()
	}
}

// Run serves until ctx ends, then lets running requests end for a second, ten after HandOver.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	failed := make(chan error, len(s.servers))
	for i, h := range s.servers {
		wg.Go(func() {
			if err := h.Serve(s.socks[i]); !errors.Is(err, http.ErrServerClosed) && !s.handed.Load() {
				failed <- fmt.Errorf("admin: %w", err)
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	limit := shutdownTime
	if s.handed.Load() {
		limit = handOverTime
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if s.handed.Load() {
		s.finish(stop, &wg)
	}
	for _, h := range s.servers {
		if h.Shutdown(stop) != nil {
			_ = h.Close()
		}
	}
	return err
}

// count is the ConnState of each server.
func (s *Server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Add(-1)
	}
}

// finish waits for what was accepted before HandOver to be answered. Shutdown would not do: it closes a connection
// without a word whose request comes in after it was called.
func (s *Server) finish(ctx context.Context, accepting *sync.WaitGroup) {
	accepting.Wait() // their sockets are closed
	for _, h := range s.servers {
		h.SetKeepAlivesEnabled(false) // ends idle connections too
	}
	t := time.NewTicker(finishPoll)
	defer t.Stop()
	for s.conns.Load() > 0 {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
