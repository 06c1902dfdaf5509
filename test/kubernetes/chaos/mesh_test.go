// Package chaos breaks a cluster under traffic and holds the mesh to what docs/kubernetes/operate.md says of
// it: traffic flows, and everything is as it should be 30 s after the fault was taken away. `make test-chaos` runs it.
package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/test/kubernetes/kubetest"
	"weft.mesh/weft/test/kubernetes/load"
	"weft.mesh/weft/test/kubernetes/testbed"
)

const (
	namespace = "chaos"
	rate      = 50 // requests a second of each client
	repaired  = 30 * time.Second
	// Kubernetes itself may be later with a new pod: its kubelets watch an API server that was away again after up to a minute
	// and more. A pod of the mesh may be this much later than one of no mesh.
	behind = 10 * time.Second
	// bare is the namespace of those.
	bare = "bare"
)

// mesh is Weft with two replicas, one on each node, and the workload of testdata.
type mesh struct {
	*kubetest.Mesh
	t       *testing.T
	gateway string            // URL from outside
	clients map[string]string // by Deployment, where a client tells its result
	round   int               // of the changes that converged makes
}

func start(t *testing.T) *mesh {
	if os.Getenv("WEFT_CHAOS") == "" {
		t.Skip("SKIPPED: breaks the cluster for minutes: run make test-chaos (root)")
	}
	m := &mesh{Mesh: kubetest.Install(t), t: t, clients: map[string]string{}}
	// One replica of the control plane on each node, whatever happens; the gateway where no case cuts it off.
	m.Kubectl(t, "-n", kubetest.System, "patch", "deployment/weft", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"replicas":2,
		"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1}},
		"template":{"spec":{"affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[
			{"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":%s}}]}}}}}}`, m.Field(t, kubetest.System, "deployment/weft", "{.spec.selector.matchLabels}")))
	m.Kubectl(t, "-n", kubetest.System, "patch", "deployment/istio-ingressgateway", "--type=merge", "-p",
		`{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node1"}}}}}`)
	m.Cluster.Ready(t, kubetest.System)
	m.Cluster.Namespace(t, namespace, "istio-injection=enabled")
	t.Cleanup(func() {
		if t.Failed() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			m.Explain(ctx, t, kubetest.System)
		}
	})
	m.Cluster.Namespace(t, bare)
	m.ApplyFiles(t, namespace, "test/kubernetes/chaos/testdata/mesh.yaml")
	m.Cluster.Ready(t, namespace)
	for _, d := range []string{"plain", "careful", "lost"} {
		pods, err := m.Pods(t.Context(), namespace, d)
		if err != nil || len(pods) != 1 {
			t.Fatalf("%s: %d pods, %v", d, len(pods), err)
		}
		m.clients[d] = "http://" + pods[0].IP + ":8081"
	}
	m.gateway = "http://" + m.Field(t, kubetest.System, "service/istio-ingressgateway", "{.status.loadBalancer.ingress[0].ip}") + "/"
	m.converged(time.Now())
	return m
}

// traffic is the load of a case: from outside through the gateway, and from pods of both nodes (see testdata/mesh.yaml).
type traffic struct {
	m     *mesh
	start time.Time
	edge  *load.Running
}

func (m *mesh) traffic() *traffic {
	for _, url := range m.clients {
		resp, err := http.Post(url+"/reset", "", nil)
		if err != nil {
			m.t.Fatal(err)
		}
		resp.Body.Close()
	}
	l := load.Load{URL: m.gateway, Host: "chaos.example", Rate: rate, Wait: 5 * time.Second, AtOnce: 500}
	tr := &traffic{m, time.Now(), l.Start(m.t.Context())}
	m.t.Cleanup(func() { tr.edge.Stop() })
	time.Sleep(2 * time.Second) // the load before, which the fault is compared with
	return tr
}

// results is what became of all requests, by client.
func (tr *traffic) results() map[string]*load.Result {
	out := map[string]*load.Result{"outside": tr.edge.Stop()}
	for d, url := range tr.m.clients {
		resp, err := http.Get(url + "/result")
		if err != nil {
			tr.m.t.Fatal(err)
		}
		var r load.Result
		err = json.NewDecoder(resp.Body).Decode(&r)
		resp.Body.Close()
		if err != nil {
			tr.m.t.Fatal(err)
		}
		out[d] = &r
	}
	return out
}

// lossless ends the load: not one request may have failed.
func (tr *traffic) lossless() {
	tr.m.t.Helper()
	for who, r := range tr.results() {
		kubetest.Lossless(tr.m.t, who, r, rate, time.Since(tr.start))
	}
}

// converged holds the mesh to what it is in good health, all of it within 30 s of the repair: a change is
// accepted, reaches every proxy and shows in the gateway's answers, its status is written by a leader that
// is there, and a new pod gets a sidecar and is ready; if Kubernetes took longer for a pod of no mesh, soon after that.
func (m *mesh) converged(since time.Time) {
	m.t.Helper()
	m.round++
	ctx, cancel := context.WithDeadlineCause(m.t.Context(), since.Add(repaired), errors.New("not within 30 s of the repair"))
	defer cancel()
	pod := fmt.Sprintf("new%d", m.round)
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"a new pod of no mesh is accepted", func() error { return m.pod(ctx, bare, pod) }},
		{"a new pod is accepted", func() error { return m.pod(ctx, namespace, pod) }},
		{"a change is accepted", func() error { return m.change(ctx) }},
		{"the change is in the gateway's answers", func() error { return m.changed(ctx) }},
		{"all proxies have it", func() error { return m.acknowledged(ctx) }},
		{"its status is written", func() error { return m.reconciled(ctx) }},
		{"all nodes are ready", func() error { return m.nodes(ctx) }},
	} {
		if err := until(ctx, step.do); err != nil {
			m.t.Errorf("%s: %v", step.what, err)
			return
		}
		m.t.Logf("%5.1f s after the repair: %s", time.Since(since).Seconds(), step.what)
	}
	m.started(since, pod)
	for _, ns := range []string{namespace, bare} {
		if _, err := m.Try(m.t.Context(), "", "-n", ns, "delete", "pod", pod, "--wait=false"); err != nil {
			m.t.Error(err)
		}
	}
}

// started waits for the two new pods: that of the mesh within 30 s of the repair, or a little later than the other.
func (m *mesh) started(since time.Time, pod string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeoutCause(m.t.Context(), 3*time.Minute, errors.New("Kubernetes itself starts no pod"))
	defer cancel()
	m.must(until(ctx, func() error { return m.ready(ctx, bare, pod) }))
	m.t.Logf("%5.1f s after the repair: a new pod of no mesh is ready", time.Since(since).Seconds())
	end := since.Add(repaired)
	if late := time.Now().Add(behind); late.After(end) {
		end = late
	}
	ctx, cancel = context.WithDeadlineCause(ctx, end, errors.New("not within 30 s of the repair, nor soon after a pod of no mesh"))
	defer cancel()
	if err := until(ctx, func() error { return m.ready(ctx, namespace, pod) }); err != nil {
		m.t.Errorf("the new pod is ready: %v", err)
		return
	}
	m.t.Logf("%5.1f s after the repair: the new pod is ready", time.Since(since).Seconds())
	if names := m.Field(m.t, namespace, "pod/"+pod, "{.spec.initContainers[*].name}"); !strings.Contains(names, "istio-proxy") {
		m.t.Errorf("the new pod has init containers %q, no sidecar", names)
	}
}

func (m *mesh) ready(ctx context.Context, namespace, pod string) error {
	out, err := m.Try(ctx, "", "-n", namespace, "get", "pod", pod, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	if err == nil && out != "True" {
		err = fmt.Errorf("pod %s/%s is not ready: %q", namespace, pod, out)
	}
	return err
}

func until(ctx context.Context, check func() error) error {
	var last error
	for {
		err := check()
		if err == nil && ctx.Err() == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (m *mesh) nodes(ctx context.Context) error {
	out, err := m.Try(ctx, "", "get", "nodes", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`)
	if err == nil && out != "True True" {
		err = fmt.Errorf("ready: %s", out)
	}
	return err
}

// change makes the gateway add a header with the number of the round.
func (m *mesh) change(ctx context.Context) error {
	_, err := m.Try(ctx, fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: [chaos.example]
  gateways: [edge]
  http: [{headers: {response: {set: {x-round: "%d"}}}, route: [{destination: {host: server, port: {number: 8080}}}]}]
`, m.round), "-n", namespace, "apply", "-f", "-")
	return err
}

func (m *mesh) changed(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.gateway, nil)
	if err != nil {
		return err
	}
	req.Host, req.Close = "chaos.example", true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if got := resp.Header.Get("X-Round"); got != strconv.Itoa(m.round) {
		return fmt.Errorf("%s, x-round %q, want %d", resp.Status, got, m.round)
	}
	return nil
}

// acknowledged asks every replica of its proxies; together they are all there are.
func (m *mesh) acknowledged(ctx context.Context) error {
	replicas, err := m.Pods(ctx, kubetest.System, "weft")
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, r := range replicas {
		out, err := m.Cluster.Exec(ctx, kubetest.System, "pod/"+r.Name, "discovery", "weft", "--state-dir=/var/lib/weft", "status", "-o", "json")
		if err != nil {
			return err
		}
		var s admin.ControlStatus
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			return err
		}
		for _, p := range s.Proxies {
			if p.Lost != nil {
				continue
			}
			seen[p.Pod] = true
			if p.World != s.World {
				return fmt.Errorf("%s has World %s, %s is at %s", p.Pod, p.World, r.Name, s.World)
			}
		}
	}
	for _, ns := range []string{namespace, kubetest.System} {
		pods, err := m.Pods(ctx, ns, "")
		if err != nil {
			return err
		}
		for _, p := range pods {
			if p.Ready && !p.Going && p.Deployment != "weft" && !seen[p.Name] {
				return fmt.Errorf("%s is connected to no replica", p.Name)
			}
		}
	}
	return nil
}

func (m *mesh) reconciled(ctx context.Context) error {
	out, err := m.Try(ctx, "", "-n", namespace, "get", "virtualservice/edge", "-o",
		`jsonpath={.metadata.generation} {.status.observedGeneration} {.status.conditions[?(@.type=="Reconciled")].status}`)
	if err != nil {
		return err
	}
	if f := strings.Fields(out); len(f) != 3 || f[0] != f[1] || f[2] != "True" {
		return fmt.Errorf("generation, observed, reconciled: %s", out)
	}
	holder, err := m.leader(ctx)
	if err != nil {
		return err
	}
	_, err = m.Try(ctx, "", "-n", kubetest.System, "get", "pod", holder)
	return err
}

// leader is the replica that writes.
func (m *mesh) leader(ctx context.Context) (string, error) {
	out, err := m.Try(ctx, "", "-n", kubetest.System, "get", "lease", "weft-leader", "-o", "jsonpath={.spec.holderIdentity}")
	if err == nil && out == "" {
		err = errors.New("nobody leads")
	}
	return out, err
}

// pod makes a pod of its own. The API server may refuse it while it or a webhook is away.
func (m *mesh) pod(ctx context.Context, namespace, name string) error {
	_, err := m.Try(ctx, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: "localhost/testapp:1"}]
`, name), "-n", namespace, "apply", "-f", "-")
	return err
}

// away is how long the API server is gone: WEFT_CHAOS_AWAY shortens it while one works on these tests.
func away(t *testing.T) time.Duration {
	d, err := time.ParseDuration(cmp.Or(os.Getenv("WEFT_CHAOS_AWAY"), "5m"))
	if err != nil {
		t.Fatalf("WEFT_CHAOS_AWAY: %v", err)
	}
	return d
}

// must ends the test if a fault could not be made or taken away.
func (m *mesh) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// repair takes a fault away when the test ends early.
func (m *mesh) repair(f func(testbed.Node, string) error, program string) {
	m.t.Cleanup(func() {
		if err := f(1, program); err != nil {
			m.t.Error(err)
		}
	})
}
