package compile

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/xds"
)

// Defaults of Envoy's Cluster.
const (
	defaultConnectTimeout = 10 * time.Second // Istio's; Envoy says 5 s, control planes set it
	defaultPoolIdle       = time.Hour
	defaultDNSRefresh     = 5 * time.Second
	defaultBreaker        = 1024 // max_connections, max_pending_requests, max_requests
	defaultBreakerRetries = 3
	defaultPanic          = 50 // percent
)

// cluster is a compiled CDS resource: everything but what other resources add.
type cluster struct {
	base    *config.Cluster
	eds     string // EDS resource name, "" if not EDS
	wait    time.Duration
	tls     *pendingUpstreamTLS
	matches []*pendingUpstreamTLS // by index of base.TLSMatches
}

// secrets lists the SDS names it needs.
func (c *cluster) secrets() []string {
	n := c.tls.names()
	for _, m := range c.matches {
		n = append(n, m.names()...)
	}
	return n
}

func (c *Compiler) cluster(body []byte) (*cluster, error) {
	var x clusterv3.Cluster
	if err := decode(body, &x); err != nil {
		return nil, err
	}
	b := &config.Cluster{Name: x.GetName()}
	k := &cluster{base: b}
	for _, step := range []func(*clusterv3.Cluster, *cluster) error{
		c.clusterDiscovery, clusterLB, clusterTimeouts, clusterProtocol, clusterBreakers, clusterConnection, c.clusterTLS, clusterFilters,
	} {
		if err := step(&x, k); err != nil {
			return nil, err
		}
	}
	b.Service = serviceOf(x.GetMetadata(), b.Name)
	if b.Discovery != config.EDS {
		b.Warm = true
	}
	return k, nil
}

func (c *Compiler) clusterDiscovery(x *clusterv3.Cluster, k *cluster) error {
	b := k.base
	switch t := x.GetType(); t {
	case clusterv3.Cluster_STATIC:
		b.Discovery = config.Static
	case clusterv3.Cluster_EDS:
		b.Discovery = config.EDS
	case clusterv3.Cluster_STRICT_DNS:
		b.Discovery = config.StrictDNS
	case clusterv3.Cluster_LOGICAL_DNS:
		b.Discovery = config.LogicalDNS
	case clusterv3.Cluster_ORIGINAL_DST:
		b.Discovery = config.OriginalDst
	default:
		return bad("type", t, "unknown")
	}
	if b.Discovery != config.EDS && x.GetEdsClusterConfig() != nil {
		return bad("eds_cluster_config", "set", "only with type: EDS")
	}
	switch b.Discovery {
	case config.EDS:
		return clusterEDS(x, k)
	case config.OriginalDst:
		if x.GetLoadAssignment() != nil {
			return bad("load_assignment", "set", "not with type: ORIGINAL_DST")
		}
		b.PassThroughOriginal = true
		return nil
	case config.StrictDNS, config.LogicalDNS:
		return clusterDNS(x, k)
	}
	if x.GetLoadAssignment() == nil {
		return nil // no endpoints: BlackHoleCluster
	}
	eps, err := loadAssignment(x.GetLoadAssignment())
	b.Endpoints = eps
	return at("load_assignment", err)
}

func clusterEDS(x *clusterv3.Cluster, k *cluster) error {
	if x.GetLoadAssignment() != nil {
		return bad("load_assignment", "set", "not with type: EDS; endpoints come over EDS")
	}
	if err := overADS("eds_cluster_config.eds_config", x.GetEdsClusterConfig().GetEdsConfig()); err != nil {
		return err
	}
	k.eds = x.GetEdsClusterConfig().GetServiceName()
	if k.eds == "" {
		k.eds = x.GetName()
	}
	var err error
	k.wait, err = fetchTimeout("eds_cluster_config.eds_config", x.GetEdsClusterConfig().GetEdsConfig())
	return err
}

// fetchTimeout is how long to wait for a resource before going on without it (initial_fetch_timeout).
func fetchTimeout(path string, s *corev3.ConfigSource) (time.Duration, error) {
	d, err := duration(path+".initial_fetch_timeout", s.GetInitialFetchTimeout(), DefaultFetchTimeout)
	if d == 0 {
		d = MaxFetchTimeout // Envoy waits for ever; every wait of ours has an end
	}
	return min(d, MaxFetchTimeout), err
}

func clusterDNS(x *clusterv3.Cluster, k *cluster) error {
	b := k.base
	var hosts []*dnsHost
	for i, l := range x.GetLoadAssignment().GetEndpoints() {
		for j, e := range l.GetLbEndpoints() {
			h, err := dnsEndpoint(e, l)
			if err != nil {
				return at("load_assignment", index("endpoints", i, index("lb_endpoints", j, err)))
			}
			hosts = append(hosts, h)
		}
	}
	if len(hosts) != 1 {
		return bad("load_assignment.endpoints", len(hosts), "a DNS cluster has exactly one host name; use one cluster for each name")
	}
	b.DNSHost, b.DNSPort = hosts[0].host, hosts[0].port
	b.DNSRefresh = defaultDNSRefresh
	if x.GetDnsRefreshRate() != nil {
		d, err := duration("dns_refresh_rate", x.GetDnsRefreshRate(), 0)
		if err != nil {
			return err
		}
		if d < time.Second {
			return bad("dns_refresh_rate", d, "want at least 1s")
		}
		b.DNSRefresh = d
	}
	switch x.GetDnsLookupFamily() {
	case clusterv3.Cluster_AUTO, clusterv3.Cluster_V4_ONLY, clusterv3.Cluster_V4_PREFERRED:
	default:
		return bad("dns_lookup_family", x.GetDnsLookupFamily(), "want V4_ONLY, V4_PREFERRED or AUTO")
	}
	return nil
}

func clusterLB(x *clusterv3.Cluster, k *cluster) error {
	b := k.base
	lb := &b.LB
	lb.Choices, lb.MinRing, lb.MaxRing, lb.MaglevTable = 2, 1024, 8<<20, 65537
	switch p := x.GetLbPolicy(); p {
	case clusterv3.Cluster_ROUND_ROBIN:
		lb.Policy = config.RoundRobin
	case clusterv3.Cluster_LEAST_REQUEST:
		lb.Policy = config.LeastRequest
	case clusterv3.Cluster_RANDOM:
		lb.Policy = config.Random
	case clusterv3.Cluster_RING_HASH:
		lb.Policy = config.RingHash
	case clusterv3.Cluster_MAGLEV:
		lb.Policy = config.Maglev
	case clusterv3.Cluster_CLUSTER_PROVIDED:
		lb.Policy = config.ClusterProvided
	default:
		return bad("lb_policy", p, "want ROUND_ROBIN, LEAST_REQUEST, RANDOM, RING_HASH, MAGLEV or CLUSTER_PROVIDED")
	}
	if (lb.Policy == config.ClusterProvided) != (b.Discovery == config.OriginalDst) {
		return bad("lb_policy", x.GetLbPolicy(), "CLUSTER_PROVIDED and type: ORIGINAL_DST go together")
	}
	if n := x.GetLeastRequestLbConfig().GetChoiceCount(); n != nil {
		lb.Choices = n.GetValue()
	}
	if r := x.GetRingHashLbConfig(); r != nil {
		if r.GetHashFunction() != clusterv3.Cluster_RingHashLbConfig_XX_HASH {
			return bad("ring_hash_lb_config.hash_function", r.GetHashFunction(), "want XX_HASH")
		}
		if r.GetMinimumRingSize() != nil {
			lb.MinRing = r.GetMinimumRingSize().GetValue()
		}
		if r.GetMaximumRingSize() != nil {
			lb.MaxRing = r.GetMaximumRingSize().GetValue()
		}
		if lb.MinRing > lb.MaxRing {
			return bad("ring_hash_lb_config.minimum_ring_size", lb.MinRing, "above maximum_ring_size %d", lb.MaxRing)
		}
	}
	if n := x.GetMaglevLbConfig().GetTableSize(); n != nil {
		lb.MaglevTable = n.GetValue()
	}
	common := x.GetCommonLbConfig()
	lb.UseHostname = common.GetConsistentHashingLbConfig().GetUseHostnameForHashing()
	lb.LocalityWeighted = common.GetLocalityWeightedLbConfig() != nil
	b.PanicThreshold = defaultPanic
	if p := common.GetHealthyPanicThreshold(); p != nil {
		b.PanicThreshold = uint32(math.Round(p.GetValue()))
	}
	return nil
}

func clusterTimeouts(x *clusterv3.Cluster, k *cluster) error {
	b := k.base
	var err error
	if b.ConnectTimeout, err = duration("connect_timeout", x.GetConnectTimeout(), defaultConnectTimeout); err != nil {
		return err
	}
	b.IdleTimeout = defaultPoolIdle
	b.MaxRequestsPerConn = x.GetMaxRequestsPerConnection().GetValue()
	return nil
}

func clusterBreakers(x *clusterv3.Cluster, k *cluster) error {
	b := &k.base.Breakers
	b.MaxConnections, b.MaxPending, b.MaxRequests, b.MaxRetries = defaultBreaker, defaultBreaker, defaultBreaker, defaultBreakerRetries
	for i, t := range x.GetCircuitBreakers().GetThresholds() {
		if t.GetPriority() != corev3.RoutingPriority_DEFAULT {
			return bad(fmt.Sprintf("circuit_breakers.thresholds[%d].priority", i), t.GetPriority(), "only DEFAULT is supported")
		}
		if i > 0 {
			return bad("circuit_breakers.thresholds", i+1, "one entry for priority DEFAULT")
		}
		for _, f := range []struct {
			to *uint32
			v  interface{ GetValue() uint32 }
			ok bool
		}{
			{&b.MaxConnections, t.GetMaxConnections(), t.GetMaxConnections() != nil},
			{&b.MaxPending, t.GetMaxPendingRequests(), t.GetMaxPendingRequests() != nil},
			{&b.MaxRequests, t.GetMaxRequests(), t.GetMaxRequests() != nil},
			{&b.MaxRetries, t.GetMaxRetries(), t.GetMaxRetries() != nil},
		} {
			if f.ok {
				*f.to = f.v.GetValue()
			}
		}
		if r := t.GetRetryBudget(); r != nil {
			b.RetryBudgetPercent, b.RetryBudgetMin = 20, 3
			if r.GetBudgetPercent() != nil {
				b.RetryBudgetPercent = r.GetBudgetPercent().GetValue()
			}
			if r.GetMinRetryConcurrency() != nil {
				b.RetryBudgetMin = r.GetMinRetryConcurrency().GetValue()
			}
		}
	}
	return clusterOutlier(x, k)
}

func clusterConnection(x *clusterv3.Cluster, k *cluster) error {
	b := k.base
	if a := x.GetUpstreamConnectionOptions().GetTcpKeepalive(); a != nil {
		b.TCPKeepalive = &config.TCPKeepalive{
			Probes: a.GetKeepaliveProbes().GetValue(), Time: time.Duration(a.GetKeepaliveTime().GetValue()) * time.Second,
			Interval: time.Duration(a.GetKeepaliveInterval().GetValue()) * time.Second,
		}
	}
	if s := x.GetUpstreamBindConfig().GetSourceAddress(); s != nil {
		a, err := socketAddress("upstream_bind_config", &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: s}})
		if err != nil {
			return err
		}
		if a.Port() != 0 {
			return bad("upstream_bind_config.source_address.port_value", a.Port(), "want 0: one port serves one connection")
		}
		b.BindSource = a.Addr()
	}
	return nil
}

func (c *Compiler) clusterTLS(x *clusterv3.Cluster, k *cluster) error {
	socket, version, err := proxySocket(x.GetTransportSocket())
	if err != nil {
		return at("transport_socket", err)
	}
	k.base.ProxyProtocol = version
	if k.tls, err = c.upstreamTLS(socket); err != nil {
		return at("transport_socket", inside(version, err))
	}
	for i, m := range x.GetTransportSocketMatches() {
		socket, version, err := proxySocket(m.GetTransportSocket())
		if err != nil {
			return index("transport_socket_matches", i, at("transport_socket", err))
		}
		t, err := c.upstreamTLS(socket)
		if err != nil {
			return index("transport_socket_matches", i, at("transport_socket", inside(version, err)))
		}
		match := map[string]string{}
		for name, v := range m.GetMatch().GetFields() {
			s, ok := stringValue(v)
			if !ok {
				return bad(fmt.Sprintf("transport_socket_matches[%d].match.%s", i, name), v, "want a string")
			}
			match[name] = s
		}
		k.base.TLSMatches = append(k.base.TLSMatches, config.TransportMatch{Name: m.GetName(), Match: match, ProxyProtocol: version})
		k.matches = append(k.matches, t)
		k.autoSNI(t)
	}
	k.autoSNI(k.tls)
	if k.tls != nil {
		k.base.MetadataExchange = slices.Contains(k.tls.tls.ALPN, xds.ALPNMeshTCP[0])
	}
	for _, m := range k.matches {
		if m != nil && slices.Contains(m.tls.ALPN, xds.ALPNMeshTCP[0]) {
			k.base.MetadataExchange = true
		}
	}
	return nil
}

// autoSNI applies the cluster's auto_sni, which an explicit sni overrides.
func (k *cluster) autoSNI(t *pendingUpstreamTLS) {
	if t != nil && k.base.AutoSNI && t.tls.SNI == "" {
		t.tls.AutoSNI = true
	}
}

// clusterFilters takes upstream network filters: only the metadata exchange, which this proxy does by ALPN.
func clusterFilters(x *clusterv3.Cluster, k *cluster) error {
	for i, f := range x.GetFilters() {
		url, _, err := typedStruct(f.GetTypedConfig())
		if err != nil {
			return index("filters", i, err)
		}
		if url != typeMetadataExchangeTCP {
			return bad(fmt.Sprintf("filters[%d].typed_config.type_url", i), url, "upstream network filter not supported; want %s", typeMetadataExchangeTCP)
		}
		k.base.MetadataExchange = true
	}
	return nil
}

// serviceOf reads metadata.istio.services (the first one), else the cluster's name.
func serviceOf(m *corev3.Metadata, name string) stream.Service {
	list := m.GetFilterMetadata()[xds.MetadataIstio].GetFields()["services"].GetListValue().GetValues()
	if len(list) > 0 {
		f := list[0].GetStructValue().GetFields()
		return stream.Service{Host: f["host"].GetStringValue(), Name: f["name"].GetStringValue(), Namespace: f["namespace"].GetStringValue()}
	}
	if _, _, _, host, ok := xds.ParseCluster(name); ok && host != "" {
		s := stream.Service{Host: host, Name: host}
		if p := strings.SplitN(host, ".", 4); len(p) >= 3 && p[2] == "svc" {
			s.Name, s.Namespace = p[0], p[1]
		}
		return s
	}
	return stream.Service{}
}

// resolve builds the View's cluster: the base with endpoints and secrets.
func (k *cluster) resolve(eps []*config.Endpoint, warm bool, secrets map[string]*config.Secret) *config.Cluster {
	b := *k.base
	b.TLS = k.tls.resolve(secrets)
	if len(k.matches) > 0 {
		b.TLSMatches = slices.Clone(k.base.TLSMatches)
		for i, m := range k.matches {
			b.TLSMatches[i].TLS = m.resolve(secrets)
		}
	}
	if k.eds != "" {
		b.Endpoints, b.Warm = eps, warm
	}
	return &b
}
