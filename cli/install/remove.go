package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// own lists objects that weft install made and that match more labels, last kinds first.
func (in *Installer) own(ctx context.Context, ns string, more labels.Set) ([]*unstructured.Unstructured, error) {
	sel := labels.Merge(labels.Set{labelManagedBy: manager}, more).AsSelector().String()
	var out []*unstructured.Unstructured
	for _, k := range slices.Backward(order) {
		if k.gvr == crds || k.gvr == namespaces {
			continue
		}
		list, err := in.client(k, ns).List(ctx, metav1.ListOptions{LabelSelector: sel})
		if apierrors.IsNotFound(err) {
			continue // the cluster has no such kind
		}
		if err != nil {
			return nil, in.Cluster.Explain("list", groupResource(k), err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			o.SetAPIVersion(k.gvr.GroupVersion().String())
			o.SetKind(k.name)
			out = append(out, o)
		}
	}
	return out, nil
}

// agentSet are the labels of the node agent's objects, which are in a namespace of their own.
var agentSet = labels.Set{labelShared: "true", "app.kubernetes.io/component": "cni"}

// agents lists the node agent's objects, in whatever namespace they are.
func (in *Installer) agents(ctx context.Context) ([]*unstructured.Unstructured, error) {
	return in.own(ctx, metav1.NamespaceAll, agentSet)
}

// pruneAgent deletes the node agent where neither the plan nor another revision has it.
func (in *Installer) pruneAgent(ctx context.Context, p *Plan) error {
	if p.on("cni", "enabled") {
		return nil
	}
	have, err := in.spareAgents(ctx, Removal{Namespace: p.Config.Namespace, Revision: p.Revision})
	if err != nil {
		return err
	}
	for _, o := range have {
		if err := in.delete(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// spareAgents are the node agent's objects, if no revision but that of r was installed with it.
func (in *Installer) spareAgents(ctx context.Context, r Removal) ([]*unstructured.Unstructured, error) {
	have, err := in.agents(ctx)
	if err != nil || len(have) == 0 {
		return nil, err
	}
	others, err := in.otherRevisions(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, rev := range others {
		rec, err := in.Recorded(ctx, r.Namespace, rev)
		if err != nil {
			return nil, err
		}
		if rec != nil {
			if on, _, _ := unstructured.NestedBool(rec.Values, "cni", "enabled"); !on {
				continue
			}
		}
		in.Progress(fmt.Sprintf("kept the node agent: revision %s is installed with it", rev))
		return nil, nil
	}
	return have, nil
}

// prune deletes what a former version of the revision had and the plan has not.
// Tags stay: they are set and removed by weft tag.
func (in *Installer) prune(ctx context.Context, p *Plan) error {
	have, err := in.own(ctx, p.Config.Namespace, labels.Set{labelRevision: p.Revision})
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, o := range p.Objects {
		wanted[nameOf(o)] = true
	}
	for _, o := range have {
		if wanted[nameOf(o)] || o.GetLabels()[labelTag] != "" {
			continue
		}
		if err := in.delete(ctx, o); err != nil {
			return err
		}
	}
	return in.pruneAgent(ctx, p)
}

func (in *Installer) delete(ctx context.Context, o *unstructured.Unstructured) error {
	k, _, err := kindOf(o)
	if err != nil {
		return err
	}
	policy := metav1.DeletePropagationBackground
	opts := metav1.DeleteOptions{PropagationPolicy: &policy}
	word := "deleted"
	if in.DryRun {
		opts.DryRun, word = []string{metav1.DryRunAll}, "would be deleted"
	}
	err = in.client(k, o.GetNamespace()).Delete(ctx, o.GetName(), opts)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return in.Cluster.Explain("delete", nameOf(o), err)
	}
	in.Progress(nameOf(o) + " " + word)
	return nil
}

// Removal says what to uninstall.
type Removal struct {
	Namespace string // default [Namespace]
	Revision  string // default "default"
	All       bool   // every revision
	Purge     bool   // the definitions too, and with them every object of their kinds
	Force     bool   // although namespaces get their sidecars from it, and other revisions stay
}

// Uninstall removes a revision: first the webhooks, so that pods go on
// starting, and the definitions only with Purge.
func (in *Installer) Uninstall(ctx context.Context, r Removal) error {
	in.withDefaults()
	if r.Namespace == "" {
		r.Namespace = Namespace
	}
	if r.Revision == "" {
		r.Revision = "default"
	}
	set := labels.Set{labelRevision: r.Revision}
	if r.All {
		set = nil
	}
	own, err := in.own(ctx, r.Namespace, set)
	if err != nil {
		return err
	}
	others, err := in.otherRevisions(ctx, r)
	if err != nil {
		return err
	}
	if len(own) == 0 && !r.All && !r.Purge {
		return &Finding{SeverityError, fmt.Sprintf("revision %s is not installed in %s by weft install", r.Revision, r.Namespace), "weft status lists what is there; what Helm installed, helm uninstall removes"}
	}
	if len(others) > 0 && !r.Force {
		if err := in.unused(ctx, r.Revision, own); err != nil {
			return err
		}
	}
	if len(others) > 0 {
		own = slices.DeleteFunc(own, func(o *unstructured.Unstructured) bool { return o.GetLabels()[labelShared] != "" })
		in.Progress(fmt.Sprintf("kept what all revisions share: %v is still installed", others))
	} else if !r.All {
		shared, err := in.own(ctx, r.Namespace, labels.Set{labelShared: "true"})
		if err != nil {
			return err
		}
		own = append(own, shared...)
	}
	agents, err := in.spareAgents(ctx, r)
	if err != nil {
		return err
	}
	own = append(slices.DeleteFunc(own, func(o *unstructured.Unstructured) bool {
		return agentSet.AsSelector().Matches(labels.Set(o.GetLabels()))
	}), agents...)
	for _, o := range own {
		if err := in.delete(ctx, o); err != nil {
			return err
		}
	}
	if len(others) > 0 {
		return nil
	}
	return in.removeRest(ctx, r)
}

// unused is an error if namespaces name the revision, or one of its tags: with it
// goes what injects there, and their next pods would be outside of the mesh.
func (in *Installer) unused(ctx context.Context, revision string, own []*unstructured.Unstructured) error {
	names := []string{revision}
	for _, o := range own {
		if tag := o.GetLabels()[labelTag]; tag != "" && !slices.Contains(names, tag) {
			names = append(names, tag)
		}
	}
	elsewhere := ""
	if revision == "default" {
		var err error
		if elsewhere, err = in.DefaultElsewhere(ctx); err != nil {
			return err
		}
	}
	for _, name := range names {
		if name == "default" && elsewhere != "" {
			continue // the tag default has these namespaces
		}
		users, err := in.users(ctx, name)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return &Finding{SeverityError,
				fmt.Sprintf("revision %s injects into namespaces %s (istio.io/rev=%s): their next pods would start without a sidecar", revision, strings.Join(users, ", "), name),
				"label them for another revision, or move the tag (weft tag set TAG --revision OTHER --overwrite); --force removes it all the same"}
		}
	}
	return nil
}

// otherRevisions lists revisions that stay.
func (in *Installer) otherRevisions(ctx context.Context, r Removal) ([]string, error) {
	if r.All {
		return nil, nil
	}
	list, err := in.Cluster.Dynamic.Resource(deployments).Namespace(r.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labelRevision})
	if err != nil {
		return nil, in.Cluster.Explain("list", "deployments", err)
	}
	var out []string
	for _, o := range list.Items {
		if rev := o.GetLabels()[labelRevision]; rev != r.Revision && !slices.Contains(out, rev) {
			out = append(out, rev)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Labels of what the control plane made in all namespaces.
var (
	rootCerts    = labels.Set{labelManagedBy: manager, "istio.io/config": "true"}.AsSelector().String()
	ownGateways  = labels.Set{"gateway.istio.io/managed": "weft.mesh-gateway-controller"}.AsSelector().String()
	sidecarLabel = labels.Set{"security.istio.io/tlsMode": "istio"}.AsSelector().String()
)

// removeSpread removes the root certificates from all namespaces, and says what goes on without a control plane.
func (in *Installer) removeSpread(ctx context.Context) error {
	list, err := in.Cluster.Dynamic.Resource(configMaps).List(ctx, metav1.ListOptions{LabelSelector: rootCerts})
	if err != nil {
		return in.Cluster.Explain("list", "configmaps", err)
	}
	for i := range list.Items {
		o := named(&list.Items[i], "ConfigMap", "v1")
		if err := in.delete(ctx, o); err != nil {
			return err
		}
	}
	for _, x := range []struct {
		gvr                  schema.GroupVersionResource
		selector, what, then string
	}{
		{deployments, ownGateways, "Deployments of gateways", "they go with their Gateways"},
		{pods, sidecarLabel, "pods with a sidecar", "remove the labels of their namespaces and restart them"},
	} {
		list, err := in.Cluster.Dynamic.Resource(x.gvr).List(ctx, metav1.ListOptions{LabelSelector: x.selector})
		if err != nil {
			return in.Cluster.Explain("list", x.gvr.Resource, err)
		}
		if n := len(list.Items); n > 0 {
			in.Progress(fmt.Sprintf("%d %s go on with what they have: %s", n, x.what, x.then))
		}
	}
	return nil
}

// removeRest removes the namespace, and with Purge the definitions.
func (in *Installer) removeRest(ctx context.Context, r Removal) error {
	if err := in.removeSpread(ctx); err != nil {
		return err
	}
	ns, err := in.Cluster.Dynamic.Resource(namespaces).Get(ctx, r.Namespace, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return in.Cluster.Explain("get", "namespace/"+r.Namespace, err)
	}
	if err == nil && ns.GetLabels()[labelManagedBy] == manager {
		if err := in.delete(ctx, named(ns, "Namespace", "v1")); err != nil {
			return err
		}
	}
	list, err := in.Cluster.Dynamic.Resource(crds).List(ctx, metav1.ListOptions{})
	if err != nil {
		return in.Cluster.Explain("list", groupResource(kind{gvr: crds}), err)
	}
	kept := 0
	for i := range list.Items {
		o := named(&list.Items[i], "CustomResourceDefinition", "apiextensions.k8s.io/v1")
		switch {
		case !(definition{have: o}).ours():
		case r.Purge:
			if err := in.delete(ctx, o); err != nil {
				return err
			}
		default:
			kept++
		}
	}
	if kept > 0 {
		in.Progress(fmt.Sprintf("kept %d definitions and the objects of their kinds; --purge removes them", kept))
	}
	return nil
}

// named sets what items of a list lack.
func named(o *unstructured.Unstructured, kind, apiVersion string) *unstructured.Unstructured {
	o.SetKind(kind)
	o.SetAPIVersion(apiVersion)
	return o
}
