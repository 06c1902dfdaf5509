package kube

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"weft.mesh/weft/control/kube/kubeclient"
)

// CABundles keeps our root certificate in the webhook configurations that lead
// to our Service: without it the API server does not believe our webhooks. Leader only.
type CABundles struct {
	Client    *kubeclient.Client
	Namespace string // of the Service that webhooks lead to
	Service   string
	Roots     func() []byte
	Changed   <-chan struct{}
	Log       *slog.Logger
}

// Run writes until ctx ends.
func (w *CABundles) Run(ctx context.Context) {
	kinds := []schema.GroupVersionResource{mutating, validating}
	stores := []*objects{newObjects(nil), newObjects(nil)}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, k := range kinds {
		wg.Go(func() { follow(ctx, w.Client.Dynamic.Resource(k), "", stores[i], w.Log, k.Resource) })
	}
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-stores[0].wake:
		case <-stores[1].wake:
		case <-w.Changed:
		case <-again:
		}
		again = nil
		for i, k := range kinds {
			all, _ := stores[i].list()
			for _, u := range all {
				if err := w.write(ctx, k, u); err != nil && ctx.Err() == nil {
					w.Log.Warn("kubernetes: the CA of a webhook cannot be written; the API server refuses what it is asked about until it is", "configuration", u.GetName(), "error", err)
					again = time.After(retryAfter)
				}
			}
		}
	}
}

// write patches the webhooks of one configuration that are ours and have another CA.
func (w *CABundles) write(ctx context.Context, k schema.GroupVersionResource, u *unstructured.Unstructured) error {
	want := w.Roots()
	hooks, _, _ := unstructured.NestedSlice(u.Object, "webhooks")
	var patch []map[string]any
	for i, h := range hooks {
		hook, _ := h.(map[string]any)
		ns, _, _ := unstructured.NestedString(hook, "clientConfig", "service", "namespace")
		name, _, _ := unstructured.NestedString(hook, "clientConfig", "service", "name")
		have, _, _ := unstructured.NestedString(hook, "clientConfig", "caBundle")
		if b, err := base64.StdEncoding.DecodeString(have); ns != w.Namespace || name != w.Service || err == nil && bytes.Equal(b, want) {
			continue
		}
		patch = append(patch, map[string]any{"op": "add", "path": "/webhooks/" + itoa(i) + "/clientConfig/caBundle", "value": base64.StdEncoding.EncodeToString(want)})
	}
	if len(patch) == 0 {
		return nil
	}
	// The version makes it a conflict if the list has changed, whose event comes anyhow.
	patch = append([]map[string]any{{"op": "test", "path": "/metadata/resourceVersion", "value": u.GetResourceVersion()}}, patch...)
	b, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = w.Client.Dynamic.Resource(k).Patch(ctx, u.GetName(), types.JSONPatchType, b, metav1.PatchOptions{FieldManager: FieldManager})
	return ignore(err, apierrors.IsNotFound, apierrors.IsConflict, apierrors.IsInvalid)
}
