package gatewayapi

import (
	"fmt"
	"slices"
	"strings"

	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// attach finds for every route the listeners that it is attached to, oldest route first.
func (s *state) attach(routes []*route) {
	for _, r := range routes {
		for i := range r.refs {
			if p := s.parent(r, r.refs[i]); p != nil {
				r.parents = append(r.parents, p)
			}
		}
		byListener := map[*listener]*attachment{}
		var order []*listener
		for _, p := range r.parents {
			for _, l := range p.listeners {
				if byListener[l] == nil {
					byListener[l] = &attachment{route: r, hosts: r.at(l)}
					order = append(order, l)
				}
			}
		}
		for _, l := range order {
			l.routes++
			if r.kind == model.KindHTTPRoute || r.kind == model.KindGRPCRoute {
				l.http = append(l.http, byListener[l])
			} else {
				l.l4 = append(l.l4, byListener[l])
			}
			s.uses(l.gateway, r)
		}
	}
}

// uses notes that routes of a gateway lead to Services, which BackendTLSPolicies are about.
func (s *state) uses(g *gateway, r *route) {
	for _, svc := range r.services {
		if s.used[svc] == nil {
			s.used[svc] = map[nn]bool{}
		}
		s.used[svc][nameOf(g)] = true
	}
}

// parent judges one parentRef; nil if it is not ours.
func (s *state) parent(r *route, ref gw.ParentReference) *parent {
	ns := namespaceOr(ref.Namespace, r.GetNamespace())
	name := nn{ns, string(ref.Name)}
	p := &parent{ref: ref}
	switch string(or(ref.Group, gw.GroupName)) + "/" + string(or(ref.Kind, "Gateway")) {
	case gw.GroupName + "/Gateway":
		g := s.gateways[name]
		if g == nil {
			return nil
		}
		p.gateway, p.controller = g, g.controller
		var own []*listener
		for _, l := range g.listeners {
			if l.set == nil {
				own = append(own, l)
			}
		}
		s.bind(r, p, own)
	case gw.GroupName + "/ListenerSet":
		x := s.sets[name]
		if x == nil {
			return nil
		}
		p.gateway, p.controller = x.gateway, x.gateway.controller
		if x.problem.bad && x.problem.reason != string(gw.ListenerSetReasonListenersNotValid) {
			p.accepted = no(gw.RouteReasonNoMatchingParent, fmt.Sprintf("ListenerSet %s is not accepted: %s", name, x.problem.message))
			return p
		}
		s.bind(r, p, x.listeners)
	case "/Service":
		p.controller, p.ofMesh = s.controllers[0], true
		s.bindService(r, p, name)
	default:
		return nil
	}
	return p
}

// bind finds the listeners of a parent that take a route, or says at what it fails.
func (s *state) bind(r *route, p *parent, all []*listener) {
	if r.problem.bad {
		p.accepted = r.problem
		return
	}
	named := slices.DeleteFunc(slices.Clone(all), func(l *listener) bool {
		return p.ref.SectionName != nil && *p.ref.SectionName != "" && string(*p.ref.SectionName) != l.name || p.ref.Port != nil && uint16(*p.ref.Port) != l.port
	})
	if len(named) == 0 {
		p.accepted = no(gw.RouteReasonNoMatchingParent, "no listener of "+string(p.ref.Name)+wanted(&p.ref)+": it has "+listenerNames(all))
		return
	}
	allowed := slices.DeleteFunc(named, func(l *listener) bool { return l.conflict.bad || !s.allows(l, r) })
	if len(allowed) == 0 {
		p.accepted = no(gw.RouteReasonNotAllowedByListeners, fmt.Sprintf("no listener of %s allows a %s of namespace %s (protocol, allowedRoutes)", p.ref.Name, r.kind, r.GetNamespace()))
		return
	}
	p.listeners = slices.DeleteFunc(allowed, func(l *listener) bool { return len(r.at(l)) == 0 })
	if len(p.listeners) == 0 {
		p.accepted = no(gw.RouteReasonNoMatchingListenerHostname, fmt.Sprintf("none of the hostnames %s is one of a listener's", strings.Join(r.hosts, ", ")))
		return
	}
	s.exclude(r, p)
}

func wanted(ref *gw.ParentReference) string {
	var parts []string
	if ref.SectionName != nil {
		parts = append(parts, " has the name "+string(*ref.SectionName))
	}
	if ref.Port != nil {
		parts = append(parts, fmt.Sprint(" has port ", *ref.Port))
	}
	return strings.Join(parts, " and")
}

func listenerNames(all []*listener) string {
	var out []string
	for _, l := range all {
		out = append(out, fmt.Sprintf("%s (%d)", l.name, l.port))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// allows tells whether a listener takes routes of the kind from the namespace.
func (s *state) allows(l *listener, r *route) bool {
	if !slices.Contains(l.kinds, string(r.kind)) {
		return false
	}
	from, own := gw.NamespacesFromSame, l.owner().GetNamespace()
	if l.allowed == nil || l.allowed.Namespaces == nil {
		return s.fromNamespace(from, nil, own, r.GetNamespace())
	}
	return s.fromNamespace(or(l.allowed.Namespaces.From, from), l.allowed.Namespaces.Selector, own, r.GetNamespace())
}

// at are the hosts that a route has at a listener: its own and the listener's, the more specific of both.
func (r *route) at(l *listener) []string {
	if len(r.hosts) == 0 || l.protocol == gw.TCPProtocolType {
		return []string{l.hostname}
	}
	var out []string
	for _, h := range r.hosts {
		if both, ok := intersect(h, l.hostname); ok && !slices.Contains(out, both) {
			out = append(out, both)
		}
	}
	return out
}

// exclude keeps HTTPRoutes and GRPCRoutes apart: at one listener and host only routes of one kind are taken, the older's.
func (s *state) exclude(r *route, p *parent) {
	if r.kind != model.KindHTTPRoute && r.kind != model.KindGRPCRoute {
		return
	}
	var other *route
	p.listeners = slices.DeleteFunc(p.listeners, func(l *listener) bool {
		for _, a := range l.http {
			if a.route.kind != r.kind && overlapping(a.hosts, r.at(l)) {
				other = a.route
				return true
			}
		}
		return false
	})
	if len(p.listeners) == 0 {
		p.accepted = no(gw.RouteReasonNotAllowedByListeners, fmt.Sprintf("%s serves one of the hosts at the same listener and is older: a host has HTTPRoutes or GRPCRoutes, not both", other.key))
	}
}

func overlapping(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if _, ok := intersect(x, y); ok {
				return true
			}
		}
	}
	return false
}

// bindService makes a route one of the mesh: for all clients (producer) in the Service's namespace, for its own namespace's (consumer) elsewhere.
func (s *state) bindService(r *route, p *parent, name nn) {
	svc := s.services[name]
	switch {
	case r.problem.bad:
		p.accepted = r.problem
	case r.kind == model.KindTLSRoute:
		p.accepted = no(gw.RouteReasonUnsupportedValue, "a TLSRoute with a Service as parent is not supported: use a VirtualService with tls")
	case svc == nil:
		p.accepted = no(gw.RouteReasonNoMatchingParent, fmt.Sprintf("Service %s does not exist", name))
	case p.ref.SectionName != nil && *p.ref.SectionName != "":
		p.accepted = no(gw.RouteReasonNoMatchingParent, "a Service has no sections: use port")
	case p.ref.Port != nil && !slices.ContainsFunc(svc.Ports, func(x model.Port) bool { return x.Number == uint16(*p.ref.Port) }):
		p.accepted = no(gw.RouteReasonNoMatchingParent, fmt.Sprintf("%s has no port %d", svc.Host, *p.ref.Port))
	default:
		p.service = svc
	}
}
