package convert

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"weft.mesh/weft/model"
)

// sidecarContainer is the name that a sidecar has in a Pod; a gateway's only container has it too.
const sidecarContainer = "istio-proxy"

// LabelTLSMode on a pod says whether it accepts mTLS: "istio" or "disabled".
const LabelTLSMode = "security.istio.io/tlsMode"

// labelDeployment names the Deployment that a local pod belongs to; the label and owner are Kubernetes' ways.
const (
	labelWorkloadName = "service.istio.io/workload-name"
	annotationGateway = "weft.mesh/gateway"
)

// pod reads a Pod manifest, written by the local runtime (and by nobody else).
func (c *conv) pod(p *corev1.Pod) []model.Object {
	w := &model.Workload{Meta: c.meta(), ServiceAccount: p.Spec.ServiceAccountName, WorkloadName: workloadName(p),
		Node: p.Spec.NodeName, Terminating: p.DeletionTimestamp != nil, Weight: 1}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default"
	}
	w.Addresses = c.podAddresses(p)
	w.Locality = podLocality(p.Labels)
	var apps []corev1.Container
	for _, ct := range p.Spec.Containers {
		if ct.Name == sidecarContainer {
			w.HasSidecar = true
			continue
		}
		apps = append(apps, ct)
	}
	for _, ct := range p.Spec.InitContainers { // native sidecars
		if ct.Name == sidecarContainer {
			w.HasSidecar = true
		}
	}
	if w.HasSidecar && len(apps) == 0 {
		w.Gateway = true
		apps = p.Spec.Containers
		// A gateway accepts no mTLS on its ports unless a Gateway says so.
		w.HasSidecar = p.Labels[LabelTLSMode] == "istio"
	}
	if p.Annotations[annotationGateway] == "true" {
		w.Gateway = true
	}
	switch p.Labels[LabelTLSMode] {
	case "disabled":
		w.HasSidecar = false
	case "istio":
		w.HasSidecar = true
	}
	w.Ports, w.ContainerPorts = containerPorts(apps)
	c.topology(w, p.Annotations[annotationProxyConfig])
	w.Ready = podCondition(p, corev1.PodReady)
	// Who watches nodes takes the pods of a silent one out of Services through their Ready condition alone. Where
	// readiness gates have a say in that, they may be who said no.
	w.NodeLost = !w.Ready && !w.Terminating && len(p.Spec.ReadinessGates) == 0 && podCondition(p, corev1.ContainersReady)
	return []model.Object{w}
}

func podCondition(p *corev1.Pod, t corev1.PodConditionType) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// podLocality is what a pod's labels say of where it is: region/zone/subzone, or
// with dots, since a label's value cannot have slashes.
func podLocality(labels map[string]string) string {
	for _, k := range []string{"topology.istio.io/locality", "istio-locality"} {
		if v := labels[k]; v != "" {
			return strings.ReplaceAll(v, ".", "/")
		}
	}
	return ""
}

// topology reads the pod's own proxy configuration. A bad one is no reason to leave the pod out.
func (c *conv) topology(w *model.Workload, text string) {
	if text == "" || !w.Gateway {
		return
	}
	t, err := podTopology(text)
	if err != nil {
		c.warn(CodeAnnotation, "metadata.annotations["+annotationProxyConfig+"]", text, err.Error(), "the annotation has no effect until it is corrected")
		return
	}
	w.Topology = t
}

func (c *conv) podAddresses(p *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	add := func(path, s string) {
		if s == "" {
			return
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			c.fail(CodeInvalidValue, path, s, "this is not an IP address", "let the runtime write the file")
			return
		}
		for _, have := range out {
			if have == a {
				return
			}
		}
		out = append(out, a)
	}
	add("status.podIP", p.Status.PodIP)
	for i, ip := range p.Status.PodIPs {
		add(idx("status.podIPs", i)+".ip", ip.IP)
	}
	return out
}

// workloadName is the Deployment's name: from the label, or from the owner (a
// ReplicaSet's name without its hash), or the pod's own.
func workloadName(p *corev1.Pod) string {
	if n := p.Labels[labelWorkloadName]; n != "" {
		return n
	}
	for _, o := range p.OwnerReferences {
		if o.Kind == "ReplicaSet" {
			if hash := p.Labels["pod-template-hash"]; hash != "" && len(o.Name) > len(hash)+1 && o.Name[len(o.Name)-len(hash):] == hash {
				return o.Name[:len(o.Name)-len(hash)-1]
			}
		}
		return o.Name
	}
	return p.Name
}
