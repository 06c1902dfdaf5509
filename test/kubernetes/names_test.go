package kubernetes_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// asker is a pod whose sidecar answers its names.
const asker = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: asker}
spec:
  selector: {matchLabels: {app: asker}}
  template:
    metadata:
      labels: {app: asker}
      annotations: {proxy.istio.io/config: '{proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true"}}'}
    spec:
      containers: [{name: asker, image: "weft.mesh/bookinfo:latest", imagePullPolicy: IfNotPresent, command: [bookinfo, sleep]}]
`

// namesText are names by which the same pod is reached: two that only the mesh knows, and one that it keeps from its proxies.
const namesText = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: catalogue}
spec:
  hosts: [catalogue.shop.example]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: %[1]s, ports: {http: 9080}}]
---
apiVersion: v1
kind: Service
metadata: {name: books}
spec: {clusterIP: None, selector: {app: details}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: hidden, annotations: {networking.istio.io/exportTo: "~"}}
spec: {selector: {app: details}, ports: [{name: http, port: 9080}]}
`

// With ISTIO_META_DNS_CAPTURE a pod's names come from the mesh: the host of a ServiceEntry that no DNS knows, a headless
// Service with the names of its pods, short names of other namespaces; the cluster's DNS has the rest. Another pod knows none of what only the mesh does.
func TestNamesComeFromTheMesh(t *testing.T) {
	m := kubetest.Install(t)
	ns := m.Namespace(t, "names", injected)
	m.ApplyFiles(t, ns, "samples/bookinfo/platform/bookinfo.yaml", "samples/bookinfo/platform/sleep.yaml")
	m.Cluster.Apply(t, ns, fmt.Sprintf(namesText, m.Field(t, ns, "service/details", "{.spec.clusterIP}")))
	m.Cluster.Apply(t, ns, asker)
	for _, d := range []string{"details-v1", "sleep", "asker"} {
		m.Kubectl(t, "-n", ns, "rollout", "status", "deployment/"+d, "--timeout=120s")
	}
	pod := m.Field(t, ns, "pods", `{.items[?(@.metadata.labels.app=="details")].metadata.name}`)
	ask := func(ctx context.Context, deployment, url string) error {
		out, err := m.Cluster.Exec(ctx, ns, "deployment/"+deployment, deployment, "bookinfo", "client", url)
		if err != nil {
			return fmt.Errorf("%s asks %s: %w\n%.300s", deployment, url, err, out)
		}
		if !strings.Contains(out, "pages") {
			return fmt.Errorf("%s asks %s: not what details says: %.300s", deployment, url, out)
		}
		return nil
	}
	for _, url := range []string{
		"http://catalogue.shop.example/details/0",            // allocated; its port 80 is nobody's but the proxy's
		"http://books:9080/details/0",                        // headless
		"http://" + pod + ".books." + ns + ":9080/details/0", // a pod of it: the cluster's DNS has no such name
		"http://details." + ns + ":9080/details/0",           // with its namespace
		"http://hidden:9080/details/0",                       // the cluster's DNS alone knows it
		"http://hidden." + ns + ".svc.cluster.local:9080/details/0",
	} {
		m.Eventually(t, 60*time.Second, "an answer of "+url, func(ctx context.Context) error { return ask(ctx, "asker", url) })
	}
	// Whose names are the cluster's DNS's does not know what it does not.
	for _, url := range []string{"http://catalogue.shop.example/details/0", "http://" + pod + ".books." + ns + ":9080/details/0"} {
		if err := ask(t.Context(), "sleep", url); err == nil {
			t.Errorf("a pod without the annotation knows %s", url)
		}
	}
	if err := ask(t.Context(), "sleep", "http://details."+ns+":9080/details/0"); err != nil {
		t.Error(err)
	}
	m.Eventually(t, 30*time.Second, "names in the status", func(ctx context.Context) error {
		st, err := m.Status(ctx)
		if err != nil {
			return err
		}
		for _, p := range st.Proxies {
			_, names := p.Types["NDS"]
			if want := strings.HasPrefix(p.Pod, "asker-"); p.Namespace == ns && p.Lost == nil && names != want {
				return fmt.Errorf("%s: subscribed to names: %t, want %t", p.Pod, names, want)
			}
		}
		return nil
	})
	namesAreShown(t, m, ns)
}

// namesAreShown looks at what operators see of a sidecar that answers names: its table, what the table should be, and how many asked.
func namesAreShown(t *testing.T, m *kubetest.Mesh, ns string) {
	t.Helper()
	askers, err := m.Pods(t.Context(), ns, "asker")
	if err != nil || len(askers) != 1 {
		t.Fatalf("%d pods, %v", len(askers), err)
	}
	table, err := m.RunWeft(t.Context(), "proxy-config", "names", "-n", ns, askers[0].Name)
	if err != nil || !strings.Contains(table, "catalogue.shop.example") || !strings.Contains(table, "240.240.") {
		t.Errorf("weft proxy-config names: %v\n%s", err, table)
	}
	page, err := m.Cluster.Exec(t.Context(), kubetest.System, "deployment/weft", "", "pilot-discovery", "request", "GET", "/debug/ndsz?proxyID="+askers[0].Name+"."+ns)
	if err != nil || !strings.Contains(page, `"catalogue.shop.example"`) {
		t.Errorf("/debug/ndsz of the control plane: %v\n%.1000s", err, page)
	}
	_, metrics, err := get(t.Context(), "http://"+askers[0].IP+":15020/stats/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"istio_agent_dns_requests_total", "istio_agent_dns_upstream_requests_total", "istio_agent_dns_upstream_request_duration_seconds_count"} {
		_, rest, _ := strings.Cut(metrics, "\n"+name+" ")
		value, _, _ := strings.Cut(rest, "\n")
		if n, err := strconv.ParseFloat(value, 64); err != nil || n < 1 {
			t.Errorf("%s %q, want at least 1", name, value)
		}
	}
}
