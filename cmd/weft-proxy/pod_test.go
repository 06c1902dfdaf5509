package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"weft.mesh/weft/proxy/server"
	"weft.mesh/weft/xds"
)

// podRoot is a pod's file system.
func podRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir() + "/"
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(root+name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// podEnv is what every injected pod has.
func podEnv(more ...string) []string {
	return append([]string{"KUBERNETES_SERVICE_HOST=10.96.0.1", "POD_NAME=reviews-v1-abc-1", "POD_NAMESPACE=shop", "INSTANCE_IP=10.244.1.5",
		"INSTANCE_IPS=10.244.1.5", "SERVICE_ACCOUNT=reviews", "TRUST_DOMAIN=mesh.test"}, more...)
}

// settingsOf is what a command line and an environment amount to.
func settingsOf(t *testing.T, root string, environ []string, args ...string) (*server.Settings, error) {
	t.Helper()
	return settingsFor(t, xds.Sidecar, root, environ, args...)
}

func settingsFor(t *testing.T, role xds.NodeType, root string, environ []string, args ...string) (*server.Settings, error) {
	t.Helper()
	env := func(k string) string {
		for _, kv := range environ {
			if v, ok := strings.CutPrefix(kv, k+"="); ok {
				return v
			}
		}
		return ""
	}
	var o options
	c := &cobra.Command{Use: "sidecar"}
	o.register(c, env)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	pod, err := o.readPod(env, environ, c.Flags().Changed, root)
	if err != nil {
		return nil, err
	}
	return o.settings(role, new(slog.LevelVar), io.Discard, pod)
}

func TestAPodIsKnownFromItsEnvironment(t *testing.T) {
	root := podRoot(t, map[string]string{
		fileToken: "first", fileRoot: "roots",
		fileLabels: "app=\"reviews\"\nversion=\"v1\"\nnote=\"a \\\"quoted\\\" one\"\n",
	})
	s, err := settingsOf(t, root, podEnv("ISTIO_META_CLUSTER_ID=c1", "ISTIO_META_WORKLOAD_NAME=reviews-v1", "ISTIO_META_NETWORK=n1",
		"ISTIO_META_INTERCEPTION_MODE=REDIRECT", "ISTIO_PROMETHEUS_ANNOTATIONS={\"scrape\":\"true\",\"path\":\"stats\",\"port\":\"9080\"}",
		`ISTIO_KUBE_APP_PROBERS={"/app-health/reviews/readyz":{"httpGet":{"path":"/","port":9080}}}`,
		`PROXY_CONFIG={"discoveryAddress":"weft-canary.weft-system.svc:15012","concurrency":3,"terminationDrainDuration":"20s","drainDuration":"30s","meshId":"m1",
		  "proxyMetadata":{"ISTIO_META_NETWORK":"other","ISTIO_META_OWNER":"x"},"holdApplicationUntilProxyStarts":true,"statNameLength":189,"gatewayTopology":{"numTrustedProxies":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	type known struct {
		Name, Namespace, IP, Account, Workload, TrustDomain, Cluster, XDS, Roots, App string
		Drain, MinDrain, Parent                                                       time.Duration
		Mark                                                                          int
	}
	got := known{s.Name, s.Namespace, s.IP.String(), s.ServiceAccount, s.Workload, s.TrustDomain, s.Cluster, s.XDS, s.CARootsFile, s.AppMetrics, s.Drain, s.MinDrain, s.ParentDrain, s.Mark}
	want := known{"reviews-v1-abc-1", "shop", "10.244.1.5", "reviews", "reviews-v1", "mesh.test", "c1", "weft-canary.weft-system.svc:15012",
		root + fileRoot, "http://localhost:9080/stats", 20 * time.Second, 20 * time.Second, 30 * time.Second, 0}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if d := cmp.Diff(map[string]string{"app": "reviews", "version": "v1", "note": `a "quoted" one`}, s.Labels); d != "" {
		t.Errorf("labels: -want +got:\n%s", d)
	}
	wantMeta := map[string]string{"CLUSTER_ID": "c1", "WORKLOAD_NAME": "reviews-v1", "NETWORK": "n1", "INTERCEPTION_MODE": "REDIRECT", "MESH_ID": "m1", "OWNER": "x", "INSTANCE_IPS": "10.244.1.5"}
	if d := cmp.Diff(wantMeta, s.Metadata); d != "" {
		t.Errorf("metadata: -want +got:\n%s", d)
	}
	if p := s.AppProbes["/app-health/reviews/readyz"]; p.HTTP == nil || p.HTTP.Port != 9080 {
		t.Errorf("probes: %+v", s.AppProbes)
	}
	for _, token := range []string{"first", "second"} { // kubelet rotates it
		if err := os.WriteFile(root+fileToken, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Token(); got != token || err != nil {
			t.Errorf("token = %q, %v, want %s", got, err, token)
		}
	}
}

func TestFlagsWinOverAPodsEnvironment(t *testing.T) {
	s, err := settingsOf(t, podRoot(t, nil), podEnv("PROXY_CONFIG=discoveryAddress: a:1\nterminationDrainDuration: 20s", "ISTIO_META_CLUSTER_ID=c1"),
		"--xds", "b:2", "--cluster", "c2", "--drain-duration", "3s", "--min-drain-duration", "1s", "--ip", "10.9.9.9", "--label", "app=mine")
	if err != nil {
		t.Fatal(err)
	}
	if s.XDS != "b:2" || s.Cluster != "c2" || s.Drain != 3*time.Second || s.MinDrain != time.Second || s.IP.String() != "10.9.9.9" || s.Labels["app"] != "mine" {
		t.Errorf("settings: %+v", s)
	}
}

func TestAPodWithoutMoreHasDefaults(t *testing.T) {
	s, err := settingsOf(t, podRoot(t, nil), podEnv())
	if err != nil {
		t.Fatal(err)
	}
	if s.XDS != defaultControlPlane || s.Drain != server.DefaultDrain || s.MinDrain != server.DefaultDrain || s.Token != nil || s.StateDir != "" || s.AppMetrics != "" {
		t.Errorf("settings: %+v", s)
	}
}

func TestDrainTimesOfAPod(t *testing.T) {
	for _, tt := range []struct {
		name       string
		env        []string
		least, all time.Duration
	}{
		{"all of the drain time", []string{"TERMINATION_DRAIN_DURATION_SECONDS=7"}, 7 * time.Second, 7 * time.Second},
		{"until the last connection", []string{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS=true"}, 5 * time.Second, untilKilled},
		{"until the last connection, at least", []string{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS=true", "MINIMUM_DRAIN_DURATION=2s"}, 2 * time.Second, untilKilled},
		{"not so", []string{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS=false"}, 5 * time.Second, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := settingsOf(t, podRoot(t, nil), podEnv(tt.env...))
			if err != nil {
				t.Fatal(err)
			}
			if s.MinDrain != tt.least || s.Drain != tt.all {
				t.Errorf("drains %v to %v, want %v to %v", s.MinDrain, s.Drain, tt.least, tt.all)
			}
		})
	}
}

func TestAPodsEnvironmentIsChecked(t *testing.T) {
	for _, tt := range []struct{ name, kv, want string }{
		{"a field that is not honoured", "PROXY_CONFIG=proxyStatsMatcher: {inclusionRegexps: [x]}", "proxyStatsMatcher: not supported by weft-proxy"},
		{"an empty one too", "PROXY_CONFIG=tracing: {}", "tracing: not supported"},
		{"no YAML", "PROXY_CONFIG={", "PROXY_CONFIG: no YAML"},
		{"a list", "PROXY_CONFIG=[]", "PROXY_CONFIG: no YAML"},
		{"a port", "PROXY_CONFIG=statusPort: 70000", "statusPort: 70000: want 1 to 65535"},
		{"a duration", "PROXY_CONFIG=drainDuration: soon", `drainDuration: "soon"`},
		{"a number", "PROXY_CONFIG=concurrency: -1", "concurrency: -1"},
		{"too long", "PROXY_CONFIG=meshId: " + strings.Repeat("x", maxProxyConfig), "at most"},
		{"probes", "ISTIO_KUBE_APP_PROBERS={", "ISTIO_KUBE_APP_PROBERS: app probes"},
		{"annotations", "ISTIO_PROMETHEUS_ANNOTATIONS={", "ISTIO_PROMETHEUS_ANNOTATIONS"},
		{"a page that is its own", `ISTIO_PROMETHEUS_ANNOTATIONS={"port":"15020"}`, "ask itself"},
		{"a port of metrics", `ISTIO_PROMETHEUS_ANNOTATIONS={"port":"http"}`, `port "http"`},
		{"interception", "ISTIO_META_INTERCEPTION_MODE=TPROXY", "only REDIRECT"},
		{"names", "ISTIO_META_DNS_CAPTURE=ALL", `ISTIO_META_DNS_CAPTURE "ALL": want true or false`},
		{"names without allocated addresses", `PROXY_CONFIG={"proxyMetadata":{"ISTIO_META_DNS_CAPTURE":"true","ISTIO_META_DNS_AUTO_ALLOCATE":"false"}}`, "keeps a ServiceEntry without an address"},
		{"a drain time", "TERMINATION_DRAIN_DURATION_SECONDS=-1", "want a number of seconds"},
		{"a least drain time", "EXIT_ON_ZERO_ACTIVE_CONNECTIONS=perhaps", "want true or false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := settingsOf(t, podRoot(t, nil), podEnv(tt.kv)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := settingsOf(t, podRoot(t, map[string]string{fileLabels: "app=reviews\n"}), podEnv()); err == nil || !strings.Contains(err.Error(), "want key=") {
		t.Errorf("labels without quotes: %v", err)
	}
	var many []string
	for i := range maxMetadata + 1 {
		many = append(many, "ISTIO_META_"+strings.Repeat("A", i+1)+"=1")
	}
	if _, err := settingsOf(t, podRoot(t, nil), podEnv(many...)); err == nil || !strings.Contains(err.Error(), "more than 128") {
		t.Errorf("too much metadata: %v", err)
	}
}

func TestInstanceIP(t *testing.T) {
	for _, tt := range []struct{ list, ip, want string }{
		{"10.0.0.1,fd00::1", "10.0.0.1", "10.0.0.1"}, {"fd00::1,10.0.0.1", "fd00::1", "10.0.0.1"}, {"", "10.0.0.1", "10.0.0.1"}, {"fd00::1", "", "fd00::1"},
	} {
		if got := instanceIP(tt.list, tt.ip); got != tt.want {
			t.Errorf("instanceIP(%q, %q) = %q, want %q", tt.list, tt.ip, got, tt.want)
		}
	}
}

func TestWaitEndsWhenTheProxyIsReady(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			http.Error(w, "not ready: no certificate yet", http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	wait := func(args ...string) error {
		c := rootCommand(io.Discard, io.Discard, func(string) string { return "" })
		c.SetArgs(append([]string{"wait", "--url", s.URL, "--period", "5ms", "--request-timeout", "1m"}, args...))
		return c.ExecuteContext(t.Context())
	}
	if err := wait(); err != nil || asked.Load() != 3 {
		t.Errorf("%v after %d questions", err, asked.Load())
	}
	asked.Store(-1 << 20)
	if err := wait("--timeout", "50ms"); err == nil || !strings.Contains(err.Error(), "not ready after 50ms") {
		t.Errorf("error = %v", err)
	}
	if err := wait("--timeout", "0s"); err == nil || !strings.Contains(err.Error(), "want more than 0") {
		t.Errorf("error = %v", err)
	}
}

func TestDrainPostsAndMayWaitForQuiet(t *testing.T) {
	for _, tt := range []struct{ args, seen, err string }{
		{"", "POST /drain", ""},
		{"--quiet 3s --most 50s", "POST /drain, GET /drain/quiet?quiet=3s&most=50s", ""},
		{"--quiet 3s", "POST /drain, GET /drain/quiet?quiet=3s&most=3s", ""},
		{"--quiet 1h", "POST /drain, GET /drain/quiet?quiet=1h0m0s&most=1h0m0s", "too long"},
		{"--most 3s", "", "--most only with --quiet"},
		{"--quiet -1s", "", "want more than 0"},
	} {
		var seen []string
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = append(seen, r.Method+" "+r.URL.String())
			if strings.Contains(r.URL.RawQuery, "1h") {
				http.Error(w, "too long", http.StatusBadRequest)
			}
		}))
		c := rootCommand(io.Discard, io.Discard, func(string) string { return "" })
		c.SetArgs(append([]string{"drain", "--status-port", s.URL[strings.LastIndexByte(s.URL, ':')+1:]}, strings.Fields(tt.args)...))
		err := c.ExecuteContext(t.Context())
		s.Close()
		if got := strings.Join(seen, ", "); got != tt.seen || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("drain %s: asked %q, want %q; error %v, want %q", tt.args, got, tt.seen, err, tt.err)
		}
	}
}
