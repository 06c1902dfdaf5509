package model

// Kinds of Kubernetes' own ingress API (networking.k8s.io/v1).
const (
	KindIngress      Kind = "Ingress"
	KindIngressClass Kind = "IngressClass"
)

// IngressSettings say which Ingresses are served, and by which workloads: MeshConfig's ingress fields.
type IngressSettings struct {
	Off       bool   // ingressControllerMode OFF: none
	Unclassed bool   // ingressControllerMode DEFAULT: also those that name no class
	Class     string // ingressClass: the value of the annotation kubernetes.io/ingress.class that is ours; "": weft (and istio where Istio's classes are ours)
	Selector  string // ingressSelector: label istio of the pods that serve; "": ingressgateway
	Service   string // ingressService: "namespace/name", or a name in the root namespace; "": istio-ingressgateway
	Istio     bool   // classes of Istio's controller are ours too; without Kubernetes they are in any case
}

// Ingress is one Ingress as it is written. What all of them mean together are Gateways and RouteSets, which
// control/ingress makes; their names begin with "~", which no written object's can.
type Ingress struct {
	Meta
	Class   *string // spec.ingressClassName
	Rules   []IngressRule
	Default *IngressBackend
	TLS     []IngressTLS
}

// IngressRule is what a host leads to.
type IngressRule struct {
	Field string // where it is written, for messages: spec.rules[0]
	Host  string // in lower case; "*.suffix" stands for one label more; "" is all hosts
	Paths []IngressPath
}

// Types of an [IngressPath].
const (
	PathExact    = "Exact"
	PathPrefix   = "Prefix" // by path elements
	PathSpecific = "ImplementationSpecific"
)

// IngressPath is where one path of a host leads.
type IngressPath struct {
	Field   string
	Type    string // one of Path…
	Path    string
	Backend IngressBackend
}

// IngressBackend is a port of a Service in the Ingress's namespace, by number or by name, or else a resource that is none.
type IngressBackend struct {
	Field    string
	Service  string
	Port     uint16 // 0: PortName
	PortName string
	Resource string // "kind name"; "" it is a Service
}

// IngressTLS are hosts with a Secret of the Ingress's namespace.
type IngressTLS struct {
	Field  string
	Hosts  []string // none: all
	Secret string   // "": none
}

// IngressClass says whose the Ingresses are that name it.
type IngressClass struct {
	Meta
	Controller string
	Default    bool // of Ingresses that name no class
}
