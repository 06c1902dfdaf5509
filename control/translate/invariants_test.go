package translate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/xds"
)

// TestInvariants holds for every mesh: what refers to something finds it, and
// nothing is there twice where Envoy allows it once.
func TestInvariants(t *testing.T) {
	cases := translatetest.Load(t, "testdata")
	for seed := range uint64(100) {
		cases = append(cases, translatetest.Random(seed))
	}
	for _, c := range cases {
		for _, n := range c.Nodes {
			if n.Kind == "grpc" {
				continue
			}
			t.Run(c.Name+"/"+n.Kind+" "+n.Name, func(t *testing.T) {
				check(t, translate.New(c.World, c.Mesh), c.World, n.Node)
			})
		}
	}
}

// wire is what a node gets, decoded.
type wire struct {
	t         *testing.T
	world     *snapshot.World
	node      *xds.Node
	listeners []*listenerv3.Listener
	tables    map[string]*routev3.RouteConfiguration
	clusters  map[string]*clusterv3.Cluster
	endpoints map[string]bool
}

func check(t *testing.T, s *translate.Snapshot, world *snapshot.World, n *xds.Node) {
	w := &wire{t: t, world: world, node: n, tables: map[string]*routev3.RouteConfiguration{}, clusters: map[string]*clusterv3.Cluster{}, endpoints: map[string]bool{}}
	all := allOf(t, s, n)
	validate(t, all)
	for i, r := range all {
		if i > 0 && all[i-1].TypeURL == r.TypeURL && all[i-1].Name >= r.Name {
			t.Errorf("%s: %q after %q", xds.ShortName(r.TypeURL), r.Name, all[i-1].Name)
		}
		w.decode(r)
	}
	for _, c := range w.clusters {
		if c.GetType() == clusterv3.Cluster_EDS && !w.endpoints[c.Name] {
			t.Errorf("cluster %q has no endpoints resource", c.Name)
		}
	}
	for _, l := range w.listeners {
		w.listener(l)
	}
	for _, rc := range w.tables {
		w.table(rc)
	}
}

func (w *wire) decode(r *xds.Resource) {
	m := message(r.TypeURL)
	if err := proto.Unmarshal(r.Body, m); err != nil {
		w.t.Fatal(err)
	}
	switch m := any(m).(type) {
	case *listenerv3.Listener:
		w.listeners = append(w.listeners, m)
	case *routev3.RouteConfiguration:
		w.tables[m.Name] = m
	case *clusterv3.Cluster:
		w.clusters[m.Name] = m
	default:
		w.endpoints[r.Name] = true
	}
}

func (w *wire) listener(l *listenerv3.Listener) {
	seen := map[string]bool{}
	chains := l.FilterChains
	for _, c := range chains {
		m := c.FilterChainMatch
		if m == nil {
			m = &listenerv3.FilterChainMatch{}
		}
		for _, one := range expand(m) {
			if seen[one] {
				w.t.Errorf("listener %s: two chains match %s", l.Name, one)
			}
			seen[one] = true
		}
		if sni := len(m.ServerNames) > 0 || m.TransportProtocol == "tls"; sni && !hasFilter(l, "tls_inspector") {
			w.t.Errorf("listener %s: chains by TLS without an inspector", l.Name)
		}
		if slices.Contains(m.ApplicationProtocols, "h2c") && !hasFilter(l, "http_inspector") {
			w.t.Errorf("listener %s: chains by HTTP without an inspector", l.Name)
		}
	}
	if l.DefaultFilterChain != nil {
		chains = append(chains, l.DefaultFilterChain)
	}
	for _, c := range chains {
		w.chain(l, c)
	}
}

func hasFilter(l *listenerv3.Listener, name string) bool {
	return slices.ContainsFunc(l.ListenerFilters, func(f *listenerv3.ListenerFilter) bool { return strings.HasSuffix(f.Name, name) })
}

// expand lists the single combinations that a match stands for, as Envoy compares them.
func expand(m *listenerv3.FilterChainMatch) []string {
	var out []string
	for _, p := range orEmpty(m.PrefixRanges, func(i int) string { return m.PrefixRanges[i].String() }) {
		for _, n := range orEmpty(m.ServerNames, func(i int) string { return m.ServerNames[i] }) {
			for _, a := range orEmpty(m.ApplicationProtocols, func(i int) string { return m.ApplicationProtocols[i] }) {
				out = append(out, fmt.Sprint(m.DestinationPort.GetValue(), p, n, m.TransportProtocol, a))
			}
		}
	}
	return out
}

func orEmpty[T any](s []T, f func(int) string) []string {
	if len(s) == 0 {
		return []string{""}
	}
	var out []string
	for i := range s {
		out = append(out, f(i))
	}
	return out
}

func (w *wire) chain(l *listenerv3.Listener, c *listenerv3.FilterChain) {
	last := c.Filters[len(c.Filters)-1].GetTypedConfig()
	m, err := last.UnmarshalNew()
	if err != nil {
		w.t.Fatal(err)
	}
	switch m := m.(type) {
	case *tcpv3.TcpProxy:
		if wc := m.GetWeightedClusters(); wc != nil {
			for _, x := range wc.Clusters {
				w.cluster(l.Name, x.Name)
			}
		} else {
			w.cluster(l.Name, m.GetCluster())
		}
	case *hcmv3.HttpConnectionManager:
		if rc := m.GetRouteConfig(); rc != nil {
			w.table(rc)
		} else if name := m.GetRds().GetRouteConfigName(); w.tables[name] == nil {
			w.t.Errorf("listener %s: no route table %q", l.Name, name)
		}
	default:
		w.t.Errorf("listener %s: chain ends with %T", l.Name, m)
	}
}

func (w *wire) table(rc *routev3.RouteConfiguration) {
	names, domains := map[string]bool{}, map[string]bool{}
	for _, vh := range rc.VirtualHosts {
		if names[vh.Name] {
			w.t.Errorf("table %s: two virtual hosts %q", rc.Name, vh.Name)
		}
		names[vh.Name] = true
		for _, d := range vh.Domains {
			if d = strings.ToLower(d); domains[d] {
				w.t.Errorf("table %s: domain %q twice", rc.Name, d)
			}
			domains[d] = true
		}
		if len(vh.Routes) == 0 {
			w.t.Errorf("table %s: virtual host %s has no routes", rc.Name, vh.Name)
		}
		for _, r := range vh.Routes {
			a := r.GetRoute()
			if a == nil {
				continue
			}
			if wc := a.GetWeightedClusters(); wc != nil {
				for _, x := range wc.Clusters {
					if x.Name == "UnresolvedCluster" && a.ClusterNotFoundResponseCode == routev3.RouteAction_INTERNAL_SERVER_ERROR {
						continue // the share of a backend that cannot be resolved is 500
					}
					w.cluster(rc.Name, x.Name)
				}
			} else {
				w.cluster(rc.Name, a.GetCluster())
			}
		}
	}
}

// cluster must exist, unless the service, port or subset does not.
func (w *wire) cluster(where, name string) {
	if w.clusters[name] != nil {
		return
	}
	direction, port, subset, host, ok := xds.ParseCluster(name)
	if !ok || direction != "outbound" {
		w.t.Errorf("%s: no cluster %q", where, name)
		return
	}
	svc := w.world.Service(host, w.node.Namespace)
	if svc == nil {
		return
	}
	p, known := svc.Port(port)
	if !known || p.Protocol == "UDP" {
		return
	}
	labels := w.node.Metadata.Labels
	if x := w.world.Pod(w.node.Namespace, w.node.Name); x != nil {
		labels = x.Labels
	}
	if _, known := w.world.Rule(w.node.Namespace, labels, svc.Key).Subset(subset); subset == "" || known {
		w.t.Errorf("%s: no cluster %q, though there is such a service", where, name)
	}
}
