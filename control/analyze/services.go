package analyze

import (
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

func (s *set) checkService(it *item, m *model.Service) {
	path := "spec.selector"
	if m.Entry {
		path = "spec.workloadSelector.labels"
	}
	s.checkSelector(it, path, m.Selector, m.Namespace, "no pod has these labels, so the service has no endpoints")
	if !m.Entry && len(m.Selector) == 0 && len(s.services[m.Host]) == 1 {
		s.warn(it, CodeSelectsNothing, "spec.selector", "", "the service selects no pods and so has no endpoints", "add a selector, or a ServiceEntry with the same host and endpoints")
	}
	if m.Entry || len(m.Selector) == 0 {
		return
	}
	pods := s.selected(m.Selector, m.Namespace)
	for i, p := range m.Ports {
		if p.TargetName != "" {
			s.checkTargetName(it, fmt.Sprintf("spec.ports[%d].targetPort", i), p.TargetName, pods)
		}
	}
}

func (s *set) checkTargetName(it *item, path, name string, pods []workload) {
	var known []string
	seen := map[string]bool{}
	for _, w := range pods {
		if _, ok := w.ports[name]; ok {
			return
		}
		for n := range w.ports {
			if !seen[n] {
				seen[n] = true
				known = append(known, n)
			}
		}
	}
	if len(pods) == 0 {
		return // already said: the selector matches nothing
	}
	sort.Strings(known)
	hint := "name a container port " + name + ", or use its number"
	if n := convert.Nearest(name, known); n != "" {
		hint = "did you mean " + n + "?"
	}
	s.fail(it, CodeUnknownTarget, path, name, "no container port of the selected pods has this name", hint)
}

func (s *set) checkDeployment(it *item, d *model.Deployment) {
	if d.ServiceAccount == "default" || it.obj.File == convert.SourceKubernetes {
		return // of a cluster accounts are not read, and its own controllers say so
	}
	var known []string
	for k := range s.byKey {
		if k.Kind == model.KindServiceAccount && k.Namespace == d.Namespace {
			if k.Name == d.ServiceAccount {
				return
			}
			known = append(known, k.Name)
		}
	}
	hint := "add the ServiceAccount"
	if n := convert.Nearest(d.ServiceAccount, known); n != "" {
		hint = "did you mean " + n + "?"
	}
	path := "spec.template.spec.serviceAccountName"
	if !it.obj.Has(path) {
		path = "spec.template.spec.serviceAccount"
	}
	s.fail(it, CodeUnknownAccount, path, d.ServiceAccount, "there is no ServiceAccount "+d.Namespace+"/"+d.ServiceAccount+": Kubernetes would make no pod", hint)
}

// checkAddresses finds services that cannot be told apart by address and port.
func (s *set) checkAddresses() {
	type at struct {
		ip   netip.Prefix
		port uint16
	}
	first := map[at]service{}
	for _, it := range s.items {
		for _, m := range it.models {
			svc, ok := m.(*model.Service)
			if !ok {
				continue
			}
			for i, a := range svc.Addresses {
				path := fmt.Sprintf("spec.addresses[%d]", i)
				if !svc.Entry {
					path = "spec.clusterIP"
				}
				for _, p := range svc.Ports {
					other, dup := first[at{a, p.Number}]
					if !dup {
						first[at{a, p.Number}] = service{svc, it}
						continue
					}
					if other.Host == svc.Host || other.item == it || svc.Entry && other.Entry && p.Protocol.IsHTTP() && protocolOf(other, p.Number).IsHTTP() {
						continue // told apart by the host of the request
					}
					s.fail(it, CodeAddressConflict, path, a.Addr().String(), fmt.Sprintf("%s has this address and port %d already", other.item.obj.Key, p.Number), "use another address, or remove it: one is chosen")
					break
				}
			}
		}
	}
}

func protocolOf(svc service, port uint16) model.Protocol {
	for _, p := range svc.Ports {
		if p.Number == port {
			return p.Protocol
		}
	}
	return model.ProtocolAuto
}

// checkGatewayPorts finds Gateways on the same pods that cannot share a port.
func (s *set) checkGatewayPorts() {
	type place struct {
		selector, bind string
		port           uint16
	}
	type use struct {
		item   *item
		family string
	}
	families := map[place]use{}
	hosts := map[string]use{}
	for _, it := range s.items {
		for _, m := range it.models {
			g, ok := m.(*model.Gateway)
			if !ok {
				continue
			}
			for i, srv := range g.Servers {
				at := place{labelText(g.Selector), srv.Bind, srv.Port}
				path := fmt.Sprintf("spec.servers[%d]", i)
				fam := family(srv)
				u, dup := families[at]
				if !dup {
					families[at] = use{it, fam}
				} else if u.item != it && u.family != fam {
					s.fail(it, CodeGatewayPort, path+".port.number", strconv.Itoa(int(srv.Port)), fmt.Sprintf("%s uses this port of the same pods for %s", u.item.obj.Key, u.family), "use another port")
					continue
				}
				for j, h := range srv.Hosts {
					key := fmt.Sprintf("%v|%s/%s", at, h.Namespace, h.Host)
					if o, dup := hosts[key]; dup && o.item != it && fam == "TLS" {
						s.fail(it, CodeGatewayPort, fmt.Sprintf("%s.hosts[%d]", path, j), h.Host, fmt.Sprintf("%s serves this host on the same port of the same pods", o.item.obj.Key), "keep one of them")
					} else if !dup {
						hosts[key] = use{it, fam}
					}
				}
			}
		}
	}
}

func family(srv model.Server) string {
	switch {
	case srv.Protocol.IsTLS() || srv.TLS != nil && srv.TLS.Mode != "":
		return "TLS"
	case srv.Protocol.IsHTTP():
		return "HTTP"
	}
	return "TCP"
}

func (s *set) checkRule(it *item, r *model.DestinationRule) {
	s.checkSelector(it, "spec.workloadSelector.matchLabels", r.Selector, r.Namespace, "no pod has these labels, so the rule has no effect")
	if strings.HasPrefix(r.Host, "*") {
		for h := range s.services {
			if convert.HostCovers(r.Host, h) {
				return
			}
		}
		s.warn(it, CodeUnknownHost, "spec.host", r.Host, "no service has a host like this", "correct the host")
		return
	}
	svcs := s.visible(r.Host, r.Namespace)
	if len(svcs) == 0 {
		s.fail(it, CodeUnknownHost, "spec.host", r.Host, "no service has the host "+r.Host, s.hostHint(r.Host, r.Namespace))
		return
	}
	s.checkPolicy(it, "spec.trafficPolicy", r.Policy, svcs)
	s.checkProxyProtocol(it, "spec.trafficPolicy", r.Policy.ProxyProtocol, r.Policy.TLS, svcs)
	for i, sub := range r.Subsets {
		path := fmt.Sprintf("spec.subsets[%d]", i)
		s.checkPolicy(it, path+".trafficPolicy", sub.Policy, svcs)
		tls := sub.Policy.TLS
		if tls == nil {
			tls = r.Policy.TLS
		}
		s.checkProxyProtocol(it, path+".trafficPolicy", sub.Policy.ProxyProtocol, tls, svcs)
		s.checkSubsetLabels(it, path+".labels", sub, svcs)
	}
}

func (s *set) checkPolicy(it *item, path string, p model.TrafficPolicy, svcs []service) {
	s.checkMTLS(it, path+".tls.mode", p.TLS, svcs, 0)
	n := 0
	for i := 0; it.obj.Has(fmt.Sprintf("%s.portLevelSettings[%d]", path, i)); i++ {
		n++
	}
	var ports []int
	for port := range p.Ports {
		ports = append(ports, int(port))
	}
	sort.Ints(ports)
	for _, port := range ports {
		at := path + ".portLevelSettings"
		for i := range n {
			if it.obj.ValueAt(fmt.Sprintf("%s.portLevelSettings[%d].port.number", path, i)) == strconv.Itoa(port) {
				at = fmt.Sprintf("%s.portLevelSettings[%d]", path, i)
			}
		}
		var known []string
		found := false
		for _, svc := range svcs {
			for _, sp := range svc.Ports {
				known = append(known, strconv.Itoa(int(sp.Number)))
				found = found || int(sp.Number) == port
			}
		}
		if !found {
			s.fail(it, CodeUnknownPort, at+".port.number", strconv.Itoa(port), "the service "+svcs[0].Host+" has no such port", "use one of "+strings.Join(known, ", "))
			continue
		}
		s.checkMTLS(it, at+".tls.mode", p.Ports[uint16(port)].TLS, svcs, uint16(port))
	}
}

// checkSubsetLabels warns of a subset without pods, if the service has pods that are known.
func (s *set) checkSubsetLabels(it *item, path string, sub model.Subset, svcs []service) {
	if len(sub.Labels) == 0 {
		return
	}
	pods := 0
	for _, svc := range svcs {
		if len(svc.Selector) > 0 {
			for _, w := range s.selected(svc.Selector, svc.Namespace) {
				pods++
				if matches(sub.Labels, w.labels) {
					return
				}
			}
		}
		for _, e := range svc.Endpoints {
			pods++
			if matches(sub.Labels, e.Labels) {
				return
			}
		}
	}
	if pods > 0 {
		s.warn(it, CodeSubsetNothing, path, labelText(sub.Labels), "no pod of the service has these labels, so the subset "+sub.Name+" has no endpoints", "compare them with the pod template of the Deployment")
	}
}

// checkRuleConflicts warns of rules of one namespace for the same host.
func (s *set) checkRuleConflicts() {
	for _, rules := range s.rules {
		byNS := map[string]*ruleItem{}
		subsets := map[string]*ruleItem{}
		for _, r := range rules { // oldest first
			if len(r.Selector) > 0 {
				continue
			}
			first := byNS[r.Namespace]
			if first == nil {
				byNS[r.Namespace] = r
			} else if first.item != r.item && (objectOf(r).Has("spec.trafficPolicy") && objectOf(first).Has("spec.trafficPolicy")) {
				s.warn(r.item, CodeRuleConflict, "spec.trafficPolicy", r.Host, first.item.obj.Key.String()+" is older and has a trafficPolicy for this host, so this one has no effect", "make one DestinationRule of them")
			}
			for i, sub := range r.Subsets {
				key := r.Namespace + "/" + sub.Name
				if other := subsets[key]; other != nil && other.item != r.item {
					s.fail(r.item, convert.CodeDuplicateSubset, fmt.Sprintf("spec.subsets[%d].name", i), sub.Name, other.item.obj.Key.String()+" defines this subset of the host already", "rename it, or make one DestinationRule of them")
				} else {
					subsets[key] = r
				}
			}
		}
	}
}

func objectOf(r *ruleItem) *convert.Object { return r.item.obj }
