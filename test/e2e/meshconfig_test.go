package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// A MeshConfig file says what the whole mesh does: here a trust domain, a JSON
// access log with fields of its own, and that unknown hosts are out of reach. The control
// plane is a process of its own, which must come to the same.
func TestAMeshConfigFileIsHonoured(t *testing.T) {
	requireProgram(t, "curl", "python3")
	e := newEnv(t)
	requireNamespaces(t, e)
	config := e.file("mesh.yaml", `trustDomain: shop.example
accessLogFile: /dev/stdout
accessLogEncoding: JSON
accessLogFormat: '{"verb": "%REQ(:METHOD)%", "code": "%RESPONSE_CODE%", "to": "%UPSTREAM_CLUSTER%"}'
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
defaultConfig: {tracing: {sampling: 100}}
`)
	m := e.up("--separate-control-plane", "--mesh-config", config, e.file("app.yaml",
		deployment("web", 8000, "http", "python3", "-m", "http.server", "8000")+deployment("client", 0, "", "sleep", "1d")))
	m.ready("web", "client")
	m.eventually(patience, "a page", func() (string, bool) {
		r := m.exec("client", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://web:8000/")
		return describe(r), r.stdout == "200"
	})
	m.eventually(patience, "a line of the access log in JSON", func() (string, bool) {
		r := m.weft("logs", "client", "-c", "istio-proxy")
		for line := range strings.Lines(r.stdout) {
			var l map[string]any
			if json.Unmarshal([]byte(line), &l) == nil && l["verb"] == "GET" && l["code"] == float64(200) && len(l) == 3 {
				return "", true
			}
		}
		return describe(r), false
	})
	m.wantCounted("web", "istio_requests_total{", `source_principal="spiffe://shop.example/ns/default/sa/client"`)
	if r := m.exec("client", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "host: unknown.example", "http://web:8000/"); r.stdout != "502" {
		t.Errorf("a host that nobody knows: %s", describe(r))
	}
	for text, want := range map[string]string{
		"enableTracing: false\n":          "enableTracing: not supported",
		"accessLogFormat: '%CEL(a.b)%'\n": "accessLogFormat",
		"outboundTrafficPolicy: {mode: X": "no YAML",
	} {
		if r := e.weft("up", "--mesh-config", e.file("bad.yaml", text)); r.code == 0 || !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "fix:") {
			t.Errorf("%s: %s", text, describe(r))
		}
	}
}
