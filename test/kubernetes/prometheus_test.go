package kubernetes_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// prometheusConfig is the job that most installations of Prometheus have for pods: annotations say whether, where
// and which path. %q are the kubeconfig and the namespace.
const prometheusConfig = `
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: kubernetes-pods
  kubernetes_sd_configs: [{role: pod, kubeconfig_file: %q, namespaces: {names: [%q]}}]
  relabel_configs:
  - {action: keep, source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: "true"}
  - {action: replace, source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path], target_label: __metrics_path__, regex: (.+)}
  - action: replace
    source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
    regex: (.+);(\d+)
    replacement: $1:$2
    target_label: __address__
  - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
  - {source_labels: [__meta_kubernetes_pod_label_app], target_label: app}
`

// The application's metrics and its sidecar's come from one target, which the pod's annotations name, also where
// only peers with an identity may speak to the application.
func TestPrometheusScrapesInjectedPods(t *testing.T) {
	m := kubetest.Install(t)
	ns := m.Namespace(t, "scraped", injected)
	m.ApplyFiles(t, ns, "test/kubernetes/testdata/scraped.yaml")
	m.Cluster.Ready(t, ns)
	annotations := m.Field(t, ns, "pods", `{.items[?(@.metadata.labels.app=="annotated")].metadata.annotations}`)
	for _, want := range []string{`"prometheus.io/scrape":"true"`, `"prometheus.io/port":"15020"`, `"prometheus.io/path":"/stats/prometheus"`} {
		if !strings.Contains(annotations, want) {
			t.Errorf("annotations have no %s: %s", want, annotations)
		}
	}
	p := m.StartPrometheus(t, fmt.Sprintf(prometheusConfig, m.Bed.Kubeconfig(), ns))
	for _, query := range []string{
		`up{app="annotated"} == 1`,
		`testapp_requests_total{app="annotated"} > 0`, // the application's own, through the sidecar
		`istio_requests_total{app="annotated", reporter="destination", response_code="200", connection_security_policy="mutual_tls"} > 0`,
		`istio_requests_total{app="caller", reporter="source", destination_service_name="annotated", response_code="200"} > 0`,
		`up{app="caller"} == 1`, // without annotations of its own: the sidecar's metrics
	} {
		m.Eventually(t, 60*time.Second, query, func(ctx context.Context) error { return p.Has(ctx, query) })
	}
	// A pod that comes later is found as well.
	m.Kubectl(t, "-n", ns, "scale", "deployment/annotated", "--replicas=2")
	m.Eventually(t, 60*time.Second, "a second pod", func(ctx context.Context) error { return p.Has(ctx, `count(up{app="annotated"} == 1) == 2`) })
	// Who says no is not asked.
	if err := p.Has(t.Context(), `up{app="silent"}`); err == nil {
		t.Error("a pod with prometheus.io/scrape: false is a target")
	}
}
