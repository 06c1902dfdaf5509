package pod

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"weft.mesh/weft/local/logs"
	"weft.mesh/weft/local/podspec"
	"weft.mesh/weft/local/probe"
	"weft.mesh/weft/local/process"
)

// A sidecar answers its probe while it drains. Who asked for the restart must
// not take that for the new run. The program is a real one, so is the time.
func TestAContainerIsNotReadyFromTheRequestToRestartUntilItsNextRun(t *testing.T) {
	log, err := logs.Open(filepath.Join(t.TempDir(), "log"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c := newContainer("app", log)
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: ok}
	go srv.Serve(ln)
	defer srv.Close()
	c.ready = &podspec.Probe{HTTP: &podspec.HTTPProbe{Host: "127.0.0.1", Port: uint16(ln.Addr().(*net.TCPAddr).Port), Path: "/"},
		Period: 10 * time.Millisecond, Timeout: time.Minute, SuccessThreshold: 1, FailureThreshold: 1}
	c.target = probe.Target{Dial: new(net.Dialer).DialContext}
	const drains = `trap 'sleep 0.5; exit' TERM; while :; do sleep 0.02; done`
	c.start = func(context.Context) (*process.Process, error) {
		return process.Start(nil, process.Spec{Argv: []string{"/bin/sh", "-c", drains}, Env: []string{"PATH=/bin:/usr/bin"}})
	}
	var swept int
	c.sweep = func(context.Context) { swept++ }
	ctx, cancel := context.WithCancel(t.Context())
	go c.run(ctx)
	defer func() { cancel(); <-c.done }()
	await := func(what string, f func(containerStatus) bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !f(c.read()); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within a minute: %s: %+v", what, c.read())
			}
		}
	}
	await("the first run is ready", func(s containerStatus) bool { return s.ready })
	time.Sleep(100 * time.Millisecond) // the shell sets its trap
	c.restartNow()
	await("the second run", func(s containerStatus) bool {
		if s.restarts == 0 && s.ready {
			t.Errorf("ready while it ends: %+v", s)
			return true
		}
		return s.restarts == 1
	})
	await("the second run is ready", func(s containerStatus) bool { return s.restarts == 1 && s.ready })
	if swept != 1 {
		t.Errorf("swept %d times, want once before the second run", swept)
	}
}
