package conformance

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/proxy/compile"
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/xds"
)

// viewOf is what the proxy of a node of a golden case works with.
func viewOf(t *testing.T, caseName, nodeName string) *config.View {
	t.Helper()
	for _, c := range translatetest.Load(t, "../../control/translate/testdata") {
		for _, n := range c.Nodes {
			if c.Name != caseName || n.Name != nodeName || !n.WeftProxy {
				continue
			}
			snap, k := translate.New(c.World, c.Mesh), newCompiler(n.Node)
			for _, typ := range xds.PushOrder {
				rs, err := snap.Resources(n.Node, typ, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, refused := k.Apply(compile.Update{TypeURL: typ, Set: rs, Replace: true}, time.Unix(0, 0)); len(refused) > 0 {
					t.Fatalf("refused: %v", refused)
				}
			}
			return k.View()
		}
	}
	t.Fatalf("no node %s in case %s", nodeName, caseName)
	return nil
}

// request writes "METHOD authority/path name:value…" as a request.
func request(s string) *stream.Request {
	f := strings.Fields(s)
	i := strings.IndexByte(f[1], '/')
	r := &stream.Request{Method: []byte(f[0]), Scheme: []byte("http"), Authority: []byte(f[1][:i]), Path: []byte(f[1][i:])}
	for _, h := range f[2:] {
		name, value, _ := strings.Cut(h, ":")
		r.Fields.Add(name, value)
	}
	return r
}

// outcome names what a route does.
func outcome(r *route.Route) string {
	switch {
	case r == nil:
		return "404"
	case r.Redirect != nil:
		return fmt.Sprint(r.Redirect.Status, " to ", r.Redirect.Scheme, "://", r.Redirect.Host, ":", r.Redirect.Port, r.Redirect.Path)
	case r.Direct != nil:
		return fmt.Sprint(r.Direct.Status, " ", string(r.Direct.Body))
	case len(r.Forward.Weighted) > 0:
		return r.Name + ": weighted"
	}
	return r.Name + ": " + r.Forward.Cluster
}

// TestAVirtualServiceMeansWhatItSays asks the compiled table of the routing case.
func TestAVirtualServiceMeansWhatItSays(t *testing.T) {
	const api = "api.default.svc.cluster.local"
	full := "POST api/exact?q=1&r=42&s=xyz x-exact:a x-prefix:bcd x-regex:ccc x-present:"
	tests := []struct{ name, node, request, want string }{
		{"source labels that the caller has", "caller-a", "GET api/only-a/x", "by-label: outbound|80|v2|" + api},
		{"source labels that it has not", "caller-b", "GET api/only-a/x", "rest: outbound|80||" + api},
		{"all conditions of a block", "caller-a", full, "matchers.one: weighted"},
		{"another method", "caller-a", strings.Replace(full, "POST", "GET", 1), "rest: outbound|80||" + api},
		{"a header that must not have the value", "caller-a", full + " x-not:d", "rest: outbound|80||" + api},
		{"a header that must not have the value has another", "caller-a", full + " x-not:e", "matchers.one: weighted"},
		{"a header that must not be there", "caller-a", full + " x-absent:", "rest: outbound|80||" + api},
		{"a header that must be there", "caller-a", strings.Replace(full, "x-present:", "", 1), "rest: outbound|80||" + api},
		{"a regex matches the whole value", "caller-a", strings.Replace(full, "ccc", "cccd", 1), "rest: outbound|80||" + api},
		{"a query parameter's regex", "caller-a", strings.Replace(full, "r=42", "r=4a", 1), "rest: outbound|80||" + api},
		{"another block of the same route", "caller-a", "GET api/re/abc", "matchers: weighted"},
		{"a path regex matches the whole path, without the query", "caller-a", "GET api/re/abc?x=y", "matchers: weighted"},
		{"a path regex that matches a part only", "caller-a", "GET api/re/abc1", "rest: outbound|80||" + api},
		{"a block for another port", "caller-a", "GET api/port/x", "rest: outbound|80||" + api},
		{"redirect", "caller-a", "GET api/moved/x", "308 to https://new.example.com:443/there"},
		{"direct response", "caller-a", "GET api/direct", "418 short and stout"},
		{"a destination that does not exist", "caller-a", "GET api/fault", "fault: outbound|80||missing.default.svc.cluster.local"},
		{"a subset that does not exist", "caller-a", "GET api/grpc", "grpc-fault: outbound|80|gone|" + api},
		{"the rest, not what comes after it", "caller-a", "GET api/late", "rest: outbound|80||" + api},
		{"with namespace", "caller-a", "GET api.default/x", "rest: outbound|80||" + api},
		{"full name, any port, other case", "caller-a", "GET API.default.svc.cluster.local:1234/x", "rest: outbound|80||" + api},
		{"absolute name", "caller-a", "GET " + api + "./x", "rest: outbound|80||" + api},
		{"a service without routes", "caller-a", "GET other/x", "default: outbound|80||other.default.svc.cluster.local"},
		{"a VirtualService host without a service goes where it was going", "caller-a", "GET no-such-service/x", "allow_any: PassthroughCluster"},
	}
	views := map[string]*config.View{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if views[tt.node] == nil {
				views[tt.node] = viewOf(t, "routing", tt.node)
			}
			if got := outcome(views[tt.node].Routes["80"].Match(request(tt.request), netip.Addr{}, 0)); got != tt.want {
				t.Errorf("%s\ngot  %s\nwant %s", tt.request, got, tt.want)
			}
		})
	}
}

// Routes of a Service are for who calls its address, whatever host the request names (GAMMA); a Service without routes answers who calls
// its address and names one with.
func TestMeshRoutesAreOfAddresses(t *testing.T) {
	const v1, v2 = "echo-v1.shop.svc.cluster.local", "echo-v2.shop.svc.cluster.local"
	view := viewOf(t, "frontend", "client-1")
	for _, tt := range []struct{ name, table, dst, request, want string }{
		{"the address of the Service with a route, its own name", v2 + ":80", "10.96.0.2", "GET echo-v2/", "shop.v2.0: outbound|80||" + v2},
		{"the address of the Service with a route, another name", v2 + ":80", "10.96.0.2", "GET echo-v1/", "shop.v2.0: outbound|80||" + v2},
		{"another address, the name of the Service with a route", "80", "10.96.0.1", "GET echo-v2/", "default: outbound|80||" + v1},
		{"another address, its own name", "80", "10.96.0.1", "GET echo-v1/", "default: outbound|80||" + v1},
		{"an address that is nobody's", "80", "192.0.2.1", "GET echo-v2/", "allow_any: PassthroughCluster"},
		{"a port without a route, by host", "8080", "10.96.0.1", "GET echo-v2/", "default: outbound|8080||" + v2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			table := view.Routes[tt.table]
			if table == nil {
				t.Fatalf("no table %s", tt.table)
			}
			if got := outcome(table.Match(request(tt.request), netip.MustParseAddr(tt.dst), 0)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestAGatewayRoutesByItsServers asks the compiled tables of the gateway case.
func TestAGatewayRoutesByItsServers(t *testing.T) {
	const web = "outbound|80||web.default.svc.cluster.local"
	view := viewOf(t, "gateway", "ingress-1")
	tests := []struct{ name, table, request, want string }{
		{"a host of two gateways", "http.8080", "GET web.example.com/web", ": " + web},
		{"a match for one of the gateways", "http.8080", "GET web.example.com/only-main", ": " + web},
		{"a newer set for the host adds its routes", "http.8080", "GET web.example.com/else", ": " + web},
		{"not to another host", "http.8080", "GET shop.wild.example.com/else", "404"},
		{"a server that redirects", "http.8080", "GET secure.example.com/x", "301 to ://:0"},
		{"a server that redirects, for who came by https to a proxy that is trusted", "http.8080", "GET secure.example.com/web x-forwarded-proto:https", ": outbound|80||web.default.svc.cluster.local"},
		{"a host that nobody serves", "http.8080", "GET nobody.example.com/x", "404"},
		{"a host that is not of this TLS server", "https.443.https.main.default", "GET web.example.com/web", "404"},
		{"behind TLS", "https.443.https.main.default", "GET secure.example.com/web", ": " + web},
		{"a set of a namespace that the server does not allow", "https.443.https.main.default", "GET secure.example.com/else", "404"},
		{"an absolute name", "http.8080", "GET web.example.com./web", "404"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := view.Routes[tt.table]
			if table == nil {
				t.Fatalf("no table %s", tt.table)
			}
			if got := outcome(table.Match(request(tt.request), netip.Addr{}, 0)); got != tt.want {
				t.Errorf("%s\ngot  %s\nwant %s", tt.request, got, tt.want)
			}
		})
	}
}
