package kube

import (
	"context"
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

// NotReadyTaint is on nodes that pods must not come to before the node agent is ready there: Istio's.
const NotReadyTaint = "cni.istio.io/not-ready"

// agentLabel and agentName tell the node agent's pods.
const (
	agentLabel = "k8s-app"
	agentName  = "weft-cni-node"
)

var (
	nodes = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	pods  = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

// Untaint takes the taint [NotReadyTaint] from nodes whose node agent is ready. It never puts one there: a node would be
// without it for a moment, which is what the taint is against. Who makes nodes does that. Leader only.
type Untaint struct {
	Client    *kubeclient.Client
	Namespace string // of the node agent
	Log       *slog.Logger
}

// Run untaints until ctx ends.
func (w *Untaint) Run(ctx context.Context) {
	agents, all := newObjects(slimAgent), newObjects(slimNode)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		follow(ctx, w.Client.Dynamic.Resource(pods).Namespace(w.Namespace), "", agents, w.Log, "node agents")
	})
	wg.Go(func() { follow(ctx, w.Client.Dynamic.Resource(nodes), "", all, w.Log, "nodes") })
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-agents.wake:
		case <-all.wake:
		case <-again:
		}
		again = nil
		if !w.all(ctx, agents, all) {
			again = time.After(retryAfter)
		}
	}
}

// all untaints every node that can be; false: try again later.
func (w *Untaint) all(ctx context.Context, agents, machines *objects) bool {
	list, _ := agents.list()
	ready := map[string]bool{}
	for _, p := range list {
		if name, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName"); name != "" {
			ready[name] = true
		}
	}
	tainted, _ := machines.list()
	done := true
	for _, n := range tainted {
		if taints, _, _ := unstructured.NestedSlice(n.Object, "spec", "taints"); len(taints) == 0 || !ready[n.GetName()] {
			continue
		}
		if err := w.untaint(ctx, n.GetName()); err != nil && ctx.Err() == nil {
			w.Log.Warn("kubernetes: a node's taint cannot be removed; no pods come to it until it is", "node", n.GetName(), "taint", NotReadyTaint, "error", err)
			done = false
		}
	}
	return done
}

// untaint removes the taint from a node as it is now, and from no other than that: the list of taints has no keys for a patch
// to go by, so it is replaced on condition that nobody has changed the node meanwhile.
func (w *Untaint) untaint(ctx context.Context, name string) error {
	c := w.Client.Dynamic.Resource(nodes)
	n, err := c.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	have, _, _ := unstructured.NestedSlice(n.Object, "spec", "taints")
	keep := []any{}
	for _, t := range have {
		if !isNotReady(t) {
			keep = append(keep, t)
		}
	}
	if len(keep) == len(have) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": n.GetResourceVersion()}, "spec": map[string]any{"taints": keep}})
	if err != nil {
		return err
	}
	if _, err = c.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager}); err != nil {
		return err
	}
	w.Log.Info("kubernetes: the node agent is ready; pods may come to the node", "node", name)
	return nil
}

func isNotReady(taint any) bool {
	t, _ := taint.(map[string]any)
	return t["key"] == NotReadyTaint
}

// slimAgent keeps on which node a ready agent is.
func slimAgent(u *unstructured.Unstructured) *unstructured.Unstructured {
	node := ""
	if u.GetLabels()[agentLabel] == agentName && u.GetDeletionTimestamp() == nil && isReady(u) {
		node, _, _ = unstructured.NestedString(u.Object, "spec", "nodeName")
	}
	return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": u.GetName(), "namespace": u.GetNamespace()}, "spec": map[string]any{"nodeName": node}}}
}

func isReady(pod *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(pod.Object, "status", "conditions")
	for _, c := range conditions {
		if m, _ := c.(map[string]any); m["type"] == "Ready" {
			return m["status"] == "True"
		}
	}
	return false
}

// slimNode keeps whether a node has the taint.
func slimNode(u *unstructured.Unstructured) *unstructured.Unstructured {
	taints, _, _ := unstructured.NestedSlice(u.Object, "spec", "taints")
	ours := []any{}
	for _, t := range taints {
		if isNotReady(t) {
			ours = append(ours, map[string]any{"key": NotReadyTaint})
		}
	}
	return &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": u.GetName()}, "spec": map[string]any{"taints": ours}}}
}
