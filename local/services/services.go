// Package services works out how service addresses are translated for traffic
// that no proxy carries: which pods serve which port. It is pure; package
// capture installs the result.
package services

import (
	"encoding/json"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"weft.mesh/weft/node/capture"
)

// Service is what matters of a Service object.
type Service struct {
	Namespace string
	Name      string
	Address   netip.Addr // from the object; may be unset, then the table of names has it
	Headless  bool
	Selector  map[string]string
	Ports     []corev1.ServicePort
}

// Parse reads a Service object in JSON.
func Parse(raw []byte) (Service, error) {
	var s corev1.Service
	if err := json.Unmarshal(raw, &s); err != nil {
		return Service{}, fmt.Errorf("services: read Service: %w", err)
	}
	out := Service{Namespace: s.Namespace, Name: s.Name, Selector: s.Spec.Selector, Ports: s.Spec.Ports,
		Headless: s.Spec.ClusterIP == corev1.ClusterIPNone || s.Spec.Type == corev1.ServiceTypeExternalName}
	if a, err := netip.ParseAddr(s.Spec.ClusterIP); err == nil {
		out.Address = a
	}
	return out, nil
}

// Pod is a ready pod.
type Pod struct {
	Namespace string
	IP        netip.Addr
	Labels    map[string]string
	NamedPort func(string) (uint16, bool)
}

// Plan lists every service port with the pods that serve it. names is the
// control plane's table: full name to addresses.
func Plan(services []Service, names map[string][]string, domain string, pods []Pod) []capture.ServicePort {
	var out []capture.ServicePort
	for _, s := range services {
		addr, ok := s.address(names, domain)
		if !ok || s.Headless || len(s.Selector) == 0 {
			continue // pods' own addresses need no translation
		}
		for _, port := range s.Ports {
			if port.Protocol == corev1.ProtocolSCTP || port.Port < 1 || port.Port > 65535 {
				continue
			}
			sp := capture.ServicePort{Address: netip.AddrPortFrom(addr, uint16(port.Port)), UDP: port.Protocol == corev1.ProtocolUDP}
			for _, p := range pods {
				if target, ok := targetPort(port, p); ok && s.selects(p) {
					sp.Backends = append(sp.Backends, netip.AddrPortFrom(p.IP, target))
				}
			}
			out = append(out, sp)
		}
	}
	return out
}

func (s Service) address(names map[string][]string, domain string) (netip.Addr, bool) {
	if s.Address.IsValid() {
		return s.Address, true
	}
	addrs := names[s.Name+"."+s.Namespace+".svc."+domain]
	if len(addrs) != 1 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(addrs[0])
	return a, err == nil
}

func (s Service) selects(p Pod) bool {
	if p.Namespace != s.Namespace {
		return false
	}
	for k, v := range s.Selector {
		if have, ok := p.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// targetPort is the pod's port behind a service's: the same if none is named.
func targetPort(port corev1.ServicePort, p Pod) (uint16, bool) {
	t := port.TargetPort
	switch {
	case t.Type == intstr.String && t.StrVal != "":
		return p.NamedPort(t.StrVal)
	case t.IntVal > 0 && t.IntVal <= 65535:
		return uint16(t.IntVal), true
	}
	return uint16(port.Port), true
}
