package kubernetes_test

import (
	"context"
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
	url := "http://" + c.Field(t, ns, "service/productpage", "{.spec.clusterIP}") + ":9080/productpage"
	versions := map[string]bool{}
	c.Eventually(t, 30*time.Second, "three versions of reviews", func(ctx context.Context) error {
		status, body, err := get(ctx, url)
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("%d %w", status, err)
		}
		for _, v := range []string{"reviews-v1", "reviews-v2", "reviews-v3"} {
			if strings.Contains(body, v) {
				versions[v] = true
			}
		}
		if len(versions) < 3 {
			return fmt.Errorf("seen: %v", versions)
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
		if err != nil || ip == "" {
			return fmt.Errorf("address %q: %w", ip, err)
		}
		status, body, err := get(ctx, "http://"+ip+"/details/0")
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("%d %.100s %w", status, body, err)
		}
		return nil
	})
}

// get asks once, on a connection of its own.
func get(ctx context.Context, url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(body), err
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
