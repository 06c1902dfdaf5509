package kubemesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	sigsyaml "sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
)

// diffManager is kubectl's field manager: diff shows what kubectl apply --server-side would do.
const diffManager = "kubectl"

// postDiff lets the API server apply files without storing them; its webhooks
// check them as they would when they are stored.
func (m *Mesh) postDiff(w http.ResponseWriter, r *http.Request) {
	var req admin.ApplyRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&req); err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "")
		return
	}
	mapper, err := m.mapper()
	if err != nil {
		fail(w, err)
		return
	}
	var out admin.DiffResponse
	for _, f := range req.Files {
		d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(f.Content)), 4096)
		for {
			o := &unstructured.Unstructured{}
			err := d.Decode(&o.Object)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				out.Diagnostics = append(out.Diagnostics, admin.Diagnostic{Severity: admin.SeverityError, Code: "syntax", File: f.Name, Message: err.Error()})
				break
			}
			if len(o.Object) == 0 {
				continue
			}
			ch, diag := m.change(r.Context(), mapper, o, req.Namespace)
			if diag != nil {
				diag.File = f.Name
				out.Diagnostics = append(out.Diagnostics, *diag)
			} else {
				out.Changes = append(out.Changes, *ch)
			}
		}
	}
	writeJSON(w, out)
}

func (m *Mesh) mapper() (meta.RESTMapper, error) {
	d, err := discovery.NewDiscoveryClientForConfig(m.Cluster.Config)
	if err != nil {
		return nil, err
	}
	return restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d)), nil
}

// change is one object before and after.
func (m *Mesh) change(ctx context.Context, mapper meta.RESTMapper, o *unstructured.Unstructured, ns string) (*admin.Change, *admin.Diagnostic) {
	gvk := o.GroupVersionKind()
	refused := func(err error) *admin.Diagnostic {
		return &admin.Diagnostic{Severity: admin.SeverityError, Code: "refused", Object: fmt.Sprintf("%s %s/%s", gvk.Kind, o.GetNamespace(), o.GetName()), Message: err.Error()}
	}
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, refused(m.Cluster.Explain("find", gvk.Kind, err))
	}
	var c dynamic.ResourceInterface = m.Cluster.Dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if o.GetNamespace() == "" {
			o.SetNamespace(ns)
		}
		c = m.Cluster.Dynamic.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	old, err := c.Get(ctx, o.GetName(), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, refused(m.Cluster.Explain("get", gvk.Kind+" "+o.GetName(), err))
	}
	there := err == nil
	now, err := c.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: diffManager, Force: true, DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return nil, refused(m.Cluster.Explain("apply", gvk.Kind+" "+o.GetName(), err))
	}
	ch := &admin.Change{Applied: admin.Applied{Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName(), Action: admin.ActionConfigured}}
	if ch.After, err = text(now); err != nil {
		return nil, refused(err)
	}
	switch {
	case !there:
		ch.Action = admin.ActionCreated
		return ch, nil
	case equality.Semantic.DeepEqual(plain(old), plain(now)):
		ch.Action = admin.ActionUnchanged
	}
	if ch.Before, err = text(old); err != nil {
		return nil, refused(err)
	}
	return ch, nil
}

// plain is what a person wrote of an object.
func plain(o *unstructured.Unstructured) map[string]any {
	o = o.DeepCopy()
	for _, f := range []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"} {
		unstructured.RemoveNestedField(o.Object, "metadata", f)
	}
	delete(o.Object, "status")
	return o.Object
}

func text(o *unstructured.Unstructured) (string, error) {
	b, err := sigsyaml.Marshal(plain(o))
	return string(b), err
}
