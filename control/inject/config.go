package inject

import (
	"fmt"
	"strings"

	mesh "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// Names that an injected pod has, as Istio's.
const (
	ContainerProxy      = "istio-proxy"
	ContainerInit       = "istio-init"
	ContainerValidation = "istio-validation" // instead of istio-init where a node agent redirects
)

// The user and group that the proxy runs as: capture leaves its traffic alone.
const proxyID = 1337

// Seconds of [Proxy.StopDelaySeconds]. Three: an endpoint's end reaches every proxy within one on a machine that is not overloaded, and
// a proxy that has not heard of it seldom calls less often.
const (
	defaultStopDelay = 3
	maxStopDelay     = 600
)

// DefaultRevision is the name of the revision that has none.
const DefaultRevision = "default"

// Config is what pods are injected with. It is immutable; replace it whole.
type Config struct {
	Values
	// DiscoveryAddress is the control plane's host:port for proxies.
	DiscoveryAddress string
	TrustDomain      string // default cluster.local
	Domain           string // DNS domain of the cluster; default cluster.local
	// Defaults is MeshConfig.defaultConfig; nil: none.
	Defaults *mesh.ProxyConfig
	// NoPrometheusMerge is MeshConfig.enablePrometheusMerge false.
	NoPrometheusMerge bool
}

// Values are the key `values` of the control plane's ConfigMap, written by the chart.
type Values struct {
	Revision string `json:"revision"`
	Global   Global `json:"global"`
	// CNI: a node agent redirects the traffic of pods, which need no privilege for it.
	CNI struct {
		Enabled bool `json:"enabled"`
	} `json:"cni"`
	Proxy Proxy `json:"proxy"`
	// EnableNamespacesByDefault injects into namespaces that do not say no.
	EnableNamespacesByDefault bool `json:"enableNamespacesByDefault"`
	// NeverInject and AlwaysInject decide for pods that do not say themselves; never comes first.
	NeverInject  []metav1.LabelSelector `json:"neverInjectSelector,omitempty"`
	AlwaysInject []metav1.LabelSelector `json:"alwaysInjectSelector,omitempty"`
	// InjectedAnnotations are given to every injected pod.
	InjectedAnnotations map[string]string `json:"injectedAnnotations,omitempty"`
	// Templates are custom ones by name: YAML of a part of a pod, as a Go template.
	Templates map[string]string `json:"templates,omitempty"`
	// DefaultTemplates are used for pods that name none; empty: sidecar.
	DefaultTemplates []string `json:"defaultTemplates,omitempty"`
}

// Global says where images are and which cluster this is.
type Global struct {
	Hub              string            `json:"hub"`
	Tag              string            `json:"tag"`
	ImagePullPolicy  corev1.PullPolicy `json:"imagePullPolicy"`
	ImagePullSecrets []string          `json:"imagePullSecrets"`
	Network          string            `json:"network,omitempty"`
	ClusterName      string            `json:"clusterName,omitempty"` // default Kubernetes
	MeshID           string            `json:"meshID,omitempty"`      // default: the trust domain
	// ClusterTrustBundle: pods mount the roots from the ClusterTrustBundle, not from their namespace's ConfigMap.
	ClusterTrustBundle bool `json:"clusterTrustBundle,omitempty"`
}

// Proxy are the sidecars' defaults.
type Proxy struct {
	Image                string                      `json:"image,omitempty"` // default HUB/proxy:TAG
	LogLevel             string                      `json:"logLevel"`
	Resources            corev1.ResourceRequirements `json:"resources"`
	NativeSidecars       bool                        `json:"nativeSidecars"`
	Hold                 bool                        `json:"holdApplicationUntilProxyStarts"`
	IncludeIPRanges      string                      `json:"includeIPRanges"`
	ExcludeIPRanges      string                      `json:"excludeIPRanges"`
	IncludeInboundPorts  string                      `json:"includeInboundPorts"`
	ExcludeInboundPorts  string                      `json:"excludeInboundPorts"`
	IncludeOutboundPorts string                      `json:"includeOutboundPorts,omitempty"`
	ExcludeOutboundPorts string                      `json:"excludeOutboundPorts"`
	StatusPort           int32                       `json:"statusPort"`
	RewriteProbes        bool                        `json:"rewriteAppHTTPProbe"`
	// StopDelaySeconds is how long nobody must have called a pod that ends before its programs get SIGTERM: until then others may
	// not have heard of it. Calls delay that for 25 s at most. It is for containers without a preStop hook beside a native sidecar; 0: at once.
	// A gateway waits in the same way, for what its pod's grace period leaves.
	StopDelaySeconds int64 `json:"stopDelaySeconds"`
}

// DefaultValues are the chart's.
func DefaultValues() Values {
	var v Values
	v.Global = Global{Hub: "weft", Tag: "latest", ImagePullPolicy: corev1.PullIfNotPresent}
	v.Proxy = Proxy{LogLevel: "warning", NativeSidecars: true, IncludeIPRanges: "*", IncludeInboundPorts: "*", StatusPort: 15020, RewriteProbes: true, StopDelaySeconds: defaultStopDelay}
	return v
}

// ParseValues reads the key `values` of the control plane's ConfigMap; what it leaves out has the default.
func ParseValues(text string) (Values, error) {
	v := DefaultValues()
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		return v, fmt.Errorf("injection values: %s", strings.TrimPrefix(err.Error(), "error unmarshaling JSON: "))
	}
	return v, v.check()
}

func (v *Values) check() error {
	if v.Proxy.StatusPort < 1 || v.Proxy.StatusPort > 65535 {
		return fmt.Errorf("injection values: proxy.statusPort %d: want 1 to 65535", v.Proxy.StatusPort)
	}
	if d := v.Proxy.StopDelaySeconds; d < 0 || d > maxStopDelay {
		return fmt.Errorf("injection values: proxy.stopDelaySeconds %d: want 0 to %d", d, maxStopDelay)
	}
	if err := checkLevel(v.Proxy.LogLevel); err != nil {
		return fmt.Errorf("injection values: proxy.logLevel: %w", err)
	}
	for _, list := range [][]metav1.LabelSelector{v.NeverInject, v.AlwaysInject} {
		for i := range list {
			if _, err := metav1.LabelSelectorAsSelector(&list[i]); err != nil {
				return fmt.Errorf("injection values: selector: %w", err)
			}
		}
	}
	for name, text := range v.Templates {
		if _, err := parseTemplate(name, text); err != nil {
			return fmt.Errorf("injection values: templates.%s: %w", name, err)
		}
	}
	for _, name := range v.DefaultTemplates {
		if err := v.checkTemplate(name); err != nil {
			return fmt.Errorf("injection values: defaultTemplates: %w", err)
		}
	}
	return nil
}

// image is the proxy's.
func (v *Values) image() string {
	switch {
	case v.Proxy.Image == "":
		return v.Global.Hub + "/proxy:" + v.Global.Tag
	case strings.Contains(v.Proxy.Image, "/"):
		return v.Proxy.Image
	}
	return v.Global.Hub + "/" + v.Proxy.Image + ":" + v.Global.Tag
}

// revision is never empty.
func (v *Values) revision() string { return or(v.Revision, DefaultRevision) }

func (c *Config) trustDomain() string { return or(c.TrustDomain, "cluster.local") }

// matches tells whether one of the selectors matches; check has parsed them.
func matches(list []metav1.LabelSelector, l map[string]string) bool {
	for i := range list {
		if s, err := metav1.LabelSelectorAsSelector(&list[i]); err == nil && !s.Empty() && s.Matches(labels.Set(l)) {
			return true
		}
	}
	return false
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
