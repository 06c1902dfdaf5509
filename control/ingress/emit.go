package ingress

import (
	"fmt"
	"slices"
	"strings"

	"weft.mesh/weft/model"
)

// Ports of gateways that Ingresses are served on, which their Services map to what the pods listen on.
const (
	portHTTP  = 80
	portHTTPS = 443
)

// Names of Gateways begin with what no written object's name can.
const (
	gatewayHTTP  = "~ingress~http"
	gatewayHTTPS = "~ingress~https~"
)

func (s *state) put(o model.Object) {
	k := o.ObjectMeta().Key
	s.out.Objects[k] = append(s.out.Objects[k], o)
}

// emit makes the Gateways, and for each the RouteSets of the hosts that it has.
func (s *state) emit(oldest *model.Ingress) {
	routes := map[string][]model.Route{}
	for name, h := range s.hosts {
		routes[name] = s.routes(h)
	}
	s.gateway(gatewayHTTP, oldest, model.Server{Name: "http", PortName: "http", Port: portHTTP, Protocol: model.ProtocolHTTP, Hosts: allNamespaces("")})
	for name, h := range s.hosts {
		s.routeSet(gatewayHTTP, name, h, routes[name])
	}
	elsewhere := s.elsewhere()
	for _, sv := range s.servers {
		slices.Sort(sv.hosts)
		s.gateway(sv.id(), sv.oldest, model.Server{Name: "https", PortName: "https", Port: portHTTPS, Protocol: model.ProtocolHTTPS, Hosts: allNamespaces(sv.hosts...),
			TLS: &model.ServerTLS{Mode: model.TLSSimple, Credentials: []string{model.Credential(sv.secret.namespace, sv.secret.name)}}, Misdirected: elsewhere[sv]})
		// A host of the server has the routes of whatever rule is nearest to it.
		for _, name := range sv.hosts {
			if h := nearest(s.hosts, name); h != nil {
				s.routeSet(sv.id(), name, h, routes[h.name])
			}
		}
	}
	for name, h := range s.hosts {
		if sv := nearest(s.tlsHosts, name); sv != nil && s.tlsHosts[name] == nil {
			s.routeSet(sv.id(), name, h, routes[name])
		}
	}
}

func (v *server) id() string { return gatewayHTTPS + v.secret.namespace + "~" + v.secret.name }

// nearest finds a host, or the most specific wildcard that covers it.
func nearest[T any](m map[string]*T, name string) *T {
	if x := m[name]; x != nil {
		return x
	}
	return covering(m, name)
}

// covering finds the most specific wildcard above a host or wildcard.
func covering[T any](m map[string]*T, name string) *T {
	rest := strings.TrimPrefix(name, "*.")
	for {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return m[""]
		}
		if x := m["*."+parent]; x != nil {
			return x
		}
		rest = parent
	}
}

// elsewhere are, for each server, the hosts that a client finds at another one (RFC 9110 section 7.4). A server that is not for
// all names knows that every host without a route here is.
func (s *state) elsewhere() map[*server][]string {
	out := map[*server][]string{}
	for h, sv := range s.tlsHosts {
		if above := covering(s.tlsHosts, h); h != "" && above != nil && above != sv {
			out[above] = append(out[above], h)
		}
	}
	for _, sv := range s.servers {
		if s.tlsHosts[""] != sv {
			out[sv] = append(out[sv], "*")
		}
		slices.Sort(out[sv])
	}
	return out
}

func allNamespaces(hosts ...string) []model.GatewayHost {
	var out []model.GatewayHost
	for _, h := range hosts {
		out = append(out, model.GatewayHost{Namespace: "*", Host: anyHost(h)})
	}
	return out
}

// anyHost is how the model writes all hosts.
func anyHost(h string) string { return or(h, "*") }

func (s *state) gateway(id string, of *model.Ingress, sv model.Server) {
	set := &s.in.Settings
	origin := of.Meta.Key
	s.put(&model.Gateway{Meta: model.Meta{Key: model.Key{Kind: model.KindGateway, Namespace: set.Namespace, Name: id}, Created: of.Created, Source: origin.String()},
		Servers: []model.Server{sv}, Selector: set.Selector, WorkloadNamespace: set.WorkloadNamespace, Origin: &origin})
}

// routeSet is what a Gateway does with requests for a host, by the rules of h.
func (s *state) routeSet(gateway, name string, h *host, routes []model.Route) {
	if len(routes) == 0 {
		return // no rule has a path: 404
	}
	ns := s.in.Settings.Namespace
	var sources []string
	for _, ing := range h.sources {
		sources = append(sources, ing.Meta.Key.String())
	}
	s.put(&model.RouteSet{Meta: model.Meta{Key: model.Key{Kind: model.KindVirtualService, Namespace: ns, Name: gateway + "~" + anyHost(name)},
		Created: h.sources[0].Created, Source: strings.Join(sources, ", ")}, Hosts: []string{anyHost(name)}, Gateways: []string{ns + "/" + gateway}, HTTP: routes})
}

// routes are those of a host in order: its paths, then its default backend. What is deeper below a wildcard
// than its one label belongs to the rules of all hosts.
func (s *state) routes(h *host) []model.Route {
	any := match{kind: model.PathPrefix}.model(h.name)
	var out []model.Route
	for _, e := range slices.SortedFunc(slices.Values(h.paths), precedence) {
		r := e.route
		r.Matches = e.match.model(h.name)
		out = append(out, r)
	}
	if h.fallback != nil {
		r := h.fallback.route
		r.Matches = any
		out = append(out, r)
	}
	all := s.hosts[""]
	if all == nil || len(out) == 0 || !strings.HasPrefix(h.name, "*") {
		return out
	}
	if h.fallback == nil {
		out = append(out, model.Route{Name: "unrouted", Matches: any, Direct: &model.Direct{Status: 404}})
	}
	return append(out, s.routes(all)...)
}

// route leads to a backend; to one that cannot be had, it answers 503. rank tells the routes of an Ingress apart.
func (s *state) route(ing *model.Ingress, b *model.IngressBackend, rank string) model.Route {
	origin := ing.Meta.Key
	out := model.Route{Name: ing.Namespace + "." + ing.Name + "." + rank, Origin: &origin}
	port, ok := s.backend(ing, b)
	if !ok {
		out.Direct = &model.Direct{Status: 503}
		return out
	}
	out.Forward = []model.Destination{{Host: b.Service + "." + ing.Namespace + ".svc." + s.in.Settings.Domain, Port: port, Weight: 1}}
	return out
}

// backend finds the port of a backend's Service.
func (s *state) backend(ing *model.Ingress, b *model.IngressBackend) (uint16, bool) {
	if b.Resource != "" {
		s.fail(ing, CodeUnsupported, b.Field+".resource", b.Resource, "a resource cannot be a backend: requests are answered 503", "name a Service and its port")
		return 0, false
	}
	svc := s.services[nn{ing.Namespace, b.Service}]
	if svc == nil {
		s.fail(ing, CodeService, b.Field+".service.name", b.Service, fmt.Sprintf("there is no Service %s/%s: requests are answered 503", ing.Namespace, b.Service), "create it, or correct the name; a backend is in the namespace of its Ingress")
		return 0, false
	}
	var names []string
	for i := range svc.Ports {
		p := &svc.Ports[i]
		if p.Protocol == model.ProtocolUDP {
			continue
		}
		if b.Port != 0 && p.Number == b.Port || b.Port == 0 && p.Name == b.PortName {
			return p.Number, true
		}
		names = append(names, strings.TrimSuffix(fmt.Sprintf("%d (%s)", p.Number, p.Name), " ()"))
	}
	field, value := b.Field+".service.port.number", fmt.Sprint(b.Port)
	if b.Port == 0 {
		field, value = b.Field+".service.port.name", b.PortName
	}
	s.fail(ing, CodePort, field, value, fmt.Sprintf("Service %s/%s has no such port: requests are answered 503", ing.Namespace, b.Service), "it has "+or(strings.Join(names, ", "), "none for TCP"))
	return 0, false
}
