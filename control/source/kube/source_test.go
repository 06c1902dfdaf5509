package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/control/kube/kubetest"
	"weft.mesh/weft/control/source/sourcetest"
	"weft.mesh/weft/model"
)

const (
	services = "v1/services"
	virtual  = "networking.istio.io/v1/virtualservices"
)

func newSource(t testing.TB, s *kubetest.Server, edits ...func(*Settings)) *Source {
	t.Helper()
	c, err := kubeclient.New(s.Config(), "weft-test")
	if err != nil {
		t.Fatal(err)
	}
	set := Settings{Client: c, retry: 50 * time.Millisecond}
	for _, e := range edits {
		e(&set)
	}
	return New(set)
}

// object is an object of a test from its text.
func object(t testing.TB, format string, args ...any) kubetest.Object {
	t.Helper()
	var o kubetest.Object
	if err := json.Unmarshal([]byte(fmt.Sprintf(format, args...)), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestKubernetesKeepsTheSourceContract(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
		s := kubetest.Start(t)
		return sourcetest.Harness{Source: newSource(t, s),
			Put: func(t testing.TB, o convert.Object) {
				var v kubetest.Object
				if err := json.Unmarshal(o.Raw, &v); err != nil {
					t.Fatal(err)
				}
				s.Put(services, v)
			},
			Delete: func(t testing.TB, k model.Key) { s.Delete(services, k.Namespace, k.Name) }}
	})
}

func virtualService(t testing.TB, name, host string) kubetest.Object {
	return object(t, `{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{"namespace":"default","name":%q,
		"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}"},"managedFields":[{"manager":"kubectl"}]},
		"spec":{"hosts":[%q],"http":[{"route":[{"destination":{"host":"web"}}]}]},"status":{"conditions":[]}}`, name, host)
}

func vsKey(name string) model.Key {
	return model.Key{Kind: model.KindVirtualService, Namespace: "default", Name: name}
}

func TestCustomResourcesThatAreInstalledLaterAreWaitedFor(t *testing.T) {
	s := kubetest.Start(t)
	src := newSource(t, s)
	r, _ := sourcetest.Start(t, src)
	r.UntilSynced()
	s.Install("networking.istio.io/v1", "virtualservices", "VirtualService", true)
	s.Put(virtual, virtualService(t, "a", "web"))
	e := r.Want("put VirtualService default/a")
	if strings.Contains(string(e.Put.Raw), "last-applied") || strings.Contains(string(e.Put.Raw), "managedFields") || strings.Contains(string(e.Put.Raw), "status") {
		t.Errorf("what only a server writes is kept: %s", e.Put.Raw)
	}
	if v, ok := src.Version(vsKey("a")); !ok || v.Generation != 1 || v.APIVersion != "networking.istio.io/v1" {
		t.Errorf("version %+v, %v", v, ok)
	}
	s.Uninstall("networking.istio.io/v1", "virtualservices")
	r.Want("delete VirtualService default/a")
	s.Install("networking.istio.io/v1beta1", "virtualservices", "VirtualService", true)
	old := virtualService(t, "b", "web")
	old["apiVersion"] = "networking.istio.io/v1beta1"
	s.Put("networking.istio.io/v1beta1/virtualservices", old)
	r.Want("put VirtualService default/b")
}

func TestAnInvalidObjectIsRefusedAndWhatItWasServes(t *testing.T) {
	s := kubetest.Start(t)
	s.Install("networking.istio.io/v1", "virtualservices", "VirtualService", true)
	s.Put(virtual, virtualService(t, "a", "web"))
	var log bytes.Buffer
	told := make(chan struct{}, 16)
	src := newSource(t, s, func(set *Settings) {
		set.Log, set.OnProblems = slog.New(slog.NewTextHandler(&log, nil)), func() { told <- struct{}{} }
	})
	r, stop := sourcetest.Start(t, src)
	r.UntilSynced()
	bad := virtualService(t, "a", "web")
	bad["spec"].(kubetest.Object)["httpp"] = []any{}
	delete(bad["spec"].(kubetest.Object), "http")
	s.Put(virtual, bad)
	<-told
	ds := src.Problems()[vsKey("a")]
	text := `{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{"name":"a"},"spec":{"hosts":["web"],"httpp":[]}}`
	_, want := convert.Decode(admin.File{Name: "a.yaml", Content: text}, convert.Options{})
	if len(ds) == 0 || len(want) == 0 || ds[0].Message != want[0].Message || ds[0].Hint != want[0].Hint || ds[0].Field != want[0].Field {
		t.Errorf("refused with\n%+v\nweft apply says\n%+v", ds, want)
	}
	s.Put(services, object(t, `{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"default","name":"x"},"spec":{"ports":[{"port":80}]}}`))
	r.Want("put Service default/x") // and nothing of the VirtualService: it is neither put nor deleted
	s.Put(virtual, virtualService(t, "a", "other"))
	<-told
	if e := r.Want("put VirtualService default/a"); e.Put.ValueAt("spec.hosts[0]") != "other" {
		t.Errorf("%s", e.Put.Raw)
	}
	if p := src.Problems(); len(p) != 0 {
		t.Errorf("still refused: %v", p)
	}
	_ = stop()
	if n := strings.Count(log.String(), "an object is refused"); n != 1 {
		t.Errorf("%d lines in the log, want 1:\n%s", n, log.String())
	}
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(sourcetest.Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func TestWhileTheServerIsAwayNothingIsLost(t *testing.T) {
	s := kubetest.Start(t)
	s.Install("networking.istio.io/v1", "virtualservices", "VirtualService", true)
	put := func(name string) {
		s.Put(services, object(t, `{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"default","name":%q},"spec":{"ports":[{"port":80}]}}`, name))
	}
	put("stays")
	put("goes")
	s.Put(virtual, virtualService(t, "a", "web"))
	var log syncBuffer
	r, _ := sourcetest.Start(t, newSource(t, s, func(set *Settings) { set.Log = slog.New(slog.NewTextHandler(&log, nil)) }))
	r.UntilSynced()
	s.Down()
	eventually(t, "the outage is not in the log", func() bool { return strings.Contains(log.String(), "does not answer") })
	s.Delete(services, "default", "goes")
	put("comes")
	s.Up(t)
	got := map[string]bool{}
	for range 2 {
		got[r.Next().String()] = true
	}
	if !got["delete Service default/goes"] || !got["put Service default/comes"] {
		t.Errorf("got %v", got)
	}
	eventually(t, "nobody says that it answers again", func() bool { return strings.Contains(log.String(), "answers again") })
	select {
	case e := <-r.Events():
		t.Errorf("%s, of which nothing changed", e)
	default:
	}
	if n := strings.Count(log.String(), "does not answer"); n > 2 {
		t.Errorf("%d lines of one outage:\n%s", n, log.String())
	}
}

func TestAResourceThatMayNotBeReadIsSaidOnce(t *testing.T) {
	s := kubetest.Start(t)
	s.Forbid("v1/nodes", true)
	var log syncBuffer
	r, _ := sourcetest.Start(t, newSource(t, s, func(set *Settings) { set.Log = slog.New(slog.NewTextHandler(&log, nil)) }))
	eventually(t, "nothing in the log", func() bool { return strings.Contains(log.String(), "may not be read") })
	if !strings.Contains(log.String(), "nodes") || !strings.Contains(log.String(), "grant get, list and watch") {
		t.Errorf("%s", log.String())
	}
	s.Forbid("v1/nodes", false)
	r.UntilSynced()
	if n := strings.Count(log.String(), "may not be read"); n != 1 {
		t.Errorf("%d lines", n)
	}
}

func TestADefinitionOfAnotherVersionIsSaidOnce(t *testing.T) {
	s := kubetest.Start(t)
	s.Install("networking.istio.io/v2alpha1", "virtualservices", "VirtualService", true)
	var log syncBuffer
	r, _ := sourcetest.Start(t, newSource(t, s, func(set *Settings) { set.Log = slog.New(slog.NewTextHandler(&log, nil)) }))
	r.UntilSynced() // the others are served all the same
	const said = "serves no version that this control plane reads"
	eventually(t, "nothing in the log", func() bool { return strings.Contains(log.String(), said) })
	if !strings.Contains(log.String(), "resource=virtualservices.networking.istio.io") {
		t.Errorf("%s", log.String())
	}
	// What wakes it up again says nothing new; the version that it reads is read.
	s.Install("networking.istio.io/v1", "destinationrules", "DestinationRule", true)
	s.Install("networking.istio.io/v1", "virtualservices", "VirtualService", true)
	s.Put(virtual, virtualService(t, "a", "web"))
	r.Want("put VirtualService default/a")
	if n := strings.Count(log.String(), said); n != 1 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

func TestDiscoverySelectorsChooseNamespaces(t *testing.T) {
	s := kubetest.Start(t)
	namespace := func(name, mesh string) {
		s.Put("v1/namespaces", object(t, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q,"labels":{"mesh":%q}}}`, name, mesh))
	}
	service := func(ns string) {
		s.Put(services, object(t, `{"apiVersion":"v1","kind":"Service","metadata":{"namespace":%q,"name":"web"},"spec":{"ports":[{"port":80}]}}`, ns))
	}
	namespace("in", "yes")
	namespace("out", "no")
	service("in")
	service("out")
	sel, err := labels.Parse("mesh=yes")
	if err != nil {
		t.Fatal(err)
	}
	r, _ := sourcetest.Start(t, newSource(t, s, func(set *Settings) { set.Selectors = []labels.Selector{sel} }))
	got := r.UntilSynced()
	if len(got) != 2 || got[model.Key{Kind: model.KindNamespace, Name: "in"}].Value == nil || got[model.Key{Kind: model.KindService, Namespace: "in", Name: "web"}].Value == nil {
		t.Errorf("got %v, want the namespace in and its Service", got)
	}
	namespace("out", "yes")
	r.Want("put Namespace out")
	r.Want("put Service out/web")
	namespace("in", "no")
	r.Want("delete Namespace in")
	r.Want("delete Service in/web")
}

func TestPodsAndSlicesAreKeptAsTheirModel(t *testing.T) {
	s := kubetest.Start(t)
	pod := func(phase, ready, extra string) {
		s.Put("v1/pods", object(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"default","name":"a","labels":{"app":"web"},"annotations":{"x":%q}},
			"spec":{"serviceAccountName":"web","containers":[{"name":"istio-proxy"},{"name":"app","env":[{"name":"A","value":"B"}]}]},
			"status":{"phase":%q,"podIP":"10.0.0.1","conditions":[{"type":"Ready","status":%q}]}}`, extra, phase, ready))
	}
	pod("Running", "False", "")
	r, _ := sourcetest.Start(t, newSource(t, s))
	got := r.UntilSynced()
	w, ok := got[model.Key{Kind: model.KindPod, Namespace: "default", Name: "a"}].Value.(*model.Workload)
	if !ok || !w.HasSidecar || w.ServiceAccount != "web" || w.Ready {
		t.Fatalf("got %+v", got)
	}
	pod("Running", "False", "an annotation that nobody uses")
	pod("Running", "True", "")
	if e := r.Want("put Pod default/a"); !e.Put.Value.(*model.Workload).Ready {
		t.Error("an unused annotation made an event")
	}
	s.Put("discovery.k8s.io/v1/endpointslices", object(t, `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","metadata":{"namespace":"default","name":"web-x","labels":{"kubernetes.io/service-name":"web"}},
		"ports":[{"name":"http","port":8080}],"endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true},"targetRef":{"kind":"Pod","name":"a"}}]}`))
	if e := r.Want("put EndpointSlice default/web-x"); e.Put.Value.(*model.EndpointSlice).Service != "web" {
		t.Errorf("%+v", e.Put.Value)
	}
	pod("Succeeded", "False", "")
	r.Want("delete Pod default/a")
}

// Whose account the pods of a service have is known while there are none.
func TestTemplatesOfPodsAreKeptAsAccounts(t *testing.T) {
	s := kubetest.Start(t)
	deployment := func(replicas int, account string) {
		s.Put("apps/v1/deployments", object(t, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"namespace":"default","name":"web"},
			"spec":{"replicas":%d,"template":{"metadata":{"labels":{"app":"web"}},"spec":{"serviceAccountName":%q,"containers":[{"name":"app","ports":[{"name":"http","containerPort":8080}]}]}}}}`, replicas, account))
	}
	deployment(0, "web")
	s.Put("apps/v1/statefulsets", object(t, `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"namespace":"default","name":"web"},"spec":{"template":{"metadata":{"labels":{"app":"db"}}}}}`))
	r, _ := sourcetest.Start(t, newSource(t, s))
	got := r.UntilSynced()
	d, ok := got[model.Key{Kind: model.KindDeployment, Namespace: "default", Name: "web"}].Value.(*model.Deployment)
	if !ok || d.ServiceAccount != "web" || d.PodLabels["app"] != "web" || d.Ports["http"] != 8080 {
		t.Errorf("deployment %+v", d)
	}
	d, ok = got[model.Key{Kind: model.KindStatefulSet, Namespace: "default", Name: "web"}].Value.(*model.Deployment)
	if !ok || d.ServiceAccount != "default" || d.PodLabels["app"] != "db" {
		t.Errorf("stateful set %+v", d)
	}
	deployment(1, "web") // scaling is no event
	deployment(1, "other")
	if e := r.Want("put Deployment default/web"); e.Put.Value.(*model.Deployment).ServiceAccount != "other" {
		t.Errorf("%+v", e.Put.Value)
	}
}

func TestRunEndsWhileTheServerIsAway(t *testing.T) {
	s := kubetest.Start(t)
	s.Down()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := newSource(t, s).Run(ctx, sourcetest.NewRecorder(t)); err != nil {
		t.Error(err)
	}
}
