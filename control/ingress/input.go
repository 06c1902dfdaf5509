package ingress

import (
	"strings"

	"weft.mesh/weft/model"
)

// Controllers of IngressClasses, and the classes that they have.
const (
	Controller      = "weft.mesh/ingress-controller" // ours
	IstioController = "istio.io/ingress-controller"  // Istio's, served beside ours if asked
	ClassWeft       = "weft"
	ClassIstio      = "istio"

	// Annotation names a class where no spec.ingressClassName does, whether or not there is an IngressClass.
	Annotation = "kubernetes.io/ingress.class"
)

// What serves Ingresses where MeshConfig does not say it (Istio's defaults).
const (
	defaultSelector = "ingressgateway"
	defaultService  = "istio-ingressgateway"
)

// Settings are what does not come from objects.
type Settings struct {
	Domain    string // DNS domain of Services, default cluster.local
	Namespace string // of the values that are made: the root namespace

	// Controllers are those whose IngressClasses are served, and Annotations the values of the annotation that are.
	Controllers []string
	Annotations []string
	// Local: there is no API server. The classes weft and istio need no IngressClass, the
	// class that is marked as the default one counts here, and nobody else serves what we do not.
	Local     bool
	Off       bool // nothing is served
	Unclassed bool // an Ingress without a class is served

	// Selector is of the pods that serve, in WorkloadNamespace or, if that is "", anywhere.
	Selector          map[string]string
	WorkloadNamespace string
}

// SettingsOf are those of a mesh. A mesh that knows endpoints from slices is on Kubernetes.
func SettingsOf(m model.Mesh) Settings {
	in := m.Ingress
	s := Settings{Domain: m.Domain, Namespace: m.RootNamespace, Local: !m.EndpointSlices, Off: in.Off, Unclassed: in.Unclassed,
		Controllers: []string{Controller}, Annotations: []string{ClassWeft}, Selector: map[string]string{"istio": or(in.Selector, defaultSelector)}}
	if s.Domain == "" {
		s.Domain = "cluster.local"
	}
	if s.Namespace == "" {
		s.Namespace = "weft-system"
	}
	if s.Local || in.Istio {
		s.Controllers, s.Annotations = append(s.Controllers, IstioController), append(s.Annotations, ClassIstio)
	}
	if in.Class != "" {
		s.Annotations = []string{in.Class}
	}
	if !s.Local {
		s.WorkloadNamespace, _ = ServiceOf(m)
	}
	return s
}

// ServiceOf names the Service whose addresses Ingresses have.
func ServiceOf(m model.Mesh) (namespace, name string) {
	service := or(m.Ingress.Service, defaultService)
	if ns, n, ok := strings.Cut(service, "/"); ok {
		return ns, n
	}
	return or(m.RootNamespace, "weft-system"), service
}

func or(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// Input is everything that the computation looks at. Nothing of it is changed.
type Input struct {
	Settings  Settings
	Ingresses []*model.Ingress
	Classes   []*model.IngressClass
	Services  []*model.Service
	Secrets   []*model.Secret
}

// Output is what the input means.
type Output struct {
	Objects map[model.Key][]model.Object // for the World, by the key that it knows them by
	// Served are the Ingresses that are ours, sorted: their status is.
	Served   []model.Key
	Findings []Finding // what is wrong, sorted by object
}

// Finding is something that is wrong with an Ingress. Codes are those of diagnostics.
type Finding struct {
	Key     model.Key
	Error   bool // else a warning
	Code    string
	Field   string
	Value   string
	Message string
	Hint    string
}

// Codes of findings, beside those of control/convert that they share.
const (
	CodePathConflict = "ingress-path-conflict"
	CodeTLSConflict  = "ingress-tls-conflict"
	CodeClass        = "ingress-class"
	CodeAnnotation   = "unsupported-annotation"
	CodeUnsupported  = "unsupported-field"
	CodeRegex        = "invalid-regex"
	CodeService      = "unknown-host"
	CodePort         = "unknown-port"
	CodeSecret       = "unknown-secret"
)
