package kubernetes_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// The bed itself: what a test of the mesh relies on holds without a mesh.
func TestBookinfoRunsWithoutAMesh(t *testing.T) {
	c := kubetest.New(t)
	ns := c.Namespace(t, "plain")
	start := time.Now()
	c.ApplyFiles(t, ns, "samples/bookinfo/platform/bookinfo.yaml", "samples/bookinfo/platform/sleep.yaml")
	c.Ready(t, ns)
	t.Logf("Bookinfo was ready after %.1f s", time.Since(start).Seconds())

	// From the machine through a ClusterIP, and from a pod through DNS.
	page := "http://" + c.Field(t, ns, "service/productpage", "{.spec.clusterIP}") + ":9080/productpage"
	if resp, _, err := get(t.Context(), page); err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Bookinfo-Reviews-Version") == "" {
		t.Errorf("the page: %v, %v", err, resp)
	}
	reviews := "http://" + c.Field(t, ns, "service/reviews", "{.spec.clusterIP}") + ":9080/reviews/0"
	versions := map[string]bool{}
	c.Eventually(t, 30*time.Second, "three versions of reviews", func(ctx context.Context) error {
		_, body, err := get(ctx, reviews)
		if err != nil {
			return err
		}
		for _, v := range []string{"reviews-v1", "reviews-v2", "reviews-v3"} {
			if strings.Contains(body, v) {
				versions[v] = true
			}
		}
		if len(versions) < 3 {
			return fmt.Errorf("seen: %v, now: %.200s", versions, body)
		}
		return nil
	})
	out, err := c.Exec(t.Context(), ns, "deployment/sleep", "", "bookinfo", "client", "http://productpage:9080/productpage")
	if err != nil || !strings.Contains(out, "The Comedy of Errors") {
		t.Errorf("from a pod: %v\n%.500s", err, out)
	}
	if nodes := nodesOf(t, c, ns); nodes < 2 {
		t.Errorf("all pods are on %d node", nodes)
	}
}

func TestALoadBalancerGetsAnAddress(t *testing.T) {
	c := kubetest.New(t)
	ns := c.Namespace(t, "balancer")
	c.ApplyFiles(t, ns, "samples/bookinfo/platform/bookinfo.yaml")
	c.Apply(t, ns, `{apiVersion: v1, kind: Service, metadata: {name: outside}, spec: {type: LoadBalancer, selector: {app: details}, ports: [{port: 80, targetPort: 9080}]}}`)
	c.Kubectl(t, "-n", ns, "rollout", "status", "deployment/details-v1", "--timeout=60s")
	c.Eventually(t, 20*time.Second, "an answer at the address", func(ctx context.Context) error {
		ip, err := c.Try(ctx, "", "-n", ns, "get", "service/outside", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if err != nil {
			return err
		}
		if ip == "" {
			return errors.New("no address yet")
		}
		resp, body, err := get(ctx, "http://"+ip+"/details/0")
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s %.100s", resp.Status, body)
		}
		return nil
	})
}

// get asks once, on a connection of its own.
func get(ctx context.Context, url string) (*http.Response, string, error) {
	return getFrom(ctx, url, "")
}

// getFrom is get with a header Host.
func getFrom(ctx context.Context, url, host string) (*http.Response, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	req.Close, req.Host = true, cmp.Or(host, req.Host)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp, string(body), err
}

// nodesOf counts the nodes that a namespace's pods are on.
func nodesOf(t *testing.T, c *kubetest.Cluster, ns string) int {
	t.Helper()
	nodes := map[string]bool{}
	for _, n := range strings.Fields(c.Field(t, ns, "pods", "{.items[*].spec.nodeName}")) {
		nodes[n] = true
	}
	return len(nodes)
}
