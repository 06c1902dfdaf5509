package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// detailsRoute lets the load reach details through the ingress gateway and
// details' sidecar. n makes each version of it different.
func detailsRoute(n int) string {
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: details-load}
spec:
  hosts: ["*"]
  gateways: [bookinfo-gateway]
  http:
  - match: [{uri: {prefix: /details}}]
    headers: {response: {set: {x-change: "%d"}}}
    route: [{destination: {host: details, port: {number: 9080}}}]
`, n)
}

// underFire starts Bookinfo with a separate control plane and a route for the load.
func underFire(t *testing.T) *mesh {
	t.Helper()
	e := newEnv(t)
	requireNamespaces(t, e)
	m := e.start("demo", "--no-load", "--separate-control-plane", "--ingress", e.ingress, "--console", e.console)
	m.ready("details-v1", "productpage-v1", "weft-system/istio-ingressgateway", "sleep")
	m.applyText(detailsRoute(0))
	m.eventually(patience, "details through the ingress", func() (string, bool) {
		code, body, err := m.get("/details/0")
		return fmt.Sprint(code, body, err), code == 200
	})
	return m
}

func (m *mesh) loader(rate int) *loader {
	return newLoader("http://"+m.ingress+"/details/0", rate, `"author"`)
}

// controlPlane returns the process ID of the separate control plane.
func (m *mesh) controlPlane() int {
	for pid, line := range m.processes(m.bin) {
		if strings.Contains(line, "weft control-plane ") {
			return pid
		}
	}
	return 0
}

func TestKillingTheControlPlaneUnderLoadLosesNoRequest(t *testing.T) {
	m := underFire(t)
	underLoad(t, m.loader(500), 60*time.Second, func() {
		for range 3 {
			time.Sleep(5 * time.Second)
			pid := m.controlPlane()
			if pid == 0 {
				t.Error("no control plane process was found")
				return
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
		m.eventually(patience, "all proxies in sync with the new control plane", func() (string, bool) {
			r := m.weft("status")
			return r.stdout + r.stderr, r.code == 0 && m.inSync(r.stdout)
		})
		m.applyText(detailsRoute(1000))
	})
}

// inSync reads weft status: every proxy of the demo connected and synced.
func (m *mesh) inSync(table string) bool {
	proxies := 0
	for l := range strings.Lines(table) {
		if !strings.Contains(l, "cluster.local/ns/") {
			continue
		}
		proxies++
		if strings.Contains(l, "lost") || strings.Contains(l, "STALE") || strings.Contains(l, "REFUSED") || !strings.Contains(l, "SYNCED") {
			return false
		}
	}
	return proxies >= 8 // six of Bookinfo, sleep, ingress
}

func TestASidecarRestartedWithoutAControlPlaneServesItsLastGoodState(t *testing.T) {
	m := underFire(t)
	// Keep the control plane down by killing each one that comes up.
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			if pid := m.controlPlane(); pid != 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended already
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	m.eventually(patience, "the control plane is down", func() (string, bool) {
		return "", m.weft("status").code != 0
	})
	m.must("restart", "--pod", "details-v1", "-c", "istio-proxy")
	m.eventually(patience, "details is ready again", func() (string, bool) {
		r := m.weft("ps")
		return r.stdout, podReady(r.stdout, "default", "details-v1")
	})
	for range 20 {
		r := m.exec("sleep", "bookinfo", "client", "-o", "status", "-fresh", "http://details:9080/details/0")
		if strings.TrimSpace(r.stdout) != "200" {
			t.Fatalf("details through a sidecar that restarted without a control plane: %s", describe(r))
		}
	}
	if got := m.metric("details-v1", "istio_requests_total", `reporter="destination"`, `connection_security_policy="mutual_tls"`); len(got) == 0 {
		t.Error("the restarted sidecar does not serve mutual TLS")
	}
}

func TestTwoHundredRouteChangesUnderLoadLoseNoRequest(t *testing.T) {
	m := underFire(t)
	underLoad(t, m.loader(500), 0, func() {
		for i := range 200 {
			f := m.file("route.yaml", detailsRoute(i+1))
			m.must("apply", "-f", f)
		}
		m.applyText(detailsRoute(201))
	})
	code, _, err := m.get("/details/0")
	if err != nil || code != 200 {
		t.Errorf("after the changes: %d, %v", code, err)
	}
}

func TestScalingUnderLoadLosesNoRequest(t *testing.T) {
	m := underFire(t)
	pods := func(n int) {
		t.Helper()
		m.must("scale", "details-v1", "--replicas", fmt.Sprint(n))
		m.eventually(patience, fmt.Sprintf("%d pods of details", n), func() (string, bool) {
			out := m.must("ps", "-n", "default")
			ready, all := 0, 0
			for l := range strings.Lines(out) {
				if f := strings.Fields(l); len(f) > 3 && strings.HasPrefix(f[1], "details-v1-") {
					all++
					if f[2] == "2/2" && f[3] == "Running" {
						ready++
					}
				}
			}
			return out, ready == n && all == n
		})
	}
	underLoad(t, m.loader(500), 0, func() {
		pods(5)
		time.Sleep(3 * time.Second) // all five take load
		pods(1)
		time.Sleep(2 * time.Second)
	})
}
