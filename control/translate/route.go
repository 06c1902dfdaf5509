package translate

import (
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// clusterUnresolved is the cluster of destinations that do not exist or may not be used. There is none of this name.
const clusterUnresolved = "UnresolvedCluster"

// maxDirectBody is the longest direct response body (Istio's bound).
const maxDirectBody = 1 << 20

// router makes routes for one client. What it reads of the World it notes in
// used, so that the answer can be kept until one of these changes.
type router struct {
	world *snapshot.World
	client
	used inputs
}

func (r *router) note(v ...any) { r.used = append(r.used, v...) }

// service is the service that a destination names; nil if the client sees none.
func (r *router) service(host string) *snapshot.Service {
	s := r.world.Service(host, r.namespace)
	r.note(s)
	return s
}

// rule is how the client talks to a service.
func (r *router) rule(s *snapshot.Service) *snapshot.Rule {
	if s == nil {
		return nil
	}
	rule := r.world.Rule(r.namespace, r.labels, s.Key)
	r.note(rule)
	return rule
}

// cluster names the cluster of a destination. Without a port it is the
// service's only one, else the listener's. A service or subset that does not
// exist gives the name of a cluster that does not exist either.
func (r *router) cluster(d *model.Destination) (name string, lb *model.LoadBalancer) {
	if d.Unresolved {
		return clusterUnresolved, nil
	}
	s := r.service(d.Host)
	port := d.Port
	if port == 0 {
		port = r.port
		if s != nil && len(s.Ports) == 1 {
			port = s.Ports[0].Number
		}
	}
	rule := r.rule(s)
	return xds.OutboundCluster(port, d.Subset, d.Host), policyFor(rule, d.Subset, port).LB
}

// httpRoutes translates the routes of a set for this client, up to the first
// that takes everything.
func (r *router) httpRoutes(rs *model.RouteSet) []*routev3.Route {
	var out []*routev3.Route
	for i := range rs.HTTP {
		h := &rs.HTTP[i]
		if len(h.Matches) == 0 {
			return append(out, r.route(rs, h, nil))
		}
		for j := range h.Matches {
			m := &h.Matches[j]
			if !r.applies(m.Port, m.SourceLabels, m.SourceNamespace, m.Gateways) {
				continue
			}
			rt := r.route(rs, h, m)
			out = append(out, rt)
			if catchAll(rt.Match) {
				return out
			}
		}
	}
	return out
}

func (r *router) route(rs *model.RouteSet, h *model.Route, m *model.HTTPMatch) *routev3.Route {
	out := &routev3.Route{Name: routeName(h, m), Match: routeMatch(m), Metadata: configMetadata(rs, h.Origin)}
	changes := headersOf(h.Headers)
	switch {
	case h.Redirect != nil:
		out.Action = &routev3.Route_Redirect{Redirect: redirect(h.Redirect, m, r.port)}
		if h.Redirect.DropPort {
			dropPort(out.Metadata)
		}
	case h.Direct != nil:
		out.Action = &routev3.Route_DirectResponse{DirectResponse: directResponse(h.Direct)}
	default:
		a, more := r.forward(h, m)
		changes = changes.plus(more)
		if changes.authority != "" && a.GetHostRewriteLiteral() == "" {
			a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: changes.authority}
		}
		out.Action = &routev3.Route_Route{Route: a}
		name := rs.Name
		if h.Origin != nil {
			name = h.Origin.Name
		}
		out.Decorator = &routev3.Decorator{Operation: operation(a, out.Match, name, r.port)}
	}
	out.RequestHeadersToAdd, out.RequestHeadersToRemove = changes.reqAdd, changes.reqRemove
	out.ResponseHeadersToAdd, out.ResponseHeadersToRemove = changes.respAdd, changes.respRemove
	out.TypedPerFilterConfig = perFilter(h)
	return out
}

// perFilter configures filters for a route.
func perFilter(h *model.Route) map[string]*anypb.Any {
	if h.Fault == nil && h.CORS == nil {
		return nil
	}
	m := map[string]*anypb.Any{}
	if h.Fault != nil {
		m[filterFault] = pack(faultConfig(h.Fault))
	}
	if h.CORS != nil {
		m[filterCORS] = pack(corsPolicy(h.CORS))
	}
	return m
}

func routeName(h *model.Route, m *model.HTTPMatch) string {
	if m != nil && m.Name != "" && h.Name != "" {
		return h.Name + "." + m.Name
	}
	return h.Name
}

// forward builds the action that sends the request on, and the header
// operations of a single destination, which belong to the route's level.
func (r *router) forward(h *model.Route, m *model.HTTPMatch) (*routev3.RouteAction, headerChanges) {
	a := &routev3.RouteAction{}
	setTimeout(a, h.Timeout)
	if slices.ContainsFunc(h.Forward, func(d model.Destination) bool { return d.Unresolved }) {
		a.ClusterNotFoundResponseCode = routev3.RouteAction_INTERNAL_SERVER_ERROR
	}
	var single headerChanges
	hashed := false
	if len(h.Forward) == 1 {
		d := &h.Forward[0]
		name, lb := r.cluster(d)
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: name}
		single = headersOf(d.Headers)
		hashed = addHash(a, lb)
	} else {
		a.ClusterSpecifier, hashed = r.weighted(h, a)
	}
	a.RetryPolicy = retryPolicy(h.Retries, hashed)
	if w := h.Rewrite; w != nil {
		rewrite(a, w, m)
	}
	for i := range h.Mirrors {
		m := &h.Mirrors[i]
		if m.Percent <= 0 || m.Unresolved {
			continue
		}
		name, _ := r.cluster(&m.Destination)
		a.RequestMirrorPolicies = append(a.RequestMirrorPolicies, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster: name, RuntimeFraction: runtimeFraction(m.Percent), DisableShadowHostSuffixAppend: true,
		})
	}
	return a, single
}

// weighted splits between destinations; those of weight 0 get nothing.
func (r *router) weighted(h *model.Route, a *routev3.RouteAction) (spec *routev3.RouteAction_WeightedClusters, hashed bool) {
	w := &routev3.WeightedCluster{}
	for i := range h.Forward {
		d := &h.Forward[i]
		if d.Weight == 0 {
			continue
		}
		name, lb := r.cluster(d)
		hashed = addHash(a, lb) || hashed
		c := headersOf(d.Headers)
		cw := &routev3.WeightedCluster_ClusterWeight{
			Name: name, Weight: u32(d.Weight),
			RequestHeadersToAdd: c.reqAdd, RequestHeadersToRemove: c.reqRemove,
			ResponseHeadersToAdd: c.respAdd, ResponseHeadersToRemove: c.respRemove,
		}
		if c.authority != "" {
			cw.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: c.authority}
		}
		w.Clusters = append(w.Clusters, cw)
	}
	return &routev3.RouteAction_WeightedClusters{WeightedClusters: w}, hashed
}

func addHash(a *routev3.RouteAction, lb *model.LoadBalancer) bool {
	if lb == nil || lb.Policy != model.LBConsistent {
		return false
	}
	if p := hashPolicies(lb.Hash); p != nil {
		a.HashPolicy = append(a.HashPolicy, p)
	}
	return true
}

func rewrite(a *routev3.RouteAction, w *model.Rewrite, m *model.HTTPMatch) {
	switch {
	case w.FullPath != nil:
		a.RegexRewrite = wholePath(*w.FullPath)
	case w.ReplacePrefix != nil:
		a.PrefixRewrite, a.RegexRewrite = replacePrefix(m, *w.ReplacePrefix)
	case w.Regex != nil:
		a.RegexRewrite = regexRewrite(w.Regex)
	case w.URI != nil:
		a.PrefixRewrite = *w.URI
	}
	if w.Authority != "" {
		a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: w.Authority}
	}
}

// operation names the route in traces: host:port/path of its only destination,
// else of the route set.
func operation(a *routev3.RouteAction, m *routev3.RouteMatch, name string, port uint16) string {
	path := "/*"
	switch p := m.PathSpecifier.(type) {
	case *routev3.RouteMatch_Prefix:
		path = p.Prefix + "*"
	case *routev3.RouteMatch_PathSeparatedPrefix:
		path = p.PathSeparatedPrefix + "*"
	case *routev3.RouteMatch_Path:
		path = p.Path
	case *routev3.RouteMatch_SafeRegex:
		path = p.SafeRegex.Regex
	}
	if _, n, _, host, ok := xds.ParseCluster(a.GetCluster()); ok {
		name, port = host, n
	}
	return name + ":" + strconv.Itoa(int(port)) + path
}

// configMetadata names the object that a route comes from, as Istio's tools read it.
func configMetadata(rs *model.RouteSet, origin *model.Key) *corev3.Metadata {
	path := "/apis/networking.istio.io/v1/namespaces/" + rs.Namespace + "/virtual-service/" + rs.Name
	if origin != nil {
		path = "/apis/gateway.networking.k8s.io/v1/namespaces/" + origin.Namespace + "/" + kebab(string(origin.Kind)) + "/" + origin.Name
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		xds.MetadataIstio: {Fields: map[string]*structpb.Value{"config": structpb.NewStringValue(path)}},
	}}
}

// defaultRoute sends everything to a service port.
func (r *router) defaultRoute(s *snapshot.Service, port uint16) *routev3.Route {
	name, lb := r.cluster(&model.Destination{Host: s.Host, Port: port})
	a := &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: name}}
	setTimeout(a, nil)
	a.RetryPolicy = retryPolicy(nil, addHash(a, lb))
	m := routeMatch(nil)
	return &routev3.Route{
		Name: "default", Match: m, Action: &routev3.Route_Route{Route: a},
		Decorator: &routev3.Decorator{Operation: operation(a, m, s.Host, port)},
	}
}

// passAny forwards what no virtual host takes to where it was going.
func passAny() *routev3.VirtualHost {
	a := &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: xds.ClusterPassthrough}}
	setTimeout(a, nil)
	return catchAllHost(xds.RouteAllowAny, &routev3.Route{Action: &routev3.Route_Route{Route: a}})
}

// blockAll answers what no virtual host takes with 502 (REGISTRY_ONLY).
func blockAll() *routev3.VirtualHost {
	return catchAllHost(xds.RouteBlockAll, &routev3.Route{Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 502}}})
}

func catchAllHost(name string, rt *routev3.Route) *routev3.VirtualHost {
	rt.Name, rt.Match = name, routeMatch(nil)
	return &routev3.VirtualHost{Name: name, Domains: []string{"*"}, Routes: []*routev3.Route{rt}, IncludeRequestAttemptCount: true}
}
