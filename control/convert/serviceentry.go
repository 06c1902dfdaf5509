package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"weft.mesh/weft/model"
)

func (c *conv) serviceEntry(v *networking.ServiceEntry) []model.Object {
	base := model.Service{Meta: c.meta(), Entry: true, External: v.Location == networking.ServiceEntry_MESH_EXTERNAL,
		ExportTo: c.exportTo("spec.exportTo", v.ExportTo), SubjectAltNames: v.SubjectAltNames, Resolution: c.resolution(v.Resolution)}
	base.Addresses = c.prefixes("spec.addresses", v.Addresses)
	if v.WorkloadSelector != nil {
		base.Selector = c.selector("spec.workloadSelector", "labels", true, v.WorkloadSelector.Labels)
	}
	base.Ports = c.entryPorts(v.Ports)
	c.entryAddresses(v, &base)
	c.entryEndpoints(v, &base)
	return c.entryHosts(v, base)
}

func (c *conv) resolution(r networking.ServiceEntry_Resolution) model.Resolution {
	switch r {
	case networking.ServiceEntry_NONE:
		return model.ResolveNone
	case networking.ServiceEntry_STATIC:
		return model.ResolveStatic
	case networking.ServiceEntry_DNS:
		return model.ResolveDNS
	case networking.ServiceEntry_DNS_ROUND_ROBIN:
		return model.ResolveDNSRoundRobin
	}
	c.fail(CodeUnsupportedField, "spec.resolution", r.String(), "the resolution is not implemented yet", "use DNS with a full host name, STATIC, or NONE")
	return model.ResolveNone
}

func isDNS(r model.Resolution) bool {
	return r == model.ResolveDNS || r == model.ResolveDNSRoundRobin
}

func (c *conv) entryHosts(v *networking.ServiceEntry, base model.Service) []model.Object {
	if len(v.Hosts) == 0 {
		c.missing("spec.hosts", "name the service, like api.example.com")
	}
	var out []model.Object
	seen := map[string]bool{}
	for i, h := range v.Hosts {
		p := idx("spec.hosts", i)
		low := strings.ToLower(strings.TrimSuffix(h, "."))
		if msg := hostProblem(h, true); msg != "" {
			c.fail(CodeInvalidHost, p, h, msg, "write a name like api.example.com or *.example.com")
		}
		if low == "*" {
			c.fail(CodeInvalidHost, p, h, "the host * is too wide for a ServiceEntry", "name the host, like *.example.com")
		}
		if seen[low] {
			c.fail(CodeDuplicateHost, p, h, "the host is listed twice", "keep one of them")
		}
		seen[low] = true
		if isDNS(base.Resolution) && strings.HasPrefix(low, "*") && len(v.Endpoints) == 0 && v.WorkloadSelector == nil {
			c.fail(CodeInvalidHost, p, h, "a wildcard cannot be resolved by DNS", "add endpoints with names, or use resolution: NONE")
		}
		s := base
		s.Host = low
		out = append(out, &s)
	}
	return out
}

func (c *conv) entryPorts(ports []*networking.ServicePort) []model.Port {
	if len(ports) == 0 {
		c.missing("spec.ports", "add a port with number, name and protocol")
	}
	var out []model.Port
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for i, p := range ports {
		path := idx("spec.ports", i)
		m := model.Port{Number: c.port(path+".number", p.Number), Name: p.Name}
		if numbers[p.Number] {
			c.fail(CodeDuplicatePort, path+".number", fmt.Sprint(p.Number), "the service has the port twice", "give each port its own number")
		}
		numbers[p.Number] = true
		switch {
		case p.Name == "":
			c.missing(path+".name", "name the port, like http or tls")
		case !portNameRE.MatchString(p.Name):
			c.fail(CodeInvalidName, path+".name", p.Name, "the port name is not valid", "use lower-case letters, digits and '-'")
		case names[p.Name]:
			c.fail(CodeDuplicatePort, path+".name", p.Name, "two ports have the same name", "rename one of them")
		}
		names[p.Name] = true
		if p.Protocol == "" {
			m.Protocol = portProtocol("TCP", "", p.Name, m.Number)
		} else {
			m.Protocol = c.protocol(path+".protocol", p.Protocol)
		}
		if p.TargetPort != 0 || c.o.Has(path+".targetPort") {
			m.TargetPort = c.port(path+".targetPort", p.TargetPort)
		}
		out = append(out, m)
	}
	return out
}

func (c *conv) entryAddresses(v *networking.ServiceEntry, s *model.Service) {
	for i, p := range s.Addresses {
		path := idx("spec.addresses", i)
		if p.IsValid() && !p.IsSingleIP() && isDNS(s.Resolution) {
			c.fail(CodeInvalidValue, path, v.Addresses[i], "an address range needs resolution NONE or STATIC", "use single addresses")
		}
		if p.IsValid() && slices.Index(s.Addresses, p) < i {
			c.fail(CodeInvalidValue, path, v.Addresses[i], "the address is listed twice", "keep one of them")
		}
	}
}

func (c *conv) entryEndpoints(v *networking.ServiceEntry, s *model.Service) {
	switch {
	case v.WorkloadSelector != nil && len(v.Endpoints) > 0:
		c.fail(CodeExclusive, "spec.endpoints", "", "endpoints and workloadSelector exclude each other", "keep one of them")
	case s.Resolution == model.ResolveNone && len(v.Endpoints) > 0:
		c.fail(CodeExclusive, "spec.endpoints", "", "resolution NONE goes to the address that the caller chose and takes no endpoints", "use resolution: STATIC")
	case s.Resolution == model.ResolveNone && v.WorkloadSelector != nil:
		c.fail(CodeExclusive, "spec.workloadSelector", "", "resolution NONE goes to the address that the caller chose and selects no workloads", "use resolution: STATIC")
	case s.Resolution == model.ResolveStatic && len(v.Endpoints) == 0 && v.WorkloadSelector == nil:
		c.missing("spec.endpoints", "resolution STATIC needs endpoints or a workloadSelector")
	case s.Resolution == model.ResolveDNSRoundRobin && len(v.Endpoints) > 1:
		c.fail(CodeInvalidValue, "spec.endpoints", fmt.Sprint(len(v.Endpoints)), "resolution DNS_ROUND_ROBIN takes one endpoint", "use resolution: DNS")
	}
	for i, e := range v.Endpoints {
		s.Endpoints = append(s.Endpoints, c.endpoint(idx("spec.endpoints", i), e, s))
	}
}

func (c *conv) endpoint(path string, e *networking.WorkloadEntry, s *model.Service) model.Endpoint {
	out := model.Endpoint{Address: e.Address, Labels: c.labels(path+".labels", e.Labels), Weight: e.Weight, ServiceAccount: e.ServiceAccount, Locality: e.Locality}
	c.workloadAddress(path+".address", e.Address, isDNS(s.Resolution))
	out.Ports = c.workloadPorts(path+".ports", e.Ports)
	for _, name := range sortedKeys(e.Ports) {
		if !slices.ContainsFunc(s.Ports, func(p model.Port) bool { return p.Name == name }) {
			var known []string
			for _, p := range s.Ports {
				known = append(known, p.Name)
			}
			c.fail(CodeInvalidPort, path+".ports["+name+"]", name, "the service has no port of this name", meant(name, known))
		}
	}
	c.serviceAccount(path+".serviceAccount", e.ServiceAccount)
	return out
}

func (c *conv) serviceAccount(path, sa string) {
	if sa != "" && !isSubdomain(sa) {
		c.fail(CodeInvalidName, path, sa, "the service account is not valid", "write its name only, without the namespace")
	}
}

func (c *conv) workloadPorts(path string, ports map[string]uint32) map[string]uint16 {
	if len(ports) == 0 {
		return nil
	}
	out := make(map[string]uint16, len(ports))
	for _, name := range sortedKeys(ports) {
		p := path + "[" + name + "]"
		if !portNameRE.MatchString(name) {
			c.fail(CodeInvalidName, p, name, "the port name is not valid", "use the name of a service port")
		}
		out[name] = c.port(p, ports[name])
	}
	return out
}

// workloadAddress checks an address and gives it when it is an IP.
func (c *conv) workloadAddress(path, addr string, dns bool) (ip netip.Addr, ok bool) {
	switch {
	case addr == "":
		c.missing(path, "add an IP address")
		return ip, false
	case strings.HasPrefix(addr, "unix://"):
		c.fail(CodeUnsupportedField, path, addr, "Unix sockets are not implemented yet", "use an IP address and a port")
		return ip, false
	}
	if a, err := netip.ParseAddr(addr); err == nil {
		if a.IsUnspecified() || a.Zone() != "" {
			c.fail(CodeInvalidValue, path, addr, "nothing can be reached at this address", "use the address of the workload")
		}
		return a, true
	}
	if msg := hostProblem(addr, false); msg != "" {
		c.fail(CodeInvalidHost, path, addr, msg, "write an IP address or a host name")
	} else if !dns {
		c.fail(CodeInvalidHost, path, addr, "a host name needs resolution DNS", "set resolution: DNS, or write an IP address")
	}
	return ip, false
}

func (c *conv) workloadEntry(v *networking.WorkloadEntry) []model.Object {
	w := &model.Workload{Meta: c.meta(), ServiceAccount: v.ServiceAccount, WorkloadName: c.o.Key.Name, Weight: v.Weight, Locality: v.Locality, Ready: true, Entry: true}
	// Labels of the spec select the workload; those of the metadata do so too, and the spec wins.
	w.Labels = map[string]string{}
	for k, val := range c.o.Meta.Labels {
		w.Labels[k] = val
	}
	for k, val := range c.labels("spec.labels", v.Labels) {
		w.Labels[k] = val
	}
	if a, ok := c.workloadAddress("spec.address", v.Address, true); ok {
		w.Addresses = []netip.Addr{a}
	} else {
		w.Hostname = v.Address
	}
	if w.Weight == 0 {
		w.Weight = 1
	}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default"
	}
	c.serviceAccount("spec.serviceAccount", v.ServiceAccount)
	w.Ports = c.workloadPorts("spec.ports", v.Ports)
	for _, name := range sortedKeys(w.Ports) {
		w.ContainerPorts = append(w.ContainerPorts, w.Ports[name])
	}
	w.HasSidecar = w.Labels[LabelTLSMode] == "istio"
	return []model.Object{w}
}
