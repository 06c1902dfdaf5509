package convert

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"weft.mesh/weft/model"
)

func (c *conv) service(s *corev1.Service) []model.Object {
	m := &model.Service{Meta: c.meta(), Host: c.o.Key.Name + "." + c.ns() + ".svc." + c.mesh.Domain,
		Selector: c.labels("spec.selector", s.Spec.Selector), Resolution: model.ResolveStatic}
	c.serviceType(&s.Spec)
	c.clusterIPs(m, &s.Spec)
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		c.fail(CodeUnsupportedField, "spec.sessionAffinity", "ClientIP", "a mesh does not honour sessionAffinity",
			"use a DestinationRule with trafficPolicy.loadBalancer.consistentHash.useSourceIp: true")
	} else if s.Spec.SessionAffinity != "" {
		c.oneOf("spec.sessionAffinity", string(s.Spec.SessionAffinity), "None")
	}
	if p := s.Spec.InternalTrafficPolicy; p != nil && *p != corev1.ServiceInternalTrafficPolicyCluster {
		c.fail(CodeUnsupportedField, "spec.internalTrafficPolicy", string(*p), "only Cluster is supported", "remove it")
	}
	if p := s.Spec.ExternalTrafficPolicy; p != "" && p != corev1.ServiceExternalTrafficPolicyCluster {
		c.fail(CodeUnsupportedField, "spec.externalTrafficPolicy", string(p), "only Cluster is supported", "remove it")
	}
	if p := s.Spec.IPFamilyPolicy; p != nil && *p == corev1.IPFamilyPolicyRequireDualStack { // who prefers two takes one
		c.fail(CodeUnsupportedField, "spec.ipFamilyPolicy", string(*p), "only SingleStack is supported", "remove it")
	}
	for i, f := range s.Spec.IPFamilies {
		if f != corev1.IPv4Protocol {
			c.fail(CodeUnsupportedField, idx("spec.ipFamilies", i), string(f), "only IPv4 is supported", "remove it")
		}
	}
	if v, ok := c.o.Meta.Annotations[annotationExportTo]; ok {
		for e := range strings.SplitSeq(v, ",") {
			m.ExportTo = append(m.ExportTo, strings.TrimSpace(e))
		}
		c.exportTo("metadata.annotations["+annotationExportTo+"]", m.ExportTo)
	}
	c.servicePorts(m, s.Spec.Ports)
	return []model.Object{m}
}

func (c *conv) serviceType(s *corev1.ServiceSpec) {
	switch s.Type {
	case "", corev1.ServiceTypeClusterIP:
	case corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		c.warn(CodeNodePort, "spec.type", string(s.Type), "there is no node port here: the service is reachable inside the mesh only", "use a Gateway to reach it from outside")
	case corev1.ServiceTypeExternalName:
		c.fail(CodeUnsupportedField, "spec.type", string(s.Type), "services of type ExternalName are not supported", "use a ServiceEntry with resolution: DNS and the name as its endpoint")
	default:
		c.oneOf("spec.type", string(s.Type), "ClusterIP", "NodePort", "LoadBalancer")
	}
}

func (c *conv) clusterIPs(m *model.Service, s *corev1.ServiceSpec) {
	if len(s.ClusterIPs) > 1 || len(s.ClusterIPs) == 1 && s.ClusterIP != "" && s.ClusterIPs[0] != s.ClusterIP {
		c.fail(CodeUnsupportedField, "spec.clusterIPs", strings.Join(s.ClusterIPs, ", "), "a service has one address", "use clusterIP")
	}
	ip, path := s.ClusterIP, "spec.clusterIP"
	if ip == "" && len(s.ClusterIPs) == 1 {
		ip, path = s.ClusterIPs[0], "spec.clusterIPs[0]"
	}
	switch ip {
	case "":
	case corev1.ClusterIPNone:
		m.Headless = true
	default:
		a, err := netip.ParseAddr(ip)
		if err != nil || !a.Is4() || a.IsUnspecified() || a.IsLoopback() {
			c.fail(CodeInvalidValue, path, ip, "this is not an IPv4 address", "remove clusterIP: an address is chosen")
			return
		}
		m.Addresses = []netip.Prefix{netip.PrefixFrom(a, 32)}
	}
}

func (c *conv) servicePorts(m *model.Service, ports []corev1.ServicePort) {
	if len(ports) == 0 && !m.Headless {
		c.missing("spec.ports", "a service needs at least one port")
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	for i, p := range ports {
		path := idx("spec.ports", i)
		out := model.Port{Name: p.Name}
		if p.Port < 1 || p.Port > math.MaxUint16 {
			c.fail(CodeInvalidPort, path+".port", fmt.Sprint(p.Port), "the port is out of range", "use 1 to 65535")
		} else {
			out.Number = uint16(p.Port)
		}
		c.servicePortName(path, p.Name, len(ports), names)
		proto := string(p.Protocol)
		if proto == "" {
			proto = "TCP"
		}
		c.oneOf(path+".protocol", proto, "TCP", "UDP")
		key := fmt.Sprintf("%d/%s", p.Port, proto)
		if numbers[key] {
			c.fail(CodeDuplicatePort, path+".port", fmt.Sprint(p.Port), "the service has the port twice", "give each port its own number")
		}
		numbers[key] = true
		if p.NodePort != 0 {
			c.warn(CodeNodePort, path+".nodePort", fmt.Sprint(p.NodePort), "there is no node port here", "use a Gateway to reach the service from outside")
		}
		app := ""
		if p.AppProtocol != nil {
			app = *p.AppProtocol
		}
		out.Protocol = portProtocol(proto, app, p.Name, out.Number)
		c.targetPort(path+".targetPort", p.TargetPort, &out)
		m.Ports = append(m.Ports, out)
	}
}

func (c *conv) servicePortName(path, name string, count int, names map[string]bool) {
	switch {
	case name == "" && count > 1:
		c.missing(path+".name", "a service with several ports names each; a prefix like http- or grpc- tells the protocol")
	case name != "" && (len(name) > 63 || !portNameRE.MatchString(name)):
		c.fail(CodeInvalidName, path+".name", name, "the port name is not valid", "use lower-case letters, digits and '-'")
	case name != "" && names[name]:
		c.fail(CodeDuplicatePort, path+".name", name, "two ports have the same name", "rename one of them")
	}
	names[name] = true
}

func (c *conv) targetPort(path string, t intstr.IntOrString, out *model.Port) {
	if t.Type == intstr.String {
		if t.StrVal == "" || len(t.StrVal) > 15 || !portNameRE.MatchString(t.StrVal) {
			c.fail(CodeInvalidName, path, t.StrVal, "the port name is not valid", "use a number, or the name of a container port")
		}
		out.TargetName = t.StrVal
		return
	}
	if t.IntVal == 0 {
		if c.o.Has(path) {
			c.fail(CodeInvalidPort, path, "0", "the port is out of range", "use 1 to 65535")
		}
		return
	}
	if t.IntVal < 0 || t.IntVal > math.MaxUint16 {
		c.fail(CodeInvalidPort, path, fmt.Sprint(t.IntVal), "the port is out of range", "use 1 to 65535")
		return
	}
	out.TargetPort = uint16(t.IntVal)
}
