package local

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"weft.mesh/weft/internal/backoff"
	"weft.mesh/weft/local/logs"
	"weft.mesh/weft/local/process"
)

// planeGrace is how long the control plane may take to end.
const planeGrace = 5 * time.Second

var planeDelay = backoff.Policy{Base: 200 * time.Millisecond, Max: 5 * time.Second, Factor: 2}

// supervisor keeps the control plane's process running.
type supervisor struct {
	spec process.Spec
	log  *logs.Log
	pid  atomic.Int64
}

func newSupervisor(c *Command, env []string, s Settings) (*supervisor, error) {
	log, err := logs.Open(filepath.Join(s.StateDir, "logs", "control-plane.log"), s.LogSize)
	if err != nil {
		return nil, fmt.Errorf("local: control plane: %w", err)
	}
	return &supervisor{log: log, spec: process.Spec{Argv: c.Argv, Env: append(append([]string{}, env...), c.Env...), Stdout: log, Stderr: log}}, nil
}

// run starts the program again whenever it ends, until ctx ends.
func (s *supervisor) run(ctx context.Context) error {
	defer s.log.Close()
	for retry := 0; ctx.Err() == nil; retry++ {
		began := time.Now()
		p, err := process.Start(nil, s.spec)
		if err != nil {
			return err // the command line is wrong: trying again would not help
		}
		s.pid.Store(int64(p.PID()))
		select {
		case <-p.Done():
		case <-ctx.Done():
			end(p, planeGrace)
			return nil
		}
		s.pid.Store(0)
		if time.Since(began) > time.Minute {
			retry = 0
		}
		s.log.Printf("control plane ended: %s", p.Reason())
		t := time.NewTimer(planeDelay.Delay(retry, 0))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	return nil
}

func (s *supervisor) signal(sig syscall.Signal) error {
	if pid := int(s.pid.Load()); pid != 0 {
		return syscall.Kill(pid, sig)
	}
	return fmt.Errorf("the control plane does not run")
}

// end asks a program to end and kills it after a while.
func end(p *process.Process, grace time.Duration) {
	p.Signal(syscall.SIGTERM)
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.Done():
	case <-t.C:
		p.Signal(syscall.SIGKILL)
		<-p.Done()
	}
}
