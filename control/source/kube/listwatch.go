package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

// entry is an object as soon as it is read: what it was on the wire is garbage
// from here on. It implements what client-go's reflector asks of objects.
type entry struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	object   convert.Object
	revision string // label istio.io/rev
	diags    []admin.Diagnostic
	refused  bool // object has a key and nothing else
	dropped  bool // nothing that configuration can refer to
}

// DeepCopyObject implements runtime.Object. Entries are never changed.
func (e *entry) DeepCopyObject() runtime.Object { c := *e; return &c }

// entries is a list of them.
type entries struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []entry
}

// DeepCopyObject implements runtime.Object.
func (l *entries) DeepCopyObject() runtime.Object { c := *l; return &c }

// listWatch reads a kind and converts at once, and tells trouble how it goes.
func (r *run) listWatch(k *kind, version string) (*cache.ListWatch, error) {
	gv, err := schema.ParseGroupVersion(version)
	if err != nil {
		return nil, fmt.Errorf("source kubernetes: %s: %w", k.kind, err)
	}
	raw, err := r.rawListWatch(k, gv)
	if err != nil {
		return nil, err
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = k.fields
			began := time.Now()
			l, err := raw.ListWithContextFunc(ctx, o)
			if r.trouble.report(ctx, k.plural, began, err); err != nil {
				return nil, err
			}
			return convertList(k, l)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = k.fields
			began := time.Now()
			w, err := raw.WatchFuncWithContext(ctx, o)
			if r.trouble.report(ctx, k.plural, began, err); err != nil {
				return nil, err
			}
			return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
				if e.Type == watch.Added || e.Type == watch.Modified || e.Type == watch.Deleted {
					e.Object = k.entry(e.Object)
				}
				return e, true
			}), nil
		},
	}, nil
}

func (r *run) rawListWatch(k *kind, gv schema.GroupVersion) (*cache.ListWatch, error) {
	if k.typed != nil {
		c, err := r.s.set.Client.Typed(gv)
		if err != nil {
			return nil, err
		}
		return cache.NewFilteredListWatchFromClient(c, k.plural, "", func(*metav1.ListOptions) {}), nil
	}
	c := r.s.set.Client.Dynamic.Resource(gv.WithResource(k.plural))
	return &cache.ListWatch{
		ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return c.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) { return c.Watch(ctx, o) },
	}, nil
}

// convertList converts a whole list, letting go of each object as it goes.
func convertList(k *kind, l runtime.Object) (runtime.Object, error) {
	m, err := listMeta(l)
	if err != nil {
		return nil, err
	}
	out := &entries{ListMeta: metav1.ListMeta{ResourceVersion: m.GetResourceVersion(), Continue: m.GetContinue(), RemainingItemCount: m.GetRemainingItemCount()}}
	err = eachItem(l, func(o runtime.Object) error {
		out.Items = append(out.Items, *k.entry(o))
		return nil
	})
	return out, err
}

// entry converts one object.
func (k *kind) entry(o runtime.Object) *entry {
	e := &entry{}
	if m, ok := o.(metav1.Object); ok {
		e.ObjectMeta = metav1.ObjectMeta{Namespace: m.GetNamespace(), Name: m.GetName(), ResourceVersion: m.GetResourceVersion(), Generation: m.GetGeneration(), UID: m.GetUID()}
		e.revision = m.GetLabels()["istio.io/rev"]
	}
	if k.typed != nil {
		var ok bool
		if e.object, ok = k.typed(o); !ok {
			e.dropped = true
		}
		return e
	}
	u, ok := o.(*unstructured.Unstructured)
	if !ok || k.keep != nil && !k.keep(u.Object) {
		e.dropped = true
		return e
	}
	k.decode(e, u)
	return e
}

// decode reads a custom resource from its text, as weft apply would.
func (k *kind) decode(e *entry, u *unstructured.Unstructured) {
	e.object.Key = model.Key{Kind: k.kind, Namespace: e.Namespace, Name: e.Name}
	e.object.APIVersion = u.GetAPIVersion()
	raw, err := json.Marshal(strip(u.Object))
	if err != nil {
		e.refused = true
		e.diags = []admin.Diagnostic{{Severity: admin.SeverityError, Code: convert.CodeInvalidYAML, Object: e.object.Key.String(), Message: err.Error()}}
		return
	}
	o, ds := convert.DecodeStored(raw, convert.SourceKubernetes, convert.Options{})
	e.diags = ds
	if convert.HasErrors(ds) {
		e.refused = true
		return
	}
	if o.Meta.Created.IsZero() {
		o.Meta.Created = u.GetCreationTimestamp().UTC()
	}
	e.object = o
}

// strip leaves what a user writes, and when it was first written.
func strip(o map[string]any) map[string]any {
	out := make(map[string]any, len(o))
	for k, v := range o {
		if k != "status" && k != "metadata" {
			out[k] = v
		}
	}
	m, _ := o["metadata"].(map[string]any)
	meta := map[string]any{}
	for _, k := range []string{"name", "namespace", "labels", "creationTimestamp"} {
		if v, ok := m[k]; ok && v != nil {
			meta[k] = v
		}
	}
	if a, _ := m["annotations"].(map[string]any); len(a) > 0 {
		kept := map[string]any{}
		for k, v := range a {
			if !strings.HasPrefix(k, "kubectl.kubernetes.io/") {
				kept[k] = v
			}
		}
		if len(kept) > 0 {
			meta["annotations"] = kept
		}
	}
	out["metadata"] = meta
	return out
}
