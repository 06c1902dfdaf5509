package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
	"weft.mesh/weft/local/api"
	"weft.mesh/weft/local/manifest"
	"weft.mesh/weft/local/network"
	"weft.mesh/weft/local/pod"
	"weft.mesh/weft/local/process"
	"weft.mesh/weft/node/dns"
)

const dnsPort = 53

// rootRetry is the wait between tries to get the trust domain's roots.
const rootRetry = 100 * time.Millisecond

// Runtime runs the pods of one mesh.
type Runtime struct {
	set     Settings
	env     *pod.Env
	manager *manager
	control *client.Client
	names   *dns.Server // for programs
	outer   *dns.Server // for proxies: without what leads to themselves
	plane   *supervisor // nil unless the control plane is a process of its own
}

// New checks the settings. Nothing happens before Run.
func New(s Settings) (*Runtime, error) {
	s, err := s.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Runtime{set: s, control: client.New(s.StateDir),
		names: &dns.Server{Upstreams: s.DNS}, outer: &dns.Server{Upstreams: s.DNS}}, nil
}

// Run runs the mesh until ctx ends or a user stops it, then drains and returns
// when all processes and goroutines of it have ended.
func (r *Runtime) Run(ctx context.Context) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer r.clean()
	if err := r.prepare(); err != nil {
		return err
	}
	// Workloads end first: what they need outlives them.
	services, endServices := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer endServices()
	var failed error
	var once sync.Once
	serve := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			if e := f(services); e != nil && services.Err() == nil {
				once.Do(func() { failed = fmt.Errorf("local: %s: %w", what, e) })
				stop()
			}
		})
	}
	if err := r.serveNames(serve); err != nil {
		return err
	}
	if err := r.serveAPI(serve, stop); err != nil {
		return err
	}
	if r.set.Start != nil {
		serve("control plane", func(ctx context.Context) error {
			err := r.set.Start(ctx, NodeNet{IP: r.set.Node.Addr(), Pods: r.set.Node.Masked(), Listeners: r.set.Inside.Listeners})
			if err == nil && ctx.Err() == nil {
				err = errors.New("ended by itself")
			}
			return err
		})
	}
	if r.plane != nil {
		serve("control plane", r.plane.run)
	}
	r.runWorkloads(ctx)
	endServices()
	wg.Wait()
	return failed
}

// prepare makes the folders and the network.
func (r *Runtime) prepare() error {
	r.clean()
	if err := os.RemoveAll(filepath.Join(r.set.StateDir, "logs")); err != nil {
		return fmt.Errorf("local: remove logs of the last run: %w", err)
	}
	for _, dir := range []string{"", "logs", "sandbox", "proxies"} {
		if err := os.MkdirAll(filepath.Join(r.set.StateDir, dir), 0o700); err != nil {
			return fmt.Errorf("local: make folder: %w", err)
		}
	}
	folder := manifest.Folder{Dir: filepath.Join(r.set.StateDir, admin.DirPods)}
	if err := folder.Clear(); err != nil {
		return err
	}
	net, err := network.Up(r.set.Bridge, r.set.Node)
	if err != nil {
		return err
	}
	pool, err := network.NewPool(r.set.Node, network.DefaultQuarantine)
	if err != nil {
		return err
	}
	hostPorts, err := r.hostPorts()
	if err != nil {
		return err
	}
	r.env = &pod.Env{
		Network: net, Pool: pool, Folder: folder, StateDir: r.set.StateDir, Domain: r.set.Domain, TrustDomain: r.set.TrustDomain,
		Cluster: r.set.Cluster, XDSAddress: netip.AddrPortFrom(r.set.Node.Addr(), r.set.XDSPort).String(),
		RootFile: filepath.Join(r.set.StateDir, "ca-root.pem"), ProxyPath: r.set.ProxyPath, BaseEnv: r.set.baseEnv(),
		KeepDirs:  r.set.programFolders(),
		HostPorts: hostPorts, Tokens: r.control, Control: r.control, Log: r.set.Log, DrainDelay: r.set.DrainDelay, DrainTimeout: r.set.DrainTimeout,
		SidecarWait: r.set.SidecarWait, ShutdownGrace: r.set.ShutdownGrace, LogSize: r.set.LogSize,
	}
	if in := r.set.Inside; in.Rootless && in.OwnProc && in.UID != 0 {
		r.env.Caller = &process.Caller{UID: in.UID, GID: in.GID}
	}
	r.manager = newManager(r.env, r.set.Log)
	if r.set.ControlPlane != nil {
		r.plane, err = newSupervisor(r.set.ControlPlane, r.env.BaseEnv, r.set)
	}
	return err
}

// clean removes what an earlier run, or this one, left in the state directory:
// sockets, manifests, and the folders of pods with their proxies' keys.
func (r *Runtime) clean() {
	for _, name := range []string{admin.SocketRuntime, admin.SocketExec, admin.DirPods, "sandbox", "proxies"} {
		if err := os.RemoveAll(filepath.Join(r.set.StateDir, name)); err != nil {
			r.set.Log.Warn("leftover stays", "error", err)
		}
	}
}

// hostPorts turns listeners of the machine into files to pass on.
func (r *Runtime) hostPorts() (map[uint16]*os.File, error) {
	out := map[uint16]*os.File{}
	for port, name := range r.set.HostPorts {
		f, err := passable(r.set.Inside.Listeners[name])
		if err != nil {
			return nil, fmt.Errorf("local: host port %d: %w", port, err)
		}
		out[port] = f
	}
	return out, nil
}

// passable is a copy of a listener that can be passed to children again and
// again. All copies share one non-blocking flag, and os.File clears it when a
// file that it knows as non-blocking is passed on: a proxy that is accepting
// would block. So the file is made while the flag is off.
func passable(ln *net.TCPListener) (*os.File, error) {
	f, err := ln.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, err
	}
	out := os.NewFile(uintptr(fd), ln.Addr().String())
	return out, unix.SetNonblock(fd, true)
}

func (r *Runtime) serveNames(serve func(string, func(context.Context) error)) error {
	r.names.Captured = r.manager.captured
	for port, s := range map[uint16]*dns.Server{dnsPort: r.names, pod.ProxyDNSPort: r.outer} {
		at := netip.AddrPortFrom(r.set.Node.Addr(), port).String()
		pc, err := net.ListenPacket("udp4", at)
		if err != nil {
			return fmt.Errorf("local: name server: %w", err)
		}
		ln, err := net.Listen("tcp4", at)
		if err != nil {
			pc.Close()
			return fmt.Errorf("local: name server: %w", err)
		}
		serve("name server", func(ctx context.Context) error { return s.Run(ctx, pc, ln) })
	}
	serve("names", func(ctx context.Context) error {
		r.control.WatchNames(ctx, func(t admin.NameTable) {
			r.names.SetTable(t.Names)
			r.names.SetCaptured(t.Auto)
			r.outer.SetTable(t.Names)
			r.manager.setNames(t)
		}, r.lost)
		return nil
	})
	return nil
}

func (r *Runtime) serveAPI(serve func(string, func(context.Context) error), stop func()) error {
	http, err := listenUnix(filepath.Join(r.set.StateDir, admin.SocketRuntime))
	if err != nil {
		return err
	}
	exec, err := listenUnix(filepath.Join(r.set.StateDir, admin.SocketExec))
	if err != nil {
		http.Close()
		return err
	}
	server := &api.Server{Backend: backend{r, stop}, OwnProc: r.set.Inside.OwnProc, Log: r.set.Log}
	serve("runtime socket", func(ctx context.Context) error { return server.Run(ctx, http) })
	serve("exec socket", func(ctx context.Context) error { return server.RunExec(ctx, exec) })
	return nil
}

// listenUnix opens a socket that only our own user may connect to.
func listenUnix(path string) (*net.UnixListener, error) {
	// The folder is 0700; the umask closes the moment before chmod.
	old := syscall.Umask(0o177)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("local: open socket: %w", err)
	}
	return ln, nil
}

// runWorkloads runs pods until ctx ends and all of them are gone.
func (r *Runtime) runWorkloads(ctx context.Context) {
	if !r.awaitRoot(ctx) {
		return
	}
	watch, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.control.WatchObjects(watch, watchedKinds, r.manager.setObjects, r.lost) })
	wg.Go(func() { r.keepRoot(watch) })
	r.manager.run(ctx)
	end()
	wg.Wait()
}

// lost notes that a watch of the control plane ended. What was last known stays in force.
func (r *Runtime) lost(err error) {
	r.set.Log.Debug("watch of the control plane ended", "error", err)
}

// awaitRoot gets the roots that proxies need to trust the control plane.
func (r *Runtime) awaitRoot(ctx context.Context) bool {
	for {
		if r.writeRoot(ctx) == nil {
			return true
		}
		select {
		case <-time.After(rootRetry):
		case <-ctx.Done():
			return false
		}
	}
}

// keepRoot keeps the file of roots up to date: roots change seldom.
func (r *Runtime) keepRoot(ctx context.Context) {
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := r.writeRoot(ctx); err != nil {
				r.set.Log.Debug("roots are not refreshed", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (r *Runtime) writeRoot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	pem, err := r.control.Root(ctx)
	if err != nil {
		return err
	}
	temp := r.env.RootFile + ".new"
	if err := os.WriteFile(temp, pem, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, r.env.RootFile)
}
