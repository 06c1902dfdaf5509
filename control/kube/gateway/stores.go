package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"weft.mesh/weft/control/kube/kubeclient"
)

// The label of what this controller made, as Istio's with our name in it.
const (
	labelManaged = "gateway.istio.io/managed"
	managedBy    = "weft.mesh-gateway-controller"
)

func res(group, version, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
}

var (
	gateways        = res("gateway.networking.k8s.io", "v1", "gateways")
	configMaps      = res("", "v1", "configmaps")
	serviceAccounts = res("", "v1", "serviceaccounts")
	services        = res("", "v1", "services")
	deployments     = res("apps", "v1", "deployments")
	autoscalers     = res("autoscaling", "v2", "horizontalpodautoscalers")
	budgets         = res("policy", "v1", "poddisruptionbudgets")
	// owned are all kinds that a gateway may have.
	owned = []schema.GroupVersionResource{serviceAccounts, services, deployments, autoscalers, budgets}
)

// stores are what is there of our objects, without their specs but for what is reported.
type stores struct {
	wake chan struct{} // 1 slot

	mu  sync.Mutex // protects the following
	all map[objectKey]*unstructured.Unstructured
	// ready are the kinds that were read.
	ready map[schema.GroupVersionResource]bool
}

func newStores() *stores {
	return &stores{wake: make(chan struct{}, 1), all: map[objectKey]*unstructured.Unstructured{}, ready: map[schema.GroupVersionResource]bool{}}
}

// run follows all kinds until ctx ends.
func (s *stores) run(ctx context.Context, wg *sync.WaitGroup, c dynamic.Interface, log *slog.Logger) {
	for _, gvr := range owned {
		wg.Go(func() { follow(ctx, c.Resource(gvr), &kindStore{s, gvr}, gvr.Resource, log) })
	}
}

// follow lists and watches objects with our label until ctx ends.
func follow(ctx context.Context, c dynamic.ResourceInterface, store cache.ReflectorStore, what string, log *slog.Logger) {
	said := false
	report := func(err error) {
		if err == nil {
			said = false
		} else if ctx.Err() == nil && !said {
			said = true
			log.Warn("kubernetes: what runs gateways cannot be followed", "resource", what, "error", err)
		}
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = labelManaged + "=" + managedBy
			l, err := c.List(ctx, o)
			report(err)
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = labelManaged + "=" + managedBy
			return c.Watch(ctx, o)
		},
	}
	quiet := logr.Discard()
	cache.NewReflectorWithOptions(lw, nil, store, cache.ReflectorOptions{Name: "weft", Logger: &quiet, TypeDescription: what, Backoff: kubeclient.Backoff(kubeclient.MaxBackoff)}).
		RunWithContext(klog.NewContext(ctx, quiet))
}

func (s *stores) synced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ready) == len(owned)
}

func (s *stores) get(k objectKey) (*unstructured.Unstructured, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.all[k]
	return o, ok
}

func (s *stores) keys() (out []objectKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.all {
		out = append(out, k)
	}
	return out
}

// kindStore implements cache.ReflectorStore for one kind.
type kindStore struct {
	s   *stores
	gvr schema.GroupVersionResource
}

func (k *kindStore) edit(o any, f func(key objectKey, u *unstructured.Unstructured)) error {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("kubernetes: unexpected %T", o)
	}
	k.s.mu.Lock()
	f(objectKey{k.gvr, u.GetNamespace(), u.GetName()}, u)
	k.s.mu.Unlock()
	k.signal()
	return nil
}

func (k *kindStore) signal() {
	select {
	case k.s.wake <- struct{}{}:
	default:
	}
}

func (k *kindStore) Add(o any) error {
	return k.edit(o, func(key objectKey, u *unstructured.Unstructured) { k.s.all[key] = u })
}

func (k *kindStore) Update(o any) error { return k.Add(o) }

func (k *kindStore) Delete(o any) error {
	return k.edit(o, func(key objectKey, _ *unstructured.Unstructured) { delete(k.s.all, key) })
}

func (k *kindStore) Resync() error { return nil }

func (k *kindStore) Replace(list []any, _ string) error {
	k.s.mu.Lock()
	for key := range k.s.all {
		if key.gvr == k.gvr {
			delete(k.s.all, key)
		}
	}
	k.s.mu.Unlock()
	for _, o := range list {
		if err := k.Add(o); err != nil {
			return err
		}
	}
	k.s.mu.Lock()
	k.s.ready[k.gvr] = true
	k.s.mu.Unlock()
	k.signal()
	return nil
}
