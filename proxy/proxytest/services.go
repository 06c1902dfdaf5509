package proxytest

import (
	"fmt"
	"strings"
)

// Services is the configuration of a sidecar that knows n services with three
// endpoints each, all on port 80, as translate emits it: YAML for [Options].Config.
// Its listeners take no traffic (they are not bound), except the two that capture
// hands to, on the given ports.
func Services(n, outbound, inbound int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: virtualOutbound
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
use_original_dst: true
traffic_direction: OUTBOUND
default_filter_chain: {filters: [{name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: p, cluster: PassthroughCluster}}]}
---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: virtualInbound
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
traffic_direction: INBOUND
filter_chains: [{filters: [{name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: p, cluster: PassthroughCluster}}]}]
---
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: PassthroughCluster
type: ORIGINAL_DST
connect_timeout: 10s
lb_policy: CLUSTER_PROVIDED
---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: 0.0.0.0_80
address: {socket_address: {address: 0.0.0.0, port_value: 80}}
bind_to_port: false
traffic_direction: OUTBOUND
filter_chains:
- filters:
  - name: hcm
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: outbound_0.0.0.0_80
      rds: {config_source: {ads: {}}, route_config_name: '80'}
      http_filters:
      - {name: istio.metadata_exchange, typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/io.istio.http.peer_metadata.Config, value: {}}}
      - {name: istio.stats, typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: {}}}
      - {name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`, outbound, inbound)
	b.WriteString("---\n'@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration\nname: '80'\nvirtual_hosts:\n")
	for i := range n {
		fmt.Fprintf(&b, `- name: s%d.default.svc.cluster.local:80
  domains: [s%d, s%d.default, s%d.default.svc, s%d.default.svc.cluster.local, 10.96.0.%d]
  routes:
  - name: default
    match: {prefix: /}
    decorator: {operation: 's%d.default.svc.cluster.local:80/*'}
    route:
      cluster: outbound|80||s%d.default.svc.cluster.local
      timeout: 0s
      retry_policy: {retry_on: 'connect-failure,refused-stream,unavailable,cancelled', num_retries: 2, host_selection_retry_max_attempts: 5}
`, i, i, i, i, i, i%250, i, i)
	}
	for i := range n {
		service(&b, fmt.Sprintf("s%d.default.svc.cluster.local", i), i)
	}
	return b.String()
}

func service(b *strings.Builder, host string, i int) {
	fmt.Fprintf(b, `---
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: outbound|80||%s
type: EDS
eds_cluster_config: {eds_config: {ads: {}}}
connect_timeout: 10s
lb_policy: LEAST_REQUEST
common_lb_config: {healthy_panic_threshold: {}}
circuit_breakers: {thresholds: [{max_connections: 4294967295, max_pending_requests: 4294967295, max_requests: 4294967295, max_retries: 4294967295}]}
metadata: {filter_metadata: {istio: {services: [{host: %s, name: s%d, namespace: default}]}}}
transport_socket_matches:
- name: tlsMode-istio
  match: {tlsMode: istio}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      sni: outbound_.80_._.%s
      common_tls_context:
        alpn_protocols: [istio]
        tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]
        combined_validation_context:
          default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: spiffe://cluster.local/ns/default/sa/s%d}}]}
          validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}
- name: tlsMode-disabled
  match: {}
  transport_socket: {name: raw, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}
---
'@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
cluster_name: outbound|80||%s
endpoints:
- lb_endpoints:
`, host, host, i, host, i, host)
	for e := range 3 {
		fmt.Fprintf(b, "  - endpoint: {address: {socket_address: {address: 10.244.%d.%d, port_value: 8080}}}\n"+
			"    metadata: {filter_metadata: {envoy.transport_socket_match: {tlsMode: istio}, istio: {workload: s%d;default;s%d;v1;Kubernetes}}}\n", i%250, e+1, i, i)
	}
}
