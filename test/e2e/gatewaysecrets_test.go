package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// certificateSecret is a self-signed certificate for a host as a Secret.
func certificateSecret(t *testing.T, name, host string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		text := strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})))
		return "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
	}
	return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: default}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n%s  tls.key: |\n%s",
		name, block("CERTIFICATE", der), block("PRIVATE KEY", pkcs8))
}

const webGateway = `
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  gatewayClassName: weft
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 8443, protocol: HTTPS, hostname: www.example.com, tls: {certificateRefs: [{name: www}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec:
  parentRefs: [{name: web}]
  rules:
  - matches: [{path: {value: /old}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
    - {type: CORS, cors: {allowOrigins: ["https://shop.test"], allowMethods: [GET]}}
    backendRefs: [{name: web, port: 8000}]
  - matches: [{path: {value: /gone}}]
    backendRefs: [{name: nowhere, port: 8000}]
`

// The Gateway API with the real programs: a Gateway that the ingress gateway serves, a certificate from a Secret that is renewed.
func TestAGatewayTakesItsCertificateFromASecret(t *testing.T) {
	requireProgram(t, "curl", "python3")
	e := newEnv(t)
	requireNamespaces(t, e)
	dir := e.file("page.txt", "the page")
	dir = dir[:strings.LastIndexByte(dir, '/')]
	m := e.up(e.file("app.yaml", deployment("web", 8000, "http", "python3", "-m", "http.server", "8000", "--directory", dir)+
		deployment("client", 0, "", "sleep", "1d")+certificateSecret(t, "www", "www.example.com")+webGateway))
	m.ready("web", "client", "weft-system/istio-ingressgateway")
	m.eventually(patience, "a rewritten path", func() (string, bool) {
		code, body, err := m.get("/old/page.txt")
		return fmt.Sprint(code, body, err), code == 200 && strings.Contains(body, "the page")
	})
	if code, body, _ := m.get("/gone"); code != 500 {
		t.Errorf("a backend that does not exist: %d %s", code, body)
	}
	if code, body, _ := m.get("/oldish"); code != 404 {
		t.Errorf("a path that only begins like the prefix: %d %s", code, body)
	}
	gateway := m.podIP("weft-system", "istio-ingressgateway")
	curl := func(args ...string) string {
		r := m.exec("client", append([]string{"curl", "-skS", "--max-time", "60", "--resolve", "www.example.com:8443:" + gateway}, args...)...)
		return describe(r)
	}
	certificate := func() string { return curl("-v", "-o", "/dev/null", "https://www.example.com:8443/old/page.txt") }
	m.eventually(patience, "a certificate from the Secret", func() (string, bool) {
		out := certificate()
		return out, strings.Contains(out, "CN=www.example.com") && strings.Contains(out, "200")
	})
	out := curl("-i", "-X", "OPTIONS", "-H", "origin: https://shop.test", "-H", "access-control-request-method: GET", "https://www.example.com:8443/old/page.txt")
	if !strings.Contains(out, "access-control-allow-origin: https://shop.test") || !strings.Contains(out, "access-control-allow-methods: GET") {
		t.Errorf("a preflight: %s", out)
	}
	m.applyText(certificateSecret(t, "www", "renewed.example.com"))
	m.eventually(patience, "the renewed certificate", func() (string, bool) {
		out := certificate()
		return out, strings.Contains(out, "CN=renewed.example.com") && strings.Contains(out, "200")
	})
	if out := e.must("proxy-config", "secrets", "istio-ingressgateway", "-n", "weft-system", "-o", "json"); strings.Contains(out, "PRIVATE KEY") {
		t.Error("proxy-config shows a private key")
	}
}
