package translate

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

const (
	extHTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	// maxStreams is Envoy's largest sensible HTTP/2 limit, which Istio sets.
	maxStreams = 1073741824
	dnsRefresh = 60 * time.Second
)

// target is one outbound cluster: a port of a service or of a subset of it, as
// clients that follow one rule use it.
type target struct {
	service *snapshot.Service
	port    model.Port
	subset  string
	rule    *snapshot.Rule
	name    string
	kind    clusterv3.Cluster_DiscoveryType
	// Of gateways only: what a BackendTLSPolicy says, in place of the rule and automatic mTLS, and Secrets by their names in SDS: the
	// certificate to present and the roots; "" where there is none that can be used.
	backend           *model.ClientTLS
	credential, roots string
	gateway           bool
	// grpc tells that a GRPCRoute leads here: what does not say its protocol speaks gRPC.
	grpc bool
}

func newTarget(s *snapshot.Service, p model.Port, subset string, r *snapshot.Rule) *target {
	t := &target{service: s, port: p, subset: subset, rule: r, name: xds.OutboundCluster(p.Number, subset, s.Host)}
	t.kind = t.discoveryType()
	return t
}

// atGateway balances over the endpoints of what a sidecar forwards to where its client was going: a gateway's client was going to the gateway. Nor
// does what such a client speaks tell what the application understands.
func (t *target) atGateway() {
	t.gateway = true
	s := t.service
	if t.kind == clusterv3.Cluster_ORIGINAL_DST && s.Resolution != model.ResolveNone && !s.Wildcard() {
		t.kind = clusterv3.Cluster_EDS
	}
}

// outboundKey is all that an outbound cluster is made from.
type outboundKey struct {
	service    *snapshot.Service
	port       uint16
	subset     string
	rule       *snapshot.Rule
	ids        *snapshot.Identities
	eps        *snapshot.Endpoints // only where the cluster holds them
	meshed     bool                // all endpoints take mTLS; only where the cluster cannot tell them apart
	weft       bool
	backend    *model.ClientTLS
	credential string
	roots      string
	kind       clusterv3.Cluster_DiscoveryType
	gateway    bool
	grpc       bool
}

// outboundCluster makes (or finds) the cluster of a target.
func (s *Snapshot) outboundCluster(t *target, weft bool) *xds.Resource {
	k := outboundKey{service: t.service, port: t.port.Number, subset: t.subset, rule: t.rule, ids: s.world.Identities(t.service.Key), weft: weft,
		backend: t.backend, credential: t.credential, roots: t.roots, kind: t.kind, gateway: t.gateway, grpc: t.grpc}
	switch t.discovery() {
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		k.eps = s.world.Endpoints(t.service.Key)
	case clusterv3.Cluster_ORIGINAL_DST:
		k.meshed = s.meshed(t.service)
	}
	return remember(s.cache, k, func() *xds.Resource {
		return s.resource(xds.ClusterType, t.name, s.buildOutbound(t, k))
	})
}

// meshed tells whether all endpoints of a service take mTLS. Of one that
// forwards to wherever the client was going they are not known, if none is listed.
func (s *Snapshot) meshed(svc *snapshot.Service) bool {
	eps := s.world.Endpoints(svc.Key)
	return eps.MTLS() && (svc.Resolution != model.ResolveNone || !eps.Empty())
}

func (t *target) policy() model.TrafficPolicy { return policyFor(t.rule, t.subset, t.port.Number) }

// discovery is how the cluster learns its endpoints.
func (t *target) discovery() clusterv3.Cluster_DiscoveryType { return t.kind }

func (t *target) discoveryType() clusterv3.Cluster_DiscoveryType {
	s := t.service
	lb := t.policy().LB
	switch {
	case s.Headless, s.Resolution == model.ResolveNone, s.Wildcard(), lb != nil && lb.Policy == model.LBPassthrough:
		return clusterv3.Cluster_ORIGINAL_DST
	case s.Resolution == model.ResolveDNS:
		return clusterv3.Cluster_STRICT_DNS
	case s.Resolution == model.ResolveDNSRoundRobin:
		return clusterv3.Cluster_LOGICAL_DNS
	}
	return clusterv3.Cluster_EDS
}

func (s *Snapshot) buildOutbound(t *target, k outboundKey) *clusterv3.Cluster {
	p := t.policy()
	c := &clusterv3.Cluster{
		Name: t.name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: t.discovery()},
		ConnectTimeout: duration(s.mesh.ConnectTimeout), Metadata: serviceMetadata(t.service),
	}
	switch t.discovery() {
	case clusterv3.Cluster_EDS:
		c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: t.name}
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		s.dnsCluster(c, t, k)
	}
	if t.discovery() == clusterv3.Cluster_ORIGINAL_DST {
		c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	} else {
		applyLB(c, p.LB)
	}
	applyPool(c, p, t.speaks())
	applyOutlier(c, p.Outlier)
	if set := s.localitySetting(t); set != nil && len(set.Distribute) > 0 && t.isEDS() {
		c.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{}}
	}
	switch {
	case t.backend != nil:
		backendTLS(c, t, k.weft)
	case p.TLS != nil && p.TLS.Credential != "":
		s.credentialTLS(c, t, k, p.TLS)
	default:
		s.applyTLS(c, t, k, p)
	}
	applyProxyProtocol(c, p.ProxyProtocol)
	return c
}

// speaks is the protocol of HTTP towards the endpoints. Browsers speak HTTP/2 to gateways; an application that does not say
// that it can is spoken to as HTTP/1.1 (as by Istio's gateways), unless a GRPCRoute says that it speaks gRPC (the Gateway API
// lets the kind of a route tell the protocol of a port that has no appProtocol).
func (t *target) speaks() model.Protocol {
	switch proto := portProtocol(t.port); {
	case !t.gateway || proto != model.ProtocolAuto:
		return proto
	case t.grpc:
		return model.ProtocolGRPC
	}
	return model.ProtocolHTTP
}

// dnsCluster writes the names into the cluster; a service without any is its own name.
func (s *Snapshot) dnsCluster(c *clusterv3.Cluster, t *target, k outboundKey) {
	c.DnsRefreshRate = duration(dnsRefresh)
	c.DnsLookupFamily = clusterv3.Cluster_V4_PREFERRED
	eps := filterSubset(k.eps.Of(t.port.Number), t)
	if len(eps) == 0 && t.subset == "" {
		port := t.port.TargetPort
		if port == 0 {
			port = t.port.Number
		}
		eps = []snapshot.Endpoint{{Hostname: t.service.Host, Port: port, Weight: 1}}
	}
	switch {
	case len(eps) == 0: // a subset without endpoints: nothing to resolve
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	case t.discovery() == clusterv3.Cluster_LOGICAL_DNS:
		eps = eps[:1] // Envoy takes exactly one name
	}
	c.LoadAssignment = assignment(t.name, eps, s.mesh.ClusterID, true, nil)
}

// serviceMetadata names the service for metrics (Istio's metadata.istio.services).
func serviceMetadata(s *snapshot.Service) *corev3.Metadata {
	m, err := structpb.NewStruct(map[string]any{"services": []any{map[string]any{
		"host": s.Host, "name": s.Name, "namespace": s.Namespace,
	}}})
	if err != nil { // names are valid UTF-8
		panic("translate: metadata of " + s.Host + ": " + err.Error())
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{xds.MetadataIstio: m}}
}

func applyLB(c *clusterv3.Cluster, lb *model.LoadBalancer) {
	c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	if lb == nil {
		return
	}
	switch lb.Policy {
	case model.LBRoundRobin:
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	case model.LBRandom:
		c.LbPolicy = clusterv3.Cluster_RANDOM
	case model.LBConsistent:
		applyHash(c, lb.Hash)
	}
	if lb.Warmup == 0 {
		return
	}
	slow := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: duration(lb.Warmup)}
	if lb.WarmupMinPercent != 0 {
		slow.MinWeightPercent = &typev3.Percent{Value: lb.WarmupMinPercent}
	}
	if lb.WarmupAggression != 0 {
		slow.Aggression = &corev3.RuntimeDouble{DefaultValue: lb.WarmupAggression, RuntimeKey: "slow_start_aggression"}
	}
	switch c.LbPolicy {
	case clusterv3.Cluster_LEAST_REQUEST:
		c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: slow}}
	case clusterv3.Cluster_ROUND_ROBIN:
		c.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: slow}}
	}
}

func applyHash(c *clusterv3.Cluster, h *model.ConsistentHash) {
	if h != nil && h.Maglev {
		c.LbPolicy = clusterv3.Cluster_MAGLEV
		m := &clusterv3.Cluster_MaglevLbConfig{}
		if h.Table != 0 {
			m.TableSize = u64(h.Table)
		}
		c.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: m}
		return
	}
	c.LbPolicy = clusterv3.Cluster_RING_HASH
	ring := uint64(1024)
	if h != nil && h.MinRing != 0 {
		ring = h.MinRing
	}
	c.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: u64(ring)}}
}

// applyPool sets limits (unlimited where not set) and how HTTP is spoken.
func applyPool(c *clusterv3.Cluster, p model.TrafficPolicy, proto model.Protocol) {
	pool := p.Pool
	if pool == nil {
		pool = &model.ConnectionPool{}
	}
	th := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections: u32or(pool.MaxConnections), MaxPendingRequests: u32or(pool.MaxPending),
		MaxRequests: u32or(pool.MaxRequests), MaxRetries: u32or(pool.MaxRetries), TrackRemaining: true,
	}
	if b := p.RetryBudget; b != nil {
		th.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent: &typev3.Percent{Value: b.Percent}, MinRetryConcurrency: u32(b.Min),
		}
	}
	c.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{th}}
	if pool.ConnectTimeout != 0 {
		c.ConnectTimeout = duration(pool.ConnectTimeout)
	}
	if k := pool.Keepalive; k != nil {
		c.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveProbes: positive(k.Probes), KeepaliveTime: positive(uint32(k.Time / time.Second)), KeepaliveInterval: positive(uint32(k.Interval / time.Second)),
		}}
	}
	applyHTTP(c, pool, proto)
}

// applyHTTP chooses the protocol towards the endpoints: the port's, HTTP/2 if
// asked to upgrade, the client's own where it is only known per connection.
func applyHTTP(c *clusterv3.Cluster, pool *model.ConnectionPool, proto model.Protocol) {
	common := &corev3.HttpProtocolOptions{
		IdleTimeout: optional(pool.HTTPIdleTimeout), MaxRequestsPerConnection: positive(pool.MaxRequestsPerConn),
		MaxConnectionDuration: optional(pool.MaxConnDuration),
	}
	h2 := &corev3.Http2ProtocolOptions{MaxConcurrentStreams: u32(maxStreams)}
	if pool.MaxConcurrentStreams != 0 {
		h2.MaxConcurrentStreams = u32(min(pool.MaxConcurrentStreams, math.MaxInt32))
	}
	if pool.H2KeepaliveInterval != 0 {
		h2.ConnectionKeepalive = &corev3.KeepaliveSettings{Interval: duration(pool.H2KeepaliveInterval), Timeout: duration(pool.H2KeepaliveTimeout)}
	}
	o := &upstreamsv3.HttpProtocolOptions{}
	if common.IdleTimeout != nil || common.MaxRequestsPerConnection != nil || common.MaxConnectionDuration != nil {
		o.CommonHttpProtocolOptions = common
	}
	switch {
	case pool.UseClientProtocol, proto == model.ProtocolAuto:
		o.UpstreamProtocolOptions = &upstreamsv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstreamsv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: h2,
			}}
	case proto.IsHTTP2(), proto.IsHTTP() && pool.H2Upgrade == "UPGRADE":
		o.UpstreamProtocolOptions = &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: h2},
		}}
	case !proto.IsHTTP(), o.CommonHttpProtocolOptions == nil:
		return // HTTP/1.1 with defaults, or no HTTP
	default:
		o.UpstreamProtocolOptions = explicitHTTP1()
	}
	setHTTP(c, o)
}

func explicitHTTP1() *upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_ {
	return &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
	}}
}

func setHTTP(c *clusterv3.Cluster, o *upstreamsv3.HttpProtocolOptions) {
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{extHTTP: pack(o)}
}

func applyOutlier(c *clusterv3.Cluster, o *model.OutlierDetection) {
	c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}}
	if o == nil {
		return
	}
	// Success rate is never used: Istio has no field for it.
	d := &clusterv3.OutlierDetection{
		EnforcingSuccessRate: u32(0), Consecutive_5Xx: u32(o.Consecutive5xx), EnforcingConsecutive_5Xx: enforce(o.Consecutive5xx),
		ConsecutiveGatewayFailure: u32(o.ConsecutiveGateway), EnforcingConsecutiveGatewayFailure: enforce(o.ConsecutiveGateway),
		Interval: optional(o.Interval), BaseEjectionTime: optional(o.BaseEjection), MaxEjectionPercent: positive(o.MaxEjectionPercent),
	}
	if o.SplitLocal {
		d.SplitExternalLocalOriginErrors = true
		d.ConsecutiveLocalOriginFailure = u32(o.ConsecutiveLocal)
		d.EnforcingConsecutiveLocalOriginFailure = enforce(o.ConsecutiveLocal)
		d.EnforcingLocalOriginSuccessRate = u32(0)
	}
	// Envoy takes 0 for a count as "at once"; what is off is not enforced, and its count left out.
	if o.Consecutive5xx == 0 {
		d.Consecutive_5Xx = nil
	}
	if o.ConsecutiveGateway == 0 {
		d.ConsecutiveGatewayFailure = nil
	}
	if o.ConsecutiveLocal == 0 {
		d.ConsecutiveLocalOriginFailure = nil
	}
	c.OutlierDetection = d
	c.CommonLbConfig.HealthyPanicThreshold.Value = float64(o.MinHealthPercent)
}

// filterSubset keeps the endpoints that have the labels of the target's subset.
func filterSubset(eps []snapshot.Endpoint, t *target) []snapshot.Endpoint {
	if t.subset == "" {
		return eps
	}
	sub, ok := t.rule.Subset(t.subset)
	if !ok {
		return nil
	}
	var out []snapshot.Endpoint
	for _, e := range eps {
		if snapshot.Matches(sub.Labels, e.Labels) {
			out = append(out, e)
		}
	}
	return out
}

// isEDS tells whether the target's endpoints are asked for separately.
func (t *target) isEDS() bool { return t.discovery() == clusterv3.Cluster_EDS }
