package soak

import (
	"fmt"
	"strings"
	"testing"
	"text/template"

	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/canon"
)

// mode is what changes from second to second. All of it serves the same requests.
type mode struct {
	n         int    // counts the changes
	endpoints [3]int // of gateway, a and b: 1, 2 or 3: the first, the second or both stable upstreams
	timeout   int    // connect_timeout of clusters, in seconds: another value is another cluster
	split     int    // percent of requests that go to a second cluster of the same upstreams
	extra     int    // virtual hosts, clusters and listeners that come and go
	moved     int    // changes the listener that is drained and made anew
}

// node is one proxy's part of the configuration.
type node struct {
	mode
	Role                      string // gateway, a (client's end of the pair), b
	Plain, TLS, TCP, FlakyTCP int    // ports of listeners
	Moved                     int
	ExtraPorts                []int
	Peer                      int // inbound port of b, for a
	Stable1, Stable2, Flaky   [3]int
	Root                      string
	CertPEM, KeyPEM           string
}

func (n node) Mode() mode { return n.mode }

// Extra lists the names of what comes and goes.
func (n node) Extra() (out []int) {
	for i := range n.extra {
		out = append(out, i)
	}
	return out
}

func (n node) Split() int      { return n.split }
func (n node) Whole() int      { return 100 - n.split }
func (n node) N() int          { return n.n }
func (n node) MovedCount() int { return n.moved }
func (n node) Timeout() int    { return 10 + n.timeout }

// Stable lists ports of the stable upstream, for one of its protocols.
func (n node) Stable(kind int) (out []int) {
	which := n.endpoints[map[string]int{"gateway": 0, "a": 1, "b": 2}[n.Role]]
	if which&1 != 0 {
		out = append(out, n.Stable1[kind])
	}
	if which&2 != 0 {
		out = append(out, n.Stable2[kind])
	}
	return out
}

const configText = `
{{define "http"}}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    common_http_protocol_options: {idle_timeout: 4s}
    explicit_http_config: { {{- . -}} }
{{end}}
{{define "breakers"}}circuit_breakers: {thresholds: [{max_connections: 100000, max_requests: 100000, max_pending_requests: 100000, max_retries: 1000}]}{{end}}
{{define "eds"}}
---
'@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
cluster_name: {{.name}}
endpoints:
- lb_endpoints:
{{- range .ports}}
  - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.}}}}}
{{- end}}
{{end}}
{{define "identity"}}
        tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}
        tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}, resource_api_version: V3}}]
        combined_validation_context:
          default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: 'spiffe://cluster.local/'}}]}
          validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}, resource_api_version: V3}}
{{- end}}
{{define "manager" -}}
'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      codec_type: AUTO
      stat_prefix: soak
      stream_idle_timeout: 60s
      request_headers_timeout: 15s
      normalize_path: true
      common_http_protocol_options: {idle_timeout: 10s}
      upgrade_configs: [{upgrade_type: soak}]
      http_filters:
      - name: istio.metadata_exchange
        typed_config:
          '@type': type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/io.istio.http.peer_metadata.Config
          {{- if eq .Role "b"}}
          value: {downstream_discovery: [{istio_headers: {}}, {workload_discovery: {}}], downstream_propagation: [{istio_headers: {}}]}
          {{- else}}
          value: {upstream_discovery: [{istio_headers: {}}, {workload_discovery: {}}], upstream_propagation: [{istio_headers: {skip_external_clusters: true}}]}
          {{- end}}
      - name: envoy.filters.http.grpc_stats
        typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, emit_filter_state: true, stats_for_all_methods: false}
      - name: istio.stats
        typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: {}}
      - name: envoy.filters.http.router
        typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
      access_log:
      - name: envoy.access_loggers.file
        typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/stdout}
{{- end}}
{{define "outbound"}}
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      {{template "manager" .}}
      rds: {config_source: {ads: {}, resource_api_version: V3}, route_config_name: main}
{{- end}}

{{- $n := . -}}
{{- /* Clusters: over HTTP/1.1, HTTP/2 and TCP, for the upstreams that stay and for those that go. */ -}}
{{range $lane := lanes}}{{range $up := ups}}{{range $copy := copies $lane $up}}
---
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: {{$lane}}-{{$up}}{{$copy}}
type: EDS
eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}
connect_timeout: {{$n.Timeout}}s
lb_policy: {{if eq $up "h1"}}LEAST_REQUEST{{else}}ROUND_ROBIN{{end}}
common_lb_config: {healthy_panic_threshold: {}}
{{template "breakers"}}
{{- if eq $up "h1"}}{{template "http" "http_protocol_options: {}"}}{{else if ne $up "tcp"}}{{template "http" "http2_protocol_options: {}"}}{{end}}
{{- if eq $n.Role "a"}}
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    sni: outbound_.80_._.b
    common_tls_context:
        alpn_protocols: [{{if eq $up "tcp"}}{{if eq $lane "calm"}}istio-peer-exchange{{else}}istio{{end}}{{else if eq $up "h1"}}istio-http/1.1{{else}}istio-h2{{end}}]
        {{- template "identity"}}
{{- end}}
{{template "eds" dict "name" (print $lane "-" $up $copy) "ports" (portsOf $n $lane $up)}}
{{- end}}{{end}}{{end}}
{{- range .Extra}}
---
'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster
name: extra-{{.}}
type: STATIC
connect_timeout: 1s
load_assignment: {cluster_name: extra-{{.}}, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{index $n.Stable1 0}}}}}}]}]}
{{- end}}
---
'@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: main
virtual_hosts:
{{- range .Extra}}
- name: extra-{{.}}
  domains: [extra-{{.}}.test]
  routes: [{match: {prefix: /}, route: {cluster: extra-{{.}}}}]
{{- end}}
- name: app
  domains: ['*']
  routes:
  {{- range $lane := lanes}}
  - match: {prefix: /soak.Echo/, headers: [{name: x-lane, string_match: {exact: {{$lane}}}}]}
    route: {cluster: {{$lane}}-grpc, timeout: 0s, max_stream_duration: {grpc_timeout_header_max: 0s}}
  {{- end}}
  - match: {prefix: /calm/h1/}
    response_headers_to_add: [{header: {key: x-change, value: '{{.N}}'}}]
    route:
      timeout: 0s
      weighted_clusters: {clusters: [{name: calm-h1, weight: {{.Whole}}}, {name: calm-h1-2, weight: {{.Split}}}]}
  - match: {prefix: /calm/h2/}
    request_headers_to_add: [{header: {key: x-change, value: '{{.N}}'}}]
    route: {cluster: calm-h2, timeout: 0s}
  - {match: {prefix: /flaky/h1/}, route: {cluster: flaky-h1, timeout: 0s}}
  - {match: {prefix: /flaky/h2/}, route: {cluster: flaky-h2, timeout: 0s}}
{{- if eq .Role "b"}}
---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: virtualInbound
address: {socket_address: {address: 127.0.0.1, port_value: {{.Plain}}}}
traffic_direction: INBOUND
listener_filters_timeout: 20s
listener_filters:
- {name: envoy.filters.listener.tls_inspector, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
filter_chains:
{{- range $kind, $alpn := chains}}
- name: {{$kind}}
  filter_chain_match: {transport_protocol: tls, application_protocols: [{{$alpn}}]}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      require_client_certificate: true
      common_tls_context:
        alpn_protocols: [{{$alpn}}]
        {{- template "identity"}}
  filters:
  {{- if eq $kind "http"}}
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      {{template "manager" $n}}
      forward_client_cert_details: APPEND_FORWARD
      set_current_client_cert_details: {subject: true, dns: true, uri: true}
      rds: {config_source: {ads: {}, resource_api_version: V3}, route_config_name: main}
  {{- else}}
  {{- if eq $kind "calm"}}
  - name: istio.metadata_exchange
    typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange, value: {protocol: istio-peer-exchange}}
  {{- end}}
  - name: istio.stats
    typed_config: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: {}}
  - name: envoy.filters.network.tcp_proxy
    typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: soak, cluster: {{$kind}}-tcp, idle_timeout: 60s}
  {{- end}}
{{- end}}
{{- else}}
---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: plain
address: {socket_address: {address: 127.0.0.1, port_value: {{.Plain}}}}
traffic_direction: OUTBOUND
filter_chains:
{{- template "outbound" .}}
{{- range $lane := lanes}}
---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: tcp-{{$lane}}
address: {socket_address: {address: 127.0.0.1, port_value: {{if eq $lane "calm"}}{{$n.TCP}}{{else}}{{$n.FlakyTCP}}{{end}}}}
traffic_direction: OUTBOUND
filter_chains:
- filters:
  - name: envoy.filters.network.tcp_proxy
    typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: soak, cluster: {{$lane}}-tcp, idle_timeout: 60s}
{{- end}}
---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: moved
address: {socket_address: {address: 127.0.0.1, port_value: {{.Moved}}}}
traffic_direction: OUTBOUND
filter_chains:
{{- template "outbound" .}}
      via: soak-{{.MovedCount}}
{{- range .Extra}}
---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: extra-{{.}}
address: {socket_address: {address: 127.0.0.1, port_value: {{index $n.ExtraPorts .}}}}
traffic_direction: OUTBOUND
filter_chains:
{{- template "outbound" $n}}
{{- end}}
{{- end}}
{{- if eq .Role "gateway"}}
---
'@type': type.googleapis.com/envoy.config.listener.v3.Listener
name: tls
address: {socket_address: {address: 127.0.0.1, port_value: {{.TLS}}}}
traffic_direction: OUTBOUND
filter_chains:
{{- template "outbound" .}}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      common_tls_context:
        alpn_protocols: [h2, http/1.1]
        tls_certificate_sds_secret_configs: [{name: edge, sds_config: {ads: {}, resource_api_version: V3}}]
---
'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
name: edge
tls_certificate:
  certificate_chain: {inline_string: {{printf "%q" .CertPEM}}}
  private_key: {inline_string: {{printf "%q" .KeyPEM}}}
{{- end}}
`

var config = template.Must(template.New("config").Option("missingkey=error").Funcs(template.FuncMap{
	"lanes": func() []string { return []string{"calm", "flaky"} },
	"ups":   func() []string { return []string{"h1", "h2", "grpc", "tcp"} },
	"copies": func(lane, up string) []string {
		if lane == "calm" && up == "h1" {
			return []string{"", "-2"}
		}
		return []string{""}
	},
	"chains": func() map[string]string {
		return map[string]string{"http": "istio-h2, istio-http/1.1", "calm": "istio-peer-exchange", "flaky": "istio"}
	},
	"portsOf": portsOf,
	"dict": func(kv ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i+1 < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	},
}).Parse(configText))

func portsOf(n node, lane, up string) []int {
	if n.Role == "a" {
		return []int{n.Peer}
	}
	kind := map[string]int{"h1": portHTTP, "h2": portHTTP, "grpc": portGRPC, "tcp": portTCP}[up]
	if lane == "flaky" {
		return []int{n.Flaky[kind]}
	}
	return n.Stable(kind)
}

// resources is the node's whole configuration.
func (n node) resources(t testing.TB) []*xds.Resource {
	t.Helper()
	var b strings.Builder
	if err := config.Execute(&b, n); err != nil {
		t.Fatal(err)
	}
	rs, err := canon.Parse([]byte(strings.TrimPrefix(strings.TrimSpace(b.String()), "---")))
	if err != nil {
		var numbered strings.Builder
		for i, l := range strings.Split(b.String(), "\n") {
			fmt.Fprintf(&numbered, "%4d %s\n", i+1, l)
		}
		t.Fatalf("%v\n%s", err, numbered.String())
	}
	return rs
}
