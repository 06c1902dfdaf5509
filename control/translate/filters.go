package translate

import (
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// Names of filters.
const (
	filterHCM       = "envoy.filters.network.http_connection_manager"
	filterTCP       = "envoy.filters.network.tcp_proxy"
	filterRBACTCP   = "envoy.filters.network.rbac"
	filterPeerTCP   = "istio.metadata_exchange"
	filterPeerHTTP  = "istio.metadata_exchange"
	filterStats     = "istio.stats"
	filterRBAC      = "envoy.filters.http.rbac"
	filterGRPCWeb   = "envoy.filters.http.grpc_web"
	filterGRPCStats = "envoy.filters.http.grpc_stats"
	filterFault     = "envoy.filters.http.fault"
	filterCORS      = "envoy.filters.http.cors"
	filterRouter    = "envoy.filters.http.router"

	listenerOriginalDst = "envoy.filters.listener.original_dst"
	listenerTLS         = "envoy.filters.listener.tls_inspector"
	listenerHTTP        = "envoy.filters.listener.http_inspector"

	typePeerTCP  = "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange"
	typePeerHTTP = "type.googleapis.com/io.istio.http.peer_metadata.Config"
	typeStats    = "type.googleapis.com/stats.PluginConfig"

	// rbacTCPStats is the prefix Istio gives to its TCP authorization statistics.
	rbacTCPStats = "tcp."
)

// direction of traffic through a listener, seen from the workload.
type direction uint8

const (
	outbound direction = iota
	inbound
	gateway
)

// peerTCP configures the exchange of metadata over TCP (ALPN istio-peer-exchange).
func peerTCP() *anypb.Any {
	return typedStruct(typePeerTCP, map[string]any{"protocol": "istio-peer-exchange"})
}

// peerHTTP configures who is told and asked about the other side of a request:
// inside the mesh both by headers, towards the outside neither leaks.
func peerHTTP(d direction) *anypb.Any {
	header := map[string]any{"istio_headers": map[string]any{}}
	switch d {
	case inbound:
		return typedStruct(typePeerHTTP, map[string]any{
			"downstream_discovery":   []any{header, map[string]any{"workload_discovery": map[string]any{}}},
			"downstream_propagation": []any{header},
		})
	default:
		return typedStruct(typePeerHTTP, map[string]any{
			"upstream_discovery":   []any{header, map[string]any{"workload_discovery": map[string]any{}}},
			"upstream_propagation": []any{map[string]any{"istio_headers": map[string]any{"skip_external_clusters": true}}},
		})
	}
}

func stats() *anypb.Any { return typedStruct(typeStats, map[string]any{}) }

func httpFilter(name string, cfg *anypb.Any) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: cfg}}
}

// httpFilters is the chain of a connection manager in the order that they run.
func httpFilters(m manager, weft bool) []*hcmv3.HttpFilter {
	var fs []*hcmv3.HttpFilter
	if weft {
		fs = append(fs, httpFilter(filterPeerHTTP, peerHTTP(m.direction)))
	}
	for _, r := range []*rbacv3.RBAC{m.deny, m.allow} {
		if r != nil {
			fs = append(fs, httpFilter(filterRBAC, pack(&httprbacv3.RBAC{Rules: r})))
		}
	}
	if m.grpcWeb {
		fs = append(fs, httpFilter(filterGRPCWeb, pack(&grpcwebv3.GrpcWeb{})))
	}
	fs = append(fs, httpFilter(filterGRPCStats, pack(&grpcstatsv3.FilterConfig{
		EmitFilterState:        true,
		PerMethodStatSpecifier: &grpcstatsv3.FilterConfig_StatsForAllMethods{StatsForAllMethods: boolean(false)},
	})))
	if m.direction != inbound {
		fs = append(fs, httpFilter(filterFault, pack(&faultv3.HTTPFault{})), httpFilter(filterCORS, pack(&corsv3.Cors{})))
	}
	if weft {
		fs = append(fs, httpFilter(filterStats, stats()))
	}
	return append(fs, httpFilter(filterRouter, pack(&routerv3.Router{})))
}

func networkFilter(name string, cfg *anypb.Any) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: cfg}}
}

// tcpFilters are the filters before the TCP proxy. exchange tells that peers
// may introduce themselves on this chain (mTLS).
func tcpFilters(weft, exchange bool, deny, allow *rbacv3.RBAC) []*listenerv3.Filter {
	var fs []*listenerv3.Filter
	if weft && exchange {
		fs = append(fs, networkFilter(filterPeerTCP, peerTCP()))
	}
	fs = append(fs, networkRBAC(deny, allow)...)
	if weft {
		fs = append(fs, networkFilter(filterStats, stats()))
	}
	return fs
}

func networkRBAC(deny, allow *rbacv3.RBAC) []*listenerv3.Filter {
	var fs []*listenerv3.Filter
	for _, r := range []*rbacv3.RBAC{deny, allow} {
		if r != nil {
			fs = append(fs, networkFilter(filterRBACTCP, pack(&networkrbacv3.RBAC{Rules: r, StatPrefix: rbacTCPStats})))
		}
	}
	return fs
}

func listenerFilter(name string, cfg *anypb.Any) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: cfg}}
}

func originalDst() *listenerv3.ListenerFilter {
	return listenerFilter(listenerOriginalDst, pack(&originaldstv3.OriginalDst{}))
}

func tlsInspector(except ...uint16) *listenerv3.ListenerFilter {
	f := listenerFilter(listenerTLS, pack(&tlsinspectorv3.TlsInspector{}))
	f.FilterDisabled = onPorts(except)
	return f
}

func httpInspector(except ...uint16) *listenerv3.ListenerFilter {
	f := listenerFilter(listenerHTTP, pack(&httpinspectorv3.HttpInspector{}))
	f.FilterDisabled = onPorts(except)
	return f
}

// onPorts matches connections to any of the destination ports; nil for none.
func onPorts(ports []uint16) *listenerv3.ListenerFilterChainMatchPredicate {
	ports = slices.Compact(slices.Sorted(slices.Values(ports)))
	var rules []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range ports {
		rules = append(rules, &listenerv3.ListenerFilterChainMatchPredicate{
			Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
				DestinationPortRange: &typev3.Int32Range{Start: int32(p), End: int32(p) + 1},
			},
		})
	}
	switch len(rules) {
	case 0:
		return nil
	case 1:
		return rules[0]
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
		OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules},
	}}
}
