package analyze

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

func labelText(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

func (s *set) checkRoutes(it *item, r *model.RouteSet) {
	s.checkBinding(it, r)
	ports := s.requestPorts(r)
	for i, h := range r.HTTP {
		path := fmt.Sprintf("spec.http[%d]", i)
		s.checkForward(it, r, path+".route", h.Forward, ports)
		for j, m := range h.Mirrors {
			p := fmt.Sprintf("%s.mirrors[%d].destination", path, j)
			if !it.obj.Has(path + ".mirrors") {
				p = path + ".mirror"
			}
			s.checkDestination(it, r, p, m.Destination, ports)
		}
		s.checkTimes(it, path, h)
	}
	for i, t := range r.TLS {
		s.checkForward(it, r, fmt.Sprintf("spec.tls[%d].route", i), t.Forward, ports)
	}
	for i, t := range r.TCP {
		s.checkForward(it, r, fmt.Sprintf("spec.tcp[%d].route", i), t.Forward, ports)
	}
	s.checkReach(it, r)
}

// requestPorts are the ports that requests of this routing can come in on.
func (s *set) requestPorts(r *model.RouteSet) map[uint16]bool {
	out := map[uint16]bool{}
	for _, g := range r.Gateways {
		if g != convert.MeshGateway {
			if gw := s.gateways[g]; gw != nil {
				for _, srv := range gw.Servers {
					out[srv.Port] = true
				}
			}
			continue
		}
		for _, h := range r.Hosts {
			for _, svc := range s.services[h] {
				for _, p := range svc.Ports {
					out[p.Number] = true
				}
			}
		}
	}
	return out
}

// checkBinding checks hosts and gateways of a VirtualService against each other.
func (s *set) checkBinding(it *item, r *model.RouteSet) {
	served := map[string]bool{}
	missing := false
	for i, g := range r.Gateways {
		path := fmt.Sprintf("spec.gateways[%d]", i)
		if g == convert.MeshGateway {
			continue
		}
		gw := s.gateways[g]
		if gw == nil {
			missing = true
			s.fail(it, CodeUnknownGateway, path, g, "there is no Gateway "+g, s.gatewayHint(g))
			continue
		}
		any := false
		for _, h := range r.Hosts {
			if serves(gw.Gateway, h, r.Namespace) {
				served[h], any = true, true
			}
		}
		if !any {
			s.fail(it, CodeGatewayHost, path, g, "no server of the Gateway has a host of this VirtualService", "add one of "+strings.Join(r.Hosts, ", ")+" to the Gateway's hosts: "+gatewayHosts(gw.Gateway))
		}
	}
	mesh := slices.Contains(r.Gateways, convert.MeshGateway)
	for i, h := range r.Hosts {
		path := fmt.Sprintf("spec.hosts[%d]", i)
		switch {
		case !mesh && !missing && !served[h] && len(served) > 0:
			s.warn(it, CodeGatewayHost, path, h, "no Gateway of this VirtualService serves the host", "add it to a Gateway's hosts")
		case mesh && !strings.HasPrefix(h, "*") && !served[h] && !missing && len(s.visible(h, r.Namespace)) == 0:
			s.warn(it, CodeHostNoService, path, h, "no service has this host, so sidecars do not route it", s.hostHint(h, r.Namespace))
		}
	}
}

func (s *set) gatewayHint(g string) string {
	_, name, _ := strings.Cut(g, "/")
	var known []string
	for k := range s.gateways {
		known = append(known, k)
		if strings.HasSuffix(k, "/"+name) {
			return "did you mean " + k + "?"
		}
	}
	if n := convert.Nearest(g, known); n != "" {
		return "did you mean " + n + "?"
	}
	sort.Strings(known)
	if len(known) == 0 {
		return "add the Gateway in the same apply"
	}
	return "known: " + strings.Join(known, ", ")
}

func gatewayHosts(g *model.Gateway) string {
	var out []string
	for _, srv := range g.Servers {
		for _, h := range srv.Hosts {
			if h.Namespace == "*" {
				out = append(out, h.Host)
			} else {
				out = append(out, h.Namespace+"/"+h.Host)
			}
		}
	}
	return strings.Join(out, ", ")
}

// serves tells whether a gateway lets a VirtualService of a namespace bind a host.
func serves(g *model.Gateway, host, ns string) bool {
	for _, srv := range g.Servers {
		for _, h := range srv.Hosts {
			if h.Namespace != "*" && h.Namespace != ns && (h.Namespace != "." || g.Namespace != ns) {
				continue
			}
			if convert.HostCovers(h.Host, host) || convert.HostCovers(host, h.Host) {
				return true
			}
		}
	}
	return false
}

// visible lists the services with a host that a namespace can see.
func (s *set) visible(host, ns string) []service {
	var out []service
	for _, svc := range s.services[host] {
		if exported(svc.ExportTo, svc.Namespace, ns) {
			out = append(out, svc)
		}
	}
	return out
}

func exported(exportTo []string, owner, ns string) bool {
	if len(exportTo) == 0 {
		return true
	}
	for _, e := range exportTo {
		if e == "*" || e == ns || e == "." && owner == ns {
			return true
		}
	}
	return false
}

// hostHint finds what was meant: the same name in another namespace, or a similar one.
func (s *set) hostHint(host, ns string) string {
	if len(s.services[host]) > 0 {
		return "the service is not exported to namespace " + ns + ": see its exportTo"
	}
	short, _, _ := strings.Cut(host, ".")
	var known, same []string
	for h := range s.services {
		known = append(known, h)
		if n, _, _ := strings.Cut(h, "."); n == short {
			same = append(same, h)
		}
	}
	sort.Strings(same)
	if len(same) > 0 {
		return "did you mean " + same[0] + "?"
	}
	var names []string
	for _, h := range known {
		if n, ok := strings.CutSuffix(h, "."+ns+".svc."+s.mesh.Domain); ok {
			names = append(names, n)
		}
	}
	if n := convert.Nearest(short, names); n != "" && strings.HasSuffix(host, ".svc."+s.mesh.Domain) {
		return "did you mean " + n + "?"
	}
	if n := convert.Nearest(host, known); n != "" {
		return "did you mean " + n + "?"
	}
	if strings.HasSuffix(host, ".svc."+s.mesh.Domain) {
		return "add the Service, or correct the name"
	}
	return "add a ServiceEntry for a host outside the mesh"
}

func (s *set) checkForward(it *item, r *model.RouteSet, path string, ds []model.Destination, ports map[uint16]bool) {
	var sum uint64
	for i, d := range ds {
		s.checkDestination(it, r, fmt.Sprintf("%s[%d].destination", path, i), d, ports)
		sum += uint64(d.Weight)
	}
	if len(ds) < 2 || sum == 100 || sum == 0 {
		return
	}
	var shares []string
	for _, d := range ds {
		shares = append(shares, strconv.FormatFloat(float64(d.Weight)*100/float64(sum), 'f', 1, 64)+" %")
	}
	s.warn(it, CodeWeightSum, path, strconv.FormatUint(sum, 10), "the weights add up to "+strconv.FormatUint(sum, 10)+"; they are relative, so the destinations get "+strings.Join(shares, ", "),
		"make the sum 100")
}

func (s *set) checkDestination(it *item, r *model.RouteSet, path string, d model.Destination, ports map[uint16]bool) {
	svcs := s.visible(d.Host, r.Namespace)
	if len(svcs) == 0 {
		s.fail(it, CodeUnknownHost, path+".host", d.Host, "no service has the host "+d.Host, s.hostHint(d.Host, r.Namespace))
		return
	}
	s.checkSubset(it, r, path, d)
	var known []string
	count, hit := 0, false
	for _, svc := range svcs {
		for _, p := range svc.Ports {
			known = append(known, strconv.Itoa(int(p.Number)))
			count++
			hit = hit || ports[p.Number]
			if p.Number == d.Port {
				return
			}
		}
	}
	switch {
	case d.Port != 0:
		s.fail(it, CodeUnknownPort, path+".port.number", strconv.Itoa(int(d.Port)), "the service "+d.Host+" has no such port", "use one of "+strings.Join(known, ", "))
	case count > 1 && !hit && len(ports) > 0:
		s.fail(it, CodeAmbiguousPort, path, d.Host, "the service has the ports "+strings.Join(known, ", ")+" and the route does not say which", "add port: {number: "+known[0]+"}")
	}
}

func (s *set) checkSubset(it *item, r *model.RouteSet, path string, d model.Destination) {
	if d.Subset == "" {
		return
	}
	var known []string
	rules := 0
	for _, rule := range s.rulesFor(d.Host) {
		if !exported(rule.ExportTo, rule.Namespace, r.Namespace) {
			continue
		}
		rules++
		for _, sub := range rule.Subsets {
			if sub.Name == d.Subset {
				return
			}
			known = append(known, sub.Name)
		}
	}
	hint := "add a DestinationRule for " + d.Host + " with this subset"
	if rules > 0 {
		hint = "known: " + strings.Join(known, ", ")
		if len(known) == 0 {
			hint = "add the subset to the DestinationRule"
		}
		if n := convert.Nearest(d.Subset, known); n != "" {
			hint = "did you mean " + n + "? known: " + strings.Join(known, ", ")
		}
	}
	s.fail(it, CodeUnknownSubset, path+".subset", d.Subset, "no DestinationRule defines the subset "+d.Subset+" of "+d.Host, hint)
}

// rulesFor lists the DestinationRules for a host, by its name or by a wildcard.
func (s *set) rulesFor(host string) []*ruleItem {
	out := slices.Clone(s.rules[host])
	for _, r := range s.wild {
		if convert.HostCovers(r.Host, host) {
			out = append(out, r)
		}
	}
	return out
}

func (s *set) checkTimes(it *item, path string, h model.Route) {
	if r := h.Retries; r != nil && r.Attempts > 0 {
		if h.Timeout != nil && r.PerTryTimeout > 0 && *h.Timeout < time.Duration(r.Attempts)*r.PerTryTimeout {
			s.warn(it, CodeTimeoutRetries, path+".timeout", h.Timeout.String(), fmt.Sprintf("the timeout ends before %d attempts of %s each", r.Attempts, r.PerTryTimeout),
				"raise timeout to "+(time.Duration(r.Attempts+1)*r.PerTryTimeout).String()+", or lower attempts or perTryTimeout")
		}
		if h.Fault != nil {
			s.warn(it, CodeFaultRetries, path+".retries", strconv.Itoa(int(r.Attempts)), "injected faults are not retried", "test retries with a service that fails")
		}
	}
	if h.Fault != nil && h.Fault.Delay > 0 && h.Timeout != nil {
		s.warn(it, CodeFaultRetries, path+".timeout", h.Timeout.String(), "an injected delay is not bounded by the route's timeout", "set the timeout on the route of the caller")
	}
}

// checkMeshHosts warns of VirtualServices that lose against an older one.
func (s *set) checkMeshHosts() {
	type key struct{ host, ns string }
	first := map[key]*item{}
	for _, it := range s.items { // oldest first
		for _, m := range it.models {
			r, ok := m.(*model.RouteSet)
			if !ok || !slices.Contains(r.Gateways, convert.MeshGateway) {
				continue
			}
			for i, h := range r.Hosts {
				for _, k := range []key{{h, ""}, {h, r.Namespace}} {
					if k.ns == "" && !exported(r.ExportTo, r.Namespace, "*") {
						continue
					}
					if winner := first[k]; winner != nil && winner != it {
						s.warn(it, CodeHostConflict, fmt.Sprintf("spec.hosts[%d]", i), h, winner.obj.Key.String()+" routes this host already and is older, so this one has no effect", "put all routes of the host into one VirtualService")
						break
					}
					if first[k] == nil {
						first[k] = it
					}
				}
			}
		}
	}
}
