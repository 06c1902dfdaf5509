package kube

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"weft.mesh/weft/control/kube/kubeclient"
)

const crds = "customresourcedefinitions"

// followCRDs watches which custom resources are installed, by name alone, and
// keeps a watch for each of ours that is.
func (r *run) followCRDs() {
	c := r.s.set.Client.Metadata.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: crds})
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			began := time.Now()
			l, err := c.List(ctx, o)
			r.trouble.report(ctx, crds, began, err)
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			began := time.Now()
			w, err := c.Watch(ctx, o)
			r.trouble.report(ctx, crds, began, err)
			return w, err
		},
	}
	quiet := logr.Discard()
	x := &installed{names: map[string]bool{}, wake: make(chan struct{}, 1)}
	reflector := cache.NewReflectorWithOptions(lw, nil, x, cache.ReflectorOptions{Name: "weft", Logger: &quiet, TypeDescription: crds, Backoff: kubeclient.Backoff(r.s.set.retry)})
	r.wg.Go(func() { reflector.RunWithContext(r.ctx) })
	var retry <-chan time.Time
	old := unserved{log: r.s.set.Log}
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
		if ok := r.match(names, &old); !ok || old.look() {
			retry = time.After(r.s.set.retry)
		}
	}
}

// unserved is the definitions of which the server serves no version that we read. One that was just made is
// established a moment later; one that stays so is older or newer than we know, and is told once.
type unserved struct {
	log  *slog.Logger
	now  map[string]bool // in this round, by resource
	last map[string]bool // in the round before
	told map[string]bool
}

// look ends a round, and tells whether there should be another one.
func (u *unserved) look() (again bool) {
	for resource := range u.now {
		switch {
		case u.told[resource]:
		case u.last[resource]:
			u.log.Error("kubernetes: the definition of a resource serves no version that this control plane reads: its objects do nothing; apply the definitions of this version (weft upgrade, or deploy/crds)", "resource", resource)
			u.told[resource] = true
		default:
			again = true
		}
	}
	u.last, u.now = u.now, nil
	return again
}

func (u *unserved) add(resource string) {
	if u.now == nil {
		u.now = map[string]bool{}
	}
	if u.told == nil {
		u.told = map[string]bool{}
	}
	u.now[resource] = true
}

// served forgets a resource: its objects are read.
func (u *unserved) served(resource string) { delete(u.told, resource) }

// match starts watches of what is installed and ends those of what no longer
// is. It returns false if the server could not be asked; it is tried again.
func (r *run) match(names map[string]bool, old *unserved) bool {
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
			began := time.Now()
			version, err := r.served(k)
			r.trouble.report(r.ctx, k.plural, began, err)
			if err != nil || version != "" && r.watch(k, version) != nil {
				ok = false
			}
			// Installed and not served: it is being established, which its next event tells, or not one that we read.
			if resource := k.plural + "." + group; version != "" {
				old.served(resource)
			} else if err == nil {
				old.add(resource)
			}
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
