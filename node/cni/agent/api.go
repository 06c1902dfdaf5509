package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"weft.mesh/weft/control/kube/kubeclient"
)

// requestLimit bounds one request for a pod.
const requestLimit = 10 * time.Second

// API is the API server as the agent uses it.
type API struct {
	client *kubeclient.Client
	core   rest.Interface
}

// NewAPI makes one.
func NewAPI(c *kubeclient.Client) (*API, error) {
	core, err := c.Typed(corev1.SchemeGroupVersion)
	return &API{c, core}, err
}

// Get implements [Pods].
func (a *API) Get(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	p := &corev1.Pod{}
	err := a.core.Get().Namespace(namespace).Resource("pods").Name(name).Do(ctx).Into(p)
	return p, err
}

func (a *API) delete(ctx context.Context, p *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	err := a.core.Delete().Namespace(p.Namespace).Resource("pods").Name(p.Name).Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &p.UID}}).Do(ctx).Error()
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // another has done it
	}
	return err
}

func (a *API) patch(ctx context.Context, p *corev1.Pod, patch []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	err := a.core.Patch(types.StrategicMergePatchType).Namespace(p.Namespace).Resource("pods").Name(p.Name).Body(patch).Do(ctx).Error()
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// Follow keeps the store at the pods of a node until ctx ends.
func (a *API) Follow(ctx context.Context, node string, store cache.ReflectorStore, log *slog.Logger) {
	lw := cache.NewListWatchFromClient(a.core, "pods", metav1.NamespaceAll, fields.OneTermEqualSelector("spec.nodeName", node))
	quiet := logr.Discard()
	r := cache.NewReflectorWithOptions(lw, &corev1.Pod{}, store, cache.ReflectorOptions{Name: "weft-cni", Logger: &quiet, TypeDescription: "pods of " + node,
		Backoff: kubeclient.Backoff(kubeclient.MaxBackoff)})
	log.Info("watching the node's pods", "node", node)
	r.RunWithContext(klog.NewContext(ctx, quiet))
}

// Leaving tells whether the agent goes for good: its DaemonSet is gone or going, or it may not even ask any more, because
// what let it was removed with it. Nobody who answers is no such sign: the API server may be away.
func (a *API) Leaving(ctx context.Context, namespace, daemonSet string) bool {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	gvr := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}
	d, err := a.client.Dynamic.Resource(gvr).Namespace(namespace).Get(ctx, daemonSet, metav1.GetOptions{})
	if err == nil {
		return d.GetDeletionTimestamp() != nil
	}
	var status apierrors.APIStatus
	return errors.As(err, &status) && (apierrors.IsNotFound(err) || apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err))
}
