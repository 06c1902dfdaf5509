package install_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/cli/install"
	"weft.mesh/weft/cli/kube"
)

// istioObjects is what of an Istio the API server sees: its injection webhooks (which nobody answers here), its
// certificate authority, the published root, and a namespace that it injects into.
const istioObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: old, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: moved, labels: {istio.io/rev: weft}}
---
apiVersion: v1
kind: Secret
metadata: {name: istio-ca-secret, namespace: istio-system}
type: istio.io/ca-root
data: {ca-cert.pem: ROOT}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-ca-root-cert, namespace: old, labels: {istio.io/config: "true"}}
data: {root-cert.pem: of Istio}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-sidecar-injector, labels: {app: sidecar-injector, istio.io/rev: default}}
webhooks:
- name: namespace.sidecar-injector.istio.io
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /inject, port: 443}}
  failurePolicy: Fail
  sideEffects: None
  admissionReviewVersions: [v1]
  rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]
  namespaceSelector: {matchExpressions: [{key: istio-injection, operator: In, values: [enabled]}]}
`

var plurals = map[string]schema.GroupVersionResource{
	"Namespace": {Version: "v1", Resource: "namespaces"}, "Secret": {Version: "v1", Resource: "secrets"}, "ConfigMap": {Version: "v1", Resource: "configmaps"},
	"ServiceAccount":               {Version: "v1", Resource: "serviceaccounts"},
	"MutatingWebhookConfiguration": {Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
}

// create makes the objects of some YAML, and returns them as they were stored.
func create(t *testing.T, c *kube.Cluster, text string) (out []*unstructured.Unstructured) {
	t.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			t.Fatal(err)
		}
		got, err := c.Dynamic.Resource(plurals[u.GetKind()]).Namespace(u.GetNamespace()).Create(t.Context(), u, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, got)
	}
	return out
}

// authority is a CA as `istio-ca-secret` holds one: its certificate and key, PEM in base64.
func authority(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"cluster.local"}}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * 365 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, b []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", private)
}

// docs/kubernetes/migrate-from-istio.md, as far as no pod has to run: what is in the way is named, step by step,
// nothing of Istio is touched, and each namespace has one of the two webhooks.
func TestBesideAnIstio(t *testing.T) {
	c := start(t)
	cert, key := authority(t)
	theirs := create(t, c, strings.Replace(strings.TrimSpace(istioObjects), "ROOT", cert, 1))
	in := &install.Installer{Cluster: c}
	finds := func(what string, p *install.Plan, want ...string) {
		t.Helper()
		var got []string
		for _, f := range in.Precheck(t.Context(), p) {
			got = append(got, f.Severity+": "+f.Message)
		}
		text := strings.Join(got, "\n")
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", what, w, text)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d findings, want %d:\n%s", what, len(got), len(want), text)
		}
	}
	finds("without a revision", plan(t, "minimal"), "error: mutatingwebhookconfiguration/istio-sidecar-injector injects into namespaces with the label istio-injection=enabled too",
		"error: the Istio in istio-system has a root of trust, and weft-system has none yet")
	finds("without the root", plan(t, "minimal", "revision=weft"), "error: the Istio in istio-system has a root of trust, and weft-system has none yet")
	if err := in.Install(t.Context(), plan(t, "minimal", "revision=weft")); err == nil {
		t.Error("it was installed with a root of its own")
	}
	create(t, c, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: weft-system}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: cacerts, namespace: weft-system}\ndata: {ca-cert.pem: %[1]s, root-cert.pem: %[1]s, cert-chain.pem: %[1]s, ca-key.pem: %[2]s}", cert, key))
	finds("with the root", plan(t, "minimal", "revision=weft"))
	run(t, in, func(ctx context.Context) error { return in.Install(ctx, plan(t, "minimal", "revision=weft")) })

	for _, o := range theirs {
		now, err := c.Dynamic.Resource(plurals[o.GetKind()]).Namespace(o.GetNamespace()).Get(t.Context(), o.GetName(), metav1.GetOptions{})
		if err != nil {
			t.Error(err)
			continue
		}
		a, _ := o.MarshalJSON()
		b, _ := now.MarshalJSON()
		if !bytes.Equal(a, b) {
			t.Errorf("%s %s was changed:\n%s\n%s", o.GetKind(), o.GetName(), a, b)
		}
	}
	// Nobody answers either webhook here: whose fails is whose was asked.
	asked := func(ns, want string) {
		t.Helper()
		create(t, c, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: "+ns+"}")
		pod := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "a"},
			"spec": map[string]any{"automountServiceAccountToken": false, "containers": []any{map[string]any{"name": "a", "image": "a"}}}}}
		_, err := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(ns).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), `failed calling webhook "`+want+`"`) {
			t.Errorf("a pod in %s: %v, want that %s is asked", ns, err, want)
		}
	}
	asked("old", "namespace.sidecar-injector.istio.io")
	asked("moved", "rev.namespace.sidecar-injector.weft.mesh")
}
