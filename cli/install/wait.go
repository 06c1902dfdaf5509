package install

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// controlPlane is the name of the revision's Deployment.
func (p *Plan) controlPlane() string { return "weft" + suffix(p.Revision) }

// waitForControlPlane lets the webhooks follow only when somebody answers them.
func (in *Installer) waitForControlPlane(ctx context.Context, p *Plan) error {
	if in.DryRun || !in.Wait {
		return nil
	}
	in.Progress("waiting for deployment/" + p.controlPlane())
	return in.rollout(ctx, deployments, p.Config.Namespace, p.controlPlane())
}

// waitForRest waits for gateways, node agents and the webhooks' certificates.
func (in *Installer) waitForRest(ctx context.Context, p *Plan) error {
	for _, o := range p.Objects {
		k, _, _ := kindOf(o)
		var err error
		switch {
		case k.gvr == deployments && o.GetName() != p.controlPlane(), k.gvr == daemonSets:
			in.Progress("waiting for " + nameOf(o))
			err = in.rollout(ctx, k.gvr, o.GetNamespace(), o.GetName())
		case k.webhook:
			err = in.waitForCA(ctx, k.gvr, o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// waitForCA waits until the control plane has filled in the caBundle of a webhook configuration: before, the API server does not believe it.
func (in *Installer) waitForCA(ctx context.Context, gvr schema.GroupVersionResource, o *unstructured.Unstructured) error {
	return in.until(ctx, nameOf(o), func(ctx context.Context) (string, error) {
		now, err := in.Cluster.Dynamic.Resource(gvr).Get(ctx, o.GetName(), metav1.GetOptions{})
		if err != nil {
			return "", in.Cluster.Explain("get", nameOf(o), err)
		}
		return withoutCA(now), nil
	})
}

// withoutCA names a webhook whose caBundle the control plane has not filled in; "" if there is none.
func withoutCA(o *unstructured.Unstructured) string {
	hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	for _, h := range hooks {
		m, _ := h.(map[string]any)
		if ca, _, _ := unstructured.NestedString(m, "clientConfig", "caBundle"); ca == "" {
			return fmt.Sprintf("webhook %v has no certificate authority yet", m["name"])
		}
	}
	return ""
}

// rollout waits until all pods of a Deployment or DaemonSet are the new ones, and ready.
func (in *Installer) rollout(ctx context.Context, gvr schema.GroupVersionResource, ns, name string) error {
	what := strings.TrimSuffix(gvr.Resource, "s") + "/" + name
	return in.until(ctx, what, func(ctx context.Context) (string, error) {
		o, err := in.Cluster.Dynamic.Resource(gvr).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "", in.Cluster.Explain("get", what, err)
		}
		missing := behind(o)
		if missing != "" {
			if why := in.trouble(ctx, o); why != "" {
				missing += "; " + why
			}
		}
		return missing, nil
	})
}

// behind says what a Deployment or DaemonSet still lacks; "" is nothing.
func behind(o *unstructured.Unstructured) string {
	n := func(path ...string) int64 {
		v, _, _ := unstructured.NestedInt64(o.Object, path...)
		return v
	}
	if n("status", "observedGeneration") < o.GetGeneration() {
		return "not yet seen by its controller"
	}
	want, updated, ready := int64(1), n("status", "updatedReplicas"), n("status", "availableReplicas")
	if v, ok, _ := unstructured.NestedInt64(o.Object, "spec", "replicas"); ok {
		want = v
	}
	all := n("status", "replicas")
	if o.GetKind() == "DaemonSet" {
		want, updated, ready = n("status", "desiredNumberScheduled"), n("status", "updatedNumberScheduled"), n("status", "numberAvailable")
		all = updated
	}
	switch {
	case updated < want:
		return fmt.Sprintf("%d of %d pods are of the new version", updated, want)
	case ready < want:
		return fmt.Sprintf("%d of %d pods are ready", ready, want)
	case all > updated:
		return fmt.Sprintf("%d pods of the former version still end", all-updated)
	}
	return ""
}

// trouble says what keeps a pod of a workload from running, if a pod says so.
func (in *Installer) trouble(ctx context.Context, o *unstructured.Unstructured) string {
	labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
	list, err := in.Cluster.Dynamic.Resource(pods).Namespace(o.GetNamespace()).List(ctx, metav1.ListOptions{
		LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labels}), Limit: 50,
	})
	if err != nil {
		return "" // it only adds to what is said anyway
	}
	for i := range list.Items {
		if why := podTrouble(&list.Items[i]); why != "" {
			return "pod " + list.Items[i].GetName() + ": " + why
		}
	}
	return ""
}

func podTrouble(p *unstructured.Unstructured) string {
	conds, _, _ := unstructured.NestedSlice(p.Object, "status", "conditions")
	for _, c := range conds {
		m, _ := c.(map[string]any)
		if m["type"] == "PodScheduled" && m["status"] == "False" {
			return fmt.Sprintf("cannot be scheduled: %v", m["message"])
		}
	}
	for _, field := range []string{"initContainerStatuses", "containerStatuses"} {
		list, _, _ := unstructured.NestedSlice(p.Object, "status", field)
		for _, c := range list {
			m, _ := c.(map[string]any)
			reason, _, _ := unstructured.NestedString(m, "state", "waiting", "reason")
			msg, _, _ := unstructured.NestedString(m, "state", "waiting", "message")
			if reason != "" && reason != "ContainerCreating" && reason != "PodInitializing" {
				if last := lastWords(m); last != "" {
					msg = last
				}
				return strings.TrimSpace(fmt.Sprintf("container %v: %s %s", m["name"], reason, msg))
			}
		}
	}
	return ""
}

// lastWords is what a container's program wrote last before it ended; "" if that is not kept.
func lastWords(container map[string]any) string {
	text, _, _ := unstructured.NestedString(container, "lastState", "terminated", "message")
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// waitEstablished waits until the API server serves the definitions.
func (in *Installer) waitEstablished(ctx context.Context, names []string) error {
	if in.DryRun {
		return nil
	}
	for _, name := range names {
		err := in.until(ctx, "definition "+name, func(ctx context.Context) (string, error) {
			o, err := in.Cluster.Dynamic.Resource(crds).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return "not there", nil
			}
			if err != nil {
				return "", in.Cluster.Explain("get", "customresourcedefinition/"+name, err)
			}
			if ok, why := condition(o, "NamesAccepted"); !ok && why != "" {
				return "", &Finding{SeverityError, fmt.Sprintf("definition %s: its names are taken: %s", name, why), "delete the definition that has them"}
			}
			if ok, why := condition(o, "Established"); !ok {
				return "not served yet " + why, nil
			}
			return "", nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// condition reads a condition's status, and its message where it is not True.
func condition(o *unstructured.Unstructured, typ string) (bool, string) {
	conds, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conds {
		m, _ := c.(map[string]any)
		if m["type"] == typ {
			msg, _ := m["message"].(string)
			return m["status"] == "True", msg
		}
	}
	return false, ""
}
