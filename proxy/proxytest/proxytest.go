// Package proxytest starts whole proxies in the test's process: each with an
// identity from one fake CA and its configuration from a fake ADS server, over
// real sockets on loopback. There is no capture; listeners are bound directly.
//
// A [Mesh] owns the CA, [Mesh.Start] runs one proxy until the test ends. Echo servers
// for HTTP/1, HTTP/2, gRPC and TCP are in this package too.
package proxytest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/server"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/canon"
	"weft.mesh/weft/xds/xdstest"
)

// Mesh is a fake mesh: one CA.
type Mesh struct {
	t  testing.TB
	CA *identitytest.CA
}

// NewMesh makes one.
func NewMesh(t testing.TB) *Mesh {
	t.Helper()
	return &Mesh{t, identitytest.NewCA(t, "proxytest")}
}

// SPIFFE is the ID of a service account in namespace default.
func SPIFFE(account string) string { return "spiffe://cluster.local/ns/default/sa/" + account }

// Options of a proxy.
type Options struct {
	Name   string // of the pod, and of its service account
	Role   xds.NodeType
	Labels map[string]string
	// Config is YAML of xDS resources, a template in which {{.Name}} stands for Vars' values.
	Config string
	Vars   map[string]any
	// Change changes the settings before the proxy starts.
	Change func(*server.Settings)
}

// Proxy is a running proxy.
type Proxy struct {
	*server.Server
	ADS   *xdstest.FakeServer
	Log   *SafeBuffer
	t     testing.TB
	vars  map[string]any
	state string
	stop  func()
	done  chan struct{}
	err   error // of Run, after done
}

// Start runs a proxy and waits until it is ready. It ends with the test.
func (m *Mesh) Start(o Options) *Proxy {
	m.t.Helper()
	p := m.StartCold(o)
	p.WaitReady()
	return p
}

// StartCold is Start without waiting.
func (m *Mesh) StartCold(o Options) *Proxy {
	t := m.t
	t.Helper()
	if o.Role == "" {
		o.Role = xds.Sidecar
	}
	p := &Proxy{ADS: xdstest.NewFakeServer(), Log: &SafeBuffer{}, t: t, vars: o.Vars, done: make(chan struct{}), state: t.TempDir()}
	t.Cleanup(p.ADS.Close)
	p.ADS.Set(p.parse(o.Config)...)
	level := new(slog.LevelVar)
	level.Set(slog.LevelDebug)
	set := server.Settings{
		Role: o.Role, Name: o.Name, Namespace: "default", IP: netip.MustParseAddr("127.0.0.1"), ServiceAccount: o.Name, Labels: o.Labels,
		XDS: serveADS(t, p.ADS), StateDir: p.state, Admin: "127.0.0.1:0", Drain: time.Second, MinDrain: 10 * time.Millisecond,
		Identity: m.CA.Source(t, SPIFFE(o.Name)), Credentials: insecure.NewCredentials(), AllowDirect: true,
		AccessLogFile: filepath.Join(p.state, "access.log"), Log: slog.New(slog.NewTextHandler(p.Log, &slog.HandlerOptions{Level: level})), Level: level,
	}
	if o.Change != nil {
		o.Change(&set)
	}
	var err error
	if p.Server, err = server.New(set); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	go func() {
		defer close(p.done)
		p.err = p.Run(ctx)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", o.Name, p.Log)
		}
	})
	return p
}

// Stop drains and ends the proxy.
func (p *Proxy) Stop() {
	p.t.Helper()
	p.stop()
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		stacks := make([]byte, 1<<20)
		p.t.Fatalf("proxy did not end within 20 s:\n%s", stacks[:runtime.Stack(stacks, true)])
	}
	if p.err != nil {
		p.t.Errorf("proxy ended with %v", p.err)
	}
}

// Terminate begins to drain without waiting, as SIGTERM does.
func (p *Proxy) Terminate() { p.stop() }

// Done is closed when the proxy has ended.
func (p *Proxy) Done() <-chan struct{} { return p.done }

// StateDir is the proxy's state directory.
func (p *Proxy) StateDir() string { return p.state }

// WaitReady waits until the proxy serves.
func (p *Proxy) WaitReady() {
	p.t.Helper()
	Until(p.t, "the proxy to be ready", func() bool { ok, _ := p.Ready(); return ok })
}

// Push changes resources; more YAML, same variables.
func (p *Proxy) Push(config string) {
	p.t.Helper()
	p.ADS.Set(p.parse(config)...)
}

func (p *Proxy) parse(config string) []*xds.Resource {
	p.t.Helper()
	tmpl, err := template.New("config").Option("missingkey=error").Parse(config)
	if err != nil {
		p.t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tmpl.Execute(&b, p.vars); err != nil {
		p.t.Fatal(err)
	}
	rs, err := canon.Parse(b.Bytes())
	if err != nil {
		p.t.Fatalf("%v\n%s", err, b.Bytes())
	}
	return rs
}

// Get reads a page of the admin interface.
func (p *Proxy) Get(path string) string {
	p.t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://%s%s", p.Addrs()[0], path))
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// WaitStat waits until a page of metrics holds the text.
func (p *Proxy) WaitStat(text string) {
	p.t.Helper()
	Until(p.t, "the metric "+text, func() bool { return strings.Contains(p.Get("/stats/prometheus"), text) })
}

// patience is how long [Until] waits: it is about whether something happens, on a machine however busy.
const patience = time.Minute

// Until polls for what happens in another goroutine over real sockets, where fake time cannot reach.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

func serveADS(t testing.TB, ads *xdstest.FakeServer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, ads)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return l.Addr().String()
}

// Port finds a free port outside the range from which the system takes those of outgoing connections and of
// listeners that do not care, so that nobody takes it before, or between two times that, the test listens there. Until the
// test ends no other one gets it, of this process or of another: a socket without a file says that it is taken.
func Port(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		taken, err := net.Listen("unix", "@weft-test-port-"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			_ = taken.Close()
			continue
		}
		_ = l.Close()
		t.Cleanup(func() { _ = taken.Close() })
		return port
	}
	t.Fatal("no free port from 20000 to 31999")
	return 0
}

// SafeBuffer is a buffer that may be written and read at the same time.
type SafeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // mu protects it
}

// Write implements [io.Writer].
func (b *SafeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *SafeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
