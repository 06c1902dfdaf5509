package kube

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

const crds = "customresourcedefinitions"

// followCRDs watches which custom resources are installed, by name alone, and
// keeps a watch for each of ours that is.
func (r *run) followCRDs() {
	c := r.s.set.Client.Metadata.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: crds})
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			l, err := c.List(ctx, o)
			r.trouble.report(ctx, crds, err)
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := c.Watch(ctx, o)
			r.trouble.report(ctx, crds, err)
			return w, err
		},
	}
	quiet := logr.Discard()
	x := &installed{names: map[string]bool{}, wake: make(chan struct{}, 1)}
	reflector := cache.NewReflectorWithOptions(lw, nil, x, cache.ReflectorOptions{Name: "weft", Logger: &quiet, TypeDescription: crds, Backoff: r.backoff()})
	r.wg.Go(func() { reflector.RunWithContext(r.ctx) })
	var retry <-chan time.Time
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-x.wake:
		case <-retry:
		}
		names, listed := x.snapshot()
		if !listed {
			continue
		}
		retry = nil
		if !r.match(names) {
			retry = time.After(r.s.set.retry)
		}
	}
}

// match starts watches of what is installed and ends those of what no longer
// is. It returns false if the server could not be asked; it is tried again.
func (r *run) match(names map[string]bool) bool {
	ok := true
	for _, k := range slices.Concat(credentials, custom) {
		r.mu.Lock()
		w := r.watched[k.kind]
		r.mu.Unlock()
		group := groupOf(k.versions[0])
		there := names[k.plural+"."+group] || !strings.Contains(group, ".istio.io") && !strings.HasPrefix(group, "gateway.")
		switch {
		case !known(k.kind):
		case there && w == nil:
			version, err := r.served(k)
			r.trouble.report(r.ctx, k.plural, err)
			if err != nil || version != "" && r.watch(k, version) != nil {
				ok = false
			}
			// Installed and not served: it is being established, which its next event tells.
		case !there && w != nil:
			w.end()
			r.s.set.Log.Warn("kubernetes: a custom resource is gone, and its objects with it", "resource", k.plural+"."+group)
		}
	}
	if ok {
		r.mu.Lock()
		r.synced("crds")
		r.mu.Unlock()
	}
	return ok
}

// served is the version of a kind to read: our favourite of those that the server has; "" if it has none.
func (r *run) served(k *kind) (string, error) {
	group := groupOf(k.versions[0])
	if group == "" {
		return k.versions[0], nil
	}
	have, err := r.s.set.Client.Versions(group)
	if err != nil {
		return "", err
	}
	for _, v := range k.versions {
		gv := schema.GroupVersion{Group: group, Version: strings.TrimPrefix(v, group+"/")}
		if !slices.Contains(have, gv.Version) {
			continue
		}
		if ok, err := r.s.set.Client.Serves(gv, k.plural); ok || err != nil {
			return v, err
		}
	}
	return "", nil
}
