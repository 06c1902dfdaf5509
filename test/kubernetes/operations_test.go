package kubernetes_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// operationsFiles is a gateway with a route to nobody: what is there to be looked at.
const operationsFiles = `
apiVersion: v1
kind: Namespace
metadata: {name: operations}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: operations}
spec:
  gatewayClassName: weft
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Secret
metadata: {name: hidden, namespace: operations}
stringData: {tls.key: very-secret-text, tls.crt: x}
type: Opaque
`

// TestOperations: a Gateway is deployed and programmed, the commands that people
// look with work through the API server, and the Gateway's objects go with it.
func TestOperations(t *testing.T) {
	m := kubetest.Install(t)
	run := func(args ...string) string {
		t.Helper()
		out, err := m.RunWeft(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		m.Try(ctx, "", "delete", "namespace", "operations", "--ignore-not-found", "--wait=false")
	})
	if _, err := m.Try(t.Context(), operationsFiles, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Try(t.Context(), "", "-n", "operations", "wait", "--for=condition=Programmed", "--timeout=90s", "gateways.gateway.networking.k8s.io/edge"); err != nil {
		m.Explain(t.Context(), t, "operations")
		t.Fatal(err)
	}
	m.Eventually(t, 30*time.Second, "the gateway in weft status", func(context.Context) error {
		if out := run("status"); !strings.Contains(out, "Mesh           context ") || !strings.Contains(out, "edge-weft-") {
			return errors.New(out)
		}
		return nil
	})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"verify"}, "ok   deployment/weft"},
		{[]string{"ps", "-n", "operations"}, "edge-weft-"},
		{[]string{"proxy-config", "listeners", "-n", "operations", "edge-weft"}, "80"},
		{[]string{"proxy-config", "secrets", "-n", "operations", "edge-weft"}, "spiffe://cluster.local/ns/operations/sa/edge-weft"},
		{[]string{"logs", "-n", "operations", "edge-weft", "--tail", "5"}, ""},
		{[]string{"get", "gateways.gateway.networking.k8s.io", "-n", "operations"}, "edge"},
		{[]string{"tag", "list"}, "REVISION"},
		{[]string{"version"}, "control plane version:"},
	} {
		if out := run(c.args...); !strings.Contains(out, c.want) {
			t.Errorf("weft %s: no %q in\n%s", strings.Join(c.args, " "), c.want, out)
		}
	}
	file := filepath.Join(t.TempDir(), "report.tgz")
	run("bug-report", "-n", "operations", "--file", file)
	checkReport(t, file)
	if _, err := m.RunWeft(t.Context(), "scale", "edge-weft", "--replicas", "2"); err == nil || !strings.Contains(err.Error(), "kubectl scale") {
		t.Errorf("weft scale on a cluster: %v", err)
	}
	if _, err := m.Try(t.Context(), "", "-n", "operations", "delete", "gateways.gateway.networking.k8s.io/edge"); err != nil {
		t.Fatal(err)
	}
	m.Eventually(t, 60*time.Second, "the gateway's Deployment to go", func(ctx context.Context) error {
		if _, err := m.Try(ctx, "", "-n", "operations", "get", "deployment", "edge-weft"); err == nil {
			return errors.New("still there")
		}
		return nil
	})
}

// checkReport: it has what it should, and nothing secret.
func checkReport(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		seen[filepath.Base(h.Name)] = true
		for _, secret := range []string{"very-secret-text", "dmVyeS1zZWNyZXQtdGV4dA", "PRIVATE KEY"} {
			if strings.Contains(string(b), secret) {
				t.Errorf("%s holds %q", h.Name, secret)
			}
		}
		if filepath.Base(h.Name) == "missed.txt" && len(b) > 0 {
			t.Errorf("missed:\n%s", b)
		}
	}
	for _, name := range []string{"status.json", "objects.json", "config_dump.json", "configz.json", "log.txt"} {
		if !seen[name] {
			t.Errorf("no %s in the report", name)
		}
	}
}
