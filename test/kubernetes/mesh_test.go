package kubernetes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/cli/tour"
	"weft.mesh/weft/samples/bookinfo"
	"weft.mesh/weft/test/kubernetes/kubetest"
)

// injected is the label that a user puts on a namespace.
const injected = kubetest.Injected

// ingress is the URL of the demo profile's gateway from outside.
func ingress(t *testing.T, m *kubetest.Mesh) string {
	t.Helper()
	return m.Ingress(t)
}

// bookinfoMesh is Weft with the sample: default with sidecars, legacy without.
func bookinfoMesh(t *testing.T) *kubetest.Mesh {
	t.Helper()
	return kubetest.Bookinfo(t)
}

// Every pod of the sample is two programs, and is as ready as without a mesh.
func TestUnmodifiedManifestsGetSidecars(t *testing.T) {
	m := bookinfoMesh(t)
	for _, d := range []string{"productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3", "sleep"} {
		pods, err := m.Pods(t.Context(), "default", d)
		if err != nil || len(pods) != 1 {
			t.Fatalf("%s: %d pods, %v", d, len(pods), err)
		}
		names := m.Field(t, "default", "pod/"+pods[0].Name, "{.spec.initContainers[*].name} {.spec.containers[*].name}")
		if !strings.Contains(names, "istio-proxy") {
			t.Errorf("%s: containers %s", pods[0].Name, names)
		}
	}
	if s, err := m.Status(t.Context()); err != nil || len(s.Proxies) < 8 {
		t.Errorf("proxies that are connected: %d, want the sidecars of 7 Deployments and the gateway (%v)", len(s.Proxies), err)
	}
}

func TestTheTour(t *testing.T) {
	m := bookinfoMesh(t)
	run := &tour.Run{Mesh: m, Manifests: bookinfo.Manifests, Report: reporter{t}}
	res, err := run.Walk(t.Context(), tour.Steps())
	t.Logf("%d steps, %d checks, %d failed", res.Steps, res.Checks, len(res.Failures))
	if err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m.Try(ctx, "", "-n", "default", "delete", "--ignore-not-found", "virtualservices,destinationrules,peerauthentications,authorizationpolicies", "--all")
}

// reporter writes the tour into the test's log.
type reporter struct{ t *testing.T }

func (r reporter) Step(_ context.Context, n, of int, s *tour.Step) error {
	r.t.Logf("%d/%d %s", n, of, s.Title)
	return nil
}
func (r reporter) Applied(verb, file string) { r.t.Logf("    %s %s", verb, file) }
func (r reporter) Expect(what, want, got string, ok bool) {
	if ok {
		r.t.Logf("    ok    %s: %s", what, got)
		return
	}
	r.t.Errorf("    WRONG %s: got %s, want %s", what, got, want)
}
func (r reporter) Done(err error) {
	if err != nil {
		r.t.Error(err)
	}
}

// What a rollout does to a user: nothing. The load goes through the gateway to all of Bookinfo.
func TestRestartsUnderLoadLoseNothing(t *testing.T) {
	const rate = 200
	m := bookinfoMesh(t)
	for _, c := range []struct {
		name, namespace string
		deployments     []string
	}{
		{"the control plane", kubetest.System, []string{"weft"}},
		{"the gateway", kubetest.System, []string{"istio-ingressgateway"}},
		{"every Deployment of Bookinfo", "default", []string{"details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3", "productpage-v1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			stop := kubetest.Load{URL: m.Base + "/productpage", Rate: rate, Wrong: kubetest.MissingParts}.Start(t)
			time.Sleep(2 * time.Second) // the load before, which the restart is compared with
			for _, d := range c.deployments {
				t.Logf("%s: restart of %s", time.Now().Format("15:04:05.000"), d)
				m.Kubectl(t, "-n", c.namespace, "rollout", "restart", "deployment/"+d)
				m.Kubectl(t, "-n", c.namespace, "rollout", "status", "deployment/"+d, "--timeout=120s")
			}
			time.Sleep(8 * time.Second) // those of before end, with what they still have
			kubetest.Lossless(t, "from outside through the gateway", stop(), rate, time.Since(start))
		})
	}
}

// A Job's pod ends when its own program ends: its sidecar does not hold it.
func TestJobsEnd(t *testing.T) {
	m := bookinfoMesh(t)
	ns := m.Namespace(t, "jobs", injected)
	m.Cluster.Apply(t, ns, `
apiVersion: batch/v1
kind: Job
metadata: {name: call}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: call, image: "weft.mesh/bookinfo:latest", imagePullPolicy: IfNotPresent, command: [bookinfo, client, "http://details.default:9080/details/0"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: call, image: "weft.mesh/bookinfo:latest", imagePullPolicy: IfNotPresent, command: [bookinfo, no-such-command]}]
`)
	m.Kubectl(t, "-n", ns, "wait", "--for=condition=complete", "job/call", "--timeout=90s")
	m.Kubectl(t, "-n", ns, "wait", "--for=condition=failed", "job/fails", "--timeout=90s")
	if phase := m.Field(t, ns, "pods", "{.items[*].status.phase}"); !strings.Contains(phase, "Succeeded") || !strings.Contains(phase, "Failed") {
		t.Errorf("phases: %s", phase)
	}
}

// Probes come from the kubelet, which has no identity of the mesh.
func TestProbesWorkUnderStrict(t *testing.T) {
	m := kubetest.Install(t)
	ns := m.Namespace(t, "probes", injected)
	m.Cluster.Apply(t, ns, `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default}, spec: {mtls: {mode: STRICT}}}`)
	m.ApplyFiles(t, ns, "test/kubernetes/testdata/probes.yaml")
	m.Cluster.Ready(t, ns)
	m.Eventually(t, 60*time.Second, "several probes of each kind", func(ctx context.Context) error {
		for d, want := range map[string][]string{
			"http": {"http /start ", "http /ready yes", "http /live "}, "tcp": {"tcp"}, "grpc": {"grpc ready", "grpc live"},
		} {
			counts, err := seen(ctx, m, ns, d)
			if err != nil {
				return err
			}
			for _, w := range want {
				if counts[w] < 1 || counts[w] < 5 && w != "http /start " {
					return fmt.Errorf("%s: %q seen %d times: %v", d, w, counts[w], counts)
				}
			}
		}
		return nil
	})
	// STRICT holds all the same: who has no identity does not get in.
	pods, err := m.Pods(t.Context(), ns, "http")
	if err != nil || len(pods) != 1 {
		t.Fatal(pods, err)
	}
	if resp, _, err := get(t.Context(), "http://"+pods[0].IP+":8080/seen"); err == nil {
		t.Errorf("without an identity: %s", resp.Status)
	}
	if restarts := m.Field(t, ns, "pods", "{.items[*].status.containerStatuses[*].restartCount}"); strings.Trim(restarts, "0 ") != "" {
		t.Errorf("restarts: %s", restarts)
	}
}

// seen asks the test application what it got, from inside its pod's network: past its sidecar.
func seen(ctx context.Context, m *kubetest.Mesh, ns, deployment string) (map[string]int, error) {
	pods, err := m.Pods(ctx, ns, deployment)
	if err != nil || len(pods) == 0 {
		return nil, fmt.Errorf("pods of %s: %d, %v", deployment, len(pods), err)
	}
	text, err := m.PortForward(ctx, ns, pods[0].Name, 8080, "/seen")
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	return counts, json.Unmarshal([]byte(text), &counts)
}
