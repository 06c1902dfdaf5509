package kubernetes_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

const ingressText = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: weft
  tls: [{hosts: [shop.ingress.example], secretName: shop}]
  rules:
  - host: shop.ingress.example
    http:
      paths:
      - {path: /details, pathType: Prefix, backend: {service: {name: details, port: {number: 9080}}}}
      - {path: /ratings, pathType: Prefix, backend: {service: {name: ratings, port: {name: http}}}}
      - {path: /gone, pathType: Exact, backend: {service: {name: gone, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: foreign}
spec:
  ingressClassName: somebody-else
  rules:
  - host: foreign.ingress.example
    http: {paths: [{path: "/v[12]", pathType: ImplementationSpecific, backend: {service: {name: details, port: {number: 9080}}}}]}
`

// An Ingress of the class weft gets an address, leads requests in the clear and by TLS to pods that take mTLS
// alone, and what is wrong with it is said. One of another class is left alone.
func TestAnIngressIsServed(t *testing.T) {
	m := kubetest.Install(t)
	ns := m.Namespace(t, "ingress", injected)
	m.ApplyFiles(t, ns, "samples/bookinfo/platform/bookinfo.yaml")
	m.Cluster.Apply(t, ns, `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict}, spec: {mtls: {mode: STRICT}}}`)
	roots := tlsSecret(t, m, ns, "shop", "shop.ingress.example")
	m.Cluster.Apply(t, ns, ingressText)
	for _, d := range []string{"details-v1", "ratings-v1"} {
		m.Kubectl(t, "-n", ns, "rollout", "status", "deployment/"+d, "--timeout=90s")
	}
	base := ingress(t, m)
	ip := strings.TrimPrefix(base, "http://")
	m.Eventually(t, 30*time.Second, "the gateway's address in the status", func(ctx context.Context) error {
		got, err := m.Try(ctx, "", "-n", ns, "get", "ingress/shop", "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}")
		if err == nil && got != ip {
			err = fmt.Errorf("%q, want %q", got, ip)
		}
		return err
	})
	if got := m.Field(t, ns, "ingress/foreign", "{.status.loadBalancer.ingress}"); got != "" {
		t.Errorf("another controller's Ingress got the address %s", got)
	}
	m.Eventually(t, 30*time.Second, "an answer through the Ingress", func(ctx context.Context) error { return answers(ctx, base+"/details/0", "shop.ingress.example") })
	for path, want := range map[string]int{"/ratings/0": 200, "/detailsandmore": 404, "/gone": 503, "/": 404} {
		if resp, body, err := getFrom(t.Context(), base+path, "shop.ingress.example"); err != nil || resp.StatusCode != want {
			t.Errorf("http://shop.ingress.example%s: %v, %v, want %d: %.100s", path, resp, err, want, body)
		}
	}
	if resp, _, err := getFrom(t.Context(), base+"/v1", "foreign.ingress.example"); err != nil || resp.StatusCode != 404 {
		t.Errorf("another controller's host: %v, %v", resp, err)
	}
	m.Eventually(t, 30*time.Second, "an answer by TLS", func(ctx context.Context) error {
		status, err := getTLS(ctx, ip, "shop.ingress.example", "/details/0", roots)
		if err == nil && status != 200 {
			err = fmt.Errorf("status %d", status)
		}
		return err
	})
	said(t, m, "an Ingress has not all of its effect", "Ingress "+ns+"/shop", "there is no Service "+ns+"/gone")

	// The webhook says what is wrong with ours, in the words of weft apply.
	bad := strings.NewReplacer("name: foreign", "name: bad", "somebody-else", "weft").Replace(ingressText[strings.Index(ingressText, "---"):])
	if out, err := m.Try(t.Context(), bad, "-n", ns, "apply", "-f", "-"); err == nil || !strings.Contains(err.Error()+out, "[invalid-regex]") {
		t.Errorf("a regular expression: %v %s", err, out)
	}

	m.Kubectl(t, "-n", ns, "delete", "ingress/shop")
	m.Eventually(t, 30*time.Second, "no answer without the Ingress", func(ctx context.Context) error {
		resp, _, err := getFrom(ctx, base+"/details/0", "shop.ingress.example")
		if err == nil && resp.StatusCode != 404 {
			return errors.New(resp.Status)
		}
		return nil // 404, or refused where nothing else is served on the port
	})
}

// tlsSecret puts a certificate for a host into a Secret; what it returns verifies it.
func tlsSecret(t *testing.T, m *kubetest.Mesh, ns, name, host string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": map[string]any{"name": name}, "data": map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}})
	if err != nil {
		t.Fatal(err)
	}
	m.Cluster.Apply(t, ns, string(text))
	roots := x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(cert)
	return roots
}

// getTLS asks a gateway for a host that no DNS knows.
func getTLS(ctx context.Context, ip, host, path string, roots *x509.CertPool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(ip, "443"))
		}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+path, nil)
	if err != nil {
		return 0, err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
