package podspec

import (
	"time"

	"weft.mesh/weft/node/capture"
)

// ProxyContainer is the name of the container that the mesh's proxy is.
const ProxyContainer = "istio-proxy"

// Labels and annotations with a meaning for the runtime (Istio's names).
const (
	LabelInject             = "sidecar.istio.io/inject" // also an annotation
	LabelNamespaceInjection = "istio-injection"
	LabelTLSMode            = "security.istio.io/tlsMode"
	LabelCanonicalName      = "service.istio.io/canonical-name"
	LabelCanonicalRevision  = "service.istio.io/canonical-revision"
	LabelTemplateHash       = "pod-template-hash"
	AnnotationTemplates     = "inject.istio.io/templates"
	AnnotationInterception  = "sidecar.istio.io/interceptionMode"
	AnnotationSidecarStatus = "sidecar.istio.io/status"
	AnnotationProxyConfig   = "proxy.istio.io/config" // the control plane's matter, which checks it
)

// Spec is a Deployment as the runtime runs it. It is immutable.
type Spec struct {
	Namespace      string
	Name           string
	Hash           string // of the pod template
	Replicas       int
	Labels         map[string]string // of the template
	Annotations    map[string]string // of the template
	ServiceAccount string
	Containers     []Container
	Grace          time.Duration // from SIGTERM to SIGKILL
	Strategy       Strategy
	Gateway        bool  // the istio-proxy container is the proxy itself
	Inject         *bool // what the template says; nil: the namespace decides
	Capture        bool  // whether a sidecar's pod has its traffic redirected
	Traffic        capture.Traffic
}

// Strategy says how a new template replaces an old one.
type Strategy struct {
	Recreate       bool // end all old pods first
	MaxSurge       int  // pods above the replicas, for RollingUpdate
	MaxUnavailable int  // pods below the replicas, for RollingUpdate
}

// Container is one program of a pod.
type Container struct {
	Name      string
	Command   []string // command and args; $(VAR) not yet expanded
	Dir       string
	Env       []EnvVar
	Ports     []Port
	Startup   *Probe
	Readiness *Probe
	Liveness  *Probe
}

// EnvVar is one variable: a value, or the path of a field of the pod.
type EnvVar struct {
	Name  string
	Value string
	Field string // "metadata.name", "metadata.namespace", "status.podIP", …
}

// Port is one declared port.
type Port struct {
	Name     string
	Port     uint16
	HostPort uint16 // 0: none
	UDP      bool
}

// Probe is one health check with Kubernetes' defaults filled in.
type Probe struct {
	HTTP    *HTTPProbe
	TCP     *TCPProbe
	GRPC    *GRPCProbe
	Command []string

	InitialDelay     time.Duration
	Period           time.Duration // default 10 s
	Timeout          time.Duration // default 1 s
	SuccessThreshold int           // default 1
	FailureThreshold int           // default 3
}

// HTTPProbe succeeds on a status from 200 to 399.
type HTTPProbe struct {
	Host    string // "" means the pod's address
	Port    uint16
	Path    string
	HTTPS   bool // the certificate is not checked, as in Kubernetes
	Headers [][2]string
}

// TCPProbe succeeds when a connection opens.
type TCPProbe struct {
	Host string // "" means the pod's address
	Port uint16
}

// GRPCProbe succeeds when grpc.health.v1 says SERVING.
type GRPCProbe struct {
	Port    uint16
	Service string
}

// HasSidecar decides whether a pod of the spec gets a sidecar, given the
// labels of its namespace. In local mode everything is injected unless it says
// otherwise: the template first, then the namespace.
func (s Spec) HasSidecar(namespaceLabels map[string]string) bool {
	if s.Gateway {
		return false
	}
	if s.Inject != nil {
		return *s.Inject
	}
	return namespaceLabels[LabelNamespaceInjection] != "disabled"
}
