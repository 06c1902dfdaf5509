package pod

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/local/network"
	"weft.mesh/weft/local/podspec"
)

func newPod(t *testing.T, c Config) *Pod {
	t.Helper()
	env := &Env{StateDir: t.TempDir(), Domain: "cluster.local", TrustDomain: "td", Cluster: "Kubernetes", XDSAddress: "10.97.0.1:15012",
		RootFile: "/r.pem", Network: &network.Network{Node: netip.MustParsePrefix("10.97.0.1/16")}, ProxyPath: "/bin/weft-proxy", DrainTimeout: 10 * time.Second, Log: slog.New(slog.DiscardHandler)}
	c.OnChange = func() {}
	p, err := New(env, c)
	if err != nil {
		t.Fatal(err)
	}
	p.ip = netip.MustParseAddr("10.97.0.5")
	return p
}

// The proxy's command line is a contract with weft-proxy.
func TestProxyArgs(t *testing.T) {
	spec := podspec.Spec{Namespace: "shop", Name: "web", Labels: map[string]string{"app": "web", "version": "v2"}, ServiceAccount: "web-sa", Grace: 30 * time.Second,
		Containers: []podspec.Container{{Name: "app"}}}
	p := newPod(t, Config{Name: "web-abc-1", Hash: "abc", Spec: spec, Sidecar: true})
	dir := p.env.StateDir + "/proxies/shop_web-abc-1"
	want := []string{"/bin/weft-proxy", "sidecar", "--id", "web-abc-1", "--namespace", "shop", "--ip", "10.97.0.5", "--service-account", "web-sa",
		"--workload", "web", "--xds", "10.97.0.1:15012", "--ca-root", dir + "/ca-root.pem", "--token-file", dir + "/join-token", "--state-dir", dir,
		"--trust-domain", "td", "--domain", "cluster.local", "--cluster", "Kubernetes", "--access-log-file", "/dev/stdout",
		"--dns-server", "10.97.0.1:15053", "--drain-duration", "10s",
		"--label", "app=web", "--label", "pod-template-hash=abc", "--label", "security.istio.io/tlsMode=istio",
		"--label", "service.istio.io/canonical-name=web", "--label", "service.istio.io/canonical-revision=v2", "--label", "version=v2"}
	if d := cmp.Diff(want, p.proxyArgs(nil)); d != "" {
		t.Error(d)
	}
	spec.Gateway, spec.Containers = true, []podspec.Container{{Name: podspec.ProxyContainer}}
	gw := newPod(t, Config{Name: "gw-1", Spec: spec})
	args := strings.Join(gw.proxyArgs([]uint16{80, 8443}), " ")
	if !strings.Contains(args, "weft-proxy gateway ") || !strings.HasSuffix(args, "--inherit-listener 80=3 --inherit-listener 8443=4") {
		t.Errorf("gateway: %s", args)
	}
}

func TestHostPortsThatAreNotOpenAreAnError(t *testing.T) {
	p := newPod(t, Config{Name: "gw-1", Spec: podspec.Spec{Gateway: true, Containers: []podspec.Container{{Name: podspec.ProxyContainer}}}})
	_, _, err := p.hostListeners([]podspec.Port{{Port: 80}, {Port: 443, HostPort: 8443}})
	if err == nil || !strings.Contains(err.Error(), "host port 8443 is not open") {
		t.Errorf("got %v", err)
	}
}

func TestMetadata(t *testing.T) {
	labels := map[string]string{"app": "web"}
	tests := []struct {
		name    string
		c       Config
		labels  map[string]string
		sidecar bool
	}{
		{"a pod without proxy gets the hash only", Config{Hash: "h", Spec: podspec.Spec{Name: "d", Labels: labels}},
			map[string]string{"app": "web", "pod-template-hash": "h"}, false},
		{"a sidecar makes the pod one that speaks mTLS", Config{Hash: "h", Sidecar: true, Spec: podspec.Spec{Name: "d", Labels: labels}},
			map[string]string{"app": "web", "pod-template-hash": "h", "security.istio.io/tlsMode": "istio",
				"service.istio.io/canonical-name": "web", "service.istio.io/canonical-revision": "latest"}, true},
		{"what the template says of its name stays; a gateway is no sidecar that speaks mTLS", Config{Hash: "h", Spec: podspec.Spec{Name: "d", Gateway: true, Labels: map[string]string{
			"service.istio.io/canonical-name": "n", "app.kubernetes.io/version": "9"}}},
			map[string]string{"app.kubernetes.io/version": "9", "pod-template-hash": "h",
				"service.istio.io/canonical-name": "n", "service.istio.io/canonical-revision": "9"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, notes := metadata(tt.c)
			if d := cmp.Diff(tt.labels, got); d != "" {
				t.Error(d)
			}
			if _, ok := notes[podspec.AnnotationSidecarStatus]; ok != tt.sidecar {
				t.Errorf("annotations: %v", notes)
			}
		})
	}
	if len(labels) != 1 {
		t.Errorf("the template's labels were changed: %v", labels)
	}
}

func TestRestartDelays(t *testing.T) {
	want := []time.Duration{200, 400, 800, 1600, 3200, 6400, 10000, 10000}
	for i, w := range want {
		if got := restartDelay.Delay(i, 0.5); got != w*time.Millisecond {
			t.Errorf("retry %d: %s, want %s", i, got, w*time.Millisecond)
		}
	}
}
