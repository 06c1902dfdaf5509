// Package server wires the control plane: sources → World → resources → ADS,
// the certificate authority, the control socket, metrics and debug pages. It
// is the only control package that knows all others; nothing imports it but cli.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/grpcstream"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/source/merge"
	"weft.mesh/weft/control/status"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/xdsserver"
	"weft.mesh/weft/model"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// Ports of the control plane, as Istio's.
const (
	portPlain   = 15010 // loopback only, unless somebody asks for more
	portSecure  = 15012
	portLocal   = 8080 // loopback only
	portHTTP    = 15014
	portWebhook = 15017
)

// Settings of a control plane. Only StateDir and Address must be set.
type Settings struct {
	StateDir string
	Address  string   // IP address for 15012 and 15014
	Store    string   // file of the object store in StateDir; default admin.FileStore
	Files    []string // files and folders to watch
	Pods     bool     // take Pod manifests from the local runtime's folder
	Mesh     model.Mesh
	// CheckDeployment checks what a Deployment asks of the runtime that will run it.
	CheckDeployment func(*appsv1.Deployment) []convert.FieldProblem
	Log             *slog.Logger // default: discard
	// Batching of changes; zero values are snapshot's defaults.
	Quiet, Max time.Duration
	// GatewayAPI says which Gateways are served and by what; nil: LocalGatewayAPI.
	GatewayAPI *gatewayapi.Settings
	// Generation tells the metadata.generation of an object, for the conditions of the Gateway API; nil: it is 0.
	Generation func(model.Key) int64
	// Sources beside the store and the files, which win over them; the first of them wins over the others.
	Sources []merge.Named
	// CA signs; nil: a root that is kept in StateDir.
	CA *ca.CA
	// Attest finds out who has a bearer token that is no join token; nil: nobody.
	Attest func(ctx context.Context, token string) (spiffe.ID, error)
	// AttestCaller finds out whose bearer token it is that somebody who is no proxy has: istioctl, for the debug API on 15012.
	// It must not be what Attest takes for a workload. Nil: there is no debug API.
	AttestCaller func(ctx context.Context, token string) (spiffe.ID, error)
	// Name is what tools call this replica, a pod's name, and Namespace where it is; the debug API is open to accounts there.
	Name, Namespace string
	// ReadsSecrets tells whether a service account may read the Secrets of its namespace, for gateways; an error is no answer, and
	// the gateway has to come again. Nil: all may.
	ReadsSecrets func(ctx context.Context, namespace, account string) (bool, error)
	// ServerNames are further names of the serving certificate.
	ServerNames []string
	// Webhooks answers on 15017 over TLS; nil: the port is closed.
	Webhooks http.Handler
	// Plaintext says where xDS without TLS is served on 15010.
	Plaintext Plaintext
	// Local serves what 15014 does on 127.0.0.1:8080 too, where Kiali asks Istio's control plane whether it is ready, through
	// a port-forward. A port that is taken is no reason not to start.
	Local bool
	// MaxConnectionAge ends xDS connections, give or take a tenth, so that proxies spread over
	// replicas; 0: never.
	MaxConnectionAge time.Duration
	// Drain is how long the end of Run takes: streams end one by one, spread over it, so that
	// proxies do not all reconnect at once. 0: at once.
	Drain time.Duration
	// StreamRate bounds new xDS streams, by second; 0: any number.
	StreamRate float64
	// Listen opens sockets; nil means net.Listen. Tests give free ports.
	Listen func(network, address string) (net.Listener, error)
}

// Plaintext says where xDS is served without TLS.
type Plaintext uint8

// Where 15010 is served.
const (
	PlaintextLoopback Plaintext = iota // the default
	PlaintextOff
	PlaintextAddress // on Address: everybody who reaches it may ask for everything
)

// Server is one control plane.
type Server struct {
	set       Settings
	gate      *gate
	started   time.Time
	ca        *ca.CA
	tokens    *ca.Tokens
	tracker   *status.Tracker
	nodes     *nodes
	metrics   *metrics
	names     *names
	secureXDS *xdsserver.Server
	plainXDS  *xdsserver.Server
	store     *snapshot.Store
	config    *config
	snap      atomic.Pointer[translate.Snapshot]
	ready     atomic.Bool
	changed   *signal       // a World was published
	debugging chan struct{} // bounds callers of the debug API
}

// New opens what is in the state directory; it starts nothing.
func New(set Settings) (*Server, error) {
	if set.Log == nil {
		set.Log = slog.New(slog.DiscardHandler)
	}
	if set.Listen == nil {
		set.Listen = net.Listen
	}
	if set.Store == "" {
		set.Store = admin.FileStore
	}
	set.Mesh = snapshot.Defaults(set.Mesh)
	if _, err := netip.ParseAddr(set.Address); err != nil {
		return nil, fmt.Errorf("control plane: address %q: want an IP address", set.Address)
	}
	if err := os.MkdirAll(set.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("control plane: state directory: %w", err)
	}
	s := &Server{set: set, started: time.Now(), tracker: status.New(), changed: newSignal(), debugging: make(chan struct{}, maxDebugStreams)}
	var err error
	if s.ca = set.CA; s.ca == nil {
		if s.ca, err = ca.Open(filepath.Join(set.StateDir, admin.DirCA), set.Mesh.TrustDomain); err != nil {
			return nil, err
		}
	} else if err = os.MkdirAll(filepath.Join(set.StateDir, admin.DirCA), 0o700); err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	s.gate = newGate(set.StreamRate)
	if s.tokens, err = ca.OpenTokens(filepath.Join(set.StateDir, admin.DirCA, "tokens.json")); err != nil {
		return nil, err
	}
	s.nodes = newNodes(s.tracker)
	s.metrics = newMetrics(s.tracker, s.started)
	s.metrics.root(s.ca)
	s.names = newNames(set.Mesh.Domain)
	s.store = snapshot.NewStore(snapshot.Settings{Mesh: set.Mesh, Quiet: set.Quiet, Max: set.Max})
	s.secureXDS = newXDS(set, s.authenticate, s.authorize, s.nodes, s.metrics.pushes)
	s.plainXDS = newXDS(set, plaintext, anyNode, s.nodes, s.metrics.pushes)
	s.config, err = newConfig(set, s.store, s.metrics)
	return s, err
}

// Run serves until ctx ends and returns when everything of it has ended.
// Proxies go on with what they have.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.config.close()) }()
	ls, err := s.listen()
	if err != nil {
		return err
	}
	defer ls.close()
	serving, err := ca.NewServing(s.ca, []net.IP{net.ParseIP(s.set.Address)}, s.set.ServerNames...)
	if err != nil {
		return err
	}
	asked := ctx
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-asked.Done():
			s.gate.drain(ctx, s.set.Drain)
			cancel(context.Canceled)
		}
	})
	run := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("control plane: %s: %w", what, err))
			}
		})
	}
	svc := &ca.Service{CA: s.ca, Tokens: s.tokens, Attest: s.set.Attest, Counters: s.metrics.counters(), Log: s.set.Log}
	others := grpcstream.NewOthers(ls.secure.Addr())
	secure, streams, plain := s.secureServer(svc), s.streams(serving, others), s.plainServer()
	run("sources", s.config.run)
	run("worlds", s.runWorlds)
	run("memory", newMemory(func() int { return s.secureXDS.Entering() + s.plainXDS.Entering() }).run)
	run("xds", func(ctx context.Context) error { return streams.Serve(ctx, ls.secure) })
	run("xds", func(ctx context.Context) error { return serveGRPC(ctx, secure, others) })
	if ls.plain != nil {
		run("xds", func(ctx context.Context) error { return serveGRPC(ctx, plain, ls.plain) })
	}
	if ls.webhook != nil {
		run("webhooks", func(ctx context.Context) error {
			return serveHTTP(ctx, tls.NewListener(ls.webhook, serving.WebhookTLSConfig()), s.set.Webhooks)
		})
	}
	run("metrics", func(ctx context.Context) error { return serveHTTP(ctx, ls.http, s.httpHandler()) })
	if ls.local != nil {
		run("metrics", func(ctx context.Context) error { return serveHTTP(ctx, ls.local, s.httpHandler()) })
	}
	run("control socket", func(ctx context.Context) error { return serveHTTP(ctx, ls.control, s.socketHandler()) })
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// runWorlds publishes each World, the first when all sources have said what they hold.
func (s *Server) runWorlds(ctx context.Context) error {
	if err := s.config.wait(ctx); err != nil {
		return nil // ended before it began
	}
	s.store.Flush(nil)
	s.publish(s.store.World())
	return s.store.Run(ctx, s.publish)
}

// publish translates a World and hands it to everyone who waits for it.
func (s *Server) publish(w *snapshot.World) {
	start := time.Now()
	next := s.snap.Load()
	if next == nil || !reflect.DeepEqual(next.World().Mesh(), w.Mesh()) {
		next = translate.New(w, w.Mesh())
	} else {
		next = next.Next(w)
	}
	s.snap.Store(next)
	s.secureXDS.Publish(next)
	s.plainXDS.Publish(next)
	s.names.set(w)
	s.ready.Store(true)
	s.changed.fire()
	s.metrics.published(w, time.Since(start))
	s.set.Log.Debug("control plane: published", "world", w.Version(), "objects", w.Len(), "took", time.Since(start))
}

// SetMesh changes mesh-wide settings while the server runs. What certificates,
// names of services and listening sockets are made of cannot change that way.
func (s *Server) SetMesh(mesh model.Mesh) error {
	mesh, now := snapshot.Defaults(mesh), s.set.Mesh
	for _, f := range []struct{ name, was, is string }{
		{"trustDomain", now.TrustDomain, mesh.TrustDomain}, {"rootNamespace", now.RootNamespace, mesh.RootNamespace},
		{"discoverySelectors", fmt.Sprint(now.DiscoverySelectors), fmt.Sprint(mesh.DiscoverySelectors)},
	} {
		if f.was != f.is {
			return fmt.Errorf("mesh config: %s: %q cannot become %q while the control plane runs: restart it", f.name, f.was, f.is)
		}
	}
	mesh.Domain, mesh.ClusterID, mesh.ServiceCIDR, mesh.EndpointSlices = now.Domain, now.ClusterID, now.ServiceCIDR, now.EndpointSlices
	mesh.Ingress.Istio = now.Ingress.Istio
	s.store.SetMesh(mesh)
	s.config.gatewayAPI.setIngress(mesh)
	return nil
}

// Synced returns when all sources have said what they hold, or ctx ends.
func (s *Server) Synced(ctx context.Context) error { return s.config.wait(ctx) }

// Changed is closed when the next World is published.
func (s *Server) Changed() <-chan struct{} { return s.changed.next() }

// World is the current one.
func (s *Server) World() *snapshot.World { return s.store.World() }

// Proxies lists connected and lately lost proxies.
func (s *Server) Proxies() []admin.ProxyStatus { return s.tracker.Proxies() }

func (s *Server) current() xds.Snapshot {
	if snap := s.snap.Load(); snap != nil {
		return snap
	}
	return nil
}

func (s *Server) world() *snapshot.World { return s.store.World() }

// listeners are the open sockets.
type listeners struct{ secure, plain, http, local, webhook, control net.Listener }

func (s *Server) listen() (ls *listeners, err error) {
	ls = &listeners{}
	defer func() {
		if err != nil {
			ls.close()
		}
	}()
	at := func(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
	plain := at("127.0.0.1", portPlain)
	if s.set.Plaintext == PlaintextAddress {
		plain = at(s.set.Address, portPlain)
	} else if err := loopbackOnly(plain); err != nil {
		return ls, err
	}
	for _, l := range []struct {
		to   *net.Listener
		addr string
		what string
		off  bool
	}{
		{&ls.secure, at(s.set.Address, portSecure), "xDS and certificates", false},
		{&ls.plain, plain, "plaintext xDS", s.set.Plaintext == PlaintextOff},
		{&ls.http, at(s.set.Address, portHTTP), "metrics", false},
		{&ls.webhook, at(s.set.Address, portWebhook), "webhooks", s.set.Webhooks == nil},
	} {
		if l.off {
			continue
		}
		if *l.to, err = s.set.Listen("tcp", l.addr); err != nil {
			return ls, fmt.Errorf("control plane: %s port: %w (is another control plane running?)", l.what, err)
		}
	}
	if s.set.Local {
		l, err := s.set.Listen("tcp", at("127.0.0.1", portLocal))
		if err != nil {
			s.set.Log.Warn("control plane: nobody answers on the port where Kiali asks whether it is ready", "error", err)
		} else {
			ls.local = l
		}
	}
	path := filepath.Join(s.set.StateDir, admin.SocketControl)
	if ls.control, err = listenUnix(path); err != nil {
		return ls, err
	}
	return ls, nil
}

func (l *listeners) close() {
	for _, x := range []net.Listener{l.secure, l.plain, l.http, l.local, l.webhook, l.control} {
		if x != nil {
			_ = x.Close() // already closed by its server
		}
	}
}

// listenUnix makes the control socket, 0600 from its first moment. A socket
// that nobody answers on is a leftover and is removed.
func listenUnix(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("control plane: %s: another control plane answers there; use another state directory", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	// The folder is 0700, so nobody can connect before the chmod.
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("control plane: %w", err)
	}
	return l, nil
}

// signal wakes everyone who waits for the next event.
type signal struct {
	mu sync.Mutex // protects ch
	ch chan struct{}
}

func newSignal() *signal { return &signal{ch: make(chan struct{})} }

// next is closed at the next fire.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ch)
	s.ch = make(chan struct{})
}
