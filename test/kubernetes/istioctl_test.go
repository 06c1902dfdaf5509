package kubernetes_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// istioctlFile is the program of that name: $WEFT_ISTIOCTL, or Istio's release that the bed builds.
func istioctlFile(t *testing.T, m *kubetest.Mesh) string {
	t.Helper()
	if f := os.Getenv("WEFT_ISTIOCTL"); f != "" {
		return f
	}
	if err := m.Bed.Istioctl(t.Context()); err != nil {
		t.Fatalf("istioctl: %v", err)
	}
	return m.Bed.Bin("istioctl")
}

// istioctl runs it against the cluster; both of its streams are the answer.
func istioctl(ctx context.Context, m *kubetest.Mesh, file string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, file, append([]string{"--istioNamespace", kubetest.System}, args...)...)
	cmd.Env = m.Bed.Environment()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("istioctl %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

// What Istio's users look at with istioctl, they see of Weft as well.
func TestIstioctlFindsWhatItExpects(t *testing.T) {
	m := bookinfoMesh(t)
	file := istioctlFile(t, m)
	pods, err := m.Pods(t.Context(), "default", "productpage-v1")
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	pod := pods[0].Name + ".default"
	m.Eventually(t, time.Minute, "istioctl says that everything is in sync", func(ctx context.Context) error {
		out, err := istioctl(ctx, m, file, "proxy-status", pod)
		if err != nil {
			return err
		}
		for _, want := range []string{"Clusters Match", "Listeners Match", "Routes Match"} {
			if !strings.Contains(out, want) {
				return errors.New("no " + want + ":\n" + out)
			}
		}
		return nil
	})
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"version", []string{"control plane version", "data plane version"}},
		{"proxy-status", []string{pod, "CDS,LDS,EDS,RDS", "Kubernetes"}},
		{"proxy-status -v 1", []string{pod, "SYNCED"}},
		{"proxy-status -o json", []string{pod, "SYNCED"}},
		{"proxy-config cluster " + pod, []string{"reviews.default.svc.cluster.local", "9080", "outbound", "EDS", "inbound"}},
		{"proxy-config cluster -o json --fqdn reviews.default.svc.cluster.local " + pod, []string{`"outbound|9080||reviews.default.svc.cluster.local"`}},
		{"proxy-config listener " + pod, []string{"15001", "15006", "Route: 9080"}},
		{"proxy-config listener -o json " + pod, []string{`"virtualOutbound"`, `"virtualInbound"`}},
		{"proxy-config route " + pod, []string{"9080", "reviews.default"}},
		{"proxy-config route -o json --name 9080 " + pod, []string{`"reviews.default.svc.cluster.local:9080"`}},
		{"proxy-config endpoint " + pod, []string{"HEALTHY", "OK", "outbound|9080||reviews.default.svc.cluster.local"}},
		{"proxy-config endpoint -o json " + pod, []string{`"hostStatuses"`}},
		{"proxy-config secret " + pod, []string{"default", "ACTIVE", "Cert Chain", "ROOTCA", "CA"}},
		{"proxy-config secret -o json " + pod, []string{`"W3JlZGFjdGVkXQ=="`}}, // the key: [redacted]
		{"proxy-config bootstrap " + pod, []string{`"sidecar~`, `"adsConfig"`}},
		{"proxy-config log " + pod, []string{"weft-proxy: "}},
		{"proxy-config log --level debug " + pod, []string{"weft-proxy: debug"}},
		{"proxy-config log --level weft-proxy:info " + pod, []string{"weft-proxy: info"}},
		{"proxy-config all " + pod, []string{"cluster/outbound|9080||reviews", "listener/virtualInbound", "route/9080"}},
		{"proxy-config ecds " + pod, []string{"ECDS NAME"}},
		{"experimental internal-debug syncz", []string{pod}},
		{"experimental internal-debug --list", []string{"registryz", "config_dump"}},
		{"experimental internal-debug edsz?proxyID=" + pod, []string{"EndpointsConfigDump"}},
		{"experimental describe pod " + pods[0].Name, []string{"Service: productpage"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			out, err := istioctl(t.Context(), m, file, strings.Fields(tt.args)...)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%.4000s", want, out)
				}
			}
			if strings.Contains(out, "PRIVATE KEY") {
				t.Error("a private key is in it")
			}
		})
	}
}

// Istio's manuals ask a sidecar so, without istioctl.
func TestPilotAgentAsksTheProxy(t *testing.T) {
	m := bookinfoMesh(t)
	out, err := m.Cluster.Exec(t.Context(), "default", "deployment/sleep", "istio-proxy", "pilot-agent", "request", "GET", "server_info")
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ State string }
	if err := json.Unmarshal([]byte(out), &info); err != nil || info.State != "LIVE" {
		t.Errorf("%v: %s", err, out)
	}
}

// So they ask the control plane.
func TestPilotDiscoveryAsksTheControlPlane(t *testing.T) {
	m := bookinfoMesh(t)
	out, err := m.Cluster.Exec(t.Context(), kubetest.System, "deployment/weft", "", "pilot-discovery", "request", "GET", "/debug/syncz")
	if err != nil {
		t.Fatal(err)
	}
	var proxies []struct{ Proxy string }
	if err := json.Unmarshal([]byte(out), &proxies); err != nil {
		t.Fatalf("%v: %.1000s", err, out)
	}
	if !slices.ContainsFunc(proxies, func(p struct{ Proxy string }) bool { return strings.HasPrefix(p.Proxy, "productpage-v1-") }) {
		t.Errorf("no productpage in %.2000s", out)
	}
}
