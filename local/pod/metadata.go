package pod

import (
	"maps"
	"net/netip"

	"weft.mesh/weft/local/manifest"
	"weft.mesh/weft/local/podspec"
	"weft.mesh/weft/node/capture"
)

// dnsPort is where the node answers names.
const dnsPort = 53

// metadata is the template's labels and annotations with what Kubernetes and
// an injection webhook would add.
func metadata(c Config) (labels, annotations map[string]string) {
	labels, annotations = maps.Clone(c.Spec.Labels), maps.Clone(c.Spec.Annotations)
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels[podspec.LabelTemplateHash] = c.Hash
	if !c.Sidecar && !c.Spec.Gateway {
		return labels, annotations
	}
	if c.Sidecar { // a gateway's own ports speak what its Gateways say, not mTLS
		labels[podspec.LabelTLSMode] = "istio"
	}
	setDefault(labels, podspec.LabelCanonicalName, firstOf(labels["app.kubernetes.io/name"], labels["app"], c.Spec.Name))
	setDefault(labels, podspec.LabelCanonicalRevision, firstOf(labels["app.kubernetes.io/version"], labels["version"], "latest"))
	if c.Sidecar {
		annotations[podspec.AnnotationSidecarStatus] = `{"containers":["` + podspec.ProxyContainer + `"],"revision":"default"}`
	}
	return labels, annotations
}

func setDefault(m map[string]string, k, v string) {
	if m[k] == "" {
		m[k] = v
	}
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func (p *Pod) identity() podspec.Identity {
	return podspec.Identity{Name: p.name, Namespace: p.spec.Namespace, UID: p.uid, IP: p.ip.String(),
		HostIP: p.env.Network.Node.Addr().String(), NodeName: manifest.NodeName, ServiceAccount: p.spec.ServiceAccount,
		Labels: p.labels, Annotations: p.notes}
}

func (p *Pod) captureConfig(ip netip.Addr) capture.Config {
	return capture.Config{PodIP: ip, DNS: netip.AddrPortFrom(p.env.Network.Node.Addr(), dnsPort), Traffic: p.spec.Traffic}
}
