package kube

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"weft.mesh/weft/model"
)

// watched is what IngressAddresses reports, and which Service it is told to follow.
type watched struct {
	mu        sync.Mutex
	namespace string
	name      string
	changed   chan struct{}
	addresses []string
	reports   int
}

func (w *watched) service() (string, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.namespace, w.name
}

func (w *watched) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (w *watched) follow(namespace, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.namespace, w.name = namespace, name
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watched) report(addresses []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addresses = addresses
	w.reports++
}

func (w *watched) is(want ...string) func() bool {
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.reports > 0 && slices.Equal(w.addresses, want)
	}
}

func service(ns, name, typ string, external []any, balancer ...any) obj {
	return obj{"apiVersion": "v1", "kind": "Service", "metadata": obj{"namespace": ns, "name": name},
		"spec": obj{"type": typ, "externalIPs": external}, "status": obj{"loadBalancer": obj{"ingress": balancer}}}
}

func TestIngressesGetTheAddressesOfTheirService(t *testing.T) {
	s, c, log, _ := start(t)
	w := &watched{namespace: "weft-system", name: "istio-ingressgateway", changed: make(chan struct{})}
	running(t, (&IngressAddresses{Client: c, Log: log, Service: w.service, Changed: w.next, Report: w.report}).Run)
	eventually(t, "without the Service there is none", w.is())
	s.Put("v1/services", service("weft-system", "other", "LoadBalancer", nil, obj{"ip": "10.9.9.9"}))
	s.Put("v1/services", service("weft-system", "istio-ingressgateway", "LoadBalancer", nil))
	eventually(t, "a balancer that has none yet", w.is())
	s.Put("v1/services", service("weft-system", "istio-ingressgateway", "LoadBalancer", nil, obj{"ip": "10.1.2.3"}, obj{"hostname": "edge.example"}))
	eventually(t, "addresses and names of a balancer", w.is("10.1.2.3", "edge.example"))
	s.Put("v1/services", service("weft-system", "istio-ingressgateway", "NodePort", []any{"192.0.2.1"}))
	eventually(t, "external addresses", w.is("192.0.2.1"))
	s.Put("v1/services", service("weft-system", "istio-ingressgateway", "ClusterIP", nil))
	eventually(t, "the name in the cluster", w.is("istio-ingressgateway.weft-system.svc.cluster.local"))
	w.follow("weft-system", "other")
	eventually(t, "another Service", w.is("10.9.9.9"))
	s.Delete("v1/services", "weft-system", "other")
	eventually(t, "a Service that is gone", w.is())
}

func TestTheStatusOfAnIngressIsItsAddresses(t *testing.T) {
	k := model.Key{Kind: model.KindIngress, Namespace: "shop", Name: "web"}
	if got := IngressStatuses([]model.Key{k}, nil); len(got) != 0 {
		t.Errorf("addresses that are not known are written: %v", got)
	}
	for text, addresses := range map[string][]string{
		"map[loadBalancer:map[]]": {},
		"map[loadBalancer:map[ingress:[map[ip:10.1.2.3] map[ip:2001:db8::1] map[hostname:edge.example]]]]": {"10.1.2.3", "2001:db8::1", "edge.example"},
	} {
		was := map[string]any{"loadBalancer": map[string]any{"ingress": []any{map[string]any{"ip": "10.0.0.9"}}}}
		if got := fmt.Sprint(IngressStatuses([]model.Key{k}, &addresses)[k].Merge(was)); got != text {
			t.Errorf("%v: %s, want %s", addresses, got, text)
		}
		if len(was["loadBalancer"].(map[string]any)["ingress"].([]any)) != 1 {
			t.Error("what there was is changed")
		}
	}
	one, two := []string{"10.1.2.3"}, []string{"10.1.2.4"}
	if reflect.DeepEqual(IngressStatuses([]model.Key{k}, &one)[k].Text, IngressStatuses([]model.Key{k}, &two)[k].Text) {
		t.Error("another address is not told apart")
	}
}
