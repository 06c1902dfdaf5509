package kubetest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// Injected is the label that a user puts on a namespace.
const Injected = "istio-injection=enabled"

// Ingress is the URL of the demo profile's gateway from outside.
func (m *Mesh) Ingress(t testing.TB) string {
	t.Helper()
	var ip string
	m.Eventually(t, 60*time.Second, "an address of the ingress gateway", func(ctx context.Context) (err error) {
		ip, err = m.Try(ctx, "", "-n", System, "get", "service/istio-ingressgateway", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		if err == nil && ip == "" {
			err = errors.New("none yet")
		}
		return err
	})
	return "http://" + ip
}

// Bookinfo installs Weft and deploys the sample's unmodified manifests into namespaces as the
// tour expects them: default with sidecars, legacy without.
func Bookinfo(t testing.TB) *Mesh {
	t.Helper()
	m := Install(t)
	m.Kubectl(t, "label", "namespace", "default", Injected, "--overwrite")
	files := []string{"platform/bookinfo.yaml", "platform/sleep.yaml", "platform/sleep-legacy.yaml"}
	for _, f := range files {
		m.ApplyFiles(t, "", "samples/bookinfo/"+f)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if t.Failed() {
			m.Explain(ctx, t, "default")
			m.Explain(ctx, t, System)
		}
		for _, f := range append(files, "networking/bookinfo-gateway.yaml") {
			m.Try(ctx, "", "delete", "--ignore-not-found", "--wait=false", "-f", m.Bed.Module+"/samples/bookinfo/"+f)
		}
		m.Try(ctx, "", "label", "namespace", "default", "istio-injection-")
		// Its namespace is the next test's too, which could put nothing into one that is going.
		if _, err := m.Try(ctx, "", "wait", "--for=delete", "namespace/legacy", "--timeout=90s"); err != nil {
			t.Error(err)
		}
	})
	m.ApplyFiles(t, "", "samples/bookinfo/networking/bookinfo-gateway.yaml")
	if err := m.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Base = m.Ingress(t)
	m.Eventually(t, 60*time.Second, "the first page", func(ctx context.Context) error {
		p, err := m.Load(ctx, "")
		if err != nil {
			return err
		}
		if p.Status != http.StatusOK || p.Reviews == "" {
			return fmt.Errorf("status %d, reviews %q: %.200s", p.Status, p.Reviews, p.Body)
		}
		return nil
	})
	return m
}
