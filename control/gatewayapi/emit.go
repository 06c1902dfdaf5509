package gatewayapi

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// entry is one match of one rule of one route at one place.
type entry struct {
	route *route
	rule  *rule
	match match
	order int // in the route
	port  uint16
}

// precedence orders entries: what matches more closely, then the older route, then what is written first.
func precedence(a, b entry) int {
	for i := range a.match.weights {
		if d := b.match.weights[i] - a.match.weights[i]; d != 0 {
			return d
		}
	}
	return cmp.Or(olderObject(a.route, b.route), a.order-b.order)
}

// entriesOf lists the matches of routes in order of precedence.
func entriesOf(routes []*route) []entry {
	var out []entry
	for _, r := range routes {
		n := 0
		for _, x := range r.rules {
			for _, m := range x.matches {
				out = append(out, entry{route: r, rule: x, match: m, order: n})
				n++
			}
		}
	}
	slices.SortFunc(out, precedence)
	return out
}

// model makes the route of an entry for the port and scheme that requests come by.
func (e entry) model(port uint16, scheme string) model.Route {
	out := e.rule.answer
	out.Name = fmt.Sprintf("%s.%s.%d", e.route.GetNamespace(), e.route.GetName(), e.rule.index)
	if e.rule.name != "" {
		out.Name = fmt.Sprintf("%s.%s.%s", e.route.GetNamespace(), e.route.GetName(), e.rule.name)
	}
	k := e.route.key
	out.Origin = &k
	if e.rule.redirect != nil {
		out.Redirect = redirect(e.rule.redirect, port, scheme)
	}
	m := *e.match.HTTPMatch
	m.Port = e.port
	if m.URI != nil || m.PathPrefix != "" || m.Method != nil || len(m.Headers) > 0 || len(m.Query) > 0 || m.Port != 0 {
		out.Matches = []model.HTTPMatch{m}
	}
	return out
}

// choose says which workloads serve the gateway. Those of a Service are in its namespace: the same labels elsewhere
// must not bring keys.
func (g *gateway) choose(s *state, out *model.Gateway) {
	switch {
	case len(s.in.Settings.Selector) > 0:
		out.Selector = s.in.Settings.Selector
	case g.service != nil:
		out.Selector, out.WorkloadNamespace = g.service.Selector, g.service.Namespace
	default:
		out.Selector, out.OwnNamespace = map[string]string{model.GatewayNameLabel: g.Name}, true
	}
}

// emit makes the values of a Gateway's listeners and asks for its deployment. A Gateway that is not accepted (any more) goes on with the listeners
// that can serve: a mistake in its addresses or parameters takes no traffic down.
func (s *state) emit(g *gateway) {
	if len(s.in.Settings.Selector) == 0 && g.service == nil {
		s.out.Deployments = append(s.out.Deployments, g.deployment())
	}
	for _, l := range g.listeners {
		if l.serves {
			s.emitListener(l)
		}
	}
}

func (s *state) emitListener(l *listener) {
	switch l.protocol {
	case gw.HTTPProtocolType:
		s.putGateway(l, l.id(), model.Server{Protocol: model.ProtocolHTTP, Hosts: allNamespaces(l.hostname)})
		s.httpHosts(l)
	case gw.HTTPSProtocolType:
		s.putGateway(l, l.id(), model.Server{Protocol: model.ProtocolHTTPS, Hosts: allNamespaces(l.hostname), TLS: l.server, Misdirected: misdirected(l)})
		s.httpHosts(l)
	case gw.TLSProtocolType:
		s.tlsHosts(l)
	case gw.TCPProtocolType:
		s.putGateway(l, l.id(), model.Server{Protocol: model.ProtocolTCP, Hosts: allNamespaces("")})
		if len(l.l4) > 0 { // the oldest takes all
			s.putRoutes(l, l.id(), "", []*route{l.l4[0].route}, func(rs *model.RouteSet) { rs.TCP = []model.L4Route{{Forward: l.l4[0].route.l4}} })
		}
	}
}

func allNamespaces(host string) []model.GatewayHost {
	return []model.GatewayHost{{Namespace: "*", Host: anyHost(host)}}
}

// misdirected are the hosts of other HTTPS listeners of the port, the most specific first.
func misdirected(l *listener) []string {
	var out []string
	for _, o := range l.gateway.listeners {
		if o != l && o.serves && o.port == l.port && o.protocol == gw.HTTPSProtocolType {
			out = append(out, anyHost(o.hostname))
		}
	}
	slices.SortFunc(out, specific)
	return out
}

func (s *state) putGateway(l *listener, id string, server model.Server) {
	g := l.gateway
	origin := keyOf(model.KindK8sGateway, g)
	created := g.CreationTimestamp.Time
	if l.set != nil {
		origin, created = keyOf(model.KindListenerSet, l.set), l.set.CreationTimestamp.Time
	}
	server.Name, server.PortName, server.Port = l.name, l.name, l.port
	out := &model.Gateway{Meta: model.Meta{Key: model.Key{Kind: model.KindGateway, Namespace: g.Namespace, Name: id}, Created: created, Source: origin.String()},
		Servers: []model.Server{server}, BackendCredential: g.credential, Origin: &origin}
	g.choose(s, out)
	s.put(model.KindGateway, g.Namespace, id, out)
}

// putRoutes makes the RouteSet of a host at a listener.
func (s *state) putRoutes(l *listener, id, host string, routes []*route, fill func(*model.RouteSet)) {
	g := l.gateway
	name := id + "~" + anyHost(host)
	rs := &model.RouteSet{Meta: model.Meta{Key: model.Key{Kind: model.KindVirtualService, Namespace: g.Namespace, Name: name}, Created: g.CreationTimestamp.Time, Source: sources(routes)},
		Hosts: []string{anyHost(host)}, Gateways: []string{g.Namespace + "/" + id}}
	if len(routes) == 0 {
		rs.Source = keyOf(model.KindK8sGateway, g).String()
	}
	fill(rs)
	s.put(model.KindVirtualService, g.Namespace, name, rs)
}

func sources(routes []*route) string {
	var out []string
	for _, r := range routes {
		if k := r.key.String(); !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return strings.Join(out, ", ")
}

// httpHosts makes the RouteSets of a listener: one for each host of its routes, and one for its own hostname. A host that a more specific listener
// of the port serves is that listener's alone (listener isolation).
func (s *state) httpHosts(l *listener) {
	byHost := map[string][]*route{l.hostname: nil}
	for _, a := range l.http {
		for _, h := range a.hosts {
			if s.isolated(l, h) {
				byHost[h] = append(byHost[h], a.route)
			}
		}
	}
	scheme := "http"
	if l.protocol == gw.HTTPSProtocolType {
		scheme = "https"
	}
	for h, routes := range byHost {
		s.putRoutes(l, l.id(), h, routes, func(rs *model.RouteSet) {
			for _, e := range entriesOf(routes) {
				rs.HTTP = append(rs.HTTP, e.model(l.port, scheme))
			}
			if len(rs.HTTP) == 0 {
				rs.HTTP = []model.Route{{Name: "unrouted", Direct: &model.Direct{Status: 404}}}
			}
		})
	}
}

// isolated tells whether the listener is the most specific one of its port, among those of its protocol, for a host.
func (s *state) isolated(l *listener, host string) bool {
	for _, o := range l.gateway.listeners {
		if o != l && o.serves && o.port == l.port && o.protocol == l.protocol && covers(o.hostname, host) && specific(o.hostname, l.hostname) < 0 {
			return false
		}
	}
	return true
}

// tlsHosts makes, for each host of a TLS listener's routes, where TLS ends a server of its own, so that each has its own routes, and where it passes
// one server with routes by server name. The oldest route of a host takes it.
func (s *state) tlsHosts(l *listener) {
	byHost := map[string]*route{}
	for _, a := range l.l4 {
		for _, h := range a.hosts {
			if byHost[h] == nil && s.isolated(l, h) {
				byHost[h] = a.route
			}
		}
	}
	if l.server.Mode == model.TLSPassthrough {
		s.putGateway(l, l.id(), model.Server{Protocol: model.ProtocolTLS, Hosts: allNamespaces(l.hostname), TLS: l.server})
		for h, r := range byHost {
			s.putRoutes(l, l.id(), h, []*route{r}, func(rs *model.RouteSet) {
				rs.TLS = []model.L4Route{{Matches: []model.L4Match{{SNIHosts: []string{anyHost(h)}}}, Forward: r.l4}}
			})
		}
		return
	}
	for h, r := range byHost {
		id := l.id() + "~" + anyHost(h)
		s.putGateway(l, id, model.Server{Protocol: model.ProtocolTLS, Hosts: allNamespaces(h), TLS: l.server})
		s.putRoutes(l, id, h, []*route{r}, func(rs *model.RouteSet) { rs.TCP = []model.L4Route{{Forward: r.l4}} })
	}
}

// deployment is what must run for the Gateway.
func (g *gateway) deployment() Deployment {
	d := Deployment{Gateway: keyOf(model.KindK8sGateway, g), Namespace: g.Namespace, Class: string(g.Spec.GatewayClassName), Controller: g.controller, Hold: g.problem.bad,
		Labels: map[string]string{model.GatewayNameLabel: g.Name}, Annotations: map[string]string{}}
	d.Name = shortened(g.Name + "-" + d.Class)
	if in := g.Spec.Infrastructure; in != nil {
		for k, v := range in.Annotations {
			d.Annotations[string(k)] = string(v)
		}
		for k, v := range in.Labels {
			if string(k) != model.GatewayNameLabel {
				d.Labels[string(k)] = string(v)
			}
		}
		if in.ParametersRef != nil {
			d.Parameters = in.ParametersRef.Name
		}
	}
	seen := map[uint16]bool{}
	for _, l := range g.listeners {
		if l.accepted.bad || seen[l.port] {
			continue
		}
		seen[l.port] = true
		d.Ports = append(d.Ports, DeploymentPort{Name: fmt.Sprintf("%s-%d", strings.ToLower(string(l.protocol)), l.port), Port: l.port})
	}
	slices.SortFunc(d.Ports, func(a, b DeploymentPort) int { return cmp.Compare(a.Port, b.Port) })
	for _, a := range g.Spec.Addresses {
		d.Addresses = append(d.Addresses, a.Value)
	}
	return d
}

// shortened keeps a name within 63 bytes, the limit of a Service's.
func shortened(name string) string {
	if len(name) <= 63 {
		return name
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return strings.TrimRight(name[:54], "-.") + fmt.Sprintf("-%08x", h.Sum32())
}
