package convert

import (
	"cmp"
	"encoding/json"
	"math"
	"net/netip"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft.mesh/weft/model"
)

// SourceKubernetes is the Source (and File) of objects that come from an API server.
const SourceKubernetes = "kubernetes"

// Labels that Kubernetes and Istio put on nodes and slices.
const (
	labelRegion  = "topology.kubernetes.io/region"
	labelZone    = "topology.kubernetes.io/zone"
	labelSubzone = "topology.istio.io/subzone"
	// annotationStatus is what the injection webhook leaves on a pod that has a sidecar.
	annotationStatus = "sidecar.istio.io/status"
	lastApplied      = "kubectl.kubernetes.io/last-applied-configuration"
)

// kubeObject is an object without its text: pods, slices and nodes are too many
// to keep more of them than the model has.
func kubeObject(kind model.Kind, version string, m *metav1.ObjectMeta) Object {
	key := model.Key{Kind: kind, Namespace: m.Namespace, Name: m.Name}
	o := Object{Key: key, APIVersion: version, File: SourceKubernetes, unplaced: true}
	o.Meta = model.Meta{Key: key, Created: m.CreationTimestamp.UTC(), Source: SourceKubernetes}
	return o
}

// FromPod reads a pod as the API server has it. Only what the mesh uses of it is kept.
func FromPod(p *corev1.Pod) Object {
	o := kubeObject(model.KindPod, "v1", &p.ObjectMeta)
	o.Meta.Labels = p.Labels
	c := &conv{o: &o}
	w := c.pod(p)[0].(*model.Workload)
	if _, injected := p.Annotations[annotationStatus]; injected && p.Labels[LabelTLSMode] != "disabled" && !w.Gateway {
		w.HasSidecar = true
	}
	if p.Spec.HostNetwork {
		// The address is its node's, which other pods and the node itself have too.
		w.HasSidecar = false
	}
	o.Value = w
	return o
}

// FromDeployment reads whose account the pods of a Deployment have, so that clients know it while there are none.
func FromDeployment(d *appsv1.Deployment) Object {
	return fromTemplate(kubeObject(model.KindDeployment, "apps/v1", &d.ObjectMeta), &d.Spec.Template)
}

// FromStatefulSet is [FromDeployment] of a StatefulSet: to the mesh they are the same.
func FromStatefulSet(s *appsv1.StatefulSet) Object {
	return fromTemplate(kubeObject(model.KindStatefulSet, "apps/v1", &s.ObjectMeta), &s.Spec.Template)
}

// fromTemplate leaves out how many there should be: scaling is no change to the mesh.
func fromTemplate(o Object, t *corev1.PodTemplateSpec) Object {
	m := &model.Deployment{Meta: o.Meta, PodLabels: t.Labels, ServiceAccount: cmp.Or(t.Spec.ServiceAccountName, "default")}
	m.Ports, _ = containerPorts(t.Spec.Containers)
	o.Value = m
	return o
}

// FromEndpointSlice reads a slice; addresses that are no IP (the retired type FQDN) are left out.
func FromEndpointSlice(s *discoveryv1.EndpointSlice) Object {
	o := kubeObject(model.KindEndpointSlice, "discovery.k8s.io/v1", &s.ObjectMeta)
	m := &model.EndpointSlice{Meta: o.Meta, Service: s.Labels[discoveryv1.LabelServiceName]}
	for _, p := range s.Ports {
		if p.Protocol != nil && *p.Protocol == corev1.ProtocolSCTP {
			continue
		}
		sp := model.SlicePort{UDP: p.Protocol != nil && *p.Protocol == corev1.ProtocolUDP}
		if p.Name != nil {
			sp.Name = *p.Name
		}
		if p.Port != nil && *p.Port > 0 && *p.Port <= math.MaxUint16 {
			sp.Number = uint16(*p.Port)
		}
		m.Ports = append(m.Ports, sp)
	}
	for i := range s.Endpoints {
		if e, ok := sliceEndpoint(&s.Endpoints[i]); ok {
			m.Endpoints = append(m.Endpoints, e)
		}
	}
	o.Value = m
	return o
}

func sliceEndpoint(e *discoveryv1.Endpoint) (model.SliceEndpoint, bool) {
	is := func(b *bool, unset bool) bool {
		if b == nil {
			return unset
		}
		return *b
	}
	out := model.SliceEndpoint{Ready: is(e.Conditions.Ready, true), Terminating: is(e.Conditions.Terminating, false)}
	out.Serving = is(e.Conditions.Serving, out.Ready)
	for _, a := range e.Addresses {
		if ip, err := netip.ParseAddr(a); err == nil {
			out.Addresses = append(out.Addresses, ip.Unmap())
		}
	}
	if e.NodeName != nil {
		out.Node = *e.NodeName
	}
	if e.Zone != nil {
		out.Zone = *e.Zone
	}
	if r := e.TargetRef; r != nil && r.Kind == "Pod" {
		out.Pod = r.Name
	}
	return out, len(out.Addresses) > 0
}

// FromNode reads where a node is.
func FromNode(n *corev1.Node) Object {
	o := kubeObject(model.KindNode, "v1", &n.ObjectMeta)
	o.Value = &model.Node{Meta: o.Meta, Region: n.Labels[labelRegion], Zone: n.Labels[labelZone], Subzone: n.Labels[labelSubzone]}
	return o
}

// FromNamespace reads a namespace: its name and labels.
func FromNamespace(n *corev1.Namespace) Object {
	o := kubeObject(model.KindNamespace, "v1", &n.ObjectMeta)
	o.Meta.Labels = n.Labels
	return o.typed(&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: lean(&n.ObjectMeta)})
}

// FromService reads a Service.
func FromService(s *corev1.Service) Object {
	o := kubeObject(model.KindService, "v1", &s.ObjectMeta)
	meta := lean(&s.ObjectMeta)
	o.Meta.Labels, o.Meta.Annotations = meta.Labels, meta.Annotations
	return o.typed(&corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta, Spec: s.Spec})
}

// typed fills in the value and the text.
func (o Object) typed(v any) Object {
	o.Value = v
	o.Raw, _ = json.Marshal(v) // of the API's own types: it cannot fail
	return o
}

// lean is the part of an object's metadata that configuration consists of.
func lean(m *metav1.ObjectMeta) metav1.ObjectMeta {
	out := metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, Labels: m.Labels, CreationTimestamp: m.CreationTimestamp}
	for k, v := range m.Annotations {
		if k == lastApplied {
			continue
		}
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[k] = v
	}
	return out
}

// kubeService converts a Service that an API server has accepted: it is there
// and has to work, so nothing of it is refused. What a mesh does not do
// (sessionAffinity, node ports, traffic policies) stays kube-proxy's for
// clients without a sidecar.
func (c *conv) kubeService(s *corev1.Service) []model.Object {
	m := &model.Service{Meta: c.meta(), Host: c.o.Key.Name + "." + c.ns() + ".svc." + c.mesh.Domain,
		Selector: s.Spec.Selector, Resolution: model.ResolveStatic}
	for _, ip := range kubeAddresses(&s.Spec) {
		m.Addresses = append(m.Addresses, netip.PrefixFrom(ip, ip.BitLen()))
	}
	m.Headless = s.Spec.ClusterIP == corev1.ClusterIPNone
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		m.Selector, m.Resolution = nil, model.ResolveDNS
		m.Endpoints = []model.Endpoint{{Address: strings.TrimSuffix(s.Spec.ExternalName, ".")}}
		if ip, err := netip.ParseAddr(s.Spec.ExternalName); err == nil {
			m.Endpoints[0].Address = ip.Unmap().String()
		}
	}
	if v, ok := c.o.Meta.Annotations[annotationExportTo]; ok {
		for e := range strings.SplitSeq(v, ",") {
			m.ExportTo = append(m.ExportTo, strings.TrimSpace(e))
		}
	}
	for _, p := range s.Spec.Ports {
		if out, ok := kubePort(p); ok {
			m.Ports = append(m.Ports, out)
		}
	}
	return []model.Object{m}
}

// kubeAddresses are the cluster IPs of both families.
func kubeAddresses(s *corev1.ServiceSpec) []netip.Addr {
	all := s.ClusterIPs
	if len(all) == 0 {
		all = []string{s.ClusterIP}
	}
	var out []netip.Addr
	for _, text := range all {
		if ip, err := netip.ParseAddr(text); err == nil {
			out = append(out, ip.Unmap())
		}
	}
	return out
}

func kubePort(p corev1.ServicePort) (model.Port, bool) {
	proto := cmp.Or(p.Protocol, corev1.ProtocolTCP)
	if proto == corev1.ProtocolSCTP || p.Port < 1 || p.Port > math.MaxUint16 {
		return model.Port{}, false
	}
	app := ""
	if p.AppProtocol != nil {
		app = *p.AppProtocol
	}
	out := model.Port{Number: uint16(p.Port), Name: p.Name, TargetName: p.TargetPort.StrVal}
	if n := p.TargetPort.IntVal; n > 0 && n <= math.MaxUint16 {
		out.TargetPort = uint16(n)
	}
	out.Protocol = portProtocol(string(proto), app, p.Name, out.Number)
	return out, true
}
