package cli

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/model"
)

// The webhooks answer on 15017 with the mesh's own certificate, and follow the ConfigMap.
func TestReplicaAnswersWebhooks(t *testing.T) {
	c := startCluster(t)
	var root string
	c.eventually("the namespace has no root certificate", func() bool {
		if u := c.Get("v1/configmaps", "shop", "istio-ca-root-cert"); u != nil {
			root, _ = u["data"].(obj)["root-cert.pem"].(string)
		}
		return root != ""
	})
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(root)) {
		t.Fatal("no certificate in the ConfigMap")
	}
	c.mu.Lock()
	l := c.ports["15017"]
	c.mu.Unlock()
	if l == nil {
		t.Fatalf("15017 is closed: %s", c.log.String())
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "weft.weft-system.svc"}}}
	t.Cleanup(client.CloseIdleConnections)
	type answer struct {
		Allowed bool
		Patch   []byte
		Status  struct{ Message string }

		Warnings []string
	}
	ask := func(path string, request obj) answer {
		t.Helper()
		b, err := json.Marshal(obj{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Post("https://"+l.Addr().String()+path, "application/json", strings.NewReader(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		var out struct{ Response answer }
		if err := json.Unmarshal(text, &out); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return out.Response
	}
	pod := func() answer {
		return ask("/inject", obj{"uid": "1", "operation": "CREATE", "namespace": "shop", "kind": obj{"version": "v1", "kind": "Pod"},
			"object": obj{"metadata": obj{"name": "web"}, "spec": obj{"containers": []any{obj{"name": "web", "image": "web"}}}}})
	}
	if a := pod(); !a.Allowed || !strings.Contains(string(a.Patch), `weft.weft-system.svc:15012`) || !strings.Contains(string(a.Patch), "istio-init") {
		t.Errorf("answer %+v: %s", a, a.Patch)
	}
	c.Put("v1/configmaps", obj{"apiVersion": "v1", "kind": "ConfigMap", "metadata": obj{"namespace": "weft-system", "name": "istio"},
		"data": obj{"mesh": "defaultConfig: {concurrency: 7}\n", "values": "global: {hub: registry.test/weft, tag: v9}\n"}})
	c.eventually("a change of the ConfigMap does not reach pods", func() bool {
		a := pod()
		return strings.Contains(string(a.Patch), "registry.test/weft/proxy:v9") && strings.Contains(string(a.Patch), `\"concurrency\":7`)
	})
	c.Put("v1/configmaps", obj{"apiVersion": "v1", "kind": "ConfigMap", "metadata": obj{"namespace": "weft-system", "name": "istio"},
		"data": obj{"mesh": "defaultConfig: {concurrency: 7}\n", "values": "proxy: {statusPort: 70000}\n"}})
	c.eventually("a bad change is not said", func() bool { return strings.Contains(c.log.String(), "proxy.statusPort 70000") })
	if a := pod(); !a.Allowed || !strings.Contains(string(a.Patch), "istio-init") {
		t.Errorf("after a bad change: %+v", a)
	}
	vs := func(subset, timeout string) answer {
		return ask("/validate", obj{"uid": "2", "operation": "CREATE", "namespace": "shop", "kind": obj{"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"},
			"object": obj{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": obj{"name": "web", "namespace": "shop"},
				"spec": obj{"hosts": []any{"web"}, "http": []any{obj{"timeout": timeout, "route": []any{obj{"destination": obj{"host": "web", "subset": subset}}}}}}}})
	}
	if a := vs("", "soon"); a.Allowed || !strings.Contains(a.Status.Message, "soon") {
		t.Errorf("a timeout that is none: %+v", a)
	}
	if a := vs("v1", "1s"); !a.Allowed || !strings.Contains(strings.Join(a.Warnings, " "), "[unknown-subset]") {
		t.Errorf("a subset that is not there: %+v", a)
	}
	if a := vs("", "1s"); !a.Allowed || len(a.Warnings) > 0 {
		t.Errorf("a good one: %+v", a)
	}
}

// An upgrade changes both keys of the ConfigMap, and each is followed on its own.
func TestValuesAndMeshThatChangeAtOnceBothCount(t *testing.T) {
	for range 200 {
		w := &webhooks{r: &replica{o: &kubernetesOptions{}, log: slog.New(slog.DiscardHandler), base: model.Mesh{Domain: "cluster.local"}}}
		if err := w.use("", ""); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		take := func(use func(string) error, text string) {
			if err := use(text); err != nil {
				t.Error(err)
			}
		}
		wg.Go(func() { take(w.revalue, "global: {tag: v9}\n") })
		wg.Go(func() { take(w.remesh, "defaultConfig: {concurrency: 7}\n") })
		wg.Wait()
		if w.valuesText == "" || w.meshText == "" {
			t.Fatalf("lost: values %q, mesh %q", w.valuesText, w.meshText)
		}
	}
}
