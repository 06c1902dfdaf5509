package pod

import (
	"context"
	"fmt"
	"os"
	"time"

	"weft.mesh/weft/local/manifest"
	"weft.mesh/weft/local/podspec"
	"weft.mesh/weft/local/probe"
	"weft.mesh/weft/local/process"
	"weft.mesh/weft/local/sandbox"
	"weft.mesh/weft/node/capture"
)

// setupRetry is the wait after a pod could not be set up.
const setupRetry = 2 * time.Second

// proxyEndGrace is how long proxies get when the whole mesh ends.
const proxyEndGrace = 500 * time.Millisecond

// Run runs the pod until Stop or Hurry has ended it; the end of ctx kills it.
// When it returns nothing of the pod is left.
func (p *Pod) Run(ctx context.Context) {
	ctx, kill := context.WithCancel(ctx)
	defer p.wg.Wait()
	defer kill()
	defer p.remove()
	for p.setup() != nil {
		select {
		case <-time.After(setupRetry):
		case <-p.stop:
			return
		case <-ctx.Done():
			return
		}
	}
	p.publish()
	running, endAll := context.WithCancel(ctx)
	defer endAll()
	p.wg.Go(func() { p.publishLoop(running) })
	p.startAll(running)
	select {
	case <-p.stop:
	case <-ctx.Done():
	}
	p.end(ctx)
	endAll()
	for _, c := range p.containers() {
		<-c.done
	}
}

// setup gives the pod its address, namespaces, links and rules.
func (p *Pod) setup() error {
	err := p.trySetup()
	if err != nil {
		p.env.Log.Error("pod cannot be set up", "namespace", p.spec.Namespace, "pod", p.name, "error", err)
	}
	p.mu.Lock()
	p.failure = ""
	if err != nil {
		p.failure = err.Error()
	}
	p.mu.Unlock()
	if err == nil {
		close(p.ready)
	}
	p.changed()
	return err
}

func (p *Pod) trySetup() (err error) {
	ip, err := p.env.Pool.Take(time.Now())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			p.env.Pool.Release(ip, time.Now())
		}
	}()
	if err := os.MkdirAll(p.proxyDir(), 0o700); err != nil {
		return fmt.Errorf("pod %s: make the proxy's folder: %w", p.name, err)
	}
	sb, err := sandbox.New(sandbox.Config{Dir: p.sandboxDir(), Hostname: p.name, Namespace: p.spec.Namespace,
		Domain: p.env.Domain, IP: ip, DNS: p.env.Network.Node.Addr(),
		Hide: p.env.StateDir, Keep: p.env.KeepDirs, Private: []string{p.proxyDir()}})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			sb.Close()
		}
	}()
	if err := os.MkdirAll(p.workDir(), 0o700); err != nil {
		return fmt.Errorf("pod %s: make the working folder: %w", p.name, err)
	}
	if err := p.env.Network.Attach(sb.Net, ip); err != nil {
		return err
	}
	if p.Captured() {
		rules, err := capture.Plan(p.captureConfig(ip))
		if err != nil {
			return err
		}
		if err := capture.Apply(sb.Net, rules); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.services.Table != "" {
		if err := capture.Apply(sb.Net, p.services); err != nil {
			return err
		}
	}
	p.sandbox, p.ip = sb, ip
	return nil
}

// startAll starts the proxy and, when it is ready, the programs.
func (p *Pod) startAll(ctx context.Context) {
	target := p.target()
	if p.proxy != nil {
		c := p.proxy
		var ports []podspec.Port
		if p.spec.Gateway {
			ports = p.specOf(c.name).Ports
		}
		c.ready, c.target = &proxyReadiness, target
		c.start = func(ctx context.Context) (*process.Process, error) { return p.startProxy(ctx, ports) }
		c.successor = func(ctx context.Context) (*process.Process, <-chan bool, error) { return p.startSuccessor(ctx, ports) }
		p.wg.Go(func() { c.run(ctx) })
		p.awaitProxy(ctx)
	}
	for _, c := range p.apps {
		spec := p.specOf(c.name)
		c.startup, c.ready, c.live, c.ports, c.target = spec.Startup, spec.Readiness, spec.Liveness, spec.Ports, target
		c.start = func(context.Context) (*process.Process, error) { return p.startApp(spec, c) }
		c.sweep = func(ctx context.Context) { p.sweep(ctx, c) }
		if closed(p.stop) {
			c.terminate()
		}
		p.wg.Go(func() { c.run(ctx) })
	}
}

// awaitProxy waits until the proxy is ready, but not for ever: with the control
// plane away a new proxy may have nothing to serve, and the program may not
// need it.
func (p *Pod) awaitProxy(ctx context.Context) {
	if len(p.apps) == 0 {
		return
	}
	deadline := time.Now().Add(p.env.SidecarWait)
	for !p.proxy.read().ready && time.Now().Before(deadline) && !closed(p.stop) && sleep(ctx, 10*time.Millisecond) {
	}
	if !p.proxy.read().ready && !closed(p.stop) {
		p.logOf(p.apps[0].name).Printf("the sidecar is not ready after %s; starting without it", p.env.SidecarWait)
	}
}

func (p *Pod) startApp(spec podspec.Container, c *container) (*process.Process, error) {
	argv, env := spec.Resolve(p.env.processEnv(p.name), p.identity())
	dir := spec.Dir
	if dir == "" {
		dir = p.workDir()
	}
	env = append(env, markName+"="+p.mark(spec.Name))
	return process.Start(p.sandbox, process.Spec{Argv: argv, Env: env, Dir: dir, Stdout: c.log, Stderr: c.log, As: p.env.Caller})
}

// markName is the variable that says to which container a process belongs: all
// that the program starts inherits it. Commands of exec and probes have none.
const markName = "WEFT_CONTAINER"

func (p *Pod) mark(container string) string { return p.uid + "/" + container }

// leftoverGrace is the time from SIGTERM to SIGKILL for processes that outlived
// their container's program.
const leftoverGrace = 500 * time.Millisecond

// sweep ends what a program left behind, so that its successor finds its ports
// free, as a new container would.
func (p *Pod) sweep(ctx context.Context, c *container) {
	if n := process.EndMarked(ctx, markName+"="+p.mark(c.name), leftoverGrace); n > 0 {
		c.log.Printf("%s: ended %d processes that its program had left behind", c.name, n)
	}
}

func (p *Pod) target() probe.Target {
	return probe.Target{IP: p.ip, Dial: p.sandbox.Net.Dial, Exec: p.execProbe}
}

// execProbe runs a probe's command in the pod.
func (p *Pod) execProbe(ctx context.Context, argv []string) error {
	proc, err := p.Start(process.Spec{Argv: argv}, nil)
	if err != nil {
		return err
	}
	select {
	case <-proc.Done():
	case <-ctx.Done():
		proc.Signal(9)
		<-proc.Done()
		return ctx.Err()
	}
	if proc.ExitCode() != 0 {
		return fmt.Errorf("%s", proc.Reason())
	}
	return nil
}

// end takes the pod out of service and ends its programs. The order loses no
// request: others must stop sending before anything here stops serving, and
// the sidecar finishes what it carries while the program still answers.
func (p *Pod) end(ctx context.Context) {
	p.mu.Lock()
	p.ending = time.Now()
	p.mu.Unlock()
	p.onChange()
	p.publish()
	if ctx.Err() != nil {
		return
	}
	if closed(p.hurry) {
		p.endNow(ctx)
		return
	}
	p.retire(ctx)
	switch {
	case ctx.Err() != nil:
		return
	case closed(p.hurry):
		p.endNow(ctx)
		return
	}
	grace, cancel := context.WithTimeout(ctx, p.spec.Grace)
	defer cancel()
	if p.proxy != nil {
		p.proxy.terminate()
		drain, stop := context.WithTimeout(grace, p.drainTime()+proxyEndGrace)
		p.awaitEnd(drain, p.proxy)
		stop()
	}
	for _, c := range p.apps {
		c.terminate()
	}
	for _, c := range p.containers() {
		p.awaitEnd(grace, c)
	}
}

// endNow ends everything at once.
func (p *Pod) endNow(ctx context.Context) {
	for _, c := range p.containers() {
		c.terminate()
	}
	proxies := time.NewTimer(proxyEndGrace)
	defer proxies.Stop()
	apps, cancel := context.WithTimeout(ctx, min(p.spec.Grace, p.env.ShutdownGrace))
	defer cancel()
	for _, c := range p.apps {
		select {
		case <-c.done:
		case <-apps.Done():
		}
	}
	if p.proxy != nil {
		select {
		case <-p.proxy.done:
		case <-proxies.C:
		case <-ctx.Done():
		}
	}
}

// awaitEnd waits for a container's end, ctx, or the end of the whole mesh.
func (p *Pod) awaitEnd(ctx context.Context, c *container) {
	select {
	case <-c.done:
	case <-ctx.Done():
	case <-p.hurry:
	}
}

// remove takes away what is left of the pod on this machine.
func (p *Pod) remove() {
	p.publishing.Lock()
	defer p.publishing.Unlock()
	complain := func(err error) {
		if err != nil {
			p.env.Log.Warn("pod is not removed cleanly", "namespace", p.spec.Namespace, "pod", p.name, "error", err)
		}
	}
	p.removed = true
	complain(p.env.Folder.Withdraw(p.spec.Namespace, p.name))
	if closed(p.ready) {
		p.sandbox.KillAll()
		complain(p.env.Network.Detach(p.ip))
		complain(p.sandbox.Close())
		p.env.Pool.Release(p.ip, time.Now())
	}
	for _, c := range p.containers() {
		complain(c.log.Close())
	}
	complain(os.RemoveAll(p.proxyDir()))
	if !closed(p.hurry) {
		complain(os.RemoveAll(p.logDir())) // the logs of a whole mesh that ended stay for its user
	}
}

// changed is called by containers when their status changed.
func (p *Pod) changed() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
	p.onChange()
}

func (p *Pod) publishLoop(ctx context.Context) {
	for {
		select {
		case <-p.dirty:
			p.publish()
		case <-ctx.Done():
			return
		}
	}
}

// publish writes the manifest as things are now.
func (p *Pod) publish() {
	p.publishing.Lock()
	defer p.publishing.Unlock()
	if p.removed {
		return
	}
	if err := p.env.Folder.Publish(p.manifest()); err != nil {
		p.env.Log.Error("pod is not published", "namespace", p.spec.Namespace, "pod", p.name, "error", err)
	}
}

func (p *Pod) manifest() manifest.Pod {
	st := p.Status()
	p.mu.Lock()
	defer p.mu.Unlock()
	if st.Ready != p.wasReady {
		p.wasReady, p.since = st.Ready, time.Now()
	}
	m := manifest.Pod{Namespace: p.spec.Namespace, Name: p.name, UID: p.uid, Deployment: p.spec.Name,
		ServiceAccount: p.spec.ServiceAccount, Labels: p.labels, Annotations: p.notes, IP: p.ip.String(),
		NodeIP: p.env.Network.Node.Addr().String(), Phase: st.Phase, Ready: st.Ready, Created: p.created,
		ReadySince: p.since, Deleted: p.ending, Grace: p.spec.Grace}
	for _, c := range st.Containers {
		mc := manifest.Container{Name: c.Name, Ready: c.Ready, Running: c.State == stateRunning}
		for _, port := range p.specOf(c.Name).Ports {
			mc.Ports = append(mc.Ports, manifest.Port{Name: port.Name, Port: port.Port, UDP: port.UDP})
		}
		m.Containers = append(m.Containers, mc)
	}
	return m
}

// specOf is the declared container of that name; a sidecar has none.
func (p *Pod) specOf(name string) podspec.Container {
	for _, c := range p.spec.Containers {
		if c.Name == name {
			return c
		}
	}
	return podspec.Container{Name: name}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
