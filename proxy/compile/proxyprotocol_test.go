package compile

import (
	"strings"
	"testing"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/xds"
)

const (
	proxyInspect = `{name: tls, typed_config: {'@type': ` + tp + typeTLSInspector + `}}`
	proxyRaw     = `{name: raw, typed_config: {'@type': ` + tp + typeRawBuffer + `}}`
)

func proxyFilter(extra string) string {
	return `{name: pp, typed_config: {'@type': ` + tp + typeProxyProtocol + extra + `}}`
}

func proxyListener(filters string) string {
	return `{'@type': ` + xds.ListenerType + `, name: l, address: {socket_address: {address: 0.0.0.0, port_value: 80}}, listener_filters: [` + filters + `],
 filter_chains: [{filters: [{name: tcp, typed_config: {'@type': ` + tp + typeTCP + `, stat_prefix: x, cluster: c}}]}]}`
}

func proxySocketText(config, inner string) string {
	return `{name: pp, typed_config: {'@type': ` + tp + typeProxySocket + `, config: {` + config + `}` + inner + `}}`
}

func TestProxyProtocolFilters(t *testing.T) {
	for _, tc := range []struct {
		name, filters string
		want          config.Inspect
	}{
		{"required", proxyFilter(""), config.Inspect{ProxyProtocol: true}},
		{"optional", proxyFilter(", allow_requests_without_proxy_protocol: true, stat_prefix: x"), config.Inspect{ProxyProtocol: true, ProxyOptional: true}},
		{"version 2 only, before TLS", proxyFilter(", disallowed_versions: [V1]") + ", " + proxyInspect, config.Inspect{ProxyProtocol: true, ProxyNoV1: true, TLS: true}},
		{"version 1 only", proxyFilter(", disallowed_versions: [V2]"), config.Inspect{ProxyProtocol: true, ProxyNoV2: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := apply(t, New(Settings{}), xds.ListenerType, one(t, proxyListener(tc.filters))).Listeners["l"].Inspect
			got.Timeout, tc.want.Timeout = 0, 0
			if got.ProxyProtocol != tc.want.ProxyProtocol || got.ProxyOptional != tc.want.ProxyOptional || got.ProxyNoV1 != tc.want.ProxyNoV1 ||
				got.ProxyNoV2 != tc.want.ProxyNoV2 || got.TLS != tc.want.TLS {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestUpstreamProxyProtocolSockets(t *testing.T) {
	const tls = `{name: tls, typed_config: {'@type': ` + tp + typeUpstreamTLS + `, sni: db.example, common_tls_context: {}}}`
	c := apply(t, New(Settings{}), xds.ClusterType, one(t, clusterText(`, transport_socket: `+proxySocketText("version: V2", ", transport_socket: "+tls)+
		`, transport_socket_matches: [{name: a, match: {tlsMode: disabled}, transport_socket: `+proxySocketText("", ", transport_socket: "+proxyRaw)+
		`}, {name: b, transport_socket: `+proxyRaw+`}]`))).Clusters["c"]
	if c.ProxyProtocol != 2 || c.TLS == nil || c.TLS.SNI != "db.example" {
		t.Errorf("version %d, TLS %+v; want 2 and TLS inside", c.ProxyProtocol, c.TLS)
	}
	if m := c.TLSMatches; m[0].ProxyProtocol != 1 || m[0].TLS != nil || m[1].ProxyProtocol != 0 {
		t.Errorf("matches %+v; want version 1 (the default) over plaintext, and none", m)
	}
}

func TestProxyProtocolThatIsNotSupportedIsRefusedByName(t *testing.T) {
	socket := func(config, inner string) string {
		return clusterText(`, transport_socket: ` + proxySocketText(config, inner))
	}
	inner := ", transport_socket: " + proxyRaw
	for _, tc := range []struct{ name, text, want string }{
		{"TLVs as metadata", proxyListener(proxyFilter(", rules: [{tlv_type: 1, on_tlv_present: {key: a}}]")), "listener_filters[0:pp].typed_config: not supported by this proxy: rules"},
		{"TLVs passed on", proxyListener(proxyFilter(", pass_through_tlvs: {}")), "pass_through_tlvs"},
		{"no version left", proxyListener(proxyFilter(", disallowed_versions: [V1, V2]")), "no version is left"},
		{"after an inspector", proxyListener(proxyInspect + ", " + proxyFilter("")), "put it before them"},
		{"twice", proxyListener(proxyFilter("") + ", " + proxyFilter("")), "is there twice"},
		{"switched off for ports", proxyListener(strings.Replace(proxyFilter(""), "{name: pp,", "{name: pp, filter_disabled: {destination_port_range: {start: 1, end: 2}},", 1)), "filter_disabled"},
		{"TLVs upstream", socket("version: V2, pass_through_tlvs: {}", inner), "transport_socket.typed_config: not supported by this proxy: config.pass_through_tlvs"},
		{"added TLVs", socket("version: V2, added_tlvs: [{type: 1, value: aaaa}]", inner), "config.added_tlvs"},
		{"an unspecified address", socket("", inner+", allow_unspecified_address: true"), "allow_unspecified_address"},
		{"nothing inside", socket("", ""), "TransportSocket"},
		{"itself inside", socket("", ", transport_socket: "+proxySocketText("", inner)), "one PROXY header is enough"},
		{"what is inside", socket("", `, transport_socket: {name: x, typed_config: {'@type': `+tp+`envoy.config.core.v3.Address}}`), "transport_socket.typed_config.transport_socket.typed_config.type_url"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := one(t, tc.text)
			_, refused := New(Settings{}).Apply(Update{TypeURL: r.TypeURL, Set: []*xds.Resource{r}}, t0)
			if len(refused) != 1 || !strings.Contains(refused[0].Reason, tc.want) {
				t.Errorf("refused = %v, want a reason with %q", refused, tc.want)
			}
		})
	}
}
