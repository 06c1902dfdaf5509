package kube

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/model"
)

// IngressAddresses follows the Service of the ingress gateway, for the status of Ingresses. Leader only.
type IngressAddresses struct {
	Client *kubeclient.Client
	// Service is which one; Changed is closed when it may be another.
	Service func() (namespace, name string)
	Changed func() <-chan struct{}
	// Report takes each other list of addresses: none if there is no Service, or it has none yet.
	Report func(addresses []string)
	Log    *slog.Logger
}

// Run reports until ctx ends.
func (w *IngressAddresses) Run(ctx context.Context) {
	for ctx.Err() == nil {
		w.one(ctx)
	}
}

// one follows a Service until another is meant.
func (w *IngressAddresses) one(ctx context.Context) {
	namespace, name := w.Service()
	part, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	store := newObjects(nil)
	wg.Go(func() {
		follow(part, w.Client.Dynamic.Resource(services).Namespace(namespace), "metadata.name="+name, store, w.Log, "service of ingresses "+namespace+"/"+name)
	})
	var last []string
	reported := false
	for {
		changed := w.Changed()
		if ns, n := w.Service(); ns != namespace || n != name {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			continue
		case <-store.wake:
		}
		all, ok := store.list()
		if !ok {
			continue
		}
		var now []string
		for _, s := range all {
			now = append(now, ingressAddresses(s)...)
		}
		if !reported || !slices.Equal(now, last) {
			w.Report(now)
			last, reported = now, true
		}
	}
}

// ingressAddresses are a Service's: its external addresses too, and its name in the cluster where it has no other.
func ingressAddresses(s *unstructured.Unstructured) []string {
	external, _, _ := unstructured.NestedStringSlice(s.Object, "spec", "externalIPs")
	if t, _, _ := unstructured.NestedString(s.Object, "spec", "type"); len(external) > 0 && t != string(corev1.ServiceTypeLoadBalancer) {
		return external
	}
	return append(kubeclient.ServiceAddresses(s), external...)
}

// IngressStatuses are the statuses of the Ingresses that are served: the addresses; nil means that they are not known.
func IngressStatuses(served []model.Key, addresses *[]string) map[model.Key]Wanted {
	if addresses == nil {
		return nil
	}
	points := make([]any, 0, len(*addresses))
	for _, a := range *addresses {
		field := "hostname"
		if _, err := netip.ParseAddr(a); err == nil {
			field = "ip"
		}
		points = append(points, map[string]any{field: a})
	}
	balancer := map[string]any{}
	if len(points) > 0 {
		balancer["ingress"] = points
	}
	text := strings.Join(*addresses, " ")
	out := make(map[model.Key]Wanted, len(served))
	for _, k := range served {
		out[k] = Wanted{Text: text, Merge: func(map[string]any) map[string]any { return map[string]any{"loadBalancer": balancer} }}
	}
	return out
}
