package listener

import (
	"net/netip"
	"strings"
	"testing"

	"weft.mesh/weft/proxy/config"
)

func chainOf(name string, m config.ChainMatch) *config.FilterChain {
	return &config.FilterChain{Name: name, Match: m, TCP: &config.TCPProxy{}}
}

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// TestChainsAreChosenInEnvoysOrder uses the chains of an inbound listener, an
// outbound TCP listener and an SNI gateway.
func TestChainsAreChosenInEnvoysOrder(t *testing.T) {
	inbound := []*config.FilterChain{
		chainOf("blackhole", config.ChainMatch{DestinationPort: 15006}),
		chainOf("9080-mtls-http", config.ChainMatch{DestinationPort: 9080, Transport: "tls", ALPN: []string{"istio-http/1.0", "istio-http/1.1", "istio-h2"}}),
		chainOf("9080-mtls-tcp", config.ChainMatch{DestinationPort: 9080, Transport: "tls", ALPN: []string{"istio-peer-exchange", "istio"}}),
		chainOf("9080-plain-http", config.ChainMatch{DestinationPort: 9080, Transport: "raw_buffer", ALPN: []string{"http/1.1", "h2c"}}),
		chainOf("9080-plain-tcp", config.ChainMatch{DestinationPort: 9080, Transport: "raw_buffer"}),
		chainOf("catch-all-tls", config.ChainMatch{Transport: "tls"}),
		chainOf("catch-all", config.ChainMatch{}),
	}
	outbound := []*config.FilterChain{
		chainOf("host", config.ChainMatch{Prefixes: prefixes("10.0.0.7/32")}),
		chainOf("net", config.ChainMatch{Prefixes: prefixes("10.0.0.0/8", "fd00::/16")}),
		chainOf("net-tls", config.ChainMatch{Prefixes: prefixes("10.0.0.0/24"), Transport: "tls"}),
	}
	gateway := []*config.FilterChain{
		chainOf("exact", config.ChainMatch{ServerNames: []string{"www.example.com"}}),
		chainOf("one", config.ChainMatch{ServerNames: []string{"*.example.com"}}),
		chainOf("far", config.ChainMatch{ServerNames: []string{"*.com"}}),
		chainOf("exact-h2", config.ChainMatch{ServerNames: []string{"h2.example.com"}, ALPN: []string{"h2"}}),
		chainOf("none", config.ChainMatch{}),
	}
	sources := []*config.FilterChain{
		chainOf("near", config.ChainMatch{SourcePrefixes: prefixes("10.9.0.0/16")}),
		chainOf("near-port", config.ChainMatch{SourcePrefixes: prefixes("10.9.0.0/16"), SourcePorts: []uint16{777}}),
		chainOf("far", config.ChainMatch{SourcePrefixes: prefixes("10.0.0.0/8")}),
	}
	tests := []struct {
		name   string
		chains []*config.FilterChain
		local  string
		remote string
		f      facts
		want   string
	}{
		{"mesh HTTP over mTLS", inbound, "10.0.0.1:9080", "", facts{transport: "tls", alpn: []string{"istio-h2"}}, "9080-mtls-http"},
		{"the client's first protocol that a chain has wins", inbound, "10.0.0.1:9080", "", facts{transport: "tls", alpn: []string{"x", "istio", "istio-h2"}}, "9080-mtls-tcp"},
		{"TLS of an application on a known port has no chain", inbound, "10.0.0.1:9080", "", facts{transport: "tls", alpn: []string{"h2"}}, ""},
		{"plain HTTP", inbound, "10.0.0.1:9080", "", facts{transport: "raw_buffer", alpn: []string{"http/1.1"}}, "9080-plain-http"},
		{"plain bytes", inbound, "10.0.0.1:9080", "", facts{transport: "raw_buffer"}, "9080-plain-tcp"},
		{"unknown port, TLS", inbound, "10.0.0.1:1", "", facts{transport: "tls", alpn: []string{"istio"}}, "catch-all-tls"},
		{"unknown port, plain", inbound, "10.0.0.1:1", "", facts{transport: "raw_buffer"}, "catch-all"},
		{"our own port", inbound, "10.0.0.1:15006", "", facts{transport: "raw_buffer"}, "blackhole"},
		{"longest prefix", outbound, "10.0.0.7:3306", "", facts{transport: "raw_buffer"}, "host"},
		{"shorter prefix", outbound, "10.7.0.7:3306", "", facts{transport: "raw_buffer"}, "net"},
		{"a dead end under the longest prefix does not lead back", outbound, "10.0.0.8:3306", "", facts{transport: "raw_buffer"}, ""},
		{"transport under a prefix", outbound, "10.0.0.8:3306", "", facts{transport: "tls"}, "net-tls"},
		{"IPv6 prefix", outbound, "[fd00::1]:3306", "", facts{transport: "raw_buffer"}, "net"},
		{"no prefix fits", outbound, "192.168.0.1:3306", "", facts{transport: "raw_buffer"}, ""},
		{"exact server name", gateway, "10.0.0.1:443", "", facts{transport: "tls", sni: "www.example.com"}, "exact"},
		{"nearest suffix", gateway, "10.0.0.1:443", "", facts{transport: "tls", sni: "a.b.example.com"}, "one"},
		{"wider suffix", gateway, "10.0.0.1:443", "", facts{transport: "tls", sni: "example.com"}, "far"},
		{"no suffix fits", gateway, "10.0.0.1:443", "", facts{transport: "tls", sni: "example.org"}, "none"},
		{"no server name", gateway, "10.0.0.1:443", "", facts{transport: "raw_buffer"}, "none"},
		{"an exact name without its protocol is a dead end", gateway, "10.0.0.1:443", "", facts{transport: "tls", sni: "h2.example.com", alpn: []string{"http/1.1"}}, ""},
		{"source prefix", sources, "10.0.0.1:1", "10.9.1.1:5", facts{transport: "raw_buffer"}, "near"},
		{"source port", sources, "10.0.0.1:1", "10.9.1.1:777", facts{transport: "raw_buffer"}, "near-port"},
		{"wider source prefix", sources, "10.0.0.1:1", "10.8.1.1:777", facts{transport: "raw_buffer"}, "far"},
		{"strange source", sources, "10.0.0.1:1", "11.8.1.1:777", facts{transport: "raw_buffer"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := newMatcher(tt.chains)
			if err != nil {
				t.Fatal(err)
			}
			tt.f.local, tt.f.remote = netip.MustParseAddrPort(tt.local), netip.MustParseAddrPort("10.99.0.1:4000")
			if tt.remote != "" {
				tt.f.remote = netip.MustParseAddrPort(tt.remote)
			}
			got := ""
			if c := m.find(&tt.f); c != nil {
				got = c.Name
			}
			if got != tt.want {
				t.Errorf("chain %q, want %q", got, tt.want)
			}
			if n := testing.AllocsPerRun(100, func() { m.find(&tt.f) }); n != 0 {
				t.Errorf("allocs per match = %v, want 0", n)
			}
		})
	}
}

func TestChainsThatMatchTheSameAreRefused(t *testing.T) {
	for name, chains := range map[string][]*config.FilterChain{
		"no conditions":        {chainOf("a", config.ChainMatch{}), chainOf("b", config.ChainMatch{})},
		"one name in common":   {chainOf("a", config.ChainMatch{ServerNames: []string{"x", "y"}}), chainOf("b", config.ChainMatch{ServerNames: []string{"y"}})},
		"the same source port": {chainOf("a", config.ChainMatch{SourcePorts: []uint16{1}}), chainOf("b", config.ChainMatch{SourcePorts: []uint16{1}})},
	} {
		_, err := newMatcher(chains)
		if err == nil || !strings.Contains(err.Error(), `"a" and "b"`) {
			t.Errorf("%s: %v, want an error that names both", name, err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	var chains []*config.FilterChain
	for port := range uint16(100) {
		chains = append(chains, chainOf("tls", config.ChainMatch{DestinationPort: 8000 + port, Transport: "tls", ALPN: []string{"istio-http/1.1", "istio-h2"}}),
			chainOf("raw", config.ChainMatch{DestinationPort: 8000 + port, Transport: "raw_buffer"}))
	}
	m, err := newMatcher(chains)
	if err != nil {
		b.Fatal(err)
	}
	f := &facts{local: netip.MustParseAddrPort("10.0.0.1:8050"), remote: netip.MustParseAddrPort("10.0.0.2:1"), transport: "tls", alpn: []string{"istio-h2"}}
	b.ReportAllocs()
	for b.Loop() {
		m.find(f)
	}
}
