package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/local/network"
)

// Defaults of Settings.
const (
	DefaultNode          = "10.97.0.1/16"
	DefaultXDSPort       = 15012
	DefaultDrainDelay    = 10 * time.Second
	DefaultDrainTimeout  = 10 * time.Second
	DefaultSidecarWait   = 15 * time.Second
	DefaultShutdownGrace = 5 * time.Second
)

// maxSocketPath is the longest path of a Unix socket (sun_path of unix(7)).
const maxSocketPath = 107

// Settings say how the runtime works. Only Inside, StateDir and ProxyPath must
// be set.
type Settings struct {
	Inside   *Inside // from Enter
	StateDir string  // absolute
	// ProxyPath is the weft-proxy program.
	ProxyPath string
	// ProgramDirs are looked into for containers' commands before PATH: the
	// folder of weft and its samples.
	ProgramDirs []string
	// Environ is the user's environment. Of it processes get PATH, HOME, LANG
	// and TMPDIR only, so that no secret of the user's shell leaks into them.
	Environ []string

	Node        netip.Prefix     // the node's address with the range of pods; default 10.97.0.1/16
	Bridge      string           // default weft0
	Domain      string           // default cluster.local
	TrustDomain string           // default cluster.local
	Cluster     string           // default Kubernetes
	XDSPort     uint16           // default 15012
	DNS         []netip.AddrPort // servers inside the pod network for names that the mesh does not know; none by default

	// HostPorts maps a host port in a gateway's manifest to the name of a
	// listener in Inside, like 8080 and 80 → "ingress".
	HostPorts map[uint16]string

	// Start is the control plane in this process: called when the network is
	// up, before workloads begin. It runs until ctx ends. An error ends the
	// runtime.
	Start func(ctx context.Context, net NodeNet) error
	// ControlPlane is the control plane as a process of its own, which the
	// runtime starts and, when it ends, starts again.
	ControlPlane *Command

	DrainDelay    time.Duration // at most, that a pod which ends serves on until every proxy knows that it is out of service; default 10 s
	DrainTimeout  time.Duration // then its sidecar has this long to finish what it carries; default 10 s
	SidecarWait   time.Duration // a program starts without a ready sidecar after this; default 15 s
	ShutdownGrace time.Duration // at the end of the mesh, from SIGTERM to SIGKILL; default 5 s
	LogSize       int64         // bytes of one log file before it is rotated; default 10 MiB
	Log           *slog.Logger  // default: discard
}

// Command is a program for the runtime to keep running.
type Command struct {
	Argv []string
	Env  []string // added to the environment that all processes get
}

// NodeNet is the network that the control plane finds.
type NodeNet struct {
	IP        netip.Addr   // of the node: listen here
	Pods      netip.Prefix // range of all pods
	Listeners map[string]*net.TCPListener
}

func (s Settings) withDefaults() (Settings, error) {
	if s.Inside == nil {
		return s, errors.New("local: settings: Inside is missing: call Enter first")
	}
	if !filepath.IsAbs(s.StateDir) {
		return s, fmt.Errorf("local: settings: state directory %q: want an absolute path", s.StateDir)
	}
	for _, name := range []string{admin.SocketRuntime, admin.SocketExec, admin.SocketControl} {
		if p := filepath.Join(s.StateDir, name); len(p) > maxSocketPath {
			return s, fmt.Errorf("local: settings: state directory %q is too long: the socket %s must have at most %d bytes; choose a shorter one", s.StateDir, p, maxSocketPath)
		}
	}
	if !filepath.IsAbs(s.ProxyPath) {
		return s, fmt.Errorf("local: settings: proxy program %q: want an absolute path", s.ProxyPath)
	}
	if filepath.Dir(s.ProxyPath) == filepath.Clean(s.StateDir) || slices.Contains(s.ProgramDirs, filepath.Clean(s.StateDir)) {
		return s, fmt.Errorf("local: settings: state directory %q is the folder of weft's programs: pods do not see it; choose another", s.StateDir)
	}
	if !s.Node.IsValid() {
		s.Node = netip.MustParsePrefix(DefaultNode)
	}
	setDefault(&s.Bridge, network.DefaultBridge)
	setDefault(&s.Domain, "cluster.local")
	setDefault(&s.TrustDomain, "cluster.local")
	setDefault(&s.Cluster, "Kubernetes")
	setDefault(&s.XDSPort, DefaultXDSPort)
	setDefault(&s.DrainDelay, DefaultDrainDelay)
	setDefault(&s.DrainTimeout, DefaultDrainTimeout)
	setDefault(&s.SidecarWait, DefaultSidecarWait)
	setDefault(&s.ShutdownGrace, DefaultShutdownGrace)
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	for port, name := range s.HostPorts {
		if s.Inside.Listeners[name] == nil {
			return s, fmt.Errorf("local: settings: host port %d: no listener %q was made before entering", port, name)
		}
	}
	return s, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// keptVariables are passed from the user's environment to processes.
var keptVariables = []string{"HOME", "LANG", "TMPDIR"}

// defaultPath is used when the user has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// programFolders are where programs are looked for. Pods see them wherever they
// are: the state directory may be their parent.
func (s Settings) programFolders() []string {
	out := []string{filepath.Dir(s.ProxyPath)}
	for _, kv := range s.baseEnv() {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			out = append(out, filepath.SplitList(path)...)
		}
	}
	return slices.DeleteFunc(out, func(dir string) bool { return !filepath.IsAbs(dir) })
}

// baseEnv is the environment that every process begins with.
func (s Settings) baseEnv() []string {
	path := defaultPath
	var env []string
	for _, kv := range s.Environ {
		name, value, _ := strings.Cut(kv, "=")
		if name == "PATH" && value != "" {
			path = value
		}
		for _, keep := range keptVariables {
			if name == keep {
				env = append(env, kv)
			}
		}
	}
	return append(env, "PATH="+strings.Join(append(append([]string{}, s.ProgramDirs...), path), ":"))
}
