// Package gateways_test runs the deployment controller of Gateways against a
// real API server: applying, watching, and leaving alone what is somebody else's.
package gateways_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/inject"
	"weft.mesh/weft/control/kube/gateway"
	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/model"
	"weft.mesh/weft/test/kubernetes/apiserver"
)

var (
	gateways    = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}
	services    = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	scalers     = schema.GroupVersionResource{Group: "autoscaling", Version: "v2", Resource: "horizontalpodautoscalers"}
)

// bench is a controller and what it is told.
type bench struct {
	t      *testing.T
	client *kubeclient.Client

	mu      sync.Mutex // protects the following
	wanted  []gatewayapi.Deployment
	changed chan struct{}
	report  map[model.Key]gatewayapi.Infrastructure
}

func start(t *testing.T) *bench {
	s := apiserver.Start(t)
	cfg, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubeclient.New(cfg, "test")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, client: client, changed: make(chan struct{})}
	conf := &inject.Config{Values: inject.DefaultValues(), DiscoveryAddress: "weft.weft-system.svc:15012"}
	c := gateway.New(gateway.Settings{
		Client: client, Inject: func() *inject.Config { return conf },
		Wanted:  func() []gatewayapi.Deployment { b.mu.Lock(); defer b.mu.Unlock(); return b.wanted },
		Changed: func() <-chan struct{} { b.mu.Lock(); defer b.mu.Unlock(); return b.changed },
		Report:  func(r map[model.Key]gatewayapi.Infrastructure) { b.mu.Lock(); defer b.mu.Unlock(); b.report = r },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

func (b *bench) want(ds ...gatewayapi.Deployment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wanted = ds
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *bench) infra(name string) gatewayapi.Infrastructure {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.report[model.Key{Kind: model.KindK8sGateway, Namespace: "default", Name: name}]
}

func (b *bench) create(gvr schema.GroupVersionResource, text string) {
	b.t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.client.Dynamic.Resource(gvr).Namespace("default").Create(b.t.Context(), u, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) get(gvr schema.GroupVersionResource, name string) *unstructured.Unstructured {
	u, err := b.client.Dynamic.Resource(gvr).Namespace("default").Get(b.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.t.Fatalf("not after a minute: %s; reported: %+v", what, b.report)
		}
	}
}

const gatewayText = `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: %s}, spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}}`

func deployment(name string) gatewayapi.Deployment {
	return gatewayapi.Deployment{
		Gateway: model.Key{Kind: model.KindK8sGateway, Namespace: "default", Name: name}, Namespace: "default", Name: name + "-weft", Class: "weft",
		Controller: gatewayapi.Controller, Ports: []gatewayapi.DeploymentPort{{Name: "http-80", Port: 80}}, Labels: map[string]string{},
	}
}

func TestAGatewayIsDeployedReportedAndRemoved(t *testing.T) {
	b := start(t)
	b.create(gateways, fmt.Sprintf(gatewayText, "web"))
	b.want(deployment("web"))
	b.until("Deployment and Service", func() bool { return b.get(deployments, "web-weft") != nil && b.get(services, "web-weft") != nil })

	// Its state comes back. The test plays the cluster's controllers.
	svc := b.get(services, "web-weft")
	_ = unstructured.SetNestedSlice(svc.Object, []any{map[string]any{"ip": "10.1.2.3"}}, "status", "loadBalancer", "ingress")
	if _, err := b.client.Dynamic.Resource(services).Namespace("default").UpdateStatus(t.Context(), svc, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	dep := b.get(deployments, "web-weft")
	_ = unstructured.SetNestedMap(dep.Object, map[string]any{"replicas": int64(1), "readyReplicas": int64(1), "availableReplicas": int64(1)}, "status")
	if _, err := b.client.Dynamic.Resource(deployments).Namespace("default").UpdateStatus(t.Context(), dep, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("ready with an address", func() bool {
		i := b.infra("web")
		return i.Ready && len(i.Addresses) == 1 && i.Addresses[0] == "10.1.2.3"
	})

	// What somebody takes away comes back, and so does what somebody changes.
	if err := b.client.Dynamic.Resource(services).Namespace("default").Delete(t.Context(), "web-weft", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("the Service is back", func() bool { s := b.get(services, "web-weft"); return s != nil && s.GetUID() != svc.GetUID() })
	dep = b.get(deployments, "web-weft")
	_ = unstructured.SetNestedField(dep.Object, int64(7), "spec", "replicas")
	if _, err := b.client.Dynamic.Resource(deployments).Namespace("default").Update(t.Context(), dep, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("one replica again", func() bool {
		n, _, _ := unstructured.NestedInt64(b.get(deployments, "web-weft").Object, "spec", "replicas")
		return n == 1
	})

	b.want()
	b.until("all gone", func() bool { return b.get(deployments, "web-weft") == nil && b.get(services, "web-weft") == nil })
}

func TestWhatIsSomebodyElsesStays(t *testing.T) {
	b := start(t)
	b.create(gateways, fmt.Sprintf(gatewayText, "web"))
	b.create(services, `{apiVersion: v1, kind: Service, metadata: {name: web-weft}, spec: {ports: [{port: 5}]}}`)
	b.want(deployment("web"))
	b.until("a problem", func() bool { return strings.Contains(b.infra("web").Problem, "is there already and not Weft's") })
	b.want()
	b.until("no report", func() bool { return b.infra("web").Problem == "" })
	if b.get(services, "web-weft") == nil {
		t.Error("somebody else's Service was deleted")
	}
}

func TestParametersAreLaidOver(t *testing.T) {
	b := start(t)
	b.create(gateways, fmt.Sprintf(gatewayText, "web"))
	d := deployment("web")
	d.Parameters = "params"
	b.want(d)
	b.until("missing parameters are said", func() bool {
		return strings.Contains(b.infra("web").InvalidParameters, "ConfigMap default/params does not exist")
	})
	b.create(configMaps, `{apiVersion: v1, kind: ConfigMap, metadata: {name: params}, data: {horizontalPodAutoscaler: "spec: {minReplicas: 2, maxReplicas: 4}"}}`)
	b.until("an autoscaler", func() bool { return b.get(scalers, "web-weft") != nil })
	if _, set, _ := unstructured.NestedInt64(b.get(deployments, "web-weft").Object, "metadata", "generation"); !set {
		t.Error("no Deployment")
	}
	// Without parameters the autoscaler goes.
	b.want(deployment("web"))
	b.until("no autoscaler", func() bool { return b.get(scalers, "web-weft") == nil })
}
