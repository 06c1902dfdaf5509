package translate

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// scopeKey says which sidecars see the same mesh: those of a namespace whose
// labels decide alike wherever a rule or route asks for the caller's labels.
type scopeKey struct {
	namespace string
	signature string
	weft      bool
	dns       bool // they get their names from the mesh, so that allocated addresses mean something to them
}

// scope is what all sidecars with one key see of the mesh: their outbound
// listeners, routes and clusters. Parts are made when they are asked for.
type scope struct {
	*reach
	s      *Snapshot
	byPort map[uint16][]servicePort

	listeners func() []*xds.Resource
	tables    func() []string        // names of route tables
	allRoutes func() []*xds.Resource // of all tables, sorted
	mu        sync.Mutex
	routes    map[string]*xds.Resource
}

type servicePort struct {
	service *snapshot.Service
	port    model.Port
	// vips are the addresses that the scope's clients connect to: the service's own, or its allocated one.
	vips []netip.Addr
	// front: requests to vips are routed whatever host they name, see [model.RouteSet.Frontend].
	front bool
}

// addresses are what a scope's clients connect to for a service.
func (k *scopeKey) addresses(s *snapshot.Service) []netip.Addr {
	if len(s.VIPs) == 0 && k.dns && s.Auto.IsValid() {
		return []netip.Addr{s.Auto}
	}
	return s.VIPs
}

// outboundRevisions are those of everything that clients are configured by,
// but for endpoints that come over EDS.
func outboundRevisions(r snapshot.Revisions) snapshot.Revisions {
	out := reachRevisions(r)
	out.Routes = r.Routes
	return out
}

// scopeOf finds or makes the scope of a sidecar. One is kept for each key: of
// the latest revisions asked for.
func (s *Snapshot) scopeOf(v *view) *scope {
	k := s.scopeKeyOf(v)
	return latest(s.cache, k, inputs{outboundRevisions(s.world.Revisions())}, func() *scope { return s.newScope(k, v) })
}

func (s *Snapshot) scopeKeyOf(v *view) scopeKey {
	return scopeKey{v.namespace, s.signature(v.namespace, v.labels), v.weft, v.dns}
}

// signature is the outcome of every question about the caller's labels.
func (s *Snapshot) signature(namespace string, labels map[string]string) string {
	r := s.world.Revisions()
	questions := latest(s.cache, signatureKey(namespace), inputs{r.Routes, r.Rules}, func() []map[string]string {
		return s.labelQuestions(namespace)
	})
	if len(questions) == 0 {
		return ""
	}
	b := make([]byte, len(questions))
	for i, q := range questions {
		b[i] = '0'
		if snapshot.Matches(q, labels) {
			b[i] = '1'
		}
	}
	return string(b)
}

// signatureKey is a namespace.
type signatureKey string

func (s *Snapshot) labelQuestions(namespace string) []map[string]string {
	out := slices.Clone(s.world.RuleSelectors(namespace))
	add := func(l map[string]string) {
		if len(l) > 0 {
			out = append(out, l)
		}
	}
	for _, rs := range s.world.MeshRoutes(namespace) {
		for i := range rs.HTTP {
			for _, m := range rs.HTTP[i].Matches {
				add(m.SourceLabels)
			}
		}
		for _, l4 := range slices.Concat(rs.TLS, rs.TCP) {
			for _, m := range l4.Matches {
				add(m.SourceLabels)
			}
		}
	}
	return out
}

func (s *Snapshot) newScope(k scopeKey, v *view) *scope {
	c := &scope{s: s, reach: s.reachOf(k, v), byPort: map[uint16][]servicePort{}, routes: map[string]*xds.Resource{}}
	for _, svc := range c.services {
		vips, routes := k.addresses(svc), s.world.Routes(k.namespace, svc.Host)
		for _, p := range svc.Ports {
			if p.Protocol != model.ProtocolUDP {
				c.byPort[p.Number] = append(c.byPort[p.Number], servicePort{svc, p, vips, len(vips) > 0 && isFrontend(routes, p.Number)})
			}
		}
	}
	c.listeners = sync.OnceValue(func() []*xds.Resource { return c.stable(xds.ListenerType, c.makeListeners()) })
	c.tables = sync.OnceValue(c.tableNames)
	c.allRoutes = sync.OnceValue(func() []*xds.Resource { return c.stable(xds.RouteType, each(c.tables(), c.route)) })
	return c
}

// listKey finds the last list of a type that a scope had.
type listKey struct{ scope, typeURL string }

// stable is the list that the scope had before, if the same is in it: who has that need not compare.
func (c *scope) stable(typeURL string, list []*xds.Resource) []*xds.Resource {
	in := make(inputs, len(list))
	for i, r := range list {
		in[i] = r
	}
	return latest(c.s.cache, listKey{c.name, typeURL}, in, func() []*xds.Resource { return list })
}

func weftName(weft bool) string {
	if weft {
		return "weft"
	}
	return "envoy"
}

func dnsName(dns bool) string {
	if dns {
		return "dns"
	}
	return ""
}

func sortResources(rs []*xds.Resource) {
	slices.SortFunc(rs, func(a, b *xds.Resource) int { return cmp.Compare(a.Name, b.Name) })
}
