package proxytest

import (
	"testing"

	"weft.mesh/weft/proxy/server"
)

// Pieces of configuration, as translate emits them, for a caller's sidecar and a callee's.

const rawTLSMatches = `
transport_socket_matches:
- name: tlsMode-istio
  match: {tlsMode: istio}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      sni: outbound_.80_._.api.default.svc.cluster.local
      common_tls_context:
        alpn_protocols: [{{.ALPN}}]
        tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]
        combined_validation_context:
          default_validation_context:
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: '{{.Peer}}'}}]
          validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}
- name: tlsMode-disabled
  match: {}
  transport_socket: {name: envoy.transport_sockets.raw_buffer, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}
`

const callerCluster = `
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: outbound|80||api.default.svc.cluster.local
type: EDS
eds_cluster_config: {eds_config: {ads: {}}}
connect_timeout: 20s
lb_policy: LEAST_REQUEST
common_lb_config: {healthy_panic_threshold: {}}
metadata: {filter_metadata: {istio: {services: [{host: api.default.svc.cluster.local, name: api, namespace: default}]}}}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    {{.Protocol}}
` + rawTLSMatches + `
---
` + callerEndpoints

const callerEndpoints = `
'@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
cluster_name: outbound|80||api.default.svc.cluster.local
endpoints:
- lb_endpoints:
  - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.In}}}}}
    metadata:
      filter_metadata:
        envoy.transport_socket_match: {tlsMode: istio}
        istio: {workload: api-v1;default;api;v1;Kubernetes}
`

const httpFilters = `
      - name: istio.metadata_exchange
        typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/io.istio.http.peer_metadata.Config, value: {}}
      {{.RBAC}}
      - name: envoy.filters.http.grpc_stats
        typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, emit_filter_state: true, stats_for_all_methods: false}
      - name: envoy.filters.http.fault
        typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}
      - name: istio.stats
        typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: {}}
      - {name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
      access_log:
      - name: envoy.access_loggers.file
        typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/stdout}
`

const callerListener = `
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: out
address: {socket_address: {address: 127.0.0.1, port_value: {{.Out}}}}
traffic_direction: OUTBOUND
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: out
      rds: {config_source: {ads: {}}, route_config_name: '80'}
      upgrade_configs: [{upgrade_type: websocket}]
      http_filters:` + httpFilters

const callerRoutes = `
'@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: '80'
virtual_hosts:
- name: api
  domains: ['*']
  routes:
  - match: {prefix: /}
    route: {cluster: 'outbound|80||api.default.svc.cluster.local', timeout: 0s}
`

const calleeHCM = `
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: in
      route_config:
        name: inbound
        virtual_hosts: [{name: inbound, domains: ['*'], routes: [{name: default, match: {prefix: /}, route: {cluster: 'inbound|8080||', timeout: 0s}}]}]
      forward_client_cert_details: APPEND_FORWARD
      set_current_client_cert_details: {subject: true, dns: true, uri: true}
      http_filters:` + httpFilters

const calleeTLS = `
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      require_client_certificate: true
      common_tls_context:
        alpn_protocols: [istio-peer-exchange, istio-h2, istio-http/1.1, h2, http/1.1]
        tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]
        combined_validation_context:
          default_validation_context: {}
          validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}
`

const calleeListenerHead = `
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: in
address: {socket_address: {address: 127.0.0.1, port_value: {{.In}}}}
traffic_direction: INBOUND
listener_filters:
- {name: envoy.filters.listener.tls_inspector, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
filter_chains:
- name: mtls
  filter_chain_match: {transport_protocol: tls}
` + calleeTLS + `  filters:`

const calleePlaintext = `
- name: plaintext
  filter_chain_match: {transport_protocol: raw_buffer}
  filters:`

const calleeCluster = `
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: inbound|8080||
type: STATIC
connect_timeout: 20s
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    use_downstream_protocol_config: {http2_protocol_options: {}}
load_assignment:
  cluster_name: inbound|8080||
  endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.App}}}}}}]}]
metadata: {filter_metadata: {istio: {services: [{host: api.default.svc.cluster.local, name: api, namespace: default}]}}}
`

const tcpFilters = `
  - {name: istio.metadata_exchange, typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange, value: {protocol: istio-peer-exchange}}}
  {{.RBAC}}
  - {name: istio.stats, typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: {}}}
`

const callerTCPListener = `
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: out
address: {socket_address: {address: 127.0.0.1, port_value: {{.Out}}}}
traffic_direction: OUTBOUND
filter_chains:
- filters:
  - {name: istio.stats, typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: {}}}
  - name: envoy.filters.network.tcp_proxy
    typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: out, cluster: 'outbound|80||api.default.svc.cluster.local'}
`

const calleeTCPProxy = `
  - name: envoy.filters.network.tcp_proxy
    typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: 'inbound|8080||'}
`

const (
	protoHTTP1 = "explicit_http_config: {http_protocol_options: {}}"
	protoHTTP2 = "explicit_http_config: {http2_protocol_options: {}}"
)

// pair is a caller's sidecar and a callee's.
type pair struct {
	mesh           *Mesh
	caller, callee *Proxy
	port           int // where the caller connects to
	vars           map[string]any
}

// pairOptions say how a pair differs from the usual.
type pairOptions struct {
	app      int    // port of the application
	protocol string // of the caller's cluster; default http1
	alpn     string // default istio
	peer     string // the identity that the caller demands; default api's
	rbac     string // filter entry at the callee
	tcp      bool
	strict   bool                   // no plaintext chain
	change   func(*server.Settings) // of both, before they start
}

func startPair(t testing.TB, o pairOptions) *pair {
	t.Helper()
	or := func(s, def string) string {
		if s == "" {
			return def
		}
		return s
	}
	p := &pair{mesh: NewMesh(t), port: Port(t)}
	p.vars = map[string]any{"In": Port(t), "Out": p.port, "App": o.app, "Protocol": or(o.protocol, protoHTTP1), "ALPN": or(o.alpn, "istio"),
		"Peer": or(o.peer, SPIFFE("api")), "RBAC": ""}
	calleeVars := map[string]any{}
	for k, v := range p.vars {
		calleeVars[k] = v
	}
	calleeVars["RBAC"] = o.rbac
	last := calleeHCM
	if o.tcp {
		last = tcpFilters + calleeTCPProxy
	}
	callee := calleeListenerHead + last
	if !o.strict {
		callee += calleePlaintext + last
	}
	p.callee = p.mesh.Start(Options{Name: "api", Labels: map[string]string{"app": "api", "version": "v1"}, Config: calleeCluster + "\n---\n" + callee, Vars: calleeVars, Change: o.change})
	caller := callerListener + "\n---\n" + callerRoutes
	if o.tcp {
		caller = callerTCPListener
	}
	p.caller = p.mesh.Start(Options{Name: "web", Labels: map[string]string{"app": "web", "version": "v3"}, Config: callerCluster + "\n---\n" + caller, Vars: p.vars, Change: o.change})
	return p
}
