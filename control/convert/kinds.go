package convert

import (
	"reflect"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft.mesh/weft/model"
)

// kindInfo is one kind that Decode reads.
type kindInfo struct {
	kind       model.Kind
	versions   []string // API versions, the preferred one first
	namespaced bool
	specless   bool // has no spec, or may leave it out
	// new makes the typed value: the spec message of an Istio kind, the whole object of a Kubernetes kind.
	new    func() any
	schema *schema // of the whole object
}

var (
	networkingVersions = []string{"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"}
	securityVersions   = []string{"security.istio.io/v1", "security.istio.io/v1beta1"}
)

// kinds is made at first use, because it walks all descriptors.
var kinds = sync.OnceValue(func() map[model.Kind]*kindInfo {
	b, pods := newBuilder(), newBuilder()
	pods.open = true // written by the runtime, with status and owners
	out := map[model.Kind]*kindInfo{}
	for _, k := range append(append(gatewayAPIKinds(), ingressKinds()...), []*kindInfo{
		{kind: model.KindNamespace, versions: []string{"v1"}, specless: true, new: func() any { return new(corev1.Namespace) }},
		{kind: model.KindServiceAccount, versions: []string{"v1"}, namespaced: true, specless: true, new: func() any { return new(corev1.ServiceAccount) }},
		{kind: model.KindService, versions: []string{"v1"}, namespaced: true, new: func() any { return new(corev1.Service) }},
		{kind: model.KindPod, versions: []string{"v1"}, namespaced: true, new: func() any { return new(corev1.Pod) }},
		{kind: model.KindDeployment, versions: []string{"apps/v1"}, namespaced: true, new: func() any { return new(appsv1.Deployment) }},
		{kind: model.KindVirtualService, versions: networkingVersions, namespaced: true, new: func() any { return new(networking.VirtualService) }},
		{kind: model.KindDestinationRule, versions: networkingVersions, namespaced: true, new: func() any { return new(networking.DestinationRule) }},
		{kind: model.KindGateway, versions: networkingVersions, namespaced: true, new: func() any { return new(networking.Gateway) }},
		{kind: model.KindServiceEntry, versions: networkingVersions, namespaced: true, new: func() any { return new(networking.ServiceEntry) }},
		{kind: model.KindWorkloadEntry, versions: networkingVersions, namespaced: true, new: func() any { return new(networking.WorkloadEntry) }},
		{kind: model.KindPeerAuthentication, versions: securityVersions, namespaced: true, specless: true, new: func() any { return new(security.PeerAuthentication) }},
		{kind: model.KindAuthorizationPolicy, versions: securityVersions, namespaced: true, specless: true, new: func() any { return new(security.AuthorizationPolicy) }},
	}...) {
		if k.kind == model.KindPod {
			k.schema = pods.object(k)
		} else {
			k.schema = b.object(k)
		}
		out[k.kind] = k
	}
	return out
})

// object makes the schema of a whole object.
func (b *builder) object(k *kindInfo) *schema {
	v := k.new()
	m, ok := v.(proto.Message)
	if !ok || !isIstio(v) {
		return b.goType(reflect.TypeOf(v))
	}
	text := &schema{kind: kindString}
	return &schema{kind: kindObject, name: string(k.kind), fields: map[string]*field{
		"apiVersion": {schema: text}, "kind": {schema: text},
		"metadata": {schema: b.goType(reflect.TypeFor[metav1.ObjectMeta]())},
		"spec":     {schema: b.message(m.ProtoReflect().Descriptor())},
		"status":   {schema: &schema{kind: kindAny}, server: true},
	}}
}

// isIstio tells istio.io/api messages from k8s.io/api objects, some of which are protobuf messages too.
func isIstio(v any) bool {
	switch v.(type) {
	case *networking.VirtualService, *networking.DestinationRule, *networking.Gateway, *networking.ServiceEntry,
		*networking.WorkloadEntry, *security.PeerAuthentication, *security.AuthorizationPolicy:
		return true
	}
	return false
}

// Kinds lists the kinds that can be written in a user's file, sorted.
func Kinds() []string {
	var out []string
	for k := range kinds() {
		if k != model.KindPod {
			out = append(out, string(k))
		}
	}
	slices.Sort(out)
	return out
}

// Namespaced tells whether objects of the kind live in a namespace.
func Namespaced(k model.Kind) bool {
	info := kinds()[k]
	return info != nil && info.namespaced
}

// instead says what to use for kinds that people bring along.
var instead = map[string]string{
	"Pod":                            "use a Deployment",
	"ReplicaSet":                     "use a Deployment",
	"StatefulSet":                    "use a Deployment; stable names for each pod are not implemented",
	"DaemonSet":                      "use a Deployment",
	"Job":                            "use a Deployment, or run the command with weft exec",
	"CronJob":                        "use a Deployment, or run the command with weft exec",
	"NetworkPolicy":                  "use an AuthorizationPolicy",
	"Role":                           "use an AuthorizationPolicy; there is no Kubernetes API to guard",
	"RoleBinding":                    "use an AuthorizationPolicy; there is no Kubernetes API to guard",
	"ClusterRole":                    "use an AuthorizationPolicy; there is no Kubernetes API to guard",
	"ClusterRoleBinding":             "use an AuthorizationPolicy; there is no Kubernetes API to guard",
	"HorizontalPodAutoscaler":        "use weft scale",
	"PodDisruptionBudget":            "remove it; weft restart replaces pods one by one",
	"PersistentVolumeClaim":          "let the process write to a local directory",
	"PersistentVolume":               "let the process write to a local directory",
	"Endpoints":                      "use a ServiceEntry with endpoints",
	"EndpointSlice":                  "use a ServiceEntry with endpoints",
	"CustomResourceDefinition":       "remove it; the kinds of the mesh are built in",
	"MutatingWebhookConfiguration":   "remove it",
	"ValidatingWebhookConfiguration": "remove it",
	"EnvoyFilter":                    "use the fields of VirtualService and DestinationRule; raw Envoy configuration is not implemented",
	"Sidecar":                        "remove it; every proxy learns what its workload may reach",
	"RequestAuthentication":          "JWT is not implemented yet: authorize by principals, namespaces or serviceAccounts",
	"Telemetry":                      "remove it; standard metrics and access logs are on",
	"WasmPlugin":                     "Wasm is not implemented yet",
	"WorkloadGroup":                  "use a WorkloadEntry for each workload",
	"ProxyConfig":                    "not implemented yet",
	"UDPRoute":                       "UDP is not routed: it passes by the mesh",
	"XBackendTrafficPolicy":          "use a DestinationRule with retryBudget",
}
