package conformance

import (
	"net/netip"
	"strings"
	"testing"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// inboundChain is the chain of a port for mTLS, or for plaintext.
func inboundChain(t *testing.T, v *config.View, port uint16, transport string, http bool) *config.FilterChain {
	t.Helper()
	for _, c := range v.Listeners[xds.ListenerVirtualInbound].Chains {
		if c.Match.DestinationPort == port && (c.Match.Transport == transport || c.Match.Transport == "") && (c.HTTP != nil) == http {
			return c
		}
	}
	t.Fatalf("no chain for %s on port %d", transport, port)
	return nil
}

// caller is a connection to the case's server.
func caller(t *testing.T, id, sni string, port uint16) *stream.ConnInfo {
	t.Helper()
	c := &stream.ConnInfo{
		Direction: stream.Inbound, Local: netip.AddrPortFrom(netip.MustParseAddr("10.244.0.40"), port),
		Remote: netip.MustParseAddrPort("10.8.8.8:40000"), SNI: sni,
	}
	if id != "" {
		var err error
		if c.PeerID, err = spiffe.Parse("spiffe://cluster.local/" + id); err != nil {
			t.Fatal(err)
		}
		c.TLS = true
	}
	return c
}

// allowed runs the chain's authorization filters on a request.
func allowed(c *config.FilterChain, conn *stream.ConnInfo, req *stream.Request) bool {
	if c.HTTP == nil {
		for _, f := range c.Network {
			if ok, _ := f.Connection(conn); !ok {
				return false
			}
		}
		return true
	}
	s := &filter.Stream{Conn: conn, Req: req, Info: &stream.Info{Conn: conn, Req: req}, State: make([]any, len(c.HTTP.Filters))}
	for _, f := range c.HTTP.Filters {
		if strings.HasSuffix(f.Name(), ".rbac") && f.Request(s).Reply != nil {
			return false
		}
	}
	return true
}

// TestPoliciesMeanWhatTheySay asks the compiled inbound chains of the security case.
func TestPoliciesMeanWhatTheySay(t *testing.T) {
	const sni = "outbound_.80_._.srv.strict.svc.cluster.local"
	const good = "GET api.example.com/x/y x-token:abcx"
	tests := []struct {
		name, id, sni, request string
		port                   uint16
		want                   bool
	}{
		{"all conditions", "ns/default/sa/sleep", sni, good, 8080, true},
		{"another namespace", "ns/prod/sa/sleep", sni, good, 8080, false},
		{"another host, by the second operation", "ns/default/sa/sleep", sni, "GET other.example.com/z x-token:abcx", 8080, true},
		{"a path that the second operation excludes", "ns/default/sa/sleep", sni, "GET other.example.com/x x-token:abcx", 8080, false},
		{"a header value that is excluded", "ns/default/sa/sleep", sni, "GET api.example.com/ x-token:abcd", 8080, false},
		{"no such header", "ns/default/sa/sleep", sni, "GET api.example.com/", 8080, false},
		{"another server name", "ns/default/sa/sleep", "x.test", good, 8080, false},
		{"the mesh's DENY: namespace, method and path", "ns/evil/sa/a", sni, "POST api.example.com/admin/x", 8080, false},
		{"the reformed one is no longer denied, nor allowed", "ns/evil/sa/reformed", sni, "POST api.example.com/admin/x", 8080, false},
	}
	view := viewOf(t, "security", "srv-1")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := inboundChain(t, view, tt.port, "tls", true)
			if got := allowed(c, caller(t, tt.id, tt.sni, tt.port), request(tt.request)); got != tt.want {
				t.Errorf("allowed: %v, want %v", got, tt.want)
			}
		})
	}
}

// TestPoliciesOnConnections: what only requests have widens DENY and voids ALLOW.
func TestPoliciesOnConnections(t *testing.T) {
	tests := []struct {
		name, node, id string
		port           uint16
		want           bool
	}{
		{"an ALLOW rule of ports only", "srv-1", "ns/any/sa/x", 5000, true},
		{"the mesh's DENY denies the port, whatever the path", "srv-1", "ns/evil/sa/x", 5000, false},
		{"but not whom it excepts", "srv-1", "ns/evil/sa/reformed", 5000, true},
		{"an ALLOW policy without rules allows nothing", "srv-2", "ns/any/sa/x", 5000, false},
		{"an ALLOW policy that matches everything", "srv-3", "", 5000, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			transport := "tls"
			if tt.id == "" {
				transport = "raw_buffer"
			}
			c := inboundChain(t, viewOf(t, "security", tt.node), tt.port, transport, false)
			if got := allowed(c, caller(t, tt.id, "", tt.port), nil); got != tt.want {
				t.Errorf("allowed: %v, want %v", got, tt.want)
			}
		})
	}
}

// TestWhatIsAcceptedInTheClear: STRICT has no chain for plaintext, on any port that no policy excepts.
func TestWhatIsAcceptedInTheClear(t *testing.T) {
	for node, want := range map[string]map[uint16]bool{
		"srv-1": {0: false, 8080: false, 5000: false, 6000: true, 7777: true},
		"srv-2": {0: true, 8080: true, 5000: true, 6000: true},
		"srv-3": {0: true, 8080: true, 5000: true, 6000: true},
	} {
		view := viewOf(t, "security", node)
		for port, clear := range want {
			got, mutual := false, false
			for _, c := range view.Listeners[xds.ListenerVirtualInbound].Chains {
				if c.Match.DestinationPort == port {
					got = got || c.TLS == nil && c.Match.Transport != "tls"
					mutual = mutual || c.TLS != nil && c.TLS.RequireClient && c.TLS.Workload
				}
			}
			if got != clear {
				t.Errorf("%s port %d: plaintext accepted: %v, want %v", node, port, got, clear)
			}
			if wantMutual := node != "srv-3" && port != 7777; mutual != wantMutual {
				t.Errorf("%s port %d: mTLS accepted: %v, want %v", node, port, mutual, wantMutual)
			}
		}
	}
}
