// Package install brings what deploy/chart says into a cluster and takes it out
// again: it orders objects, applies them on the server's side as field manager
// "weft", waits for what the next needs, and removes what a former version left.
//
// It promises that doing it twice changes nothing, that webhooks come last and
// go first (a webhook without a server stops pods from starting), that objects
// of others are not overwritten, and that every error names the object and the
// fix. It refuses to guess: what is in the way is an error before the first write.
package install

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kind is one kind of object that an install has, in the order that it is made.
type kind struct {
	gvr        schema.GroupVersionResource
	name       string // Kind
	namespaced bool
	webhook    bool
}

func res(group, version, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
}

const (
	admission = "admissionregistration.k8s.io"
	rbac      = "rbac.authorization.k8s.io"
)

// Resources that are named in the code.
var (
	namespaces  = res("", "v1", "namespaces")
	crds        = res("apiextensions.k8s.io", "v1", "customresourcedefinitions")
	configMaps  = res("", "v1", "configmaps")
	deployments = res("apps", "v1", "deployments")
	daemonSets  = res("apps", "v1", "daemonsets")
	mutating    = res(admission, "v1", "mutatingwebhookconfigurations")
	validating  = res(admission, "v1", "validatingwebhookconfigurations")
	pods        = res("", "v1", "pods")
)

// order lists all kinds of the chart: what others refer to comes first, webhooks last.
var order = []kind{
	{gvr: crds, name: "CustomResourceDefinition"},
	{gvr: namespaces, name: "Namespace"},
	{gvr: res(admission, "v1", "validatingadmissionpolicies"), name: "ValidatingAdmissionPolicy"},
	{gvr: res(admission, "v1", "validatingadmissionpolicybindings"), name: "ValidatingAdmissionPolicyBinding"},
	{gvr: res("", "v1", "serviceaccounts"), name: "ServiceAccount", namespaced: true},
	{gvr: configMaps, name: "ConfigMap", namespaced: true},
	{gvr: res(rbac, "v1", "clusterroles"), name: "ClusterRole"},
	{gvr: res(rbac, "v1", "clusterrolebindings"), name: "ClusterRoleBinding"},
	{gvr: res(rbac, "v1", "roles"), name: "Role", namespaced: true},
	{gvr: res(rbac, "v1", "rolebindings"), name: "RoleBinding", namespaced: true},
	{gvr: res("", "v1", "services"), name: "Service", namespaced: true},
	{gvr: deployments, name: "Deployment", namespaced: true},
	{gvr: daemonSets, name: "DaemonSet", namespaced: true},
	{gvr: res("policy", "v1", "poddisruptionbudgets"), name: "PodDisruptionBudget", namespaced: true},
	{gvr: res("autoscaling", "v2", "horizontalpodautoscalers"), name: "HorizontalPodAutoscaler", namespaced: true},
	{gvr: res("gateway.networking.k8s.io", "v1", "gatewayclasses"), name: "GatewayClass"},
	{gvr: res("networking.k8s.io", "v1", "ingressclasses"), name: "IngressClass"},
	{gvr: mutating, name: "MutatingWebhookConfiguration", webhook: true},
	{gvr: validating, name: "ValidatingWebhookConfiguration", webhook: true},
}

// kindOf finds an object's kind; its index is its place in the order.
func kindOf(o *unstructured.Unstructured) (kind, int, error) {
	gvk := o.GroupVersionKind()
	for i, k := range order {
		if k.name == gvk.Kind && k.gvr.Group == gvk.Group {
			return k, i, nil
		}
	}
	return kind{}, 0, fmt.Errorf("%s %s: install knows no such kind", gvk, o.GetName())
}

// nameOf is how messages call an object: kind and name, as kubectl prints it.
func nameOf(o *unstructured.Unstructured) string {
	return strings.ToLower(o.GetKind()) + "/" + o.GetName()
}
