package kiali_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// prometheusConfig is the job for pods of Istio's sample of Prometheus, which Kiali's documentation starts from. %q is the
// kubeconfig.
const prometheusConfig = `
global: {scrape_interval: 2s, scrape_timeout: 2s}
scrape_configs:
- job_name: kubernetes-pods
  kubernetes_sd_configs: [{role: pod, kubeconfig_file: %q}]
  relabel_configs:
  - {action: keep, source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: "true"}
  - {action: replace, source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path], target_label: __metrics_path__, regex: (.+)}
  - action: replace
    source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
    regex: (.+);(\d+)
    replacement: $1:$2
    target_label: __address__
  - {action: labelmap, regex: __meta_kubernetes_pod_label_(.+)}
  - {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
  - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
`

// kialiConfig is what a user of Weft sets: where the control plane is, and where Prometheus. url_service_version is for a Kiali
// outside of the cluster, as this one, which cannot look up the Service's name.
const kialiConfig = `
auth: {strategy: anonymous}
deployment: {namespace: weft-system, remote_secret_path: %q}
external_services:
  grafana: {enabled: false}
  istio: {root_namespace: weft-system, url_service_version: %q, istiod_polling_interval_seconds: 2}
  prometheus: {url: %q}
istio_namespace: weft-system
kiali_feature_flags: {certificates_information_indicators: {enabled: false}}
server:
  address: 127.0.0.1
  port: %s
  static_content_root_directory: %q
  web_root: /
  observability: {metrics: {enabled: false}}
`

// kiali is Kiali's server with an account of its own, which has the rights that Kiali's chart gives it.
type kiali struct {
	*kubetest.Mesh
	url        string
	prometheus *kubetest.Prometheus
}

// start runs Bookinfo, a Prometheus that scrapes all pods, and Kiali.
func start(t *testing.T) *kiali {
	t.Helper()
	m := kubetest.Bookinfo(t)
	if err := m.Bed.Kiali(t.Context()); err != nil {
		t.Fatal(err)
	}
	k := &kiali{Mesh: m, prometheus: m.StartPrometheus(t, fmt.Sprintf(prometheusConfig, m.Bed.Kubeconfig()))}
	const rights, kinds = "test/kubernetes/kiali/testdata/rights.yaml", "samples/kiali/kinds.yaml"
	m.ApplyFiles(t, kubetest.System, rights)
	m.ApplyFiles(t, "", kinds)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		m.Try(ctx, "", "-n", kubetest.System, "delete", "-f", m.Bed.Module+"/"+rights)
		m.Try(ctx, "", "delete", "-f", m.Bed.Module+"/"+kinds)
	})
	dir := t.TempDir()
	addr := kubetest.FreeAddress(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "kiali.yaml")
	version := "http://" + m.Field(t, kubetest.System, "service/weft", "{.spec.clusterIP}") + ":15014/version"
	text := fmt.Sprintf(kialiConfig, k.account(t, dir), version, k.prometheus.URL, port, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	kubetest.Background(t, filepath.Join(dir, "log"), exec.Command(m.Bed.Bin("kiali"), "-config", config))
	k.url = "http://" + addr
	m.Eventually(t, 2*time.Minute, "Kiali answers", func(ctx context.Context) error {
		return k.get(ctx, "/api/status", new(map[string]any))
	})
	return k
}

// account writes a kubeconfig with a token of Kiali's account.
func (k *kiali) account(t *testing.T, dir string) string {
	t.Helper()
	token := strings.TrimSpace(k.Kubectl(t, "-n", kubetest.System, "create", "token", "kiali", "--duration=2h"))
	file := filepath.Join(dir, "kubeconfig")
	ours, err := os.ReadFile(k.Bed.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, ours, 0o600); err != nil {
		t.Fatal(err)
	}
	k.Kubectl(t, "--kubeconfig", file, "config", "set-credentials", "kiali", "--token", token)
	k.Kubectl(t, "--kubeconfig", file, "config", "set-context", "--current", "--user", "kiali")
	return file
}

// get asks Kiali's API for what its pages ask.
func (k *kiali) get(ctx context.Context, path string, into any) error {
	return kubetest.JSON(ctx, k.url+path, into)
}

// post has Kiali do something.
func (k *kiali) post(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.url+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return nil
}
