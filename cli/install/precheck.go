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

// Oldest Kubernetes that has what the chart uses (ValidatingAdmissionPolicy v1,
// native sidecars on by default).
const minMajor, minMinor = 1, 30

// injectorOfIstio is how the names of Istio's injection webhooks end.
const injectorOfIstio = "sidecar-injector.istio.io"

// Precheck looks for what would stand in the way. It writes nothing.
func (in *Installer) Precheck(ctx context.Context, p *Plan) []*Finding {
	in.withDefaults()
	v, err := in.Cluster.Version(ctx)
	if err != nil {
		return []*Finding{asFinding(err)}
	}
	var out []*Finding
	if !v.AtLeast(minMajor, minMinor) {
		out = append(out, &Finding{SeverityError, fmt.Sprintf("Kubernetes %s is too old", v.GitVersion), fmt.Sprintf("Weft needs %d.%d or newer", minMajor, minMinor)})
	}
	for _, check := range []func(context.Context, *Plan) ([]*Finding, error){
		in.checkRights, in.checkNamespace, in.checkCRDs, in.checkIstio, in.checkRoots, in.checkTrustBundle, in.checkAuthority, in.checkHelm, in.checkNodes, in.checkAgent,
	} {
		fs, err := check(ctx, p)
		if err != nil {
			fs = append(fs, asFinding(err))
		}
		out = append(out, fs...)
	}
	return out
}

// asFinding makes an error that stops everything of what went wrong.
func asFinding(err error) *Finding {
	f := &Finding{Severity: SeverityError, Message: err.Error()}
	if fixer, ok := err.(interface{ FixText() string }); ok {
		f.Fix = fixer.FixText()
	}
	return f
}

// checkRights asks the API server whether the user may do what install does.
func (in *Installer) checkRights(ctx context.Context, p *Plan) ([]*Finding, error) {
	seen := map[string]bool{}
	var out []*Finding
	for _, o := range slices.Concat(p.Objects, p.CRDs[:1]) {
		k, _, err := kindOf(o)
		if err != nil {
			return nil, err
		}
		for _, verb := range []string{"get", "create", "patch"} {
			key := verb + " " + k.gvr.String()
			if seen[key] {
				continue
			}
			seen[key] = true
			ok, why, err := in.may(ctx, verb, k, o.GetNamespace())
			if err != nil {
				return out, err
			}
			if !ok {
				out = append(out, &Finding{SeverityError, fmt.Sprintf("the user of context %q may not %s %s", in.Cluster.Context, verb, groupResource(k)) + why, "use a context of a cluster administrator"})
			}
		}
	}
	return out, nil
}

func groupResource(k kind) string {
	if k.gvr.Group == "" {
		return k.gvr.Resource
	}
	return k.gvr.Resource + "." + k.gvr.Group
}

func (in *Installer) may(ctx context.Context, verb string, k kind, ns string) (ok bool, why string, err error) {
	o := object("authorization.k8s.io/v1", "SelfSubjectAccessReview", "", "")
	o.Object["spec"] = map[string]any{"resourceAttributes": map[string]any{
		"verb": verb, "group": k.gvr.Group, "resource": k.gvr.Resource, "namespace": ns,
	}}
	got, err := in.Cluster.Dynamic.Resource(res("authorization.k8s.io", "v1", "selfsubjectaccessreviews")).Create(ctx, o, metav1.CreateOptions{})
	if err != nil {
		return false, "", in.Cluster.Explain("create", "selfsubjectaccessreview", err)
	}
	ok, _, _ = unstructured.NestedBool(got.Object, "status", "allowed")
	if ns != "" {
		why = " in namespace " + ns
	}
	return ok, why, nil
}

func (in *Installer) checkNamespace(ctx context.Context, p *Plan) ([]*Finding, error) {
	ns, err := in.Cluster.Dynamic.Resource(namespaces).Get(ctx, p.Config.Namespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil, nil // the second is what checkRights says
	}
	if err != nil {
		return nil, in.Cluster.Explain("get", "namespace/"+p.Config.Namespace, err)
	}
	if ns.GetDeletionTimestamp() != nil {
		return []*Finding{{SeverityError, fmt.Sprintf("namespace %s is being deleted", ns.GetName()), "wait until it is gone; kubectl get namespace " + ns.GetName() + " -o yaml says what holds it"}}, nil
	}
	return nil, nil
}

func (in *Installer) checkCRDs(ctx context.Context, p *Plan) ([]*Finding, error) {
	c, err := in.choose(ctx, p)
	return c.findings, err
}

// checkIstio finds webhooks of an Istio that would put a second sidecar into the same pods.
func (in *Installer) checkIstio(ctx context.Context, p *Plan) ([]*Finding, error) {
	list, err := in.Cluster.Dynamic.Resource(mutating).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, in.Cluster.Explain("list", groupResource(kind{gvr: mutating}), err)
	}
	var out []*Finding
	for i := range list.Items {
		o := &list.Items[i]
		if strings.HasPrefix(o.GetName(), "weft-") {
			continue
		}
		if label := p.collision(o); label != "" {
			out = append(out, &Finding{SeverityError,
				fmt.Sprintf("%s injects into namespaces with the label %s too: pods would get two sidecars", nameOf(o), label),
				"install beside it: weft install --revision weft (see docs/kubernetes/migrate-from-istio.md)"})
		}
	}
	if p.on("istioCompatible") {
		for _, c := range []struct {
			gvr  schema.GroupVersionResource
			name string
			its  string
		}{
			{res("gateway.networking.k8s.io", "v1", "gatewayclasses"), "gatewayclass/istio", "Gateways"},
			{res("networking.k8s.io", "v1", "ingressclasses"), "ingressclass/istio", "Ingresses"},
		} {
			o, err := in.Cluster.Dynamic.Resource(c.gvr).Get(ctx, "istio", metav1.GetOptions{})
			if err == nil && o.GetLabels()[labelManagedBy] != manager {
				out = append(out, &Finding{SeverityError, c.name + " belongs to an Istio, and istioCompatible would take its " + c.its, "--set istioCompatible=false, or remove Istio first"})
			}
		}
	}
	return out, nil
}

// collision is the namespace label by which a webhook configuration of others
// would inject where this plan does too; "" if there is none.
func (p *Plan) collision(o *unstructured.Unstructured) string {
	type label struct{ key, value string }
	var mine []label
	if p.Revision == "default" && p.on("injection", "default") {
		mine = append(mine, label{"istio-injection", "enabled"}) // first: it is the one that people use
	}
	mine = append(mine, label{"istio.io/rev", p.Revision})
	hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
	for _, l := range mine {
		for _, h := range hooks {
			m, _ := h.(map[string]any)
			name, _ := m["name"].(string)
			if sel, _, _ := unstructured.NestedMap(m, "namespaceSelector"); len(sel) > 0 && strings.HasSuffix(name, injectorOfIstio) && selects(sel, map[string]string{l.key: l.value}) {
				return l.key + "=" + l.value
			}
		}
	}
	return ""
}

// selects tells whether a label selector, as an object has it, takes labels.
func selects(sel map[string]any, set map[string]string) bool {
	ls := &metav1.LabelSelector{}
	ls.MatchLabels, _, _ = unstructured.NestedStringMap(sel, "matchLabels")
	exprs, _, _ := unstructured.NestedSlice(sel, "matchExpressions")
	for _, e := range exprs {
		m, _ := e.(map[string]any)
		key, _ := m["key"].(string)
		op, _ := m["operator"].(string)
		values, _, _ := unstructured.NestedStringSlice(m, "values")
		ls.MatchExpressions = append(ls.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOperator(op), Values: values})
	}
	s, err := metav1.LabelSelectorAsSelector(ls)
	return err == nil && s.Matches(labels.Set(set))
}

// checkHelm refuses to change what Helm installed.
func (in *Installer) checkHelm(ctx context.Context, p *Plan) ([]*Finding, error) {
	o, err := in.Cluster.Dynamic.Resource(deployments).Namespace(p.Config.Namespace).Get(ctx, p.controlPlane(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil, nil // the second is what checkRights says
	}
	if err != nil {
		return nil, in.Cluster.Explain("get", "deployment/"+p.controlPlane(), err)
	}
	if by := o.GetLabels()[labelManagedBy]; by != manager {
		return []*Finding{{SeverityError, fmt.Sprintf("deployment/%s in %s is managed by %q", o.GetName(), p.Config.Namespace, by), "use helm upgrade, or uninstall that first"}}, nil
	}
	return nil, nil
}

// checkNodes finds nodes that the images do not run on.
func (in *Installer) checkNodes(ctx context.Context, _ *Plan) ([]*Finding, error) {
	list, err := in.Cluster.Dynamic.Resource(res("", "v1", "nodes")).List(ctx, metav1.ListOptions{Limit: 1000})
	if err != nil {
		return nil, nil // a user without rights on nodes can install all the same
	}
	var odd []string
	for _, n := range list.Items {
		l := n.GetLabels()
		if os, arch := l["kubernetes.io/os"], l["kubernetes.io/arch"]; os != "" && (os != "linux" || arch != "amd64" && arch != "arm64") {
			odd = append(odd, fmt.Sprintf("%s (%s/%s)", n.GetName(), os, arch))
		}
	}
	if len(odd) == 0 {
		return nil, nil
	}
	return []*Finding{{SeverityWarning, "images are for linux/amd64 and linux/arm64, not for " + strings.Join(odd, ", "), "keep pods of the mesh off these nodes"}}, nil
}

// checkAgent finds a node agent of an Istio, which would redirect the same pods, and a namespace that would not let ours in.
func (in *Installer) checkAgent(ctx context.Context, p *Plan) ([]*Finding, error) {
	if !p.on("cni", "enabled") {
		return nil, nil // pods with istio-init are left alone by Istio's agent
	}
	list, err := in.Cluster.Dynamic.Resource(daemonSets).List(ctx, metav1.ListOptions{LabelSelector: "k8s-app=istio-cni-node"})
	if err != nil {
		return nil, in.Cluster.Explain("list", groupResource(kind{gvr: daemonSets}), err)
	}
	var out []*Finding
	for _, o := range list.Items {
		out = append(out, &Finding{SeverityError, fmt.Sprintf("%s in %s is Istio's node agent, which would redirect the pods of this one too", nameOf(named(&o, "DaemonSet", "apps/v1")), o.GetNamespace()),
			"--set cni.enabled=false while Istio's is there: pods with istio-init are not its concern"})
	}
	f, err := in.checkAgentNamespace(ctx, p)
	if f != nil {
		out = append(out, f)
	}
	return out, err
}

// checkAgentNamespace finds a namespace whose Pod Security standard the node agent cannot keep; the install's own has one.
func (in *Installer) checkAgentNamespace(ctx context.Context, p *Plan) (*Finding, error) {
	name, level := p.text("cni", "namespace"), "restricted"
	if name != p.Config.Namespace {
		ns, err := in.Cluster.Dynamic.Resource(namespaces).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsForbidden(err):
			return nil, nil // what checkRights says
		case apierrors.IsNotFound(err):
			return &Finding{SeverityError, fmt.Sprintf("cni.namespace %s is not there", name), "make it, or leave it at kube-system"}, nil
		case err != nil:
			return nil, in.Cluster.Explain("get", "namespace/"+name, err)
		}
		level = ns.GetLabels()["pod-security.kubernetes.io/enforce"]
	}
	if level == "" || level == "privileged" {
		return nil, nil
	}
	return &Finding{SeverityError, fmt.Sprintf("cni.namespace %s enforces the Pod Security standard %s, which the node agent cannot keep: it needs folders of the node", name, level),
		"use kube-system, or a namespace that allows it"}, nil
}
