package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft.mesh/weft/node/cni"
)

type gone bool

func (g gone) Leaving(context.Context, string, string) bool { return bool(g) }

type noPod struct{}

func (noPod) Get(context.Context, string, string) (*corev1.Pod, error) { return &corev1.Pod{}, nil }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The agent answers before it is installed, is ready after that, and leaves the node as it was only if it goes for good.
func TestAgentComesAndGoes(t *testing.T) {
	const conflist = `{"cniVersion":"1.0.0","name":"podnet","plugins":[{"type":"bridge"}]}`
	for _, leaves := range []bool{true, false} {
		dir, err := os.MkdirTemp("", "cni") // a socket's path is at most 108 bytes
		check(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		o := options{node: "n1", namespace: "kube-system", daemonSet: "weft-cni-node", plugin: filepath.Join(dir, "weft-node"), binDir: filepath.Join(dir, "bin"),
			confDir: filepath.Join(dir, "net.d"), socket: filepath.Join(dir, "run", "agent.sock"), exclude: []string{"kube-system"}, health: "127.0.0.1:0", metrics: "127.0.0.1:0"}
		for _, d := range []string{"bin", "net.d", "run"} {
			check(t, os.Mkdir(filepath.Join(dir, d), 0o755))
		}
		check(t, os.WriteFile(o.plugin, []byte("plugin"), 0o755))
		file := filepath.Join(o.confDir, "10-bridge.conflist")
		check(t, os.WriteFile(file, []byte(conflist), 0o644))
		a := assemble(o, slog.New(slog.NewTextHandler(io.Discard, nil)))
		a.judge.Pods, a.leaver = noPod{}, gone(leaves)
		if code := readiness(a); code != http.StatusServiceUnavailable {
			t.Errorf("ready before it runs: %d", code)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.run(ctx) }()
		limit, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for readiness(a) != http.StatusOK {
			select {
			case err := <-done:
				t.Fatal(err)
			case <-limit.Done():
				t.Fatal("never ready")
			case <-time.After(5 * time.Millisecond):
			}
		}
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), o.socket) || !strings.Contains(string(b), `"agentPrefix": "weft-cni-node-"`) {
			t.Errorf("%v: %s", err, b)
		}
		if got, err := cni.Ask(limit, o.socket, cni.Pod{Namespace: "shop", Name: "web"}); err != nil || got.Why != "it is not injected" {
			t.Errorf("%+v, %v", got, err)
		}
		stop()
		check(t, <-done)
		b, err = os.ReadFile(file)
		check(t, err)
		if restored := string(b) == conflist; restored != leaves {
			t.Errorf("goes for good %t: %s", leaves, b)
		}
	}
}

func readiness(a *nodeAgent) int {
	w := httptest.NewRecorder()
	a.ready(w, nil)
	return w.Code
}

func TestFlagsAreChecked(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--repair=perhaps", "want repair, delete, label or none"},
		{"--log-level=loud", "want debug"},
		{"", "--node"},
		{"--node=n1", "--namespace"},
		{"--node=n1 --namespace=x --kubeconfig=/nobody/there", "kubernetes"},
		{"now", "unknown command"},
	} {
		var out bytes.Buffer
		c := rootCommand(&out, &out, func(string) string { return "" })
		c.SetArgs(strings.Fields(tt.args))
		if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.want)
		}
	}
}
