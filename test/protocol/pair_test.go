package protocol

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft.mesh/weft/proxy/proxytest"
)

// pair is a caller's sidecar and a callee's in the test's process, with mTLS between them, as translate configures them.
type pair struct {
	caller, callee *proxytest.Proxy
	port           int // where the caller's workload connects to: HTTP/1.1 and h2c
}

// pairOptions say how a pair differs from the usual.
type pairOptions struct {
	app      int    // port of the application
	between  string // what the sidecars speak: "http" (HTTP/1.1, default) or "http2"
	up       string // what the application is spoken to: "http" (default), "http2", or "client" for what its client speaks
	upgrades string // the connection managers' upgrade types, default websocket
	filters  string // HTTP filters of the caller's sidecar, before the router
	manager  string // more of the caller's connection manager
	route    string // more of the caller's route action
	timeout  string // of the caller's route; default 0s: none
	match    string // of both routes; default prefix: /
}

const pairManager = `
      access_log:
      - name: envoy.access_loggers.file
        typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/stdout}
      upgrade_configs: [{upgrade_type: {{.Upgrades}}}]
      http_filters:
      - {name: istio.metadata_exchange, typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/io.istio.http.peer_metadata.Config, value: {}}}
      FILTERS
      - {name: envoy.filters.http.grpc_stats, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, emit_filter_state: true, stats_for_all_methods: false}}
      - {name: istio.stats, typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: {}}}
      - {name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`

const pairCaller = `
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
      {{.Manager}}
      http2_protocol_options: {allow_connect: true}
      route_config:
        name: '80'
        virtual_hosts:
        - name: api
          domains: ['*']
          routes:
          - {match: { {{.Match}} }, route: {cluster: 'outbound|80||api.default.svc.cluster.local', timeout: {{.Timeout}} {{.Route}}}}` + pairManager + `
---
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: outbound|80||api.default.svc.cluster.local
type: STATIC
connect_timeout: 20s
metadata: {filter_metadata: {istio: {services: [{host: api.default.svc.cluster.local, name: api, namespace: default}]}}}
load_assignment: {cluster_name: api, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.In}}}}}}]}]}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: { {{.Between}}_protocol_options: {} }
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    sni: outbound_.80_._.api.default.svc.cluster.local
    common_tls_context:
      alpn_protocols: [istio]
      tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]
      combined_validation_context:
        default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: 'spiffe://cluster.local/ns/default/sa/api'}}]}
        validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}
`

const pairCallee = `
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: in
address: {socket_address: {address: 127.0.0.1, port_value: {{.In}}}}
traffic_direction: INBOUND
listener_filters:
- {name: envoy.filters.listener.tls_inspector, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
filter_chains:
- name: mtls
  filter_chain_match: {transport_protocol: tls}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      require_client_certificate: true
      common_tls_context:
        alpn_protocols: [istio-peer-exchange, h2, http/1.1]
        tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]
        combined_validation_context:
          default_validation_context: {}
          validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}
  filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: in
      http2_protocol_options: {allow_connect: true}
      route_config:
        name: inbound
        virtual_hosts: [{name: inbound, domains: ['*'], routes: [{name: default, match: { {{.Match}} }, route: {cluster: 'inbound|8080||', timeout: 0s}}]}]
      forward_client_cert_details: APPEND_FORWARD
      set_current_client_cert_details: {subject: true, dns: true, uri: true}` + pairManager + `
---
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: inbound|8080||
type: STATIC
connect_timeout: 20s
metadata: {filter_metadata: {istio: {services: [{host: api.default.svc.cluster.local, name: api, namespace: default}]}}}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    {{.Up}}
load_assignment: {cluster_name: in, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.App}}}}}}]}]}
`

// startPair runs both until the test ends.
func startPair(t testing.TB, o pairOptions) *pair {
	t.Helper()
	or := func(s, def string) string {
		if s == "" {
			return def
		}
		return s
	}
	up := "explicit_http_config: {" + or(o.up, "http") + "_protocol_options: {}}"
	if o.up == "client" {
		up = "use_downstream_protocol_config: {http2_protocol_options: {}}"
	}
	p := &pair{port: proxytest.Port(t)}
	vars := map[string]any{"In": proxytest.Port(t), "Out": p.port, "App": o.app, "Between": or(o.between, "http"), "Up": up,
		"Upgrades": or(o.upgrades, "websocket"), "Manager": o.manager, "Timeout": or(o.timeout, "0s"), "Route": "", "Match": or(o.match, "prefix: /")}
	if o.route != "" {
		vars["Route"] = ", " + o.route
	}
	mesh := proxytest.NewMesh(t)
	p.callee = mesh.Start(proxytest.Options{Name: "api", Config: strings.Replace(pairCallee, "FILTERS", "", 1), Vars: vars})
	p.caller = mesh.Start(proxytest.Options{Name: "web", Config: strings.Replace(pairCaller, "FILTERS", o.filters, 1), Vars: vars})
	return p
}

// logged waits until the caller's access log has a line with text.
func (p *pair) logged(t testing.TB, text string) {
	t.Helper()
	var b []byte
	proxytest.Until(t, "the access log to say "+text, func() bool {
		b, _ = os.ReadFile(filepath.Join(p.caller.StateDir(), "access.log"))
		return strings.Contains(string(b), text)
	})
}
