package translate

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
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
	s    *Snapshot
	key  scopeKey
	name string // of this scope, independent of revisions, to find what was made before
	client

	services []*snapshot.Service
	byPort   map[uint16][]servicePort
	targets  map[string]*target // by cluster name

	clusters  func() []*xds.Resource
	listeners func() []*xds.Resource
	tables    func() []string // names of route tables
	// prioritised lists the labels of clients that order the endpoints of some cluster, sorted.
	prioritised func() []string
	// endpointNames lists the clusters whose endpoints come over EDS, sorted.
	endpointNames func() []string
	mu            sync.Mutex
	routes        map[string]*xds.Resource
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
	return snapshot.Revisions{Services: r.Services, Identities: r.Identities, Addresses: r.Addresses, Routes: r.Routes, Rules: r.Rules}
}

// scopeOf finds or makes the scope of a sidecar. One is kept for each key: of
// the latest revisions asked for.
func (s *Snapshot) scopeOf(v *view) *scope {
	k := scopeKey{v.namespace, s.signature(v.namespace, v.labels), v.weft, v.dns}
	return latest(s.cache, k, inputs{outboundRevisions(s.world.Revisions())}, func() *scope { return s.newScope(k, v) })
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
	c := &scope{
		s: s, key: k, name: strings.Join([]string{k.namespace, k.signature, weftName(k.weft), dnsName(k.dns)}, "|"),
		client:   client{namespace: k.namespace, labels: v.labels, gateways: []string{snapshot.GatewayMesh}},
		services: s.world.Visible(k.namespace), byPort: map[uint16][]servicePort{}, targets: map[string]*target{},
		routes: map[string]*xds.Resource{},
	}
	for _, svc := range c.services {
		rule, vips := s.world.Rule(k.namespace, v.labels, svc.Key), k.addresses(svc)
		routes := s.world.Routes(k.namespace, svc.Host)
		for _, p := range svc.Ports {
			if p.Protocol == model.ProtocolUDP {
				continue
			}
			c.byPort[p.Number] = append(c.byPort[p.Number], servicePort{svc, p, vips, len(vips) > 0 && isFrontend(routes, p.Number)})
			c.addTarget(newTarget(svc, p, "", rule))
			if rule != nil {
				for _, sub := range rule.Subsets {
					c.addTarget(newTarget(svc, p, sub.Name, rule))
				}
			}
		}
	}
	c.clusters = sync.OnceValue(c.makeClusters)
	c.listeners = sync.OnceValue(c.makeListeners)
	c.tables = sync.OnceValue(c.tableNames)
	c.prioritised = sync.OnceValue(c.priorityLabels)
	c.endpointNames = sync.OnceValue(c.edsNames)
	return c
}

// near tells places apart as far as any of the clusters does.
func (c *scope) near(at *place) string {
	key := at.locality
	for _, l := range c.prioritised() {
		key += "|" + at.label(l)
	}
	return key
}

func (c *scope) priorityLabels() []string {
	var out []string
	for _, t := range c.targets {
		if set := c.s.localitySetting(t); set != nil {
			for _, l := range set.FailoverPriority {
				if !strings.Contains(l, "=") {
					out = append(out, l)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (c *scope) edsNames() []string {
	out := make([]string, 0, len(c.targets))
	for n, t := range c.targets {
		if t.isEDS() {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func (c *scope) addTarget(t *target) { c.targets[t.name] = t }

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

// makeClusters lists the outbound clusters and the two fixed ones, sorted.
func (c *scope) makeClusters() []*xds.Resource {
	out := make([]*xds.Resource, 0, len(c.targets)+2)
	for _, t := range c.targets {
		out = append(out, c.s.outboundCluster(t, c.key.weft))
	}
	out = append(out, c.s.passthroughCluster(), c.s.blackHoleCluster())
	sortResources(out)
	return out
}

func sortResources(rs []*xds.Resource) {
	slices.SortFunc(rs, func(a, b *xds.Resource) int { return cmp.Compare(a.Name, b.Name) })
}
