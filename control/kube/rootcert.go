package kube

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"weft.mesh/weft/control/kube/kubeclient"
)

// Root certificates are mounted from this ConfigMap by Istio's templates.
const (
	RootCertName = "istio-ca-root-cert"
	rootCertKey  = "root-cert.pem"
)

// writeRate bounds each writer, in requests a second.
const (
	writeRate  = 20
	writeBurst = 50
)

// RootCerts keeps the root certificate in a ConfigMap of every namespace. Leader only.
type RootCerts struct {
	Client *kubeclient.Client
	Roots  func() []byte // of the moment
	// Changed is signalled when Roots answers something else; nil: never.
	Changed <-chan struct{}
	Log     *slog.Logger
}

// Run writes until ctx ends.
func (w *RootCerts) Run(ctx context.Context) {
	spaces, certs := newObjects(slimNamespace), newObjects(slimRootCert)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { follow(ctx, w.Client.Dynamic.Resource(namespaces), "", spaces, w.Log, "namespaces") })
	wg.Go(func() {
		follow(ctx, w.Client.Dynamic.Resource(configMaps), "metadata.name="+RootCertName, certs, w.Log, "root certificates")
	})
	limit, wrote := rate.NewLimiter(writeRate, writeBurst), map[string]time.Time{}
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-spaces.wake:
		case <-certs.wake:
		case <-w.Changed:
		case <-again:
		}
		again = nil
		all, ok := spaces.list()
		have, read := certs.list()
		if ok && read && !w.write(ctx, limit, wrote, all, have) {
			again = time.After(retryAfter)
		}
	}
}

// slimNamespace keeps a name and whether the namespace is going.
func slimNamespace(u *unstructured.Unstructured) *unstructured.Unstructured {
	phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
	return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": u.GetName()}, "status": map[string]any{"phase": phase}}}
}

func slimRootCert(u *unstructured.Unstructured) *unstructured.Unstructured {
	pem, _, _ := unstructured.NestedString(u.Object, "data", rootCertKey)
	return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": u.GetName(), "namespace": u.GetNamespace()}, "data": map[string]any{rootCertKey: pem}}}
}

// write brings every namespace's ConfigMap up to date; false: try again later.
// What was written a moment ago may not have come back yet.
func (w *RootCerts) write(ctx context.Context, limit *rate.Limiter, wrote map[string]time.Time, spaces, have []*unstructured.Unstructured) bool {
	want, done := string(w.Roots()), true
	now := map[string]string{}
	for _, m := range have {
		now[m.GetNamespace()], _, _ = unstructured.NestedString(m.Object, "data", rootCertKey)
	}
	for _, ns := range spaces {
		pem, there := now[ns.GetName()]
		if phase, _, _ := unstructured.NestedString(ns.Object, "status", "phase"); phase == "Terminating" || there && pem == want {
			continue
		}
		if at, ok := wrote[ns.GetName()+want]; ok && time.Since(at) < retryAfter {
			done = false
			continue
		}
		if limit.Wait(ctx) != nil {
			return true
		}
		if err := w.put(ctx, ns.GetName(), want, there); err != nil && ctx.Err() == nil {
			w.Log.Warn("kubernetes: the root certificate cannot be written; pods of the namespace do not start without it", "configmap", ns.GetName()+"/"+RootCertName, "error", err)
			done = false
			continue
		}
		wrote[ns.GetName()+want] = time.Now()
	}
	maps.DeleteFunc(wrote, func(_ string, at time.Time) bool { return time.Since(at) > retryAfter })
	return done
}

func (w *RootCerts) put(ctx context.Context, ns, pem string, there bool) error {
	c := w.Client.Dynamic.Resource(configMaps).Namespace(ns)
	if there {
		patch, err := mergePatch(map[string]any{"data": map[string]any{rootCertKey: pem}})
		if err != nil {
			return err
		}
		_, err = c.Patch(ctx, RootCertName, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
		return ignore(err, apierrors.IsNotFound)
	}
	_, err := c.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": RootCertName, "namespace": ns, "labels": map[string]any{"istio.io/config": "true", "app.kubernetes.io/managed-by": "weft"}},
		"data":     map[string]any{rootCertKey: pem},
	}}, metav1.CreateOptions{FieldManager: FieldManager})
	return ignore(err, apierrors.IsAlreadyExists, apierrors.IsNotFound, func(err error) bool {
		return apierrors.HasStatusCause(err, "NamespaceTerminating")
	})
}

// ignore drops errors after which an event of what is watched tells what to do.
func ignore(err error, any ...func(error) bool) error {
	for _, is := range any {
		if err != nil && is(err) {
			return nil
		}
	}
	return err
}
