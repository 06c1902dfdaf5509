// Package source holds the source of Kubernetes to its contract against a real
// API server. Without the binaries it skips with one line; what it asks is
// asked of an API server in memory by control/source/kube's own tests.
package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/control/source/kube"
	"weft.mesh/weft/control/source/sourcetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/test/kubernetes/apiserver"
	"weft.mesh/weft/test/kubernetes/testbed"
)

// server is a real API server, and the ways to change what it holds.
type server struct{ *testbed.APIServer }

func (s server) source(t testing.TB) *kube.Source {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := kubeclient.New(cfg, "weft-test")
	if err != nil {
		t.Fatal(err)
	}
	return kube.New(kube.Settings{Client: c})
}

func (s server) do(t testing.TB, method, path, contentType, body string) {
	t.Helper()
	err := s.Client.Do(t.Context(), method, path, contentType, []byte(body), nil)
	var status *testbed.StatusError
	if method == http.MethodDelete && errors.As(err, &status) && status.Code == http.StatusNotFound {
		return
	}
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
}

// apply is a server-side apply.
func (s server) apply(t testing.TB, path, body string) {
	t.Helper()
	s.do(t, http.MethodPatch, path+"?fieldManager=test&force=true", "application/apply-patch+yaml", body)
}

const services = "/api/v1/namespaces/default/services/"

// mine leaves the objects that every cluster has out of a test.
func mine(k model.Key) bool {
	return k.Namespace == "default" && k.Name != "kubernetes" && k.Kind == model.KindService
}

func start(t testing.TB) server {
	t.Helper()
	s := server{apiserver.Start(t)}
	// The server makes the namespace some time after it is ready.
	for deadline := time.Now().Add(sourcetest.Patience); ; time.Sleep(50 * time.Millisecond) {
		if err := s.Client.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/default", "", nil, nil); err == nil {
			return s
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestARealAPIServerKeepsTheSourceContract(t *testing.T) {
	s := start(t)
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
		names := map[string]bool{}
		t.Cleanup(func() {
			for name := range names {
				if err := s.Client.Do(context.Background(), http.MethodDelete, services+name, "", nil, nil); err != nil {
					t.Logf("clean up %s: %v", name, err)
				}
			}
		})
		return sourcetest.Harness{Source: filtered{s.source(t)},
			Put: func(t testing.TB, o convert.Object) {
				names[o.Key.Name] = true
				s.apply(t, services+o.Key.Name, string(o.Raw))
			},
			Delete: func(t testing.TB, k model.Key) {
				delete(names, k.Name)
				s.do(t, http.MethodDelete, services+k.Name, "", "")
			}}
	})
}

func TestObjectsOfARealAPIServer(t *testing.T) {
	s := start(t)
	s.apply(t, services+"web", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"selector":{"app":"web"},"ports":[{"name":"http","port":80,"targetPort":8080}]}}`)
	s.apply(t, services+"ext", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"ext"},"spec":{"type":"ExternalName","externalName":"db.example.com"}}`)
	s.apply(t, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-1", `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4",
		"metadata":{"name":"web-1","labels":{"kubernetes.io/service-name":"web"}},"ports":[{"name":"http","port":8080}],
		"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true},"targetRef":{"kind":"Pod","name":"web-1"}}]}`)
	s.apply(t, "/apis/networking.istio.io/v1beta1/namespaces/default/virtualservices/web", `{"apiVersion":"networking.istio.io/v1beta1","kind":"VirtualService","metadata":{"name":"web"},
		"spec":{"hosts":["web"],"http":[{"route":[{"destination":{"host":"web"}}]}]}}`)
	s.apply(t, "/apis/gateway.networking.k8s.io/v1/gatewayclasses/weft", `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"GatewayClass","metadata":{"name":"weft"},"spec":{"controllerName":"weft.mesh/gateway-controller"}}`)
	src := s.source(t)
	r, _ := sourcetest.Start(t, src)
	got := r.UntilSynced()
	want := func(kind model.Kind, ns, name string) convert.Object {
		t.Helper()
		o, ok := got[model.Key{Kind: kind, Namespace: ns, Name: name}]
		if !ok {
			t.Fatalf("no %s %s/%s", kind, ns, name)
		}
		values, ds := convert.ToModel(&o, model.Mesh{EndpointSlices: true})
		if convert.HasErrors(ds) || len(values) == 0 && !kind.IsGatewayAPI() {
			t.Fatalf("%s %s/%s: %v", kind, ns, name, ds)
		}
		return o
	}
	want(model.KindNamespace, "", "default")
	want(model.KindService, "default", "kubernetes")
	want(model.KindService, "default", "ext")
	want(model.KindService, "default", "web")
	want(model.KindGatewayClass, "", "weft")
	if o := want(model.KindEndpointSlice, "default", "web-1"); o.Value.(*model.EndpointSlice).Endpoints[0].Pod != "web-1" {
		t.Errorf("%+v", o.Value)
	}
	if o := want(model.KindVirtualService, "default", "web"); bytes.Contains(o.Raw, []byte("managedFields")) || o.APIVersion != "networking.istio.io/v1" {
		t.Errorf("%s in %s", o.Raw, o.APIVersion)
	}
	v, ok := src.Version(model.Key{Kind: model.KindVirtualService, Namespace: "default", Name: "web"})
	if !ok || v.Generation != 1 {
		t.Errorf("version %+v", v)
	}
	// What only the status says is no event.
	s.do(t, http.MethodPatch, "/apis/networking.istio.io/v1/namespaces/default/virtualservices/web/status", "application/merge-patch+json", `{"status":{"conditions":[{"type":"Accepted","status":"True"}]}}`)
	s.do(t, http.MethodDelete, services+"ext", "", "")
	r.Want("delete Service default/ext")
}

// endpointsOf writes n Services with one slice of ten endpoints each.
func (s server) endpointsOf(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		name := fmt.Sprint("svc-", i)
		s.apply(t, services+name, fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"name":%q},"spec":{"clusterIP":"None","selector":{"app":%q},"ports":[{"name":"http","port":80}]}}`, name, name))
		var eps []map[string]any
		for j := range 10 {
			eps = append(eps, map[string]any{"addresses": []string{fmt.Sprintf("10.%d.%d.%d", 1+i/250, i%250, j+1)}, "conditions": map[string]any{"ready": true}})
		}
		b, err := json.Marshal(map[string]any{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
			"metadata": map[string]any{"name": name, "labels": map[string]any{"kubernetes.io/service-name": name}}, "ports": []any{map[string]any{"name": "http", "port": 8080}}, "endpoints": eps})
		if err != nil {
			t.Fatal(err)
		}
		s.apply(t, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/"+name, string(b))
	}
}

func TestAThousandEndpointsAreReadAtOnce(t *testing.T) {
	s := start(t)
	s.endpointsOf(t, 100)
	began := time.Now()
	r, _ := sourcetest.Start(t, s.source(t))
	got := r.UntilSynced()
	endpoints := 0
	for _, o := range got {
		if x, ok := o.Value.(*model.EndpointSlice); ok && x.Namespace == "default" && x.Service != "kubernetes" {
			endpoints += len(x.Endpoints)
		}
	}
	if endpoints != 1000 {
		t.Errorf("%d endpoints, want 1000", endpoints)
	}
	t.Logf("%d objects after %s", len(got), time.Since(began).Round(time.Millisecond))
}
