package kube

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"weft.mesh/weft/control/kube/kubeclient"
)

// The ClusterTrustBundle that holds the mesh's roots, and its signer, Istio's.
// Who writes it needs the verb attest on the signer.
const (
	TrustBundleName   = "istio.io:istiod-ca:root-cert"
	TrustBundleSigner = "istio.io/istiod-ca"
)

// trustBundles are the versions in which the kind may be served, the newest first.
var trustBundles = []schema.GroupVersionResource{
	{Group: "certificates.k8s.io", Version: "v1", Resource: "clustertrustbundles"},
	{Group: "certificates.k8s.io", Version: "v1beta1", Resource: "clustertrustbundles"},
}

// trustBundleEvery is how often the object is compared: what others did to it is undone then.
const trustBundleEvery = 30 * time.Second

// TrustBundle keeps the roots in a ClusterTrustBundle while it is wanted: pods mount it
// instead of their namespace's ConfigMap, which anybody may change who may write ConfigMaps there. Leader only.
type TrustBundle struct {
	Client *kubeclient.Client
	Roots  func() []byte // of the moment
	// Wanted tells whether pods are injected with it.
	Wanted func() bool
	// Changed is signalled when Roots or Wanted answers something else; nil: never.
	Changed <-chan struct{}
	Log     *slog.Logger

	every time.Duration // tests
}

// Run writes until ctx ends.
func (w *TrustBundle) Run(ctx context.Context) {
	if w.every == 0 {
		w.every = trustBundleEvery
	}
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	said := ""
	for {
		if w.Wanted() {
			switch err := w.write(ctx); {
			case err == nil:
				said = ""
			case ctx.Err() == nil && err.Error() != said:
				said = err.Error()
				w.Log.Error("kubernetes: the ClusterTrustBundle cannot be written; pods that mount it do not start without it", "name", TrustBundleName, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-w.Changed:
		case <-tick.C:
		}
	}
}

func (w *TrustBundle) write(ctx context.Context) error {
	gvr, err := w.version()
	if err != nil {
		return err
	}
	c, want := w.Client.Dynamic.Resource(gvr), string(w.Roots())
	have, err := c.Get(ctx, TrustBundleName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = c.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": gvr.GroupVersion().String(), "kind": "ClusterTrustBundle",
			"metadata": map[string]any{"name": TrustBundleName, "labels": map[string]any{"app.kubernetes.io/managed-by": "weft", "istio.io/config": "true"}},
			"spec":     map[string]any{"signerName": TrustBundleSigner, "trustBundle": want},
		}}, metav1.CreateOptions{FieldManager: FieldManager})
		return ignore(err, apierrors.IsAlreadyExists)
	}
	if err != nil {
		return err
	}
	if text, _, _ := unstructured.NestedString(have.Object, "spec", "trustBundle"); text == want {
		return nil
	}
	if err := unstructured.SetNestedField(have.Object, want, "spec", "trustBundle"); err != nil {
		return err
	}
	_, err = c.Update(ctx, have, metav1.UpdateOptions{FieldManager: FieldManager})
	return ignore(err, apierrors.IsConflict, apierrors.IsNotFound) // the next round sees what came of it
}

// version is the newest that the API server serves.
func (w *TrustBundle) version() (schema.GroupVersionResource, error) {
	for _, gvr := range trustBundles {
		ok, err := w.Client.Serves(gvr.GroupVersion(), gvr.Resource)
		if err != nil && !apierrors.IsNotFound(err) {
			return gvr, err
		}
		if ok {
			return gvr, nil
		}
	}
	return schema.GroupVersionResource{}, fmt.Errorf("the API server serves no clustertrustbundles of certificates.k8s.io/v1 or v1beta1: turn the feature ClusterTrustBundle on, or set global.clusterTrustBundle=false")
}
