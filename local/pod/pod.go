// Package pod runs one local pod from its first breath to its last: its
// address and namespaces, the sidecar, then the programs, their probes and
// restarts, the published manifest, and an end that loses no request.
//
// [Pod.Run] blocks until everything of the pod is gone. All other methods may
// be called from any goroutine at any time.
package pod

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/local/logs"
	"weft.mesh/weft/local/manifest"
	"weft.mesh/weft/local/network"
	"weft.mesh/weft/local/podspec"
	"weft.mesh/weft/local/process"
	"weft.mesh/weft/local/sandbox"
	"weft.mesh/weft/node/capture"
)

// Tokens gives join tokens for proxies.
type Tokens interface {
	Token(ctx context.Context, namespace, serviceAccount string) (string, error)
}

// ControlPlane knows who still sends to a pod that is ending.
type ControlPlane interface {
	Retired(ctx context.Context, namespace, pod string) (admin.Retired, error)
}

// Env is what all pods share. It does not change while pods run.
type Env struct {
	Network     *network.Network
	Pool        *network.Pool
	Folder      manifest.Folder
	StateDir    string
	Domain      string   // cluster.local
	TrustDomain string   // cluster.local
	Cluster     string   // Kubernetes
	XDSAddress  string   // IP:15012 of the control plane
	RootFile    string   // PEM of the trust domain's roots
	ProxyPath   string   // weft-proxy
	KeepDirs    []string // folders of programs: visible in pods even below StateDir, the rest of which is not
	BaseEnv     []string
	Caller      *process.Caller
	HostPorts   map[uint16]*os.File // listeners on the machine, by port
	Tokens      Tokens
	Control     ControlPlane // nil: ending pods wait as if it were away
	Log         *slog.Logger

	DrainDelay    time.Duration // at most, from "not ready" until the drain begins
	DrainTimeout  time.Duration // for the sidecar to finish what it carries
	SidecarWait   time.Duration // the program starts without a ready sidecar after this
	ShutdownGrace time.Duration // from SIGTERM to SIGKILL when the whole mesh ends
	LogSize       int64         // bytes of one log file
}

// processEnv is the environment that every process of a pod begins with.
func (e *Env) processEnv(hostname string) []string {
	return append([]string{"HOSTNAME=" + hostname}, e.BaseEnv...)
}

// Config is one pod to run.
type Config struct {
	Name     string
	Ordinal  uint64 // grows with every pod made
	Spec     podspec.Spec
	Hash     string // of the template, with restarts counted in
	Sidecar  bool
	Services capture.Ruleset // translation of service addresses at the start
	OnChange func()          // called, not from under a lock, when the pod's status changed
}

// Pod is one pod.
type Pod struct {
	env      *Env
	name     string
	uid      string
	hash     string
	ordinal  uint64
	spec     podspec.Spec
	labels   map[string]string
	notes    map[string]string // annotations
	sidecar  bool
	onChange func()
	created  time.Time

	stopOnce, hurryOnce sync.Once
	stop                chan struct{} // closed: end in good order
	hurry               chan struct{} // closed: the whole mesh ends
	ready               chan struct{} // closed when sandbox and ip are set
	dirty               chan struct{} // a change waits to be published
	wg                  sync.WaitGroup
	tokenPending        atomic.Bool

	publishing sync.Mutex // one writer of the manifest at a time; protects removed
	removed    bool       // nothing is published any more

	sandbox *sandbox.Sandbox // set before ready is closed
	ip      netip.Addr       // set before ready is closed
	apps    []*container     // set at creation
	proxy   *container       // set at creation; nil without one

	mu       sync.Mutex // protects the following
	services capture.Ruleset
	failure  string // why the pod cannot be set up
	ending   time.Time
	wasReady bool
	since    time.Time // wasReady changed
}

// New makes a pod; nothing happens before Run.
func New(env *Env, c Config) (*Pod, error) {
	p := &Pod{env: env, name: c.Name, uid: newUID(), hash: c.Hash, ordinal: c.Ordinal, spec: c.Spec, sidecar: c.Sidecar,
		onChange: c.OnChange, services: c.Services, created: time.Now(), since: time.Now(),
		stop: make(chan struct{}), hurry: make(chan struct{}), ready: make(chan struct{}), dirty: make(chan struct{}, 1)}
	p.labels, p.notes = metadata(c)
	if c.Sidecar {
		proxy, err := p.newContainer(podspec.ProxyContainer)
		if err != nil {
			return nil, err
		}
		p.proxy = proxy
	}
	for _, spec := range c.Spec.Containers {
		ctr, err := p.newContainer(spec.Name)
		if err != nil {
			return nil, err
		}
		if c.Spec.Gateway && spec.Name == podspec.ProxyContainer {
			p.proxy = ctr
			continue
		}
		p.apps = append(p.apps, ctr)
	}
	return p, nil
}

func (p *Pod) newContainer(name string) (*container, error) {
	log, err := logs.Open(filepath.Join(p.logDir(), name+".log"), p.env.LogSize)
	if err != nil {
		return nil, fmt.Errorf("pod %s: container %s: %w", p.name, name, err)
	}
	c := newContainer(name, log)
	c.changed = p.changed
	return c, nil
}

func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // RFC 9562 version 4
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Name, Namespace and the rest identify the pod; they never change.
func (p *Pod) Name() string              { return p.name }
func (p *Pod) Namespace() string         { return p.spec.Namespace }
func (p *Pod) Deployment() string        { return p.spec.Name }
func (p *Pod) Hash() string              { return p.hash }
func (p *Pod) Ordinal() uint64           { return p.ordinal }
func (p *Pod) Captured() bool            { return p.sidecar && p.spec.Capture } // its sidecar takes its connections
func (p *Pod) Labels() map[string]string { return p.labels }

// NamedPort finds the number of a declared port by its name.
func (p *Pod) NamedPort(name string) (uint16, bool) {
	for _, c := range p.spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name {
				return port.Port, true
			}
		}
	}
	return 0, false
}

func (p *Pod) logDir() string {
	return filepath.Join(p.env.StateDir, "logs", p.spec.Namespace+"_"+p.name)
}

func (p *Pod) sandboxDir() string {
	return filepath.Join(p.env.StateDir, "sandbox", p.spec.Namespace+"_"+p.name)
}

// workDir is where programs run that name no folder: empty and their own.
func (p *Pod) workDir() string { return filepath.Join(p.sandboxDir(), "work") }

// IP is the pod's address once it has one.
func (p *Pod) IP() (netip.Addr, bool) {
	if !closed(p.ready) {
		return netip.Addr{}, false
	}
	return p.ip, true
}

// Stop ends the pod in good order: out of service first, then the drain.
func (p *Pod) Stop() { p.stopOnce.Do(func() { close(p.stop) }) }

// Hurry ends the pod because the whole mesh ends: nobody needs to learn of it.
func (p *Pod) Hurry() {
	p.hurryOnce.Do(func() { close(p.hurry) })
	p.Stop()
}

// Ending says whether the pod was told to end.
func (p *Pod) Ending() bool { return closed(p.stop) }

// RestartContainer ends a container's program and starts it again.
func (p *Pod) RestartContainer(name string) error {
	c, err := p.find(name)
	if err == nil {
		c.restartNow()
	}
	return err
}

// Signal sends a signal to a container's program.
func (p *Pod) Signal(name string, sig syscall.Signal) error {
	c, err := p.find(name)
	if err != nil {
		return err
	}
	if !c.signal(sig) {
		return fmt.Errorf("pod %s: container %s does not run", p.name, c.name)
	}
	return nil
}

// find returns a container by name; "" means the first program.
func (p *Pod) find(name string) (*container, error) {
	for _, c := range p.containers() {
		if c.name == name || name == "" {
			return c, nil
		}
	}
	var have []string
	for _, c := range p.containers() {
		have = append(have, c.name)
	}
	return nil, fmt.Errorf("pod %s: no container %q; there are %v", p.name, name, have)
}

// containers lists the programs and then the proxy.
func (p *Pod) containers() []*container {
	if p.proxy == nil {
		return p.apps
	}
	return append(append([]*container{}, p.apps...), p.proxy)
}

// Log is the output of a container; "" means the first program.
func (p *Pod) Log(name string) (*logs.Log, error) {
	c, err := p.find(name)
	if err != nil {
		return nil, err
	}
	return c.log, nil
}

func (p *Pod) logOf(name string) *logs.Log {
	for _, c := range p.containers() {
		if c.name == name {
			return c.log
		}
	}
	panic("pod: no container " + name) // our own mistake: names come from the spec
}

// Dial connects to an IP address and port from inside the pod.
func (p *Pod) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !closed(p.ready) {
		return nil, fmt.Errorf("pod %s: has no network yet", p.name)
	}
	return p.sandbox.Net.Dial(ctx, network, address)
}

// Start runs a program in the pod, as its first container would be run.
func (p *Pod) Start(spec process.Spec, env []string) (*process.Process, error) {
	if !closed(p.ready) {
		return nil, fmt.Errorf("pod %s: has no namespaces yet", p.name)
	}
	_, base := p.spec.Containers[0].Resolve(p.env.processEnv(p.name), p.identity())
	spec.Env = append(base, env...)
	if spec.Dir == "" {
		if spec.Dir = p.spec.Containers[0].Dir; spec.Dir == "" {
			spec.Dir = p.workDir()
		}
	}
	spec.As = p.env.Caller
	return process.Start(p.sandbox, spec)
}

// SetServices changes the translation of service addresses.
func (p *Pod) SetServices(r capture.Ruleset) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.services = r
	if !closed(p.ready) || closed(p.stop) {
		return nil // setup installs it; an ending pod keeps what it has
	}
	return capture.Apply(p.sandbox.Net, r)
}

// Status is what `weft ps` shows.
func (p *Pod) Status() admin.Pod {
	out := admin.Pod{Namespace: p.spec.Namespace, Name: p.name, Deployment: p.spec.Name, Labels: p.labels,
		ServiceAccount: p.spec.ServiceAccount, Sidecar: p.sidecar, Started: p.created, Phase: admin.PodPending}
	if ip, ok := p.IP(); ok {
		out.IP = ip.String()
	}
	p.mu.Lock()
	out.Message = p.failure
	ending := !p.ending.IsZero()
	p.mu.Unlock()
	all, started := closed(p.ready), len(p.apps) > 0 || p.proxy != nil
	for _, c := range p.containers() {
		s := c.read()
		out.Containers = append(out.Containers, admin.Container{Name: c.name, PID: s.pid, Ready: s.ready, Restarts: s.restarts, State: s.state})
		out.Restarts += s.restarts
		all = all && s.ready
		started = started && (s.state == stateRunning || s.restarts > 0)
		if out.Message == "" && !s.ready && s.message != "" {
			out.Message = c.name + ": " + s.message
		}
	}
	if started {
		out.Phase = admin.PodRunning
	}
	if ending {
		out.Phase, all = admin.PodStopping, false
	}
	if out.Ready = all; all {
		out.Message = ""
	}
	return out
}
