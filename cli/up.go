package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft.mesh/weft/control/server"
	"weft.mesh/weft/local"
	"weft.mesh/weft/model"
	"weft.mesh/weft/samples/bookinfo"
)

// Addresses on the host.
const (
	defaultIngress = "127.0.0.1:8080"
	defaultConsole = "127.0.0.1:8090"
)

// names of host listeners between the processes of one mesh.
const (
	listenIngress = "ingress"
	listenConsole = "console"
)

// meshOptions are the flags of commands that start a mesh.
type meshOptions struct {
	ingress, console string
	accessLog        bool
	registryOnly     bool
	separate         bool
	drainDelay       time.Duration
	logLevel         string
	dns              []string
	meshConfig       string
	mesh             model.Mesh // by load: what the flags and the file say
}

func (o *meshOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.ingress, "ingress", defaultIngress, "address of the ingress gateway on this machine")
	f.StringVar(&o.console, "console", defaultConsole, "address of the web console on this machine")
	f.BoolVar(&o.accessLog, "access-log", true, "sidecars write Istio's access log (see weft logs POD -c istio-proxy)")
	f.BoolVar(&o.registryOnly, "registry-only", false, "outbound traffic to hosts that the mesh does not know is refused (Istio: outboundTrafficPolicy REGISTRY_ONLY)")
	f.BoolVar(&o.separate, "separate-control-plane", false, "run the control plane as a process of its own, which is started again if it dies")
	f.DurationVar(&o.drainDelay, "drain-delay", local.DefaultDrainDelay, "how long a pod that ends serves on at most until every proxy knows that it is out of service")
	o.meshConfigFlag(cmd)
	f.StringVar(&o.logLevel, "log-level", "warn", "debug, info, warn or error")
}

func (a *app) upCommand() *cobra.Command {
	var o meshOptions
	var noIngress bool
	cmd := &cobra.Command{
		Use:   "up [FILE|DIR…]",
		Short: "Run a mesh on this machine from Kubernetes and Istio manifests",
		Long: `Run a mesh on this machine: a control plane, and for each pod of each Deployment
its processes in a network namespace of their own with a sidecar. Files and
folders are watched: a change is checked and takes effect, or is refused while
the last good version serves on. Ends with Ctrl-C or weft down.`,
		Example: `  weft up ./manifests
  weft up app.yaml routes.yaml --registry-only
  weft up                                    # empty: use weft apply`,
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := absolute(args)
			if err != nil {
				return err
			}
			if err := o.load(); err != nil {
				return err
			}
			m := mesh{app: a, opts: o, files: files, ingress: !noIngress}
			return m.run(cmd.Context(), m.announce)
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&noIngress, "no-ingress", false, "no ingress gateway")
	return cmd
}

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "down",
		Short:   "End the mesh that runs on this machine",
		Example: "  weft down",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.mesh().Stop(cmd.Context()); err != nil {
				return err
			}
			a.printf("the mesh ends…\n")
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			if err := local.AwaitEnd(ctx, a.stateDir); err != nil {
				return fmt.Errorf("it has not ended yet: %w", err)
			}
			a.printf("ended\n")
			return nil
		},
	}
}

// absolute resolves names now: the runtime works elsewhere.
func absolute(names []string) ([]string, error) {
	var out []string
	for _, n := range names {
		p, err := filepath.Abs(n)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(p); err != nil {
			return nil, withHint(err, "name a YAML file, or a folder that holds some")
		}
		out = append(out, p)
	}
	return out, nil
}

// mesh is one local mesh about to run.
type mesh struct {
	app     *app
	opts    meshOptions
	files   []string
	ingress bool
	// manifests of the samples that belong to the mesh, by path in bookinfo.Manifests.
	manifests []string
	// store is a store of this run only: what was applied in an earlier run is
	// forgotten. "": the state folder's own, which is kept.
	store string
	// failed is what the part beside the mesh came to.
	failed error
}

// run enters the mesh's namespaces. In the process that the user started it
// blocks until the mesh has ended, with outside (if any) running beside it; in
// the process inside it runs control plane and runtime.
func (m *mesh) run(ctx context.Context, outside func(ctx context.Context) error) error {
	a := m.app
	state, err := filepath.Abs(a.stateDir)
	if err != nil {
		return err
	}
	a.stateDir = state
	stop := func() {}
	if !local.Entered(m.argv()) {
		stop = m.beside(&ctx, outside)
	}
	in, code, err := local.Enter(ctx, local.EnterConfig{
		Argv:     m.argv(),
		StateDir: state,
		Listen:   m.listen(),
	})
	stop()
	if err != nil {
		return m.explain(err)
	}
	if in == nil {
		if m.failed != nil {
			return m.failed
		}
		return &exitError{code: code}
	}
	return m.inside(ctx, in)
}

// explain adds what to do when another mesh runs already, or a port cannot be had.
func (m *mesh) explain(err error) error {
	var running *local.RunningError
	if errors.As(err, &running) {
		return withHint(err, "end it with weft down, or use another --state-dir, --ingress and --console")
	}
	var port *local.PortError
	if errors.As(err, &port) {
		hint := "use another address: --" + port.Name + " 127.0.0.1:PORT"
		if port.InUse() {
			hint = "end what uses it, or use another address: --" + port.Name + " 127.0.0.1:PORT"
		}
		return withHint(err, hint)
	}
	return err
}

// argv is the command line with which the program was started.
func (m *mesh) argv() []string { return m.app.env.Args }

func (m *mesh) listen() map[string]string {
	l := map[string]string{listenConsole: m.opts.console}
	if m.ingress {
		l[listenIngress] = m.opts.ingress
	}
	return l
}

// beside runs f on a goroutine in the user's process until stop is called.
// When f ends by itself the mesh is told to end.
func (m *mesh) beside(ctx *context.Context, f func(context.Context) error) (stop func()) {
	if f == nil {
		return func() {}
	}
	outer, cancel := context.WithCancel(*ctx)
	*ctx = outer
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		if err := f(outer); err != nil && outer.Err() == nil {
			m.failed = err
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// inside runs in the mesh's namespaces until it is told to end.
func (m *mesh) inside(ctx context.Context, in *local.Inside) error {
	a := m.app
	log, err := a.logger(m.opts.logLevel)
	if err != nil {
		return err
	}
	proxy, dirs, err := programs()
	if err != nil {
		return err
	}
	if err := m.writeManifests(); err != nil {
		return err
	}
	if err := m.forget(); err != nil {
		return err
	}
	defer m.forget()
	set := local.Settings{
		Inside: in, StateDir: a.stateDir, ProxyPath: proxy, ProgramDirs: dirs, Environ: a.env.Environ,
		HostPorts: map[uint16]string{}, TrustDomain: m.opts.mesh.TrustDomain,
		DrainDelay: m.opts.drainDelay, Log: log,
	}
	if m.ingress {
		set.HostPorts[8080], set.HostPorts[80] = listenIngress, listenIngress
	}
	if m.opts.separate {
		argv, err := m.controlPlaneArgv()
		if err != nil {
			return err
		}
		set.ControlPlane = &local.Command{Argv: argv}
	} else {
		set.Start = func(ctx context.Context, n local.NodeNet) error {
			return m.controlPlane(ctx, n, log)
		}
	}
	r, err := local.New(set)
	if err != nil {
		return err
	}
	defer m.besideConsole(ctx, in.Listeners[listenConsole], log)()
	return r.Run(ctx)
}

func (a *app) logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)}
	}
	return slog.New(slog.NewTextHandler(a.env.Stderr, &slog.HandlerOptions{Level: l})), nil
}

// programs finds weft-proxy and the folders of the samples, next to this
// program or on PATH.
func programs() (proxy string, dirs []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	self = strings.TrimSuffix(self, " (deleted)")
	dir := filepath.Dir(self)
	dirs = []string{dir, filepath.Join(dir, "samples")}
	proxy = filepath.Join(dir, "weft-proxy")
	if _, err := os.Stat(proxy); err == nil {
		return proxy, dirs, nil
	}
	p, err := exec.LookPath("weft-proxy")
	if err != nil {
		return "", nil, withHint(fmt.Errorf("weft-proxy is neither in %s nor on PATH", dir), "build both programs with make build")
	}
	p, err = filepath.Abs(p)
	return p, dirs, err
}

// controlPlaneArgv is the command line of a separate control plane.
func (m *mesh) controlPlaneArgv() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	argv := []string{self, "control-plane", "--state-dir", m.app.stateDir, "--log-level", m.opts.logLevel,
		"--address", netip.MustParsePrefix(local.DefaultNode).Addr().String(), "--pods",
		fmt.Sprintf("--access-log=%t", m.opts.accessLog), fmt.Sprintf("--registry-only=%t", m.opts.registryOnly)}
	if m.opts.meshConfig != "" {
		argv = append(argv, "--mesh-config", m.opts.meshConfig)
	}
	for _, f := range m.files {
		argv = append(argv, "--config", f)
	}
	if m.store != "" {
		argv = append(argv, "--store", m.store)
	}
	return argv, nil
}

// controlPlane runs the control plane in this process.
func (m *mesh) controlPlane(ctx context.Context, n local.NodeNet, log *slog.Logger) error {
	set := m.opts.controlPlane(m.app.stateDir, n.IP.String(), m.files, log)
	set.Pods, set.Store = true, m.store
	s, err := server.New(set)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// forget removes the store of a mesh that begins and ends with nothing.
func (m *mesh) forget() error {
	if m.store == "" {
		return nil
	}
	err := os.Remove(filepath.Join(m.app.stateDir, m.store))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// controlPlane turns flags into the control plane's settings.
func (o *meshOptions) controlPlane(stateDir, address string, files []string, log *slog.Logger) server.Settings {
	set := server.Settings{
		StateDir: stateDir, Address: address, Files: files, Log: log,
		CheckDeployment: checkDeployment, Mesh: o.mesh,
	}
	return set
}

// dirSystem holds manifests that a mesh brings itself; they are files like the
// user's own, so that a separate control plane finds them too.
const dirSystem = "system"

// writeManifests writes the mesh's own manifests and adds them to the files.
func (m *mesh) writeManifests() error {
	names := m.manifests
	if m.ingress {
		names = append([]string{"platform/ingress.yaml"}, names...)
	}
	dir := filepath.Join(m.app.stateDir, dirSystem)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, n := range names {
		b, err := fs.ReadFile(bookinfo.Manifests, n)
		if err != nil {
			return err
		}
		file := filepath.Join(dir, filepath.Base(n))
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
		m.files = append(m.files, file)
	}
	return nil
}
