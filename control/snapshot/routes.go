package snapshot

import (
	"slices"
	"strings"

	"weft.mesh/weft/model"
)

// GatewayMesh is the gateway name that means all sidecars.
const GatewayMesh = "mesh"

// routeIndex has the route sets by gateway: those of consumers first, then the oldest.
type routeIndex struct {
	all       []*model.RouteSet
	byGateway map[string][]*model.RouteSet
	meshExact map[string][]*model.RouteSet // of "mesh", by exact host
	meshWild  []*model.RouteSet            // of "mesh", with a wildcard host
}

func newRouteIndex(all []*model.RouteSet) *routeIndex {
	slices.SortFunc(all, func(a, b *model.RouteSet) int {
		switch {
		case a.Consumer == b.Consumer:
			return older(&a.Meta, &b.Meta)
		case a.Consumer:
			return -1
		}
		return 1
	})
	x := &routeIndex{all: all, byGateway: map[string][]*model.RouteSet{}, meshExact: map[string][]*model.RouteSet{}}
	for _, r := range all {
		for _, g := range r.Gateways {
			x.byGateway[g] = append(x.byGateway[g], r)
		}
		if !slices.Contains(r.Gateways, GatewayMesh) {
			continue
		}
		wild := false
		for _, h := range r.Hosts {
			if strings.HasPrefix(h, "*") {
				wild = true
			} else {
				x.meshExact[h] = append(x.meshExact[h], r)
			}
		}
		if wild {
			x.meshWild = append(x.meshWild, r)
		}
	}
	return x
}

type routeQuery struct{ client, host string }

// Routes returns the route set that sidecars of a namespace use for a host of a
// service: the visible one with the most specific host, of these the client's own
// namespace's word on the service (a consumer route), then the oldest.
// Nil if there is none.
func (w *World) Routes(client, host string) *model.RouteSet {
	for _, r := range w.routes.meshExact[host] {
		if VisibleTo(r.ExportTo, r.Namespace, client) {
			return r
		}
	}
	if len(w.routes.meshWild) == 0 {
		return nil
	}
	return w.derived.routeSet.of(routeQuery{client, host}, func() *model.RouteSet { return w.wildRoutes(client, host) })
}

// wildRoutes returns the route set with the longest wildcard that covers a host.
func (w *World) wildRoutes(client, host string) *model.RouteSet {
	var best *model.RouteSet
	longest := -1
	for _, r := range w.routes.meshWild {
		if !VisibleTo(r.ExportTo, r.Namespace, client) {
			continue
		}
		for _, h := range r.Hosts {
			if strings.HasPrefix(h, "*") && hostCovers(h, host) && len(h) > longest {
				best, longest = r, len(h)
			}
		}
	}
	return best
}

// MeshRoutes returns the route sets of sidecars that clients of a namespace see, oldest first.
func (w *World) MeshRoutes(client string) []*model.RouteSet {
	return visibleRoutes(w.routes.byGateway[GatewayMesh], client)
}

// GatewayRoutes returns the route sets bound to a gateway (namespace/name) and
// visible in the gateway workload's namespace, oldest first.
func (w *World) GatewayRoutes(gateway, namespace string) []*model.RouteSet {
	return visibleRoutes(w.routes.byGateway[gateway], namespace)
}

func visibleRoutes(rs []*model.RouteSet, namespace string) []*model.RouteSet {
	out := make([]*model.RouteSet, 0, len(rs))
	for _, r := range rs {
		if VisibleTo(r.ExportTo, r.Namespace, namespace) {
			out = append(out, r)
		}
	}
	return out
}

// AllRoutes returns every route set, oldest first.
func (w *World) AllRoutes() []*model.RouteSet { return w.routes.all }

// HostCovers tells whether a host or wildcard ("*", "*.suffix") covers a host, which may be a wildcard itself.
func HostCovers(pattern, host string) bool { return hostCovers(pattern, host) }

// servedIn tells whether workloads of a namespace may serve a gateway, and so have its keys.
func servedIn(g *model.Gateway, namespace string) bool {
	switch {
	case g.OwnNamespace:
		return g.Namespace == namespace
	case g.WorkloadNamespace != "":
		return g.WorkloadNamespace == namespace
	}
	return true
}

// Gateways returns the gateways that select a gateway workload by its namespace and labels, oldest first.
func (w *World) Gateways(namespace string, labels map[string]string) []*model.Gateway {
	var out []*model.Gateway
	for _, g := range w.gateways {
		if servedIn(g, namespace) && Matches(g.Selector, labels) {
			out = append(out, g)
		}
	}
	return out
}

// AllGateways returns every gateway, oldest first.
func (w *World) AllGateways() []*model.Gateway { return w.gateways }
