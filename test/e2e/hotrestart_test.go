package e2e

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The sidecar that is called, with its redirected listeners, and the gateway, with its socket
// from the machine, are replaced while they carry 500 requests per second on kept connections and some on new ones.
func TestHotRestartsUnderLoadLoseNoRequest(t *testing.T) {
	m := underFire(t)
	pods := []string{"details-v1", "weft-system/istio-ingressgateway"}
	fresh := m.loader(50) // a connection for each request: none may be refused
	fresh.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}}
	underLoad(t, fresh, 0, func() {
		underLoad(t, m.loader(500), 0, func() {
			for round := range 3 {
				for _, pod := range pods {
					began := time.Now()
					out := m.must("restart", "--pod", pod, "-c", "istio-proxy", "--hot")
					if !strings.Contains(out, "has taken over") {
						t.Errorf("restart says %q", out)
					}
					t.Logf("round %d: %s took over within %s", round+1, pod, time.Since(began).Round(time.Millisecond))
				}
				time.Sleep(500 * time.Millisecond)
			}
		})
	})
	for _, pod := range pods {
		if got := m.metric(pod, "envoy_server_hot_restart_epoch 3"); len(got) != 1 {
			t.Errorf("%s: epochs %q, want 3", pod, m.metric(pod, "envoy_server_hot_restart"))
		}
	}
	if st := m.must("status"); strings.Count(st, "details-v1") != 1 {
		t.Errorf("a proxy is shown more than once, or not at all:\n%s", st)
	}
	if r := m.weft("restart", "--pod", "details-v1", "-c", "details", "--hot"); r.code == 0 || !strings.Contains(r.stderr, "only istio-proxy") {
		t.Errorf("a program that is no proxy: %s", describe(r))
	}
	if r := m.weft("restart", "details-v1", "--hot"); r.code == 0 {
		t.Errorf("a Deployment: %s", describe(r))
	}
}
