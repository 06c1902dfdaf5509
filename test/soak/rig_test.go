package soak

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"weft.mesh/weft/control/xdsserver"
	_ "weft.mesh/weft/proxy/compile" // the types that configuration is made of
	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/proxytest"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// build makes weft-proxy with the race detector, unless WEFT_SOAK_PROXY names one.
func build(t testing.TB) string {
	if bin := os.Getenv("WEFT_SOAK_PROXY"); bin != "" {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "weft-proxy")
	cmd := exec.Command("go", "build", "-race", "-trimpath", "-tags", "grpcnotrace", "-o", bin, "weft.mesh/weft/cmd/weft-proxy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build weft-proxy with the race detector: %v\n%s", err, out)
	}
	return bin
}

// plane is the control plane: the product's ADS server behind a certificate service.
type plane struct {
	t     testing.TB
	y     *tally
	addr  string
	roots string
	xds   *xdsserver.Server
	gate  *gate
	ca    *identitytest.CA

	mu      sync.Mutex // protects the following
	nodes   map[string][]*xds.Resource
	version int
}

// life is how long certificates are valid from when they are made; they are renewed after about half of that.
const life = 40 * time.Second

// drainTime is how long connections of a listener that was replaced may go on.
const drainTime = 3 * time.Second

func startPlane(t testing.TB, y *tally) *plane {
	ca := identitytest.NewCA(t, "soak")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{t: t, y: y, addr: ln.Addr().String(), roots: identitytest.PEM(ca.Cert), ca: ca, nodes: map[string][]*xds.Resource{}, gate: &gate{Listener: ln}}
	p.xds = xdsserver.New(xdsserver.Settings{
		Log: slog.New(slog.DiscardHandler), Observer: observer{y}, Authorize: xdsserver.CheckIdentity, Authenticate: peerID,
	})
	svc := identitytest.ServeWith(t, p.gate, ca, ca, func(g *grpc.Server) { p.xds.Register(g) })
	svc.Set(func(s *identitytest.Service) {
		s.Token, s.Opts = "join", nil
		s.Answer = func(csr *x509.CertificateRequest) ([]string, error) {
			y.note("certificates issued", 1)
			return []string{identitytest.PEM(ca.Issue(t, csr.URIs[0].String(), csr.PublicKey, identitytest.Life(-life/4, life))), p.roots}, nil
		}
	})
	return p
}

func peerID(ctx context.Context) (spiffe.ID, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if ti, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(ti.State.PeerCertificates) > 0 && len(ti.State.PeerCertificates[0].URIs) == 1 {
			return spiffe.Parse(ti.State.PeerCertificates[0].URIs[0].String())
		}
	}
	return spiffe.ID{}, errors.New("no certificate")
}

// gate is a listener whose connections can be cut.
type gate struct {
	net.Listener
	mu    sync.Mutex
	shut  bool
	conns []net.Conn
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g.mu.Lock()
		if g.shut {
			_ = c.Close()
			g.mu.Unlock()
			continue
		}
		g.conns = append(g.conns[max(0, len(g.conns)-20):], c)
		g.mu.Unlock()
		return c, nil
	}
}

// cut resets the connections and lets nobody in for d.
func (g *gate) cut(d time.Duration) {
	g.set(true)
	time.Sleep(d)
	g.set(false)
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for _, c := range g.conns {
		resetConn(c)
	}
	g.conns = nil
}

// publish gives nodes their configuration, all at once.
func (p *plane) publish(nodes map[string][]*xds.Resource) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rs := range nodes {
		slices.SortFunc(rs, func(a, b *xds.Resource) int { return strings.Compare(a.Name, b.Name) })
	}
	p.version++
	p.xds.Publish(&snapshot{p.version, nodes})
}

type snapshot struct {
	version int
	nodes   map[string][]*xds.Resource
}

func (s *snapshot) Version() string { return fmt.Sprintf("soak/%d", s.version) }

func (s *snapshot) Resources(n *xds.Node, typeURL string, names []string) (out []*xds.Resource, err error) {
	for _, r := range s.nodes[n.Name] {
		if r.TypeURL == typeURL && (names == nil || slices.Contains(names, r.Name)) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (s *snapshot) Unchanged(xds.Snapshot, *xds.Node, string) bool { return false }

// observer fails the test when a proxy refuses a configuration.
type observer struct{ y *tally }

func (o observer) Connected(uint64, *xds.Node, spiffe.ID) xdsserver.Witness { return o }
func (observer) Disconnected(uint64)                                        {}
func (observer) Subscribed(string, int)                                     {}
func (observer) Sent(string, string, int, int)                              {}
func (o observer) Acked(string, string)                                     { o.y.note("acknowledgements", 1) }
func (observer) Settled(string)                                             {}
func (o observer) Nacked(typeURL, version, why string) {
	o.y.fail("refused: %s %s: %s", xds.ShortName(typeURL), version, why)
}

// proxy is a weft-proxy in a process of its own.
type proxy struct {
	name  string
	admin int
	pid   int
	dir   string
	cmd   *exec.Cmd
	ended chan error
	over  atomic.Bool // it is meant to end
	log   proxytest.SafeBuffer
}

func startProxy(t testing.TB, y *tally, bin string, p *plane, name, role string) *proxy {
	dir := t.TempDir()
	for file, text := range map[string]string{"root.pem": p.roots, "token": "join\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	x := &proxy{name: name, admin: proxytest.Port(t), dir: dir, ended: make(chan error, 1)}
	x.cmd = exec.Command(bin, role, "--id", name, "--namespace", "default", "--ip", "127.0.0.1", "--service-account", "sa-"+name,
		"--xds", p.addr, "--ca-root", filepath.Join(dir, "root.pem"), "--token-file", filepath.Join(dir, "token"), "--state-dir", filepath.Join(dir, "state"),
		"--admin-port", strconv.Itoa(x.admin), "--status-port", "0", "--ready-port", "0", "--metrics-port", "0",
		"--access-log-file", "/dev/null", "--drain-duration", drainTime.String(), "--log-level", "error")
	x.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=0 exitcode=66 history_size=2")
	x.cmd.Stderr, x.cmd.Stdout = &x.log, &x.log
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	x.pid = x.cmd.Process.Pid
	go func() {
		err := x.cmd.Wait()
		if !x.over.Load() {
			y.fail("%s ended by itself: %v", name, err)
		}
		x.ended <- err
	}()
	t.Cleanup(func() { x.stop(t) })
	return x
}

func (x *proxy) ready(t testing.TB) {
	proxytest.Until(t, x.name+" to be ready", func() bool {
		_, err := x.get("/ready")
		return err == nil
	})
}

// stop ends the program and looks at what it has said.
func (x *proxy) stop(t testing.TB) {
	if x.over.Swap(true) {
		return
	}
	_ = x.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-x.ended:
		if err != nil {
			t.Errorf("%s ended with %v", x.name, err)
		}
	case <-time.After(30 * time.Second):
		_ = x.cmd.Process.Signal(syscall.SIGQUIT)
		t.Errorf("%s did not end: %v", x.name, <-x.ended)
	}
	text := x.log.String()
	if n := x.races(); n > 0 || strings.Contains(text, "panic:") || strings.Contains(text, "fatal error:") {
		t.Errorf("%s: %d data races; its log:\n%.20000s", x.name, n, text)
	} else if t.Failed() {
		t.Logf("log of %s:\n%.4000s", x.name, text)
	}
}

func (x *proxy) races() int { return strings.Count(x.log.String(), "WARNING: DATA RACE") }

func (x *proxy) get(path string) (string, error) {
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d%s", x.admin, path))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s: %s %.100q", path, resp.Status, b)
	}
	return string(b), err
}

// usage is what a proxy holds at one time.
type usage struct {
	goroutines, fds int
	rss             int64 // bytes
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d MB", u.goroutines, u.fds, u.rss>>20)
}

var goroutineTotal = regexp.MustCompile(`goroutine profile: total (\d+)`)

func (x *proxy) usage() (u usage, err error) {
	text, err := x.get("/debug/pprof/goroutine?debug=1")
	if err != nil {
		return u, err
	}
	m := goroutineTotal.FindStringSubmatch(text)
	if m == nil {
		return u, fmt.Errorf("no number of goroutines in %.100q", text)
	}
	u.goroutines, _ = strconv.Atoi(m[1])
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", x.pid))
	if err != nil {
		return u, err
	}
	u.fds = len(d)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", x.pid))
	if f := strings.Fields(string(b)); err == nil && len(f) > 1 {
		pages, _ := strconv.ParseInt(f[1], 10, 64)
		u.rss = pages * int64(os.Getpagesize())
	}
	return u, err
}

// edgeCertificate is a fresh certificate for the gateway's TLS listener.
func edgeCertificate(t testing.TB, ca *identitytest.CA) (cert, key string) {
	c := ca.Certificate(t, "", identitytest.DNS("app"))
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
