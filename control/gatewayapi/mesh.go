package gatewayapi

import (
	"maps"
	"slices"

	"weft.mesh/weft/model"
)

// meshKey is a Service, and whose clients are meant: those of a consumer's namespace, or all ("").
type meshKey struct {
	service  nn
	consumer string
}

// mesh makes the RouteSets of Services that routes have as parents (GAMMA, GEP-1426). Of the kinds that a Service has, one counts: GRPCRoute, then HTTPRoute,
// then TCPRoute.
func (s *state) mesh(routes []*route) {
	byService := map[meshKey][]*route{}
	for _, r := range routes {
		for _, p := range r.parents {
			if p.service == nil {
				continue
			}
			k := meshKey{service: nn{p.service.Namespace, p.service.Name}}
			if r.GetNamespace() != p.service.Namespace {
				k.consumer = r.GetNamespace()
			}
			r.mesh.parents = r.parents
			if !slices.Contains(byService[k], r.mesh) {
				byService[k] = append(byService[k], r.mesh)
			}
		}
	}
	for k, rs := range byService {
		s.meshService(k, rs)
	}
}

func (s *state) meshService(k meshKey, routes []*route) {
	for _, kind := range []model.Kind{model.KindGRPCRoute, model.KindHTTPRoute, model.KindTCPRoute} {
		var some []*route
		for _, r := range routes {
			if r.kind == kind {
				some = append(some, r)
			}
		}
		if len(some) > 0 {
			s.putMesh(k, some)
			return
		}
	}
}

func (s *state) putMesh(k meshKey, routes []*route) {
	svc := s.services[k.service]
	ns, name := k.service.namespace, k.service.name+"~mesh"
	rs := &model.RouteSet{Hosts: []string{svc.Host}, Gateways: []string{"mesh"}, Frontend: true}
	if k.consumer != "" {
		ns, name = k.consumer, k.service.namespace+"~"+k.service.name+"~mesh"
		rs.Consumer, rs.ExportTo = true, []string{"."}
	}
	rs.Meta = model.Meta{Key: model.Key{Kind: model.KindVirtualService, Namespace: ns, Name: name}, Created: routes[0].GetCreationTimestamp().Time, Source: sources(routes)}
	if routes[0].kind == model.KindTCPRoute {
		rs.TCP = meshTCP(routes, svc)
	} else {
		rs.HTTP = meshHTTP(routes, svc)
	}
	s.put(model.KindVirtualService, ns, name, rs)
}

// ports are those of the Service that the route has as parent; 0 is all.
func (r *route) ports(svc *model.Service) []uint16 {
	set := map[uint16]bool{}
	for _, p := range r.parents {
		if p.service == svc {
			set[uint16(or(p.ref.Port, 0))] = true
		}
	}
	if set[0] {
		return []uint16{0}
	}
	return slices.Sorted(maps.Keys(set))
}

func meshHTTP(routes []*route, svc *model.Service) []model.Route {
	var out []model.Route
	for _, e := range entriesOf(routes) {
		for _, port := range e.route.ports(svc) {
			e.port = port
			out = append(out, e.model(port, "http"))
		}
	}
	return out
}

// meshTCP lets the oldest route have each port.
func meshTCP(routes []*route, svc *model.Service) []model.L4Route {
	var out []model.L4Route
	taken := map[uint16]bool{}
	for _, r := range routes {
		for _, port := range r.ports(svc) {
			if taken[port] || taken[0] {
				continue
			}
			taken[port] = true
			x := model.L4Route{Forward: r.l4}
			if port != 0 {
				x.Matches = []model.L4Match{{Port: port}}
			}
			out = append(out, x)
		}
	}
	slices.SortStableFunc(out, func(a, b model.L4Route) int { return len(b.Matches) - len(a.Matches) })
	return out
}
