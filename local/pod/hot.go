package pod

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"weft.mesh/weft/local/podspec"
	"weft.mesh/weft/local/process"
)

// Times of a hot restart.
const (
	hotReady = 20 * time.Second // for the successor to be ready, see weft-proxy's --hot-restart-timeout
	hotLimit = 25 * time.Second // for its word that it serves, or its end
)

// successor starts a program that takes over from the running one. serving
// gets one value: whether the program said that it serves.
type successor func(ctx context.Context) (p *process.Process, serving <-chan bool, err error)

// HotRestart replaces the sidecar's (or the gateway's) program by a new run
// that takes over its listening sockets. It returns when the new one serves;
// the old one drains meanwhile. After an error the old one serves on.
func (p *Pod) HotRestart(ctx context.Context, name string) error {
	c, err := p.find(name)
	if err != nil {
		return err
	}
	return c.hotRestart(ctx)
}

func (c *container) hotRestart(ctx context.Context) error {
	if c.successor == nil {
		return fmt.Errorf("container %s: only %s can be restarted hot: a program has to hand its sockets over", c.name, podspec.ProxyContainer)
	}
	answer := make(chan error, 1)
	select {
	case c.hot <- answer:
	case <-c.done:
		return fmt.Errorf("container %s has ended", c.name)
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-answer // within hotLimit
}

// takeOver replaces the running program p by a successor and answers who asked. It returns the one that runs.
func (c *container) takeOver(ctx context.Context, p *process.Process, answer chan<- error) *process.Process {
	next, err := c.succeed(ctx)
	answer <- err
	if err != nil {
		c.log.Printf("%v", err)
		return p
	}
	c.retire(ctx, p)
	c.update(func(s *containerStatus) { s.pid = next.PID(); s.restarts++ })
	return next
}

// succeed starts a successor of the running program and waits until it serves.
func (c *container) succeed(ctx context.Context) (*process.Process, error) {
	next, serving, err := c.successor(ctx)
	if err != nil {
		return nil, err
	}
	t := time.NewTimer(hotLimit)
	defer t.Stop()
	select {
	case ok := <-serving:
		if ok {
			return next, nil
		}
		err = errors.New("it did not take over")
	case <-t.C:
		err = fmt.Errorf("it does not serve after %s", hotLimit)
	case <-c.term:
		err = errors.New("the pod ends")
	case <-ctx.Done():
		err = ctx.Err()
	}
	stop(ctx, next)
	return nil, fmt.Errorf("container %s: hot restart: %w (%s; see its log); the running program goes on", c.name, err, next.Reason())
}

// retire lets a program that was taken over from drain. It ends by itself; with the container it ends sooner.
func (c *container) retire(ctx context.Context, p *process.Process) {
	c.retired.Go(func() {
		select {
		case <-p.Done():
			return
		case <-c.term:
			p.Signal(syscall.SIGTERM)
		case <-ctx.Done():
		}
		select {
		case <-p.Done():
		case <-ctx.Done():
			p.Signal(syscall.SIGKILL)
			<-p.Done()
		}
	})
}

// startSuccessor starts a proxy that takes over from the running one.
func (p *Pod) startSuccessor(ctx context.Context, ports []podspec.Port) (*process.Process, <-chan bool, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	proc, err := p.launchProxy(ctx, ports, w)
	if err != nil {
		_ = r.Close()
		return nil, nil, err
	}
	serving := make(chan bool, 1)
	p.wg.Go(func() { // the pipe ends with the program
		defer r.Close()
		line, _ := bufio.NewReaderSize(r, 16).ReadSlice('\n')
		serving <- string(line) == "serving\n"
	})
	return proc, serving, nil
}

// hotArgs are what a successor gets beside the usual arguments; notify is its descriptor to say that it serves.
func hotArgs(notify int) []string {
	return []string{"--hot-restart", "--hot-restart-timeout", hotReady.String(), "--notify-fd", strconv.Itoa(notify)}
}
