// Package upgrade_test walks docs/kubernetes/upgrade.md and migrate-from-istio.md
// on a cluster, under load, with the commands that they tell people to use.
package upgrade_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

const (
	namespace = "canary-shop"
	tag       = "canary-prod"
	rate      = 100 // requests a second while everything moves
)

// mesh is the installation that the revisions come beside.
type mesh struct{ *kubetest.Mesh }

func (m mesh) weft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.RunWeft(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// install installs a revision that goes away with the test.
func (m mesh) install(t *testing.T, revision string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if t.Failed() {
			m.Explain(ctx, t, kubetest.System)
		}
		if _, err := m.RunWeft(ctx, "uninstall", "--revision", revision, "-y", "--force"); err != nil && !strings.Contains(err.Error(), "is not installed") {
			t.Error(err)
		}
	})
	m.weft(t, "install", "--revision", revision, "--profile", "minimal", "--set", "global.tag=test")
}

// edge is a gateway of the namespace, with Bookinfo behind it; STRICT, so that
// sidecars of two revisions that do not know each other's certificates would fail.
const edge = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: weft
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: pages}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: productpage, port: 9080}]}]
`

// shop deploys Bookinfo into a namespace that a tag chooses the revision of, and returns the page's URL.
func (m mesh) shop(t *testing.T) string {
	t.Helper()
	m.Namespace(t, namespace, "istio.io/rev="+tag)
	m.ApplyFiles(t, namespace, "samples/bookinfo/platform/bookinfo.yaml")
	m.Cluster.Apply(t, namespace, edge)
	m.Kubectl(t, "-n", namespace, "wait", "--for=condition=Programmed", "--timeout=120s", "gateways.gateway.networking.k8s.io/edge")
	m.Cluster.Ready(t, namespace)
	url := "http://" + m.Field(t, namespace, "gateways.gateway.networking.k8s.io/edge", "{.status.addresses[0].value}") + "/productpage"
	m.Eventually(t, time.Minute, "the first page", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	return url
}

// restart restarts every Deployment of the sample, one after the other, as kubectl rollout restart does.
func (m mesh) restart(t *testing.T) {
	t.Helper()
	m.Kubectl(t, "-n", namespace, "rollout", "restart", "deployment", "-l", "app")
	m.Cluster.Ready(t, namespace)
}

// owned waits until every pod of the namespace, the gateway's too, is of a revision.
func (m mesh) owned(t *testing.T, revision string) {
	t.Helper()
	m.Eventually(t, 2*time.Minute, "all pods of revision "+revision, func(ctx context.Context) error {
		out, err := m.Try(ctx, "", "-n", namespace, "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.annotations.istio\.io/rev}{.metadata.labels.istio\.io/rev}{"\n"}{end}`)
		if err != nil {
			return err
		}
		pods := 0
		for line := range strings.Lines(out) {
			name, rev, _ := strings.Cut(strings.TrimSpace(line), " ")
			if !strings.HasPrefix(rev, revision) {
				return fmt.Errorf("%s is of %q", name, rev)
			}
			pods++
		}
		if pods < 7 {
			return fmt.Errorf("only %d pods:\n%s", pods, out)
		}
		return nil
	})
	m.Cluster.Ready(t, namespace)
}

// The whole way of docs/kubernetes/upgrade.md: a second revision beside the first, the tag
// moved, back again, forward for good, and the first one removed. Users notice nothing.
func TestACanaryOfTheControlPlaneLosesNothing(t *testing.T) {
	m := mesh{kubetest.Install(t)}
	m.install(t, "canary-a")
	m.weft(t, "tag", "set", tag, "--revision", "canary-a")
	url := m.shop(t)
	m.owned(t, "canary-a")

	start := time.Now()
	stop := kubetest.Load{URL: url, Rate: rate, Wrong: kubetest.MissingParts}.Start(t)
	m.install(t, "canary-b")
	for _, step := range []struct{ what, revision string }{{"forward", "canary-b"}, {"back", "canary-a"}, {"forward again", "canary-b"}} {
		t.Logf("%.0f s: %s", time.Since(start).Seconds(), step.what)
		m.weft(t, "tag", "set", tag, "--revision", step.revision, "--overwrite")
		m.restart(t)
		m.owned(t, step.revision)
	}
	if out := m.weft(t, "tag", "list"); !strings.Contains(out, namespace) || !strings.Contains(out, "canary-b") {
		t.Errorf("weft tag list:\n%s", out)
	}
	if _, err := m.RunWeft(t.Context(), "uninstall", "--revision", "canary-b", "-y"); err == nil || !strings.Contains(err.Error(), namespace) {
		t.Errorf("a revision in use was uninstalled, or refused for another reason: %v", err)
	}
	m.weft(t, "uninstall", "--revision", "canary-a", "-y")
	m.weft(t, "verify", "--revision", "canary-b")
	time.Sleep(8 * time.Second) // what is left of the first revision ends under load
	m.owned(t, "canary-b")
	kubetest.Lossless(t, "from outside through the gateway", stop(), rate, time.Since(start))
	gone, err := m.Try(t.Context(), "", "get", "deployments,clusterroles,mutatingwebhookconfigurations", "-A", "-l", "istio.io/rev=canary-a", "-o", "name")
	if err != nil || strings.TrimSpace(gone) != "" {
		t.Errorf("left of the first revision: %s (%v)", gone, err)
	}
}
