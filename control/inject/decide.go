package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Labels that decide whether a pod is injected and by whom.
const (
	LabelInjection = "istio-injection"         // of a namespace: enabled or disabled
	LabelRevision  = "istio.io/rev"            // of a namespace or a pod
	LabelInject    = "sidecar.istio.io/inject" // of a pod; as an annotation it is weaker
)

// IgnoredNamespaces are never injected.
var IgnoredNamespaces = []string{"kube-system", "kube-public", "kube-node-lease", "local-path-storage"}

// Decision is whether a pod gets a proxy, and why.
type Decision struct {
	Inject bool
	Why    string
}

// Required decides for a pod that a webhook of this revision was asked about, or that a user brings in a file: the label or
// annotation of the pod, then the selectors, then yes. Which webhook is asked, the selectors of package
// deploy's chart say, and the API server judges them: it knows the namespace's labels of the moment.
func (c *Config) Required(p *corev1.Pod, namespace string) Decision {
	switch {
	case p.Spec.HostNetwork:
		return Decision{false, "a host network pod has no network of its own to capture"}
	case slices.Contains(IgnoredNamespaces, namespace):
		return Decision{false, "namespace " + namespace + " is never injected"}
	case p.Spec.OS != nil && p.Spec.OS.Name == corev1.Windows || p.Spec.NodeSelector["kubernetes.io/os"] == "windows":
		return Decision{false, "there is no proxy for Windows"}
	}
	what, value := "annotation", p.Annotations[LabelInject]
	if v, ok := p.Labels[LabelInject]; ok {
		what, value = "label", v
	}
	switch strings.ToLower(value) {
	case "y", "yes", "true", "on":
		return Decision{true, fmt.Sprintf("%s %s=%s", what, LabelInject, value)}
	case "":
	default:
		return Decision{false, fmt.Sprintf("%s %s=%s", what, LabelInject, value)}
	}
	switch {
	case matches(c.NeverInject, p.Labels):
		return Decision{false, "neverInjectSelector"}
	case matches(c.AlwaysInject, p.Labels):
		return Decision{true, "alwaysInjectSelector"}
	}
	return Decision{true, "namespace or revision"}
}
