package kubernetes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/test/kubernetes/kubetest"
)

// What is wrong in a cluster is said where one looks for it, and takes no traffic down: a load through the gateway runs
// through all of it.
func TestWhatIsWrongIsSaidAndTrafficFlows(t *testing.T) {
	const rate = 20
	m := kubetest.Install(t)
	ns := m.Namespace(t, "wrong", injected)
	m.ApplyFiles(t, ns, "test/kubernetes/testdata/wrong.yaml")
	m.Cluster.Ready(t, ns)
	page := ingress(t, m)
	m.Eventually(t, 30*time.Second, "an answer through the gateway", func(ctx context.Context) error { return answers(ctx, page, "wrong.example") })
	start := time.Now()
	stop := kubetest.Load{URL: page, Host: "wrong.example", Rate: rate}.Start(t)
	for _, c := range []struct {
		name string
		do   func(*testing.T, *kubetest.Mesh, string)
	}{
		{"a certificate that cannot be read", unreadableCertificate},
		{"a certificate authority that has expired", expiredAuthority},
		{"rights that are missing", missingRights},
		{"pods without a network of their own", podsWithoutNetwork},
		{"an Istio that injects as well", anotherIstio},
	} {
		t.Run(c.name, func(t *testing.T) { c.do(t, m, ns) })
	}
	kubetest.Lossless(t, "from outside through the gateway", stop(), rate, time.Since(start))
}

func answers(ctx context.Context, url, host string) error {
	resp, body, err := getFrom(ctx, url, host)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s %.200s", resp.Status, body)
	}
	return err
}

// The listener that wants it says so; its neighbour serves.
func unreadableCertificate(t *testing.T, m *kubetest.Mesh, ns string) {
	m.Cluster.Apply(t, ns, `
apiVersion: v1
kind: Secret
metadata: {name: garbage}
stringData: {tls.crt: no certificate, tls.key: no key}
type: Opaque
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: tls}
spec:
  gatewayClassName: weft
  listeners:
  - {name: good, port: 80, protocol: HTTP}
  - {name: garbage, port: 443, protocol: HTTPS, hostname: a.example, tls: {certificateRefs: [{name: garbage}]}}
  - {name: missing, port: 443, protocol: HTTPS, hostname: b.example, tls: {certificateRefs: [{name: nobody}]}}
`)
	m.Kubectl(t, "-n", ns, "wait", "--for=condition=Programmed", "gateways.gateway.networking.k8s.io/tls", "--timeout=90s")
	for listener, word := range map[string]string{"garbage": "garbage", "missing": "nobody"} {
		path := `{.status.listeners[?(@.name=="` + listener + `")].conditions[?(@.type=="ResolvedRefs")]}`
		var c struct{ Status, Reason, Message string }
		if err := json.Unmarshal([]byte(m.Field(t, ns, "gateways.gateway.networking.k8s.io/tls", path)), &c); err != nil {
			t.Fatal(err)
		}
		if c.Status != "False" || c.Reason != "InvalidCertificateRef" || !strings.Contains(c.Message, word) {
			t.Errorf("listener %s: %+v, want InvalidCertificateRef with the Secret's name", listener, c)
		}
	}
	m.Kubectl(t, "-n", ns, "delete", "gateways.gateway.networking.k8s.io/tls")
}

// A key that cannot sign is refused, with a line in the log; the one before signs on.
func expiredAuthority(t *testing.T, m *kubetest.Mesh, ns string) {
	key, err := ca.Generate("cluster.local", time.Now().AddDate(-20, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "cacerts"},
		"data": map[string][]byte{"ca-key.pem": key.Key, "ca-cert.pem": key.Cert, "root-cert.pem": key.Cert}})
	if err != nil {
		t.Fatal(err)
	}
	m.Cluster.Apply(t, kubetest.System, string(secret))
	defer m.Try(context.Background(), "", "-n", kubetest.System, "delete", "secret", "cacerts")
	said(t, m, "a changed key is refused, the one before signs on", "cacerts", "expired at")
	if out, err := m.RunWeft(t.Context(), "precheck"); err == nil || !strings.Contains(out+err.Error(), "certificate authority: secret weft-system/cacerts cannot be used") {
		t.Errorf("weft precheck: %v\n%s", err, out)
	}
	m.Kubectl(t, "-n", ns, "rollout", "restart", "deployment/web")
	m.Cluster.Ready(t, ns) // new pods get certificates
}

// said waits for words in the log of a replica of the control plane.
func said(t *testing.T, m *kubetest.Mesh, words ...string) {
	t.Helper()
	m.Eventually(t, time.Minute, strings.Join(words, " … "), func(ctx context.Context) error {
		pods, err := m.Pods(ctx, kubetest.System, "weft")
		if err != nil {
			return err
		}
		for _, p := range pods {
			log, err := m.Try(ctx, "", "-n", kubetest.System, "logs", p.Name)
			if err != nil {
				return err
			}
			for line := range strings.Lines(log) {
				found := true
				for _, w := range words {
					found = found && strings.Contains(line, w)
				}
				if found {
					return nil
				}
			}
		}
		return errors.New("no replica has said it")
	})
}

// A replica that may not read what it needs says which right it lacks and does not become ready, so the rollout
// stops and the one before goes on.
func missingRights(t *testing.T, m *kubetest.Mesh, ns string) {
	const role = "clusterrole/weft-control-plane"
	before := m.Kubectl(t, "get", role, "-o", "json")
	restore := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if _, err := m.Try(ctx, before, "replace", "-f", "-"); err != nil {
			t.Error(err)
		}
		if _, err := m.Try(ctx, "", "-n", kubetest.System, "rollout", "status", "deployment/weft", "--timeout=90s"); err != nil {
			t.Error(err)
		}
	}
	// The version would be in the way of writing it back.
	var o map[string]any
	if err := json.Unmarshal([]byte(before), &o); err != nil {
		t.Fatal(err)
	}
	delete(o["metadata"].(map[string]any), "resourceVersion")
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	before = string(text)
	t.Cleanup(restore)
	without := strings.Replace(before, `"secrets"`, `"secretsnomore"`, 1)
	if without == before {
		t.Fatal("the role has no right on secrets: " + before)
	}
	if _, err := m.Try(t.Context(), without, "replace", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	m.Kubectl(t, "-n", kubetest.System, "rollout", "restart", "deployment/weft")
	said(t, m, "a resource may not be read", "resource=secrets", "grant get, list and watch")
	if ready := m.Field(t, kubetest.System, "deployment/weft", "{.status.availableReplicas}"); ready != "1" {
		t.Errorf("available replicas: %q, want the one of before", ready)
	}
	// It serves: a change reaches the gateway.
	m.Kubectl(t, "-n", ns, "patch", "virtualservice", "web", "--type=json", "-p",
		`[{"op":"add","path":"/spec/http/0/headers","value":{"response":{"set":{"x-changed":"yes"}}}}]`)
	m.Eventually(t, 30*time.Second, "a change while the rollout stands", func(ctx context.Context) error {
		resp, _, err := getFrom(ctx, ingress(t, m), "wrong.example")
		if err == nil && resp.Header.Get("X-Changed") != "yes" {
			err = errors.New("the gateway has not got it")
		}
		return err
	})
}

// A pod in its node's network gets no sidecar, which would capture the node's; one that
// has no address yet is nobody's endpoint.
func podsWithoutNetwork(t *testing.T, m *kubetest.Mesh, ns string) {
	_, err := m.Try(t.Context(), `
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: "localhost/testapp:1", args: [load, "http://127.0.0.1:1/", "1"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: nowhere, labels: {app: web}}
spec:
  nodeSelector: {kubernetes.io/hostname: node9}
  containers: [{name: app, image: "localhost/testapp:1"}]
`, "-n", ns, "apply", "--warnings-as-errors", "-f", "-")
	if err == nil || !strings.Contains(err.Error(), "the pod gets no sidecar: a host network pod has no network of its own") {
		t.Errorf("a pod in its node's network: %v, want a warning", err)
	}
	m.Kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/host", "--timeout=60s")
	if names := m.Field(t, ns, "pod/host", "{.spec.initContainers[*].name}{.spec.containers[*].name}"); names != "app" {
		t.Errorf("containers of a pod in its node's network: %s", names)
	}
	if names := m.Field(t, ns, "pod/nowhere", "{.spec.initContainers[*].name}"); !strings.Contains(names, "istio-proxy") {
		t.Errorf("init containers of a pod that waits for a node: %s", names)
	}
	m.Kubectl(t, "-n", ns, "delete", "pod", "host", "nowhere")
}

// weft precheck names the webhook that would give pods a second sidecar.
func anotherIstio(t *testing.T, m *kubetest.Mesh, _ string) {
	m.Cluster.Apply(t, "", `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-sidecar-injector}
webhooks:
- name: namespace.sidecar-injector.istio.io
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /inject}}
  failurePolicy: Ignore
  timeoutSeconds: 1
  sideEffects: None
  admissionReviewVersions: [v1]
  namespaceSelector: {matchExpressions: [{key: istio-injection, operator: In, values: [enabled]}]}
  objectSelector: {matchLabels: {nobody: has}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
`)
	defer m.Try(context.Background(), "", "delete", "mutatingwebhookconfiguration", "istio-sidecar-injector")
	out, err := m.RunWeft(t.Context(), "precheck")
	if err == nil || !strings.Contains(out+err.Error(), "mutatingwebhookconfiguration/istio-sidecar-injector injects into namespaces with the label istio-injection=enabled too") {
		t.Errorf("weft precheck: %v\n%s", err, out)
	}
}
