package translate

import (
	"maps"
	"slices"
	"sync"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// routeTables are the tables of a scope. They outlive its snapshots. Safe for concurrent use.
type routeTables struct {
	mu     sync.Mutex // protects byName
	byName map[string]*routeTable
}

// table finds or makes one of the tables that there are now.
func (t *routeTables) table(name string, now []string) *routeTable {
	t.mu.Lock()
	defer t.mu.Unlock()
	if have := t.byName[name]; have != nil {
		return have
	}
	if len(t.byName) > 2*len(now) {
		maps.DeleteFunc(t.byName, func(name string, _ *routeTable) bool {
			_, ok := slices.BinarySearch(now, name)
			return !ok
		})
	}
	t.byName[name] = &routeTable{}
	return t.byName[name]
}

// routeTable is the latest version of one of a scope's route tables, in parts: most changes are about one
// host of a thousand, and the other parts are taken as they are. A message with a repeated field is its parts
// one after the other. Safe for concurrent use.
type routeTable struct {
	mu    sync.Mutex // protects the following
	name  routeTableName
	hosts []tableHost
	made  *xds.Resource // nil before the first
}

// routeTableName is what a table is besides its hosts.
type routeTableName struct {
	name      string
	port      uint16
	own       bool // of one service alone, which has all hosts
	byAddress bool
}

// tableHost is the virtual host of a service port, and all that it was made from.
type tableHost struct {
	servicePort
	names  []string // none: others have all of its names, and it is left out
	routes *model.RouteSet
	rule   *snapshot.Rule
	byName *snapshot.Service // what the service's host leads to: mostly itself
	used   inputs            // services and rules that routes lead to
	body   []byte            // the encoded field of the table; nil before it is made
}

// fieldVirtualHosts is RouteConfiguration.virtual_hosts.
const fieldVirtualHosts protowire.Number = 2

// update brings the table to what a scope has of it.
func (t *routeTable) update(c *scope, sps []servicePort, name routeTableName) *xds.Resource {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := t.made == nil || t.name != name
	if !slices.EqualFunc(t.hosts, sps, func(h tableHost, p servicePort) bool { return h.is(p) }) {
		t.hosts, changed = t.rearranged(c, sps, name.own), true
	}
	for i := range t.hosts {
		changed = t.hosts[i].update(c, name.port) || changed
	}
	if changed {
		t.name, t.made = name, t.resource(c, name)
	}
	return t.made
}

func (h *tableHost) is(p servicePort) bool {
	return h.service == p.service && h.port.Number == p.port.Number && h.port.Name == p.port.Name
}

// rearranged lists the hosts of services. Of two with one name the first has it.
func (t *routeTable) rearranged(c *scope, sps []servicePort, own bool) []tableHost {
	type key struct {
		service *snapshot.Service
		port    string
	}
	before := make(map[key]*tableHost, len(t.hosts))
	for i := range t.hosts {
		before[key{t.hosts[i].service, t.hosts[i].port.Name}] = &t.hosts[i]
	}
	taken := map[string]bool{"*": true} // the catch-all is ours
	out := make([]tableHost, len(sps))
	for i, p := range sps {
		names := []string{"*"}
		if !own {
			names = unique(taken, domains(p.service, p.vips, c.namespace, c.s.mesh.Domain))
		}
		if old := before[key{p.service, p.port.Name}]; old != nil && old.is(p) && slices.Equal(old.names, names) {
			out[i] = *old
		} else {
			out[i] = tableHost{servicePort: p, names: names}
		}
	}
	return out
}

// update makes the host again if anything that it is made from is another than before, and tells whether it did.
func (h *tableHost) update(c *scope, port uint16) bool {
	if len(h.names) == 0 {
		return false
	}
	w := c.s.world
	next := tableHost{
		servicePort: h.servicePort, names: h.names, routes: w.Routes(c.namespace, h.service.Host),
		rule: w.Rule(c.namespace, c.labels, h.service.Key), byName: w.Service(h.service.Host, c.namespace),
	}
	r := c.router(port)
	if next.routes != nil || next.byName != h.service {
		if next.routes != nil {
			routeHosts(next.routes, func(d *model.Destination, _ *model.Route) { r.rule(r.service(d.Host)) })
		}
		r.rule(next.byName)
		next.used = r.used
	}
	if h.body != nil && h.routes == next.routes && h.rule == next.rule && h.byName == next.byName && h.used.equal(next.used) {
		return false
	}
	before := h.body
	*h = next
	h.body = c.hostField(r, h)
	return before == nil || string(before) != string(h.body)
}

// plainHostKey is all that the virtual host of a service without a route set is made from.
type plainHostKey struct {
	service   *snapshot.Service
	rule      *snapshot.Rule
	port      uint16
	namespace string // "": one where the service has no names of its own
	dns       bool   // with its allocated address
	all       bool   // it has every name; false: the table is its own
}

// hostField encodes a virtual host as a field of its table. Those without a route set are mostly the same for all clients.
func (c *scope) hostField(r *router, h *tableHost) []byte {
	build := func() []byte {
		b := marshal(&routev3.VirtualHost{Name: h.table(), Domains: h.names, Routes: c.hostRoutes(r, h.servicePort), IncludeRequestAttemptCount: true})
		return protowire.AppendBytes(protowire.AppendTag(make([]byte, 0, len(b)+8), fieldVirtualHosts, protowire.BytesType), b)
	}
	if h.routes != nil || h.byName != h.service {
		return build()
	}
	own := len(h.names) == 1 && h.names[0] == "*"
	if !own && len(h.names) != len(domains(h.service, h.vips, c.namespace, c.s.mesh.Domain)) {
		return build() // which names are missing depends on others
	}
	k := plainHostKey{h.service, h.rule, h.port.Number, "", c.key.dns, !own}
	if _, ns, ok := kubeName(h.service.Host, c.s.mesh.Domain); ok && ns == c.namespace {
		k.namespace = ns
	}
	return remember(c.s.cache, k, build)
}

// resource puts the parts together, in the order in which a message would be encoded.
func (t *routeTable) resource(c *scope, name routeTableName) *xds.Resource {
	head := marshal(&routev3.RouteConfiguration{Name: name.name})
	rest := newTable("")
	if name.byAddress {
		rest.Metadata = weftFlag(xds.MetadataByAddress)
	}
	tail := marshal(rest)
	if !name.own {
		b := marshal(c.s.catchAll())
		tail = append(protowire.AppendBytes(protowire.AppendTag(nil, fieldVirtualHosts, protowire.BytesType), b), tail...)
	}
	size := len(head) + len(tail)
	for i := range t.hosts {
		size += len(t.hosts[i].body)
	}
	body := append(make([]byte, 0, size), head...)
	for i := range t.hosts {
		body = append(body, t.hosts[i].body...)
	}
	return c.s.encoded(xds.RouteType, name.name, append(body, tail...))
}
