package console

import (
	"cmp"
	"maps"
	"slices"

	"weft.mesh/weft/observe/traffic"
)

// graphBuilder gathers nodes and edges.
type graphBuilder struct {
	t        *traffic.Snapshot
	gateways map[string]bool // namespace/workload
	pods     map[string]Ready
	nodes    map[string]*graphNode
	edges    map[string]*graphLink
}

type graphNode struct {
	Node
	in traffic.Counts
}

type graphLink struct {
	GraphEdge
	counts traffic.Counts
}

func (v *view) graph(t *traffic.Snapshot) *Graph {
	b := &graphBuilder{t: t, gateways: v.gateways(), pods: map[string]Ready{}, nodes: map[string]*graphNode{}, edges: map[string]*graphLink{}}
	for i := range v.pods {
		key := v.pods[i].Namespace + "/" + v.pods[i].Deployment
		r := b.pods[key]
		r.add(&v.pods[i])
		b.pods[key] = r
	}
	for i := range t.Edges {
		b.add(&t.Edges[i])
	}
	g := &Graph{At: v.at, Window: t.Window.Seconds(), Covered: Number(t.Seconds), Truncated: t.Truncated, Nodes: []Node{}, Edges: []GraphEdge{}}
	for _, id := range slices.Sorted(maps.Keys(b.nodes)) {
		n := b.nodes[id]
		n.Traffic = trafficOf(t, &n.in)
		g.Nodes = append(g.Nodes, n.Node)
	}
	for _, id := range slices.Sorted(maps.Keys(b.edges)) {
		e := b.edges[id]
		e.Traffic = trafficOf(t, &e.counts)
		g.Edges = append(g.Edges, e.GraphEdge)
	}
	return g
}

// gateways are the workloads whose proxy is no sidecar.
func (v *view) gateways() map[string]bool {
	out := map[string]bool{}
	if v.status == nil {
		return out
	}
	routers := map[string]bool{}
	for i := range v.status.Proxies {
		if p := &v.status.Proxies[i]; p.Type == "router" {
			routers[p.Namespace+"/"+p.Pod] = true
		}
	}
	for i := range v.pods {
		if p := &v.pods[i]; routers[podKey(p)] {
			out[p.Namespace+"/"+p.Deployment] = true
		}
	}
	return out
}

func (b *graphBuilder) add(e *traffic.EdgeTraffic) {
	from, to := b.source(&e.Source), b.dest(&e.Edge)
	to.in.Add(&e.Counts)
	service := e.Service.Namespace + "/" + serviceName(&e.Service)
	id := from.ID + ">" + to.ID + ">" + service + ">" + e.Protocol
	l := b.edges[id]
	if l == nil {
		l = &graphLink{GraphEdge: GraphEdge{ID: id, Source: from.ID, Target: to.ID, Service: service, Protocol: e.Protocol}}
		b.edges[id] = l
	}
	l.counts.Add(&e.Counts)
}

func (b *graphBuilder) source(w *traffic.Workload) *graphNode {
	if !w.Known() {
		return b.node(Node{ID: NodeOutside, Kind: NodeOutside, Name: "outside"})
	}
	return b.workload(w)
}

func (b *graphBuilder) dest(e *traffic.Edge) *graphNode {
	if e.Dest.Known() {
		return b.workload(&e.Dest)
	}
	name := serviceName(&e.Service)
	if ns := e.Service.Namespace; ns == "" || ns == traffic.Unknown {
		name = cmp.Or(e.Service.Host, name, traffic.Unknown)
		return b.node(Node{ID: NodeExternal + ":" + name, Kind: NodeExternal, Name: name})
	}
	return b.node(Node{ID: NodeService + ":" + e.Service.Namespace + "/" + name, Kind: NodeService, Namespace: e.Service.Namespace, Name: name, App: name})
}

func (b *graphBuilder) workload(w *traffic.Workload) *graphNode {
	key := w.Namespace + "/" + w.Name
	n := Node{ID: NodeWorkload + ":" + key, Kind: NodeWorkload, Namespace: w.Namespace, Name: w.Name, App: w.App, Version: w.Version, Pods: b.pods[key]}
	if b.gateways[key] {
		n.Kind = NodeGateway
	}
	return b.node(n)
}

func (b *graphBuilder) node(n Node) *graphNode {
	if old, ok := b.nodes[n.ID]; ok {
		return old
	}
	g := &graphNode{Node: n}
	b.nodes[n.ID] = g
	return g
}
