package proxytest

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"weft.mesh/weft/proxy/server"
)

// succeed starts the successor of a proxy. It has no control plane: what it serves is what the parent left on disk.
func (p *pair) succeed(t *testing.T, old *Proxy, name string, change ...func(*server.Settings)) *Proxy {
	t.Helper()
	return p.mesh.Start(Options{Name: name, Labels: map[string]string{"app": name}, Change: func(s *server.Settings) {
		s.XDS, s.StateDir, s.HotRestart = "127.0.0.1:1", old.StateDir(), true
		s.ParentDrain, s.ParentShutdown = 500*time.Millisecond, time.Second
		for _, f := range change {
			f(s)
		}
	}})
}

func ended(t *testing.T, p *Proxy) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the parent has not ended")
	}
}

func TestAHotRestartServesWhatTheParentServedLast(t *testing.T) {
	app := StartApp(t, "app")
	p := startPair(t, pairOptions{app: app.Port})
	l := startLoad(t, p.port, 4)
	p.caller.Push(routes(`{match: {path: /teapot}, direct_response: {status: 418}}, {match: {prefix: /}, route: {` + toAPI + `}}`))
	Until(t, "the new routes", func() bool { s, _, _, _ := TryCall("GET", p.port, "/teapot"); return s == 418 })
	var told atomic.Int32
	next := p.succeed(t, p.caller, "web", func(s *server.Settings) { s.Serving = func() { told.Add(1) } }) // long before the parent would have written its file by itself
	if next.Addrs()[0].String() != p.caller.Addrs()[0].String() {
		t.Errorf("admin moved from %s to %s", p.caller.Addrs()[0], next.Addrs()[0])
	}
	Until(t, "word that it serves", func() bool { return told.Load() == 1 })
	Until(t, "the successor's metrics", func() bool {
		text := next.Get("/stats/prometheus")
		return strings.Contains(text, "envoy_server_hot_restart_epoch 1\n") && strings.Contains(text, "envoy_server_hot_restart_generation 2\n")
	})
	if s, _, _ := Call(t, "GET", p.port, "/teapot"); s != 418 {
		t.Errorf("the parent's last routes: %d", s)
	}
	p.succeed(t, p.callee, "api") // with mutual TLS on both sides
	ended(t, p.caller)
	ended(t, p.callee)
	before := l.total.Load()
	Until(t, "requests after both parents ended", func() bool { return l.total.Load() > before+50 })
	l.check(t)
}

func TestAnInheritedSocketGoesOnToTheSuccessor(t *testing.T) {
	app := StartApp(t, "app")
	m := NewMesh(t)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	old := m.Start(Options{Name: "api", Config: calleeCluster + "\n---\n" + strings.Replace(calleeListenerHead, "127.0.0.1", "0.0.0.0", 1) + calleeHCM + calleePlaintext + calleeHCM,
		Vars:   map[string]any{"In": port, "App": app.Port, "RBAC": ""},
		Change: func(s *server.Settings) { s.Inherited = map[uint16]net.Listener{uint16(port): ln} }})
	if s, _, _ := Call(t, "GET", port, "/"); s != 200 {
		t.Fatalf("before: %d", s)
	}
	p := &pair{mesh: m}
	p.succeed(t, old, "api") // is started with no socket
	ended(t, old)
	if s, _, _ := Call(t, "GET", port, "/"); s != 200 {
		t.Errorf("after: %d", s)
	}
}

func TestAStateDirectoryHasOneProxyUnlessItIsTakenOver(t *testing.T) {
	app := StartApp(t, "app")
	p := startPair(t, pairOptions{app: app.Port})
	Until(t, "the socket", func() bool { _, err := os.Stat(p.caller.StateDir() + "/hot-restart.sock"); return err == nil })
	set := server.Settings{Role: "sidecar", Name: "web", Namespace: "default", IP: netip.MustParseAddr("127.0.0.1"), ServiceAccount: "web",
		XDS: "127.0.0.1:1", StateDir: p.caller.StateDir(), Identity: p.mesh.CA.Source(t, SPIFFE("web")), Credentials: insecure.NewCredentials()}
	if _, err := server.New(set); err == nil || !strings.Contains(err.Error(), "serves from it") || !strings.Contains(err.Error(), "--hot-restart") {
		t.Errorf("a second one: %v", err)
	}
	set.HotRestart, set.Name = true, "other"
	if _, err := server.New(set); err == nil || !strings.Contains(err.Error(), "refuses") {
		t.Errorf("another node: %v", err)
	}
	set.StateDir = ""
	if _, err := server.New(set); err == nil || !strings.Contains(err.Error(), "state directory") {
		t.Errorf("without a state directory: %v", err)
	}
	set.StateDir, set.ParentDrain, set.ParentShutdown = t.TempDir(), time.Minute, time.Second
	if _, err := server.New(set); err == nil || !strings.Contains(err.Error(), "shorter than its drain") {
		t.Errorf("durations the wrong way round: %v", err)
	}
	if s, _, _ := Call(t, "GET", p.port, "/"); s != 200 {
		t.Errorf("afterwards: %d", s)
	}
	state := p.caller.StateDir()
	p.caller.Stop()
	if _, err := os.Stat(state + "/hot-restart.sock"); err == nil {
		t.Error("the socket stays after the end")
	}
	again := p.mesh.Start(Options{Name: "web", Change: func(s *server.Settings) { s.XDS, s.StateDir, s.HotRestart = "127.0.0.1:1", state, true }})
	if !strings.Contains(again.Get("/stats/prometheus"), "envoy_server_hot_restart_epoch 0\n") {
		t.Error("with nobody to take over from it is no cold start")
	}
}

func TestServingIsSaidWhenTheProxyIsReady(t *testing.T) {
	m := NewMesh(t)
	var told atomic.Int32
	p := m.StartCold(Options{Name: "web", Config: "", Change: func(s *server.Settings) { s.Serving = func() { told.Add(1) } }})
	time.Sleep(50 * time.Millisecond)
	if told.Load() != 0 {
		t.Error("said without a configuration")
	}
	app := StartApp(t, "app")
	p.vars = map[string]any{"In": Port(t), "App": app.Port, "RBAC": ""}
	p.Push(calleeCluster + "\n---\n" + calleeListenerHead + calleeHCM)
	Until(t, "word that it serves", func() bool { return told.Load() == 1 })
}
