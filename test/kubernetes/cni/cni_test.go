// Package cni_test runs the node agent on a real cluster: pods of the restricted
// Pod Security standard in the mesh, a pod that started before the agent, an
// agent that is away, taints, and what is left on a node when the agent goes.
//
// It installs a revision of its own beside the one that other tests use, and removes it.
package cni_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"weft.mesh/weft/test/kubernetes/kubetest"
	"weft.mesh/weft/test/kubernetes/testbed"
)

const (
	conflist  = "/etc/cni/net.d/10-bridge.conflist"
	namespace = "cni-shop"
)

// sleeper is a pod that the restricted standard lets in.
const sleeper = `
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %[1]s}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: sleep
    image: weft.mesh/bookinfo:latest
    imagePullPolicy: IfNotPresent
    command: [bookinfo, sleep]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

// bed is the cluster with the test's revision.
type bed struct {
	*kubetest.Mesh
	t *testing.T
}

func (b *bed) node(n testbed.Node, argv ...string) string {
	b.t.Helper()
	c, err := b.Bed.Inside(b.t.Context(), n, argv...)
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := c.CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v: %v\n%s", n, argv, err, out)
	}
	return string(out)
}

// install installs the revision; more are values.
func (b *bed) install(more ...string) {
	b.t.Helper()
	sets := append([]string{"install", "--profile", "minimal", "--set", "revision=cni,global.tag=test,cni.enabled=true,cni.taint.enabled=true"}, more...)
	out, err := b.RunWeft(b.t.Context(), sets...)
	if err != nil {
		b.Explain(b.t.Context(), b.t, "kube-system")
		b.t.Fatal(err)
	}
	b.t.Logf("weft %s\n%s", strings.Join(sets, " "), out)
}

// ready waits for a pod to be so.
func (b *bed) ready(pod string) {
	b.t.Helper()
	b.Kubectl(b.t, "-n", namespace, "wait", "--for=condition=Ready", "--timeout=90s", "pod/"+pod)
}

// manifests are the sample's, with the security contexts that the restricted standard asks for.
func restrictedBookinfo(t *testing.T, c *kubetest.Cluster) string {
	t.Helper()
	var out strings.Builder
	for _, f := range []string{"bookinfo.yaml", "sleep.yaml"} {
		b, err := os.ReadFile(filepath.Join(c.Bed.Module, "samples/bookinfo/platform", f))
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range strings.Split(string(b), "\n---\n") {
			var o map[string]any
			if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
				t.Fatal(err)
			}
			if o["kind"] == "Deployment" {
				spec := o["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
				spec["securityContext"] = map[string]any{"runAsNonRoot": true, "seccompProfile": map[string]any{"type": "RuntimeDefault"}}
				for _, ct := range spec["containers"].([]any) {
					ct.(map[string]any)["securityContext"] = map[string]any{"allowPrivilegeEscalation": false, "capabilities": map[string]any{"drop": []string{"ALL"}}}
				}
			}
			b, err := yaml.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, "---\n%s", b)
		}
	}
	return out.String()
}

func TestTheNodeAgent(t *testing.T) {
	b := &bed{kubetest.Install(t), t}
	before := map[testbed.Node]string{}
	for _, n := range b.Bed.Nodes() {
		before[n] = b.node(n, "cat", conflist)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if t.Failed() {
			b.Explain(ctx, t, "kube-system")
		}
		b.Try(ctx, "", "label", "nodes", "--all", "agent-")
		b.RunWeft(ctx, "uninstall", "--revision", "cni", "--force", "-y")
	})
	b.install("--set", "cni.nodeSelector.agent=here") // no node is: the control plane comes before its agents
	ns := b.Namespace(t, namespace, "istio.io/rev=cni", "pod-security.kubernetes.io/enforce=restricted")

	t.Run("a pod that starts before the agent does not run outside of the mesh", func(t *testing.T) {
		b := &bed{b.Mesh, t}
		b.Cluster.Apply(t, ns, fmt.Sprintf(sleeper, "early"))
		b.Eventually(t, time.Minute, "exit code 126", func(ctx context.Context) error {
			out, err := b.Try(ctx, "", "-n", ns, "get", "pod", "early", "-o", "jsonpath={.status.initContainerStatuses[0].name} {.status.initContainerStatuses[0].lastState.terminated.exitCode}")
			if err == nil && out != "istio-validation 126" {
				err = errors.New(out)
			}
			return err
		})
	})
	uid := b.Field(t, ns, "pod/early", "{.metadata.uid}")

	// The agents come.
	b.Kubectl(t, "taint", "nodes", "--all", "cni.istio.io/not-ready=true:NoSchedule")
	start := time.Now()
	b.Kubectl(t, "label", "nodes", "--all", "agent=here")
	b.Kubectl(t, "-n", "kube-system", "rollout", "status", "daemonset/weft-cni-node", "--timeout=90s")
	t.Logf("agents ready after %.1f s", time.Since(start).Seconds())

	t.Run("it is repaired as it runs", func(t *testing.T) {
		b := &bed{b.Mesh, t}
		b.ready("early")
		if now := b.Field(t, ns, "pod/early", "{.metadata.uid}"); now != uid {
			t.Errorf("another pod: %s, not %s", now, uid)
		}
		metrics := ""
		for _, ip := range strings.Fields(b.Kubectl(t, "-n", "kube-system", "get", "pods", "-l", "k8s-app=weft-cni-node", "-o", "jsonpath={.items[*].status.podIP}")) {
			resp, err := http.Get("http://" + ip + ":15014/metrics")
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
			resp.Body.Close()
			if err != nil || !strings.Contains(string(text), "istio_cni_install_ready 1") {
				t.Errorf("%v: %s", err, text)
			}
			metrics += string(text)
		}
		if !strings.Contains(metrics, `istio_cni_repair_pods_repaired_total{result="success",type="repair"} 1`) {
			t.Errorf("the repair is not counted:\n%s", metrics)
		}
	})

	t.Run("taints go", func(t *testing.T) {
		b.Eventually(t, 30*time.Second, "nodes without the taint", func(ctx context.Context) error {
			out, err := b.Try(ctx, "", "get", "nodes", "-o", "jsonpath={.items[*].spec.taints[*].key}")
			if err == nil && strings.Contains(out, "cni.istio.io") {
				err = errors.New(out)
			}
			return err
		})
	})

	t.Run("Bookinfo in a restricted namespace", func(t *testing.T) { bookinfo(t, b.Mesh, ns) })
	t.Run("an agent that is away", func(t *testing.T) { agentAway(t, b.Mesh, ns) })

	// Uninstalled, nothing is left on the nodes, and pods start again.
	out, err := b.RunWeft(t.Context(), "uninstall", "--revision", "cni", "--force", "-y")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("weft uninstall\n%s", out)
	b.Eventually(t, time.Minute, "the nodes as they were", func(ctx context.Context) error {
		for n, was := range before {
			if now := b.node(n, "cat", conflist); now != was {
				return fmt.Errorf("%s: %s", n, now)
			}
			if left := b.node(n, "sh", "-c", "ls /opt/cni/bin /etc/cni/net.d | grep weft || true"); left != "" {
				return fmt.Errorf("%s: left: %s", n, left)
			}
		}
		return nil
	})
	plain := b.Namespace(t, "cni-after")
	b.Cluster.Apply(t, plain, fmt.Sprintf(sleeper, "after"))
	b.Kubectl(t, "-n", plain, "wait", "--for=condition=Ready", "--timeout=60s", "pod/after")
}

// bookinfo runs in a namespace that lets no privileged pod in, and what others send it without mTLS is refused.
func bookinfo(t *testing.T, m *kubetest.Mesh, ns string) {
	m.Cluster.Apply(t, ns, restrictedBookinfo(t, m.Cluster))

	for d := range strings.FieldsSeq(m.Kubectl(t, "-n", ns, "get", "deployments", "-o", "name")) {
		m.Kubectl(t, "-n", ns, "rollout", "status", d, "--timeout=120s")
	}
	names := m.Kubectl(t, "-n", ns, "get", "pods", "-o", "jsonpath={.items[*].spec.initContainers[*].name}")
	if strings.Contains(names, "istio-init") || !strings.Contains(names, "istio-validation istio-proxy") {
		t.Errorf("init containers: %s", names)
	}
	const page = "http://productpage:9080/productpage"
	m.Eventually(t, time.Minute, "the page, from within", func(ctx context.Context) error {
		out, err := m.Cluster.Exec(ctx, ns, "deployment/sleep", "sleep", "bookinfo", "client", page)
		if err == nil && !strings.Contains(out, "The Comedy of Errors") {
			err = fmt.Errorf("%.300s", out)
		}
		return err
	})
	outside := m.Namespace(t, "cni-outside")
	m.Cluster.Apply(t, outside, fmt.Sprintf(sleeper, "stranger"))
	m.Kubectl(t, "-n", outside, "wait", "--for=condition=Ready", "--timeout=60s", "pod/stranger")
	stranger := func(ctx context.Context) bool {
		out, err := m.Cluster.Exec(ctx, outside, "stranger", "sleep", "bookinfo", "client", "http://productpage."+ns+":9080/productpage")
		return err == nil && strings.Contains(out, "The Comedy of Errors")
	}
	m.Eventually(t, 30*time.Second, "the page, for a stranger", func(ctx context.Context) error {
		if !stranger(ctx) {
			return errors.New("it did not come")
		}
		return nil
	})
	m.Cluster.Apply(t, ns, "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default}, spec: {mtls: {mode: STRICT}}}")
	m.Eventually(t, 30*time.Second, "a stranger is refused", func(ctx context.Context) error {
		if stranger(ctx) {
			return errors.New("the page came without mTLS: what reaches the pod is not captured")
		}
		return nil
	})
}

// agentAway: while no agent answers, pods of the mesh wait and those of excluded namespaces do not; then they start.
func agentAway(t *testing.T, m *kubetest.Mesh, ns string) {
	m.Kubectl(t, "label", "nodes", "--all", "agent-")
	m.Eventually(t, time.Minute, "no agent", func(ctx context.Context) error {
		out, err := m.Try(ctx, "", "-n", "kube-system", "get", "pods", "-l", "k8s-app=weft-cni-node", "-o", "name")
		if err == nil && out != "" {
			err = errors.New(out)
		}
		return err
	})
	m.Cluster.Apply(t, ns, fmt.Sprintf(sleeper, "waiting"))
	m.Cluster.Apply(t, "kube-system", fmt.Sprintf(sleeper, "excluded"))
	t.Cleanup(func() {
		m.Try(context.Background(), "", "-n", "kube-system", "delete", "pod", "excluded", "--wait=false")
	})
	m.Kubectl(t, "-n", "kube-system", "wait", "--for=condition=Ready", "--timeout=60s", "pod/excluded")
	m.Eventually(t, 90*time.Second, "an event that says why", func(ctx context.Context) error {
		out, err := m.Try(ctx, "", "-n", ns, "get", "events", "--field-selector", "involvedObject.name=waiting", "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(out, "the node agent does not answer at /var/run/weft-cni/agent.sock") {
			err = errors.New(out)
		}
		return err
	})
	m.Kubectl(t, "label", "nodes", "--all", "agent=here")
	m.Kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "--timeout=120s", "pod/waiting")
}
