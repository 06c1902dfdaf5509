package conformance

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/proxy/proxytest"
	"weft.mesh/weft/xds"
)

// localityMesh is one host for each way to prefer endpoints by place, with
// endpoints on loopback ports. The proxies are in eu/a.
const localityMesh = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec: {selector: {app: ingress}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
`

const localityHost = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %[1]s, namespace: default}
spec:
  hosts: [%[1]s.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
%[2]s---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %[1]s, namespace: default}
spec: {hosts: [%[1]s.test], gateways: [gw], http: [{retries: {attempts: 0}, route: [{destination: {host: %[1]s.test}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[1]s, namespace: default}
spec: {host: %[1]s.test, trafficPolicy: %[3]s}
---
`

// place is a backend of a host: its name, where it is, and whether it fails.
type placed struct {
	name, locality, labels string
	sick                   bool
}

// TestPlacesAreChosenAsEnvoyDoes compares where 2,000 requests go behind
// weft-proxy and behind Envoy, after endpoints that fail were ejected.
func TestPlacesAreChosenAsEnvoyDoes(t *testing.T) {
	envoy, err := exec.LookPath("envoy")
	if err != nil {
		t.Skip("SKIPPED: no envoy on PATH, so nothing compares weft-proxy with a real Envoy")
	}
	const eject = "outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 600s, maxEjectionPercent: 100}"
	hosts := map[string]struct {
		policy   string
		backends []placed
		want     map[string]int // of 1,000
	}{
		"nearest":  {"{" + eject + "}", []placed{{"near", "eu/a", "", false}, {"zone", "eu/b", "", false}, {"far", "us/a", "", false}}, map[string]int{"near": 1000}},
		"overflow": {"{" + eject + "}", []placed{{"near", "eu/a", "", false}, {"sick", "eu/a", "", true}, {"zone", "eu/b", "", false}}, map[string]int{"near": 700, "zone": 300}},
		"failover": {"{" + eject + ", loadBalancer: {localityLbSetting: {failover: [{from: eu, to: asia}]}}}",
			[]placed{{"sick", "eu/a", "", true}, {"us", "us/a", "", false}, {"asia", "asia/a", "", false}}, map[string]int{"asia": 1000}},
		"labels": {"{" + eject + ", loadBalancer: {localityLbSetting: {failoverPriority: [\"tier=gold\"]}}}",
			[]placed{{"sick", "us/a", "tier: gold", true}, {"gold", "us/a", "tier: gold", false}, {"lead", "eu/a", "tier: lead", false}}, map[string]int{"gold": 700, "lead": 300}},
		"share": {"{loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {distribute: [{from: eu/*, to: {eu/a: 70, us: 30}}]}}}",
			[]placed{{"near", "eu/a", "", false}, {"zone", "eu/b", "", false}, {"us1", "us/a", "", false}, {"us2", "us/b", "", false}}, map[string]int{"near": 700, "us1": 150, "us2": 150}},
		"sickshare": {"{" + eject + ", loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {distribute: [{from: eu/*, to: {eu/a: 50, us: 50}}]}}}",
			[]placed{{"near", "eu/a", "", false}, {"sick", "eu/a", "", true}, {"us1", "us/a", "", false}}, map[string]int{"near": 412, "us1": 588}},
	}
	hits := &hitCounter{n: map[string]int{}}
	yaml := localityMesh
	for name, h := range hosts {
		var eps strings.Builder
		for _, b := range h.backends {
			fmt.Fprintf(&eps, "  - {address: 127.0.0.1, ports: {http: %s}, locality: %s, labels: {%s}}\n", hits.backend(t, name, b), b.locality, b.labels)
		}
		yaml += fmt.Sprintf(localityHost, name, eps.String(), h.policy)
	}
	p := startLocalityProxies(t, envoy, yaml)
	for name, h := range hosts {
		for _, proxy := range []string{weftAddress, envoyAddress} {
			proxytest.Until(t, proxy+" ejects what fails of "+name, func() bool {
				for range 20 {
					p.get(t, proxy, name)
				}
				return hits.take(proxy, name)["sick"] == 0
			})
			for range 2 * 1000 {
				p.get(t, proxy, name)
			}
			got := hits.take(proxy, name)
			for _, b := range h.backends {
				// Where it is by chance, 6 % of 2,000 are more than five standard deviations.
				if d := got[b.name] - 2*h.want[b.name]; d < -120 || d > 120 {
					t.Errorf("%s: %s: %s got %d of 2000, want %d ± 120 (%v)", proxy, name, b.name, got[b.name], 2*h.want[b.name], got)
				}
			}
		}
	}
}

// startLocalityProxies starts both proxies, in eu/a.
func startLocalityProxies(t *testing.T, envoy, yaml string) *proxies {
	t.Helper()
	file := filepath.Join(t.TempDir(), "in.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	mesh := snapshot.Defaults(model.Mesh{})
	world := translate.New(snapshot.Build(snapshot.Empty(mesh), translatetest.Decode(t, file, mesh, convert.Options{}), time.Unix(0, 0)), mesh)
	p := &proxies{port: proxytest.Port(t)}
	node := xds.Node{
		ID: xds.NodeID(xds.Router, netip.MustParseAddr("127.0.0.1"), "ingress-1", "default", "default.svc.cluster.local"), Type: xds.Router,
		IP: netip.MustParseAddr("127.0.0.1"), Name: "ingress-1", Namespace: "default", Domain: "default.svc.cluster.local", Locality: "eu/a",
		Metadata: xds.Metadata{Namespace: "default", Labels: map[string]string{"app": "ingress"}},
	}
	theirs, ours := node, node
	ours.WeftProxy = true
	p.startEnvoy(t, envoy, bindTo(t, world, &theirs, envoyAddress, p.port))
	p.startWeft(t, xds.Router, bindTo(t, world, &ours, weftAddress, p.port))
	for _, a := range []string{weftAddress, envoyAddress} {
		proxytest.Until(t, a+" to serve", func() bool {
			resp, err := http.Get(fmt.Sprintf("http://%s:%d/", a, p.port))
			if err != nil {
				return false
			}
			resp.Body.Close()
			return true
		})
	}
	return p
}

func (p *proxies) get(t *testing.T, proxy, host string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s:%d/", proxy, p.port), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host + ".test"
	req.Header.Set("through", proxy)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

// hitCounter counts requests by proxy, host and backend.
type hitCounter struct {
	mu sync.Mutex
	n  map[string]int
}

// backend starts one and returns its port.
func (h *hitCounter) backend(t *testing.T, host string, b placed) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.n[r.Header.Get("through")+" "+host+" "+b.name]++
		h.mu.Unlock()
		if b.sick {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	return port
}

// take returns the counts of a proxy and host, by backend, and begins anew.
func (h *hitCounter) take(proxy, host string) map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]int{}
	for k, n := range h.n {
		if name, ok := strings.CutPrefix(k, proxy+" "+host+" "); ok {
			out[name] = n
			delete(h.n, k)
		}
	}
	return out
}
