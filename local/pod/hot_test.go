package pod

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft.mesh/weft/local/logs"
	"weft.mesh/weft/local/process"
)

// hotContainer runs shell programs until the test ends.
func hotContainer(t *testing.T, first string) (c *container, end func()) {
	t.Helper()
	log, err := logs.Open(filepath.Join(t.TempDir(), "log"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	c = newContainer("istio-proxy", log)
	c.start = func(context.Context) (*process.Process, error) { return shell(first) }
	ctx, cancel := context.WithCancel(t.Context())
	go c.run(ctx)
	end = func() { cancel(); <-c.done }
	t.Cleanup(end)
	return c, end
}

func shell(script string) (*process.Process, error) {
	return process.Start(nil, process.Spec{Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}})
}

// forever ends at once on SIGTERM.
const forever = `while :; do sleep 0.02; done`

func awaitStatus(t *testing.T, c *container, what string, f func(containerStatus) bool) containerStatus {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if s := c.read(); f(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s: %+v", what, c.read())
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestAHotRestartAdoptsTheSuccessorAndLetsTheOldOneDrain(t *testing.T) {
	c, _ := hotContainer(t, forever)
	var next *process.Process
	c.successor = func(context.Context) (*process.Process, <-chan bool, error) {
		var err error
		next, err = shell(forever)
		serving := make(chan bool, 1)
		serving <- true
		return next, serving, err
	}
	old := awaitStatus(t, c, "the first run is ready", func(s containerStatus) bool { return s.ready }).pid
	if err := c.hotRestart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := awaitStatus(t, c, "the successor is adopted", func(s containerStatus) bool { return s.pid != old })
	if s.pid != next.PID() || s.restarts != 1 || !s.ready || s.state != stateRunning {
		t.Errorf("status = %+v, want process %d, ready all the time", s, next.PID())
	}
	if !alive(old) {
		t.Error("the old program was ended: it drains by itself")
	}
	c.terminate() // ends both
	<-c.done
	if alive(old) || alive(next.PID()) {
		t.Error("a program has outlived its container")
	}
}

func TestASuccessorThatEndsIsStartedAgainLikeAnyProgram(t *testing.T) {
	c, _ := hotContainer(t, forever)
	c.successor = func(context.Context) (*process.Process, <-chan bool, error) {
		next, err := shell("sleep 0.1; exit 3")
		serving := make(chan bool, 1)
		serving <- true
		return next, serving, err
	}
	awaitStatus(t, c, "the first run is ready", func(s containerStatus) bool { return s.ready })
	if err := c.hotRestart(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, c, "another run", func(s containerStatus) bool { return s.restarts == 2 && s.ready })
}

func TestAHotRestartThatFailsLeavesTheRunningProgram(t *testing.T) {
	for _, tc := range []struct {
		name      string
		successor successor
		want      string
	}{
		{"a container that has no sockets to hand over", nil, "only istio-proxy"},
		{"a program that cannot be started", func(context.Context) (*process.Process, <-chan bool, error) {
			return nil, nil, errors.New("no such file")
		}, "no such file"},
		{"one that ends", func(context.Context) (*process.Process, <-chan bool, error) {
			p, err := shell("exit 7")
			if err != nil {
				return nil, nil, err
			}
			serving := make(chan bool, 1)
			go func() { <-p.Done(); serving <- false }()
			return p, serving, nil
		}, "exit code 7"},
		{"one that says nothing and stays", func(context.Context) (*process.Process, <-chan bool, error) {
			p, err := shell(forever)
			serving := make(chan bool, 1)
			serving <- false
			return p, serving, err
		}, "did not take over (signal: terminated"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := hotContainer(t, forever)
			c.successor = tc.successor
			before := awaitStatus(t, c, "the first run is ready", func(s containerStatus) bool { return s.ready })
			if err := c.hotRestart(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error = %v, want one with %q", err, tc.want)
			}
			if s := c.read(); s != before || !alive(s.pid) {
				t.Errorf("status = %+v, before %+v", s, before)
			}
		})
	}
}

func TestAHotRestartOfWhatDoesNotRunIsRefused(t *testing.T) {
	c, end := hotContainer(t, "exit 1")
	c.successor = func(context.Context) (*process.Process, <-chan bool, error) {
		return nil, nil, errors.New("not reached")
	}
	for range 3 { // until it meets the back-off, however long that is by now
		awaitStatus(t, c, "the back-off", func(s containerStatus) bool { return s.state == stateWaiting && s.restarts > 0 })
		err := c.hotRestart(t.Context())
		if err != nil && strings.Contains(err.Error(), "does not run") {
			break
		}
		if err == nil {
			t.Fatal("no error")
		}
	}
	end()
	if err := c.hotRestart(t.Context()); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("after the end: %v", err)
	}
}
