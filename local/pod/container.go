package pod

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"weft.mesh/weft/internal/backoff"
	"weft.mesh/weft/local/logs"
	"weft.mesh/weft/local/podspec"
	"weft.mesh/weft/local/probe"
	"weft.mesh/weft/local/process"
)

// Times of a container's life.
const (
	healthyAfter = time.Minute     // a run this long makes the next back-off short again
	restartGrace = 5 * time.Second // from SIGTERM to SIGKILL when a container is restarted
	portsWait    = 5 * time.Second // see container.awaitPorts
)

// restartDelay is the wait before a crashed container is started again.
// Kubernetes begins at 10 s; a developer's machine can begin sooner.
var restartDelay = backoff.Policy{Base: 200 * time.Millisecond, Max: 10 * time.Second, Factor: 2}

// States of a container as `weft ps` shows them.
const (
	stateWaiting = "Waiting"
	stateRunning = "Running"
	stateEnded   = "Terminated"
)

// container keeps one program of a pod running: it starts it, probes it, and
// starts it again when it ends, until it is told to terminate.
type container struct {
	name     string
	startup  *podspec.Probe
	ready    *podspec.Probe
	live     *podspec.Probe
	ports    []podspec.Port // awaited when there is no readiness probe
	log      *logs.Log
	target   probe.Target
	start    func(context.Context) (*process.Process, error)
	sweep    func(context.Context) // ends what an ended program left behind
	changed  func()
	term     chan struct{} // closed: end, do not start again
	termOnce sync.Once
	restart  chan struct{} // one restart asked for
	done     chan struct{} // closed when run has returned

	successor successor       // nil: it cannot be restarted hot
	hot       chan chan error // a hot restart asked for, with where to answer
	retired   sync.WaitGroup  // programs that were taken over from and drain

	mu     sync.Mutex // protects the following
	status containerStatus
}

type containerStatus struct {
	state    string
	message  string
	pid      int
	ready    bool
	restarts int
}

func newContainer(name string, log *logs.Log) *container {
	return &container{name: name, log: log, changed: func() {}, sweep: func(context.Context) {}, term: make(chan struct{}), restart: make(chan struct{}, 1), hot: make(chan chan error),
		done: make(chan struct{}), status: containerStatus{state: stateWaiting}}
}

func (c *container) read() containerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *container) update(f func(*containerStatus)) {
	c.mu.Lock()
	before := c.status
	f(&c.status)
	same := c.status == before
	c.mu.Unlock()
	if !same {
		c.changed()
	}
}

// terminate asks the program to end and not to be started again.
func (c *container) terminate() { c.termOnce.Do(func() { close(c.term) }) }

// restartNow ends the program and starts it again at once. Whoever asked sees
// it as not ready from now on, until the new run is.
func (c *container) restartNow() {
	c.update(func(s *containerStatus) { s.ready = false })
	select {
	case c.restart <- struct{}{}:
	default:
	}
}

// signal sends sig to the running program; it says whether there is one.
func (c *container) signal(sig syscall.Signal) bool {
	pid := c.read().pid
	return pid != 0 && syscall.Kill(-pid, sig) == nil
}

// run keeps the program running until terminate or ctx; ctx's end kills it.
func (c *container) run(ctx context.Context) {
	defer close(c.done)
	defer c.retired.Wait()
	defer c.update(func(s *containerStatus) { s.state, s.pid, s.ready = stateEnded, 0, false })
	retry := 0
	for !closed(c.term) {
		began := time.Now()
		asked, why := c.once(ctx)
		if ctx.Err() != nil || closed(c.term) {
			return
		}
		if asked || time.Since(began) >= healthyAfter {
			retry = 0
		}
		if !asked {
			delay := restartDelay.Delay(retry, 0)
			retry++
			message := fmt.Sprintf("%s; starts again in %s", why, delay)
			c.log.Printf("%s: %s", c.name, message)
			c.update(func(s *containerStatus) { s.state, s.message, s.pid, s.ready = stateWaiting, message, 0, false })
			c.sweep(ctx)
			if !c.wait(ctx, delay) {
				return
			}
		} else {
			c.sweep(ctx)
		}
		c.update(func(s *containerStatus) { s.restarts++ })
	}
}

// wait lets the back-off pass; a restart asked for cuts it short.
func (c *container) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return true
		case <-c.restart:
			return true
		case answer := <-c.hot:
			answer <- fmt.Errorf("container %s does not run: there is nothing to take over from", c.name)
		case <-c.term:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// once runs the program to its end. asked says that a user wanted the end.
func (c *container) once(ctx context.Context) (asked bool, why string) {
	p, err := c.start(ctx)
	if err != nil {
		return false, err.Error()
	}
	c.update(func(s *containerStatus) {
		s.state, s.message, s.pid, s.ready = stateRunning, "not ready yet", p.PID(), false
	})
	probing, cancel := context.WithCancel(ctx)
	sick := make(chan string, 1)
	var wg sync.WaitGroup
	wg.Go(func() { c.watch(probing, sick) })
	unwatch := func() {
		cancel()
		wg.Wait()
	}
	defer unwatch()
	for {
		select {
		case answer := <-c.hot:
			p = c.takeOver(ctx, p, answer)
			continue
		case <-p.Done():
		case <-ctx.Done():
			p.Signal(syscall.SIGKILL)
			<-p.Done()
		case <-c.term:
			p.Signal(syscall.SIGTERM)
			select {
			case <-p.Done():
			case <-ctx.Done():
				p.Signal(syscall.SIGKILL)
				<-p.Done()
			}
		case <-c.restart:
			unwatch() // a program that drains may answer its probes: it is not ready all the same
			c.end(ctx, p)
			return true, ""
		case why := <-sick:
			c.log.Printf("%s: %s: killing it", c.name, why)
			unwatch()
			c.end(ctx, p)
			return false, why
		}
		return false, "ended: " + p.Reason()
	}
}

// end stops the container's program, which is not ready from then on.
func (c *container) end(ctx context.Context, p *process.Process) {
	c.update(func(s *containerStatus) { s.ready = false })
	stop(ctx, p)
}

// stop asks a program to end and kills it after a while.
func stop(ctx context.Context, p *process.Process) {
	p.Signal(syscall.SIGTERM)
	t := time.NewTimer(restartGrace)
	defer t.Stop()
	select {
	case <-p.Done():
		return
	case <-t.C:
	case <-ctx.Done():
	}
	p.Signal(syscall.SIGKILL)
	<-p.Done()
}

// watch runs the probes of one run of the program: startup first, then
// liveness and readiness side by side. A text on sick means: kill it.
func (c *container) watch(ctx context.Context, sick chan<- string) {
	if c.startup != nil && !c.awaitStartup(ctx, sick) {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if c.live != nil {
		wg.Go(func() {
			probe.Run(ctx, c.live, false, c.check(c.live), func(r probe.Result, err error) bool {
				if r == probe.Failure {
					sick <- fmt.Sprintf("liveness probe failed: %v", err)
				}
				return r != probe.Failure
			})
		})
	}
	if c.ready == nil {
		c.awaitPorts(ctx)
		if ctx.Err() == nil {
			c.setReady(true, nil)
		}
		return
	}
	probe.Run(ctx, c.ready, true, c.check(c.ready), func(r probe.Result, err error) bool {
		c.setReady(r == probe.Success, err)
		return true
	})
}

func (c *container) check(p *podspec.Probe) func(context.Context) error {
	return func(ctx context.Context) error { return c.target.Check(ctx, p) }
}

func (c *container) awaitStartup(ctx context.Context, sick chan<- string) bool {
	started := false
	probe.Run(ctx, c.startup, true, c.check(c.startup), func(r probe.Result, err error) bool {
		switch r {
		case probe.Success:
			started = true
			return false
		case probe.Failure:
			sick <- fmt.Sprintf("startup probe failed: %v", err)
			return false
		}
		c.setReady(false, err)
		return true
	})
	return started
}

func (c *container) setReady(ready bool, err error) {
	message := ""
	if !ready {
		message = "not ready yet"
		if err != nil {
			message = "not ready: " + err.Error()
		}
	}
	c.update(func(s *containerStatus) { s.ready, s.message = ready, message })
}

// awaitPorts makes a container without a readiness probe ready when its
// declared TCP ports accept connections, at the latest after portsWait. In
// Kubernetes it would be ready at once and its first callers would be refused.
func (c *container) awaitPorts(ctx context.Context) {
	deadline, cancel := context.WithTimeout(ctx, portsWait)
	defer cancel()
	for _, port := range c.ports {
		if port.UDP {
			continue
		}
		p := &podspec.Probe{TCP: &podspec.TCPProbe{Port: port.Port}, Period: probe.EagerPeriod / 2, Timeout: time.Second}
		probe.Run(deadline, p, true, c.check(p), func(r probe.Result, err error) bool { return err != nil })
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
