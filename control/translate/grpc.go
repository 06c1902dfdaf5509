package translate

import (
	"net"
	"slices"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// generatorGRPC is the metadata GENERATOR of proxyless gRPC clients.
const generatorGRPC = "grpc"

// grpcResources answers a proxyless gRPC client (xds:///host:port): a listener
// named host:port, its route table and clusters outbound|port|subset|host, and
// their endpoints. gRPC refuses what it does not know, so nothing else is sent;
// connections are in the clear.
func (s *Snapshot) grpcResources(v *view, typeURL string, names []string) []*xds.Resource {
	c := s.scopeOf(v)
	if names == nil {
		names = s.grpcNames(c, typeURL)
	}
	answer := map[string]func(*scope, string) *xds.Resource{
		xds.ListenerType: s.grpcListener, xds.RouteType: s.grpcRoute, xds.ClusterType: s.grpcCluster, xds.EndpointType: s.grpcEndpoints,
	}[typeURL]
	if answer == nil {
		return nil
	}
	return each(names, func(n string) *xds.Resource { return answer(c, n) })
}

// grpcNames lists all names of a type, for a client that asks for all.
func (s *Snapshot) grpcNames(c *scope, typeURL string) []string {
	var out []string
	for n, t := range c.targets {
		switch {
		case !grpcTarget(t):
		case typeURL == xds.ListenerType && t.subset == "":
			out = append(out, hostPort(t.service.Host, t.port.Number))
		case typeURL == xds.RouteType && t.subset == "", typeURL == xds.ClusterType, typeURL == xds.EndpointType:
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// grpcTarget tells whether gRPC can reach the target: endpoints must be known here.
func grpcTarget(t *target) bool {
	return t.service.Resolution == "" || t.service.Resolution == model.ResolveStatic
}

// grpcService finds host:port, where the host may be short as in a Host header.
func (s *Snapshot) grpcService(c *scope, name string) (servicePort, bool) {
	host, digits, err := net.SplitHostPort(name)
	if err != nil {
		return servicePort{}, false
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return servicePort{}, false
	}
	domain := s.mesh.Domain
	for _, h := range []string{host, host + "." + c.namespace + ".svc." + domain, host + ".svc." + domain, host + "." + domain} {
		if svc := s.world.Service(strings.TrimSuffix(h, "."), c.namespace); svc != nil {
			p, ok := svc.Port(uint16(n))
			return servicePort{service: svc, port: p}, ok
		}
	}
	return servicePort{}, false
}

type grpcListenerKey struct{ name, table string }

func (s *Snapshot) grpcListener(c *scope, name string) *xds.Resource {
	sp, ok := s.grpcService(c, name)
	if !ok {
		return nil
	}
	table := xds.OutboundCluster(sp.port.Number, "", sp.service.Host)
	return remember(s.cache, grpcListenerKey{name, table}, func() *xds.Resource {
		return s.resource(xds.ListenerType, name, &listenerv3.Listener{Name: name, ApiListener: &listenerv3.ApiListener{
			ApiListener: pack(&hcmv3.HttpConnectionManager{
				RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: table}},
				HttpFilters:    []*hcmv3.HttpFilter{httpFilter(filterRouter, pack(&routerv3.Router{}))},
			}),
		}})
	})
}

// grpcRoute is the table of one service port. Its only virtual host takes every
// authority, since the listener is the service's.
func (s *Snapshot) grpcRoute(c *scope, name string) *xds.Resource {
	t := c.targets[name]
	if t == nil || t.subset != "" {
		return nil
	}
	sp := servicePort{service: t.service, port: t.port}
	return latest(s.cache, tableKey{c.name + "|grpc", name}, c.tableInputs([]servicePort{sp}, t.port.Number), func() *xds.Resource {
		vh := &routev3.VirtualHost{Name: sp.table(), Domains: []string{"*"}}
		for _, r := range c.hostRoutes(c.router(t.port.Number), sp) {
			if g := grpcOnly(r); g != nil {
				vh.Routes = append(vh.Routes, g)
			}
		}
		return s.resource(xds.RouteType, name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{vh}})
	})
}

// grpcOnly keeps what gRPC's client honours: match, clusters, timeout, retries.
// A route that answers by itself becomes one that fails (non-forwarding).
func grpcOnly(r *routev3.Route) *routev3.Route {
	out := &routev3.Route{Name: r.Name, Match: r.Match}
	a := r.GetRoute()
	if a == nil {
		out.Action = &routev3.Route_NonForwardingAction{NonForwardingAction: &routev3.NonForwardingAction{}}
		return out
	}
	g := &routev3.RouteAction{ClusterSpecifier: a.ClusterSpecifier, HashPolicy: a.HashPolicy}
	if w := a.GetWeightedClusters(); w != nil {
		plain := &routev3.WeightedCluster{}
		for _, x := range w.Clusters {
			plain.Clusters = append(plain.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: x.Name, Weight: x.Weight})
		}
		g.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: plain}
	}
	if a.Timeout.AsDuration() > 0 {
		g.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: a.Timeout}
	}
	if p := grpcRetry(a.RetryPolicy); p != nil {
		g.RetryPolicy = p
	}
	out.Action = &routev3.Route_Route{Route: g}
	return out
}

// grpcRetry keeps the conditions that are gRPC statuses.
func grpcRetry(p *routev3.RetryPolicy) *routev3.RetryPolicy {
	if p == nil {
		return nil
	}
	var on []string
	for c := range strings.SplitSeq(p.RetryOn, ",") {
		switch c {
		case "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable":
			on = append(on, c)
		}
	}
	if len(on) == 0 {
		return nil
	}
	return &routev3.RetryPolicy{RetryOn: strings.Join(on, ","), NumRetries: p.NumRetries, RetryBackOff: p.RetryBackOff}
}

type grpcClusterKey struct {
	service *snapshot.Service
	name    string
	rule    *snapshot.Rule
}

func (s *Snapshot) grpcCluster(c *scope, name string) *xds.Resource {
	t := c.targets[name]
	if t == nil || !grpcTarget(t) {
		return nil
	}
	return remember(s.cache, grpcClusterKey{t.service, name, t.rule}, func() *xds.Resource {
		cl := &clusterv3.Cluster{
			Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: name},
			LbPolicy:         clusterv3.Cluster_ROUND_ROBIN, // gRPC refuses policies that it does not know
		}
		if lb := t.policy().LB; lb != nil && lb.Policy == model.LBConsistent && !lb.Hash.Maglev {
			applyHash(cl, lb.Hash)
		}
		return s.resource(xds.ClusterType, name, cl)
	})
}

func (s *Snapshot) grpcEndpoints(c *scope, name string) *xds.Resource {
	if t := c.targets[name]; t != nil && grpcTarget(t) {
		return s.endpoints(t, nil)
	}
	return nil
}
