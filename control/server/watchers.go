package server

import (
	"maps"
	"slices"
	"sync"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/status"
	"weft.mesh/weft/control/xdsserver"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// maxWatchers bounds the watches of each kind on the control socket.
const maxWatchers = 256

// names holds the current name table and wakes those who watch it.
type names struct {
	mu      sync.Mutex // protects the following
	of      *snapshot.World
	cur     admin.NameTable
	waiters map[chan struct{}]struct{}
}

func newNames(domain string) *names {
	return &names{cur: admin.NameTable{Version: "0", Names: map[string][]string{}, Domain: domain}, waiters: map[chan struct{}]struct{}{}}
}

// set publishes a World's names, if they differ.
func (n *names) set(w *snapshot.World) {
	if was := n.world(w); was != nil && was.Mesh().Domain == w.Mesh().Domain && was.Revisions().Services == w.Revisions().Services && was.Revisions().Addresses == w.Revisions().Addresses {
		return // endpoints change all the time, and have names in headless services only
	}
	t := w.NameTable()
	out, auto := make(map[string][]string, len(t.Names)), make(map[string][]string, len(t.Auto))
	for name, addrs := range t.Names {
		for _, a := range addrs {
			out[name] = append(out[name], a.String())
		}
	}
	for name, a := range t.Auto {
		auto[name] = []string{a.String()}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if maps.EqualFunc(n.cur.Names, out, slices.Equal) && maps.EqualFunc(n.cur.Auto, auto, slices.Equal) && n.cur.Version != "0" {
		return
	}
	n.cur = admin.NameTable{Version: t.Version, Names: out, Auto: auto, Domain: n.cur.Domain}
	for c := range n.waiters {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// world notes the World that the names are of now, and returns the one before.
func (n *names) world(w *snapshot.World) *snapshot.World {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.of
	n.of = w
	return was
}

func (n *names) table() admin.NameTable {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cur
}

// watch returns a channel that is signalled after changes; ok is false when too many watch.
func (n *names) watch() (c chan struct{}, stop func(), ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.waiters) >= maxWatchers {
		return nil, nil, false
	}
	c = make(chan struct{}, 1)
	n.waiters[c] = struct{}{}
	return c, func() {
		n.mu.Lock()
		delete(n.waiters, c)
		n.mu.Unlock()
	}, true
}

// nodes remembers connected nodes for the debug pages, and passes everything on to the tracker.
type nodes struct {
	*status.Tracker
	mu  sync.Mutex // protects all
	all map[uint64]*xds.Node
}

func newNodes(t *status.Tracker) *nodes { return &nodes{Tracker: t, all: map[uint64]*xds.Node{}} }

// Connected implements xdsserver.Observer.
func (n *nodes) Connected(stream uint64, node *xds.Node, id spiffe.ID) xdsserver.Witness {
	n.mu.Lock()
	n.all[stream] = node
	n.mu.Unlock()
	return n.Tracker.Connected(stream, node, id)
}

// Disconnected implements xdsserver.Observer.
func (n *nodes) Disconnected(stream uint64) {
	n.mu.Lock()
	delete(n.all, stream)
	n.mu.Unlock()
	n.Tracker.Disconnected(stream)
}

// find returns a connected node by pod.namespace or by its whole ID.
func (n *nodes) find(name string) *xds.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.all {
		if x.Name+"."+x.Namespace == name || x.ID == name {
			return x
		}
	}
	return nil
}

func (n *nodes) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, x := range n.all {
		out = append(out, x.Name+"."+x.Namespace)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
