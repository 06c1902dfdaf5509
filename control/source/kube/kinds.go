package kube

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

// kind is one kind that is watched.
type kind struct {
	kind     model.Kind
	plural   string
	versions []string // API versions, the preferred one first
	fields   string   // field selector
	// typed converts a built-in object; nil: the object takes the way of a file's text.
	typed func(runtime.Object) (convert.Object, bool)
	// keep drops objects that no configuration can refer to, before they are looked at; nil: none.
	keep func(content map[string]any) bool
}

// group is the API group of the kind; "" is core.
func groupOf(version string) string {
	for i := range version {
		if version[i] == '/' {
			return version[:i]
		}
	}
	return ""
}

// typedAs makes a converter of one type.
func typedAs[T runtime.Object](f func(T) convert.Object) func(runtime.Object) (convert.Object, bool) {
	return func(o runtime.Object) (convert.Object, bool) {
		t, ok := o.(T)
		if !ok {
			return convert.Object{}, false
		}
		return f(t), true
	}
}

// builtin are the kinds of every cluster. Secrets and ConfigMaps of which
// nothing can be a certificate never reach the model.
var builtin = []*kind{
	{kind: model.KindNamespace, plural: "namespaces", versions: []string{"v1"}, typed: typedAs(func(o *corev1.Namespace) convert.Object { return convert.FromNamespace(o) })},
	{kind: model.KindNode, plural: "nodes", versions: []string{"v1"}, typed: typedAs(func(o *corev1.Node) convert.Object { return convert.FromNode(o) })},
	{kind: model.KindService, plural: "services", versions: []string{"v1"}, typed: typedAs(func(o *corev1.Service) convert.Object { return convert.FromService(o) })},
	{kind: model.KindPod, plural: "pods", versions: []string{"v1"}, fields: "status.phase!=Succeeded,status.phase!=Failed",
		typed: typedAs(func(o *corev1.Pod) convert.Object { return convert.FromPod(o) })},
	{kind: model.KindEndpointSlice, plural: "endpointslices", versions: []string{"discovery.k8s.io/v1"},
		typed: typedAs(func(o *discoveryv1.EndpointSlice) convert.Object { return convert.FromEndpointSlice(o) })},
	// Of these only the pods' labels and account: who may serve a service that is scaled to zero.
	{kind: model.KindDeployment, plural: "deployments", versions: []string{"apps/v1"}, typed: typedAs(func(o *appsv1.Deployment) convert.Object { return convert.FromDeployment(o) })},
	{kind: model.KindStatefulSet, plural: "statefulsets", versions: []string{"apps/v1"}, typed: typedAs(func(o *appsv1.StatefulSet) convert.Object { return convert.FromStatefulSet(o) })},
}

// credentials are watched where convert knows them.
var credentials = []*kind{
	{kind: "Secret", plural: "secrets", versions: []string{"v1"}, fields: "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=kubernetes.io/dockerconfigjson",
		keep: hasOne("data", "tls.crt", "tls.key", "ca.crt", "cert", "key", "cacert", "ca.crl", "crl")},
	{kind: "ConfigMap", plural: "configmaps", versions: []string{"v1"}, fields: "metadata.name!=istio-ca-root-cert,metadata.name!=kube-root-ca.crt",
		keep: hasOne("data", "ca.crt", "cacert", "crl", "ca.crl")},
	{kind: "Ingress", plural: "ingresses", versions: []string{"networking.k8s.io/v1"}},
	{kind: "IngressClass", plural: "ingressclasses", versions: []string{"networking.k8s.io/v1"}},
}

func hasOne(field string, names ...string) func(map[string]any) bool {
	return func(o map[string]any) bool {
		data, _ := o[field].(map[string]any)
		return slices.ContainsFunc(names, func(n string) bool { _, ok := data[n]; return ok })
	}
}

func versions(group string, v ...string) []string {
	out := make([]string, len(v))
	for i := range v {
		out[i] = group + "/" + v[i]
	}
	return out
}

// custom are the kinds that have to be installed. Those that convert does not know are not watched.
var custom = func() []*kind {
	const gatewayAPI = "gateway.networking.k8s.io"
	istio := func(k model.Kind, plural string) *kind {
		return &kind{kind: k, plural: plural, versions: versions("networking.istio.io", "v1", "v1beta1", "v1alpha3")}
	}
	secure := func(k model.Kind, plural string) *kind {
		return &kind{kind: k, plural: plural, versions: versions("security.istio.io", "v1", "v1beta1")}
	}
	gateway := func(k model.Kind, plural string, v ...string) *kind {
		return &kind{kind: k, plural: plural, versions: versions(gatewayAPI, v...)}
	}
	return []*kind{
		istio(model.KindVirtualService, "virtualservices"), istio(model.KindDestinationRule, "destinationrules"), istio(model.KindGateway, "gateways"),
		istio(model.KindServiceEntry, "serviceentries"), istio(model.KindWorkloadEntry, "workloadentries"),
		secure(model.KindPeerAuthentication, "peerauthentications"), secure(model.KindAuthorizationPolicy, "authorizationpolicies"),
		gateway(model.KindGatewayClass, "gatewayclasses", "v1", "v1beta1"), gateway(model.KindK8sGateway, "gateways", "v1", "v1beta1"),
		gateway(model.KindListenerSet, "listenersets", "v1", "v1alpha1"), gateway(model.KindHTTPRoute, "httproutes", "v1", "v1beta1"),
		gateway(model.KindGRPCRoute, "grpcroutes", "v1"), gateway(model.KindTLSRoute, "tlsroutes", "v1", "v1alpha3", "v1alpha2"),
		gateway(model.KindTCPRoute, "tcproutes", "v1", "v1alpha2"), gateway(model.KindReferenceGrant, "referencegrants", "v1", "v1beta1"),
		gateway(model.KindBackendTLSPolicy, "backendtlspolicies", "v1", "v1alpha3"),
	}
}()

// known tells whether convert reads a kind.
func known(k model.Kind) bool { return slices.Contains(convert.Kinds(), string(k)) }

// Resource is how an object is written: API version and plural name of its kind.
func Resource(k model.Kind) (plural string, versions []string, ok bool) {
	for _, x := range slices.Concat(builtin, credentials, custom) {
		if x.kind == k {
			return x.plural, x.versions, true
		}
	}
	return "", nil, false
}
