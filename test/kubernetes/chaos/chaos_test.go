package chaos

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// One cluster, one fault after the other: each begins with a mesh that has converged.
func TestChaos(t *testing.T) {
	all := start(t)
	for _, c := range []struct {
		name string
		do   func(*mesh)
	}{
		{"the leader is killed", leaderKilled},
		{"no control plane runs", webhookKilled},
		{"etcd is slow", etcdSlow},
		{"the API server hangs", apiServerHangs},
		{"a node is cut off", partitioned},
		{"the API server is away", apiServerAway},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			m := *all
			m.t = t
			defer func() { all.round = m.round }()
			c.do(&m)
		})
		if !ok && t.Context().Err() != nil {
			return
		}
	}
}

// The API server refuses connections; at home nobody can change anything, and nobody needs to.
func apiServerAway(m *mesh) {
	d := away(m.t)
	m.repair(m.Bed.Release, "kube-apiserver")
	tr := m.traffic()
	m.must(m.Bed.Hold(1, "kube-apiserver"))
	m.t.Logf("the API server is away for %s", d)
	time.Sleep(d)
	if _, err := m.Try(m.t.Context(), "", "get", "nodes"); err == nil {
		m.t.Error("the API server answers, which is held")
	}
	repair := time.Now()
	m.must(m.Bed.Release(1, "kube-apiserver"))
	m.converged(repair)
	tr.lossless()
}

// The API server takes connections and never answers.
func apiServerHangs(m *mesh) {
	m.repair(m.Bed.Continue, "kube-apiserver")
	tr := m.traffic()
	m.must(m.Bed.Pause(1, "kube-apiserver"))
	time.Sleep(45 * time.Second)
	m.must(m.Bed.Continue(1, "kube-apiserver"))
	m.converged(time.Now())
	tr.lossless()
}

// etcd works 50 ms of each second: what one asks of the API server takes seconds, or ends with an error.
func etcdSlow(m *mesh) {
	tr := m.traffic()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	m.must(m.Bed.Slow(ctx, 1, "etcd", 950*time.Millisecond, 50*time.Millisecond))
	m.converged(time.Now())
	tr.lossless()
}

// The replica that writes ends without a word: the other serves on at once, and
// writes when the lease has run out.
func leaderKilled(m *mesh) {
	before, err := m.leader(m.t.Context())
	m.must(err)
	uid := m.Field(m.t, kubetest.System, "pod/"+before, "{.metadata.uid}")
	tr := m.traffic()
	killed := time.Now()
	// A pod that is deleted is asked to end, and gives the lease up; one that is killed comes back, and has it still.
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.Bed.KillPod(ctx, uid) }()
	m.Kubectl(m.t, "-n", kubetest.System, "delete", "pod", before, "--force", "--grace-period=0")
	m.must(<-done)
	m.converged(killed)
	after, err := m.leader(m.t.Context())
	m.must(err)
	if after == before {
		m.t.Errorf("%s still leads", after)
	}
	tr.lossless()
	m.Cluster.Ready(m.t, kubetest.System)
}

// No control plane runs: traffic goes on with what proxies have, and what the
// webhooks would have to be asked about is refused, or not, as failurePolicy says.
func webhookKilled(m *mesh) {
	tr := m.traffic()
	m.Kubectl(m.t, "-n", kubetest.System, "scale", "deployment/weft", "--replicas=0")
	m.Eventually(m.t, time.Minute, "the control plane to go", func(ctx context.Context) error {
		pods, err := m.Pods(ctx, kubetest.System, "weft")
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods are left", len(pods))
		}
		return err
	})
	ctx := m.t.Context()
	if err := m.pod(ctx, namespace, "refused"); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		m.t.Errorf("a pod while no webhook answers: %v, want it refused", err)
	}
	m.round++ // the same again would be no change
	if err := m.change(ctx); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		m.t.Errorf("a VirtualService while no webhook answers: %v, want it refused", err)
	}
	m.failurePolicy("Ignore")
	if err := m.pod(ctx, namespace, "outside"); err != nil {
		m.t.Errorf("a pod with failurePolicy Ignore: %v", err)
	} else if names := m.Field(m.t, namespace, "pod/outside", "{.spec.initContainers[*].name}"); names != "" {
		m.t.Errorf("a pod that no webhook saw has %s", names)
	}
	m.Kubectl(m.t, "-n", namespace, "wait", "--for=condition=Ready", "pod/outside", "--timeout=60s")
	m.Kubectl(m.t, "-n", namespace, "delete", "pod/outside", "--wait=false")
	m.failurePolicy("Fail")
	m.Kubectl(m.t, "-n", kubetest.System, "scale", "deployment/weft", "--replicas=2")
	m.converged(time.Now())
	tr.lossless()
	m.Cluster.Ready(m.t, kubetest.System)
}

// failurePolicy sets that of all injection webhooks.
func (m *mesh) failurePolicy(policy string) {
	m.t.Helper()
	const name = "mutatingwebhookconfiguration/weft-sidecar-injector"
	var patch []string
	for i := range strings.Fields(m.Field(m.t, "", name, "{.webhooks[*].name}")) {
		patch = append(patch, `{"op":"replace","path":"/webhooks/`+strconv.Itoa(i)+`/failurePolicy","value":"`+policy+`"}`)
	}
	m.Kubectl(m.t, "patch", name, "--type=json", "-p", "["+strings.Join(patch, ",")+"]")
	time.Sleep(time.Second) // until the API server has read it itself
}

// How long clients may meet a node that is gone.
const (
	// Nobody has said anything: until Kubernetes has taken its pods out of Services (its grace period for nodes is 20 s here,
	// 50 s by default), and their own proxies have heard of it: those that hear from a replica on the lost node
	// find out after 40 s that it no longer answers.
	noticed = 50 * time.Second
	// Timeouts, retries and outlier detection, as testdata/mesh.yaml has them.
	guarded = 10 * time.Second
)

// A node is cut off, with the replica of the control plane that leads on it: who is on the other side meets its
// pods until it is noticed, and on the lost side the mesh goes on with what it has.
func partitioned(m *mesh) {
	const lost = 2
	if where := m.leaderNode(); where != "node2" {
		holder, err := m.leader(m.t.Context())
		m.must(err)
		m.Kubectl(m.t, "-n", kubetest.System, "delete", "pod", holder)
		m.Cluster.Ready(m.t, kubetest.System)
		m.Eventually(m.t, time.Minute, "a leader on node2", func(context.Context) error {
			if where := m.leaderNode(); where != "node2" {
				return fmt.Errorf("the leader is on %q", where)
			}
			return nil
		})
	}
	m.t.Cleanup(func() {
		if err := m.Bed.Join(lost); err != nil {
			m.t.Error(err)
		}
	})
	tr := m.traffic()
	cut := time.Now()
	m.must(m.Bed.Partition(lost))
	time.Sleep(75 * time.Second)
	m.must(m.Bed.Join(lost))
	m.converged(time.Now())
	for who, r := range tr.results() {
		m.t.Logf("%s: %s", who, r)
		kubetest.Enough(m.t, who, r, rate, time.Since(tr.start))
		limit := guarded
		if who == "plain" || who == "outside" {
			limit = noticed
		}
		if r.Lost() > 0 && (r.FirstBad.Before(cut.Add(-time.Second)) || r.LastBad.After(cut.Add(limit))) {
			m.t.Errorf("%s: requests were lost that were sent from %s to %s after the node was cut off, want none before and at most %s after",
				who, r.FirstBad.Sub(cut), r.LastBad.Sub(cut), limit)
		}
	}
	m.Cluster.Ready(m.t, kubetest.System)
}

func (m *mesh) leaderNode() string {
	holder, err := m.leader(m.t.Context())
	m.must(err)
	out, _ := m.Try(m.t.Context(), "", "-n", kubetest.System, "get", "pod", holder, "-o", "jsonpath={.spec.nodeName}") // gone: nowhere
	return out
}
