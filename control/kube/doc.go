// Package kube is what the control plane asks of Kubernetes, and what it writes there.
//
// Asked: who has a service account's token ([Attestor]), the key of the
// certificate authority ([CASecret]), the mesh's settings ([MeshConfig]).
// Every replica asks. Written, by the replica that holds the lease alone
// ([Elector]): the root certificate in every namespace ([RootCerts]), the CA of
// our webhooks ([CABundles]), the status of objects ([Status]). Where several
// revisions are installed each has a leader: [Revisions] tells whose an object is.
//
// Writers compare before they write, write at a bounded rate, and begin
// again where somebody else was faster: what they want is worked out anew from
// what there is. None of them takes the control plane down.
package kube

import (
	"context"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"weft.mesh/weft/control/kube/kubeclient"
)

// Resources that are read or written as plain JSON.
var (
	secrets    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	services   = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	leases     = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	mutating   = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
	validating = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
)

// FieldManager is under which name the control plane writes.
const FieldManager = "weft"

// retryAfter is how long a writer waits after a failure that says nothing about the object.
const retryAfter = 2 * time.Second

// follow keeps a store like what a resource holds until ctx ends.
func follow(ctx context.Context, c dynamic.ResourceInterface, fields string, store cache.ReflectorStore, log *slog.Logger, what string) {
	said := false
	report := func(err error) {
		switch {
		case err == nil:
			said = false
		case ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) || said:
		default:
			said = true
			log.Warn("kubernetes: cannot be followed; what was read of it before counts", "what", what, "error", err)
		}
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = fields
			l, err := c.List(ctx, o)
			report(err)
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = fields
			w, err := c.Watch(ctx, o)
			report(err)
			return w, err
		},
	}
	quiet := logr.Discard()
	cache.NewReflectorWithOptions(lw, nil, store, cache.ReflectorOptions{Name: "weft", Logger: &quiet, TypeDescription: what, Backoff: kubeclient.Backoff(kubeclient.MaxBackoff)}).
		RunWithContext(klog.NewContext(ctx, quiet))
}
