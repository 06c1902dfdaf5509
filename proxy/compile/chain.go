package compile

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

const (
	typeHCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	typeTCP = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
)

// defaultHandshake bounds a TLS handshake (transport_socket_connect_timeout; Envoy has no bound by default).
const defaultHandshake = 15 * time.Second

// defaultTCPIdle is Envoy's TcpProxy.idle_timeout.
const defaultTCPIdle = time.Hour

// filterChain compiles a chain, or takes it over from the listener's previous version.
func (c *Compiler) filterChain(x *listenerv3.FilterChain, dir stream.Direction, prev *listener) (*chain, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(x)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	key := string(sum[:])
	if ch := prev.find(key, dir); ch != nil {
		return ch, nil
	}
	b := &config.FilterChain{Name: x.GetName()}
	ch := &chain{key: key, base: b, routes: map[string]time.Duration{}}
	if b.Match, err = chainMatch(x.GetFilterChainMatch()); err != nil {
		return nil, at("filter_chain_match", err)
	}
	if b.HandshakeTimeout, err = duration("transport_socket_connect_timeout", x.GetTransportSocketConnectTimeout(), 0); err != nil {
		return nil, err
	}
	if b.HandshakeTimeout == 0 {
		b.HandshakeTimeout = defaultHandshake
	}
	if ch.tls, err = c.downstreamTLS(x.GetTransportSocket()); err != nil {
		return nil, at("transport_socket", err)
	}
	if ch.tls != nil {
		b.TLS = ch.tls.tls
	}
	return ch, c.networkFilters(x.GetFilters(), ch, dir)
}

// networkFilters compiles the chain's filters; the last one is the connection manager or the TCP proxy.
func (c *Compiler) networkFilters(xs []*listenerv3.Filter, ch *chain, dir stream.Direction) error {
	if len(xs) == 0 {
		return missing("filters", "want the HTTP connection manager or the TCP proxy")
	}
	last := len(xs) - 1
	path := fmt.Sprintf("filters[%d:%s]", last, xs[last].GetName())
	switch a := xs[last].GetTypedConfig(); a.MessageName() {
	case typeHCM:
		m, rds, wait, err := c.httpManager(a, dir)
		if err != nil {
			return at(path, err)
		}
		if rds != "" {
			ch.routes[rds] = wait
		}
		if m.Tracing != nil {
			m.Tracing.Outbound = dir != stream.Inbound
		}
		ch.base.HTTP = m
	case typeTCP:
		p, err := c.tcpProxy(a)
		if err != nil {
			return at(path, err)
		}
		ch.base.TCP = p
	default:
		return at(path, bad("typed_config.type_url", a.GetTypeUrl(), "not supported as the last filter; want %s or %s", typeHCM, typeTCP))
	}
	for i, x := range xs[:last] {
		if err := c.oneNetworkFilter(x, ch.base, dir); err != nil {
			return at(fmt.Sprintf("filters[%d:%s]", i, x.GetName()), err)
		}
	}
	return nil
}

func (c *Compiler) oneNetworkFilter(x *listenerv3.Filter, ch *config.FilterChain, dir stream.Direction) error {
	fc, err := filterConfig(x.GetTypedConfig())
	if err != nil {
		return err
	}
	fc.Direction, fc.TCP = dir, ch.TCP != nil
	if fc.TypeURL == typeMetadataExchangeTCP {
		if p := fc.Struct.GetFields()["protocol"].GetStringValue(); p != "" && p != "istio-peer-exchange" {
			return bad("typed_config.value.protocol", p, "want istio-peer-exchange")
		}
		for name := range fc.Struct.GetFields() {
			if name != "protocol" && name != "enable_discovery" {
				return bad("typed_config.value", name, "field not supported")
			}
		}
		// With HTTP the ALPN is never istio-peer-exchange, and the exchange happens in headers.
		if ch.TCP != nil {
			ch.TCP.MetadataExchange = true
		}
		return nil
	}
	f, ok := c.networkFilter(fc)
	if !ok {
		return bad("typed_config.type_url", fc.TypeURL, "network filter not supported; supported are %s",
			known(c.set.NetworkFilters, func(f NetworkFilter) string { return f.TypeURL }))
	}
	if f.Connection != nil {
		n, err := f.Connection(fc)
		if err != nil {
			return at("typed_config", err)
		}
		if n != nil {
			ch.Network = append(ch.Network, n)
		}
	}
	if f.End == nil {
		return nil
	}
	if ch.TCP == nil {
		return bad("typed_config.type_url", fc.TypeURL, "on an HTTP chain this belongs into http_filters")
	}
	end, err := f.End(fc)
	if err == nil && end != nil {
		ch.TCP.Ends = append(ch.TCP.Ends, end)
	}
	return at("typed_config", err)
}

func chainMatch(x *listenerv3.FilterChainMatch) (config.ChainMatch, error) {
	var m config.ChainMatch
	if p := x.GetDestinationPort(); p != nil {
		m.DestinationPort = uint16(p.GetValue())
	}
	var err error
	if m.Prefixes, err = prefixes("prefix_ranges", x.GetPrefixRanges()); err != nil {
		return m, err
	}
	if m.SourcePrefixes, err = prefixes("source_prefix_ranges", x.GetSourcePrefixRanges()); err != nil {
		return m, err
	}
	for i, p := range x.GetSourcePorts() {
		if p == 0 || p > 65535 {
			return m, index("source_ports", i, bad("", p, "want 1 to 65535"))
		}
		m.SourcePorts = append(m.SourcePorts, uint16(p))
	}
	for i, s := range x.GetServerNames() {
		if s == "" || strings.Contains(strings.TrimPrefix(s, "*."), "*") {
			return m, index("server_names", i, bad("", s, "want a name or *.suffix"))
		}
		m.ServerNames = append(m.ServerNames, strings.ToLower(s))
	}
	switch m.Transport = x.GetTransportProtocol(); m.Transport {
	case "", "tls", "raw_buffer":
	default:
		return m, bad("transport_protocol", m.Transport, "want tls or raw_buffer")
	}
	m.ALPN = slices.Clone(x.GetApplicationProtocols())
	return m, nil
}

func (c *Compiler) tcpProxy(a *anypb.Any) (*config.TCPProxy, error) {
	var x tcpv3.TcpProxy
	if err := unpack(a, &x); err != nil {
		return nil, err
	}
	p, err := c.tcpConfig(&x)
	return p, at("typed_config", err)
}

func (c *Compiler) tcpConfig(x *tcpv3.TcpProxy) (*config.TCPProxy, error) {
	p := &config.TCPProxy{StatPrefix: x.GetStatPrefix(), MaxConnectAttempts: 1}
	switch s := x.GetClusterSpecifier().(type) {
	case *tcpv3.TcpProxy_Cluster:
		p.Cluster = s.Cluster
	case *tcpv3.TcpProxy_WeightedClusters:
		var total uint64
		for _, w := range s.WeightedClusters.GetClusters() {
			p.Weighted = append(p.Weighted, route.WeightedCluster{Cluster: w.GetName(), Weight: w.GetWeight()})
			total += uint64(w.GetWeight())
		}
		if total == 0 || total > 1<<32-1 {
			return nil, bad("weighted_clusters.clusters", total, "the weights must sum up to 1 to 4294967295")
		}
		p.Total = uint32(total)
	default:
		return nil, missing("cluster_specifier", "want cluster or weighted_clusters")
	}
	if p.Cluster == "" && len(p.Weighted) == 0 {
		return nil, missing("cluster", "want the name of a cluster")
	}
	var err error
	if p.IdleTimeout, err = duration("idle_timeout", x.GetIdleTimeout(), defaultTCPIdle); err != nil {
		return nil, err
	}
	if p.MaxDuration, err = duration("max_downstream_connection_duration", x.GetMaxDownstreamConnectionDuration(), 0); err != nil {
		return nil, err
	}
	if n := x.GetMaxConnectAttempts(); n != nil {
		p.MaxConnectAttempts = n.GetValue()
	}
	p.Hash = len(x.GetHashPolicy()) > 0
	p.AccessLogs, err = c.accessLogs(x.GetAccessLog(), true)
	return p, err
}
