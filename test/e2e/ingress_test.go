package e2e

import (
	"strings"
	"testing"
)

// What outsiders reach on the machine's port, the mesh's own pods reach by the
// gateway's Service: by name, by another Host, by cluster address, with and
// without a sidecar.
func TestTheIngressGatewayIsReachableFromInsideTheMesh(t *testing.T) {
	requireProgram(t, "curl")
	e := newEnv(t)
	requireNamespaces(t, e)
	m := e.start("demo", "--no-load", "--ingress", e.ingress, "--console", e.console)
	m.ready("productpage-v1", "reviews-v1", "reviews-v2", "reviews-v3", "details-v1", "ratings-v1", "sleep", "weft-system/istio-ingressgateway", "legacy/sleep")
	var address string
	m.eventually(patience, "the gateway's name is known", func() (string, bool) {
		r := m.exec("sleep", "getent", "ahostsv4", "istio-ingressgateway.weft-system")
		address, _, _ = strings.Cut(r.stdout, " ")
		return describe(r), r.code == 0 && address != ""
	})
	const name = "http://istio-ingressgateway.weft-system"
	curl := []string{"curl", "-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code} %header{server}"}
	for _, tt := range []struct {
		name, pod string
		args      []string
	}{
		{"by the Service's name", "sleep", []string{name + "/productpage"}},
		{"with the Host of a site", "sleep", []string{name + "/productpage", "-H", "host: bookinfo.example"}},
		{"by the cluster address", "sleep", []string{"http://" + address + "/productpage"}},
		{"without a sidecar", "legacy/sleep", []string{name + "/productpage", "-H", "host: bookinfo.example"}},
	} {
		m.eventually(patience, "a page through the gateway "+tt.name, func() (string, bool) {
			r := m.exec(tt.pod, append(curl, tt.args...)...)
			return describe(r), strings.HasPrefix(r.stdout, "200 ")
		})
	}
	if code, _, err := m.get("/productpage"); code != 200 {
		t.Errorf("through the machine's port: answer %d, %v", code, err)
	}
}
