package compile

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"weft.mesh/weft/xds"
)

const tp = "type.googleapis.com/"

func clusterText(extra string) string {
	return `{'@type': ` + xds.ClusterType + `, name: c, type: STATIC, connect_timeout: 1s` + extra + `}`
}

func routeText(route string) string {
	return `{'@type': ` + xds.RouteType + `, name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [` + route + `]}]}`
}

func hcmText(extra string) string {
	return listenerText(`{name: hcm, typed_config: {'@type': ` + tp + typeHCM + `, stat_prefix: x, rds: {config_source: {ads: {}}, route_config_name: r}` +
		extra + `, http_filters: [{name: router, typed_config: {'@type': ` + tp + typeRouter + `}}]}}`)
}

func listenerText(filters string) string {
	return `{'@type': ` + xds.ListenerType + `, name: l, address: {socket_address: {address: 0.0.0.0, port_value: 80}}, filter_chains: [{name: f, filters: [` + filters + `]}]}`
}

func tlsText(common string) string {
	return `{'@type': ` + xds.ListenerType + `, name: l, address: {socket_address: {address: 0.0.0.0, port_value: 443}}, filter_chains: [{name: f,
 transport_socket: {name: tls, typed_config: {'@type': ` + tp + typeDownstreamTLS + `, ` + common + `}},
 filters: [{name: tcp, typed_config: {'@type': ` + tp + typeTCP + `, stat_prefix: x, cluster: c}}]}]}`
}

func TestWhatIsNotSupportedIsRefusedByNameValueAndFix(t *testing.T) {
	const tcp = `{name: tcp, typed_config: {'@type': ` + tp + typeTCP + `, stat_prefix: x, cluster: c}}`
	for _, tc := range []struct{ name, text, want string }{
		{"a field without support", clusterText(`, preconnect_policy: {per_upstream_preconnect_ratio: 1.5}`), "not supported by this proxy: preconnect_policy"},
		{"all such fields at once", clusterText(`, track_cluster_stats: {}, use_tcp_for_dns_lookups: true`), "use_tcp_for_dns_lookups, track_cluster_stats"},
		{"health checks", clusterText(`, health_checks: [{timeout: 1s, interval: 1s, healthy_threshold: 1, unhealthy_threshold: 1, tcp_health_check: {}}]`), "health_checks"},
		{"a nested field", clusterText(`, circuit_breakers: {thresholds: [{max_connection_pools: 3}]}`), "circuit_breakers.thresholds[0].max_connection_pools"},
		{"an enum value", clusterText(`, lb_policy: LOAD_BALANCING_POLICY_CONFIG`), `lb_policy: value "LOAD_BALANCING_POLICY_CONFIG": want ROUND_ROBIN`},
		{"a priority", clusterText(`, circuit_breakers: {thresholds: [{priority: HIGH}]}`), `circuit_breakers.thresholds[0].priority: value "HIGH"`},
		{"endpoints over a file", `{'@type': ` + xds.ClusterType + `, name: c, type: EDS, eds_cluster_config: {eds_config: {path_config_source: {path: /x}}}}`, "eds_cluster_config.eds_config.path_config_source"},
		{"a value that the schema forbids", clusterText(`, dns_refresh_rate: 0s`), "DnsRefreshRate"},
		{"an unknown transport socket", clusterText(`, transport_socket: {name: x, typed_config: {'@type': ` + tp + `envoy.config.core.v3.Address}}`), "transport socket not supported"},
		{"an own identity without the mesh's roots", clusterText(`, transport_socket: {name: tls, typed_config: {'@type': ` + tp + typeUpstreamTLS + `, common_tls_context: {tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]}}}`), "go together"},
		{"names of unverified certificates", clusterText(`, transport_socket: {name: tls, typed_config: {'@type': ` + tp + typeUpstreamTLS + `, common_tls_context: {validation_context: {match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a}}]}}}}`), "prove nothing"},
		{"success rate ejection", clusterText(`, outlier_detection: {enforcing_success_rate: 100}`), "enforcing_success_rate"},
		{"partial enforcement", clusterText(`, outlier_detection: {enforcing_consecutive_5xx: 50}`), `enforcing_consecutive_5xx: value "50": want 0 or 100`},
		{"a pipe address", `{'@type': ` + xds.EndpointType + `, cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /x}}}}]}]}`, "endpoints[0].lb_endpoints[0].endpoint.address.pipe"},
		{"a host name as an endpoint", `{'@type': ` + xds.EndpointType + `, cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: a.example, port_value: 1}}}}]}]}`, `value "a.example": want an IP address`},
		{"dropped overload", `{'@type': ` + xds.EndpointType + `, cluster_name: c, policy: {drop_overloads: [{category: x}]}}`, "policy.drop_overloads"},
		{"a bad regular expression", routeText(`{match: {safe_regex: {regex: '(['}}, route: {cluster: c}}`), "routes[0].match.safe_regex.regex"},
		{"a huge regular expression", routeText(`{match: {safe_regex: {regex: '((a{100}){100}){10}'}}, route: {cluster: c}}`), "routes[0].match.safe_regex.regex"},
		{"a retry condition", routeText(`{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: '5xx,http3-post-connect-failure'}}}`), `value "http3-post-connect-failure": condition not supported`},
		{"a rate limit", routeText(`{match: {prefix: /}, route: {cluster: c, rate_limits: [{actions: [{remote_address: {}}]}]}}`), "rate_limits"},
		{"a cluster from a header", routeText(`{match: {prefix: /}, route: {cluster_header: x}}`), "cluster_header"},
		{"configuration for an unknown filter", routeText(`{match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {x: {'@type': ` + tp + `envoy.config.core.v3.Address}}}`), "no filter of this name"},
		{"two virtual hosts for one domain", `{'@type': ` + xds.RouteType + `, name: r, virtual_hosts: [{name: a, domains: [x]}, {name: b, domains: [x]}]}`, `is also in virtual host "a"`},
		{"a header value operator", routeText(`{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, value: '%NONSENSE%'}}]}`), "%NONSENSE% is not supported"},
		{"a group that the pattern does not have", routeText(`{match: {prefix: /}, route: {cluster: c, regex_rewrite: {pattern: {regex: '/(.*)'}, substitution: '/\2'}}}`), "the pattern has 1 groups"},
		{"a listener filter", `{'@type': ` + xds.ListenerType + `, name: l, address: {socket_address: {address: 0.0.0.0, port_value: 80}}, listener_filters: [{name: p, typed_config: {'@type': ` + tp + `envoy.config.core.v3.Address}}], filter_chains: [{filters: [` + tcp + `]}]}`, "listener filter not supported"},
		{"a chain without a terminal filter", listenerText(`{name: x, typed_config: {'@type': ` + tp + `envoy.config.core.v3.Address}}`), "filter_chains[0:f].filters[0:x]"},
		{"a network filter", listenerText(`{name: mongo, typed_config: {'@type': ` + tp + `envoy.config.core.v3.Address}}, ` + tcp), "network filter not supported"},
		{"an HTTP filter", strings.Replace(hcmText(""), "http_filters: [", "http_filters: [{name: lua, typed_config: {'@type': "+tp+"envoy.config.core.v3.Address}}, ", 1), "http_filters[0:lua]"},
		{"a chain without a router", strings.Replace(hcmText(""), typeRouter, "envoy.config.core.v3.Address", 1), "HTTP filter not supported"},
		{"a field of the connection manager", hcmText(`, proxy_100_continue: true`), "proxy_100_continue"},
		{"HTTP/3", hcmText(`, codec_type: HTTP3`), `codec_type: value "HTTP3"`},
		{"a tracing provider", hcmText(`, tracing: {provider: {name: zipkin}}`), "tracing.provider"},
		{"client certificates without roots", tlsText(`require_client_certificate: true, common_tls_context: {tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}]}`), "needs roots"},
		{"roots of the mesh without required client certificates", tlsText(`common_tls_context: {tls_certificate_sds_secret_configs: [{name: default, sds_config: {ads: {}}}], validation_context_sds_secret_config: {name: ROOTCA, sds_config: {ads: {}}}}`), "identities of the mesh are not optional"},
		{"a server without a certificate", tlsText(`common_tls_context: {}`), "a server needs a certificate"},
		{"a cipher suite", tlsText(`common_tls_context: {tls_params: {cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256, '[ECDHE-RSA-AES256-GCM-SHA384|DES-CBC3-SHA]']}}`), `tls_params.cipher_suites[1]: value "DES-CBC3-SHA"`},
		{"elliptic curves", tlsText(`common_tls_context: {tls_params: {ecdh_curves: [P-256]}}`), "tls_params.ecdh_curves"},
		{"a certificate file where files are not allowed", tlsText(`common_tls_context: {tls_certificates: [{certificate_chain: {filename: /c}, private_key: {filename: /k}}]}`), "files are not allowed here"},
		{"an access log without a sink", hcmText(`, access_log: [{name: x, typed_config: {'@type': ` + tp + `envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/stdout}}]`), "keeps no access logs"},
		{"two chains with the same condition", strings.Replace(listenerText(tcp), "filter_chains: [", "filter_chains: [{name: g, filters: ["+tcp+"]}, ", 1), `same filter_chain_match as chain "g"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := one(t, tc.text)
			before := New(Settings{})
			v, refused := before.Apply(Update{TypeURL: r.TypeURL, Set: []*xds.Resource{r}}, t0)
			if len(refused) != 1 {
				t.Fatalf("taken; want a refusal with %q", tc.want)
			}
			if got := refused[0].Reason; !strings.Contains(got, tc.want) {
				t.Errorf("reason = %s\nwant it to contain %s", got, tc.want)
			}
			if v.Version != 0 {
				t.Error("a refused update made a new View")
			}
		})
	}
}

func TestUnknownProtobufFieldsAreRefusedByNumber(t *testing.T) {
	r := one(t, clusterText(""))
	body := protowire.AppendVarint(protowire.AppendTag(append([]byte(nil), r.Body...), 4242, protowire.VarintType), 1)
	_, refused := New(Settings{}).Apply(Update{TypeURL: r.TypeURL, Set: []*xds.Resource{xds.NewResource(r.TypeURL, "c", body)}}, t0)
	if len(refused) != 1 || !strings.Contains(refused[0].Reason, "unknown field number 4242") {
		t.Errorf("refused = %v", refused)
	}
}

func TestAResourceUnderAnotherNameIsRefused(t *testing.T) {
	r := one(t, clusterText(""))
	_, refused := New(Settings{}).Apply(Update{TypeURL: r.TypeURL, Set: []*xds.Resource{xds.NewResource(r.TypeURL, "other", r.Body)}}, t0)
	if len(refused) != 1 || !strings.Contains(refused[0].Reason, `name "c" inside differs`) {
		t.Errorf("refused = %v", refused)
	}
}

func TestANACKIsBounded(t *testing.T) {
	var rs []Refusal
	for i := range 1000 {
		rs = append(rs, Refusal{TypeURL: xds.ClusterType, Name: fmt.Sprint(i), Reason: strings.Repeat("x", 100)})
	}
	s := NACK(rs)
	if len(s) > maxNACK+100 || !strings.Contains(s, "more") || !strings.HasPrefix(s, `CDS "0": xxx`) {
		t.Errorf("%d bytes: %s", len(s), s[:200])
	}
}
