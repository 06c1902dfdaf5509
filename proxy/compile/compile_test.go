package compile

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/canon"
)

var t0 = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

const (
	apiCluster = "outbound|80|v1|api.default.svc.cluster.local"
	httpName   = "0.0.0.0_80"
)

func load(t testing.TB, file string) map[string][]*xds.Resource {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func parse(t testing.TB, text string) map[string][]*xds.Resource {
	t.Helper()
	rs, err := canon.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]*xds.Resource{}
	for _, r := range rs {
		m[r.TypeURL] = append(m[r.TypeURL], r)
	}
	return m
}

func one(t testing.TB, text string) *xds.Resource {
	t.Helper()
	for _, rs := range parse(t, text) {
		return rs[0]
	}
	t.Fatal("no resource")
	return nil
}

func apply(t testing.TB, c *Compiler, typeURL string, rs ...*xds.Resource) *config.View {
	t.Helper()
	v, refused := c.Apply(Update{TypeURL: typeURL, Set: rs}, t0)
	if len(refused) > 0 {
		t.Fatalf("refused: %s", NACK(refused))
	}
	return v
}

func full(t testing.TB) (*Compiler, map[string][]*xds.Resource) {
	t.Helper()
	c := New(Settings{})
	m := load(t, "testdata/sidecar.yaml")
	for _, typeURL := range xds.PushOrder {
		apply(t, c, typeURL, m[typeURL]...)
	}
	return c, m
}

func TestASidecarsResourcesCompile(t *testing.T) {
	c, _ := full(t)
	v := c.View()
	k := v.Clusters[apiCluster]
	if k == nil || !k.Warm || len(k.Endpoints) != 1 {
		t.Fatalf("cluster = %+v", k)
	}
	if e := k.Endpoints[0]; e.Addr.String() != "10.0.0.7:8080" || e.Transport["tlsMode"] != "istio" || e.Workload.CanonicalName != "api" || e.Workload.Cluster != "Kubernetes" {
		t.Errorf("endpoint = %+v, workload %+v", e, e.Workload)
	}
	want := &config.UpstreamTLS{Workload: true, SNI: "outbound_.80_.v1_.api.default.svc.cluster.local", ALPN: []string{"istio"},
		SANs:       []config.SANMatch{{Kind: config.SANURI, Match: route.StringMatch{Kind: route.StringExact, Value: "spiffe://cluster.local/ns/default/sa/api"}}},
		MinVersion: 0x303, MaxVersion: 0x304}
	if d := cmp.Diff(want, k.TLSMatches[0].TLS); d != "" {
		t.Errorf("TLS of tlsMode-istio (-want +got):\n%s", d)
	}
	if k.TLSMatches[1].TLS != nil || k.TLS != nil {
		t.Error("plaintext match has TLS")
	}
	if k.Protocol != config.ProtoHTTP2 || k.MaxConcurrentStreams != 1000 || k.PanicThreshold != 0 || k.Breakers.MaxRetries != 7 || k.Outlier.Consecutive5xx != 3 || k.Outlier.ConsecutiveGateway != 0 {
		t.Errorf("cluster = %+v, outlier %+v", k, k.Outlier)
	}
	if k.Service.Name != "api" || k.Service.Namespace != "default" {
		t.Errorf("service = %+v", k.Service)
	}
	if got := v.Clusters["inbound|8080||"]; got.BindSource.String() != "127.0.0.6" || !got.Warm {
		t.Errorf("inbound cluster = %+v", got)
	}
	l := v.Listeners[httpName]
	if l == nil || l.BindToPort || !l.Inspect.HTTP || len(l.Chains) != 1 || l.Default == nil || l.Default.TCP.Cluster != "PassthroughCluster" {
		t.Fatalf("listener = %+v", l)
	}
	h := l.Chains[0].HTTP
	if h.RouteName != "80" || !h.Normalize || h.Tracing.RandomSampling != 1 || !h.Tracing.Outbound || h.MaxHeaderBytes != 60<<10 || !h.GenerateRequestID {
		t.Errorf("connection manager = %+v", h)
	}
	r := v.Routes["80"].VirtualHosts[0].Routes[0]
	if r.Forward.Retry.On != route.RetryConnectFailure|route.RetryRefusedStream|route.RetryGRPCUnavailable|route.RetryGRPCCancelled|route.RetryRetriableStatusCodes ||
		!r.Forward.Retry.AvoidPrevious || r.Forward.Timeout != 0 || !r.Forward.UseGRPC {
		t.Errorf("route = %+v, retry %+v", r.Forward, r.Forward.Retry)
	}
	if got := c.Wanted(xds.EndpointType); !slices.Equal(got, []string{apiCluster}) {
		t.Errorf("wanted endpoints = %q", got)
	}
	if got := c.Wanted(xds.RouteType); !slices.Equal(got, []string{"80"}) {
		t.Errorf("wanted routes = %q", got)
	}
	if got := c.Wanted(xds.SecretType); len(got) != 0 {
		t.Errorf("wanted secrets = %q; the workload's identity does not come over SDS", got)
	}
}

func TestABadResourceIsRefusedAndItsPreviousVersionServes(t *testing.T) {
	c, m := full(t)
	before := c.View()
	old := before.Clusters[apiCluster]
	badOne := one(t, `{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: `+apiCluster+`, type: EDS, connect_timeout: 1s, eds_cluster_config: {eds_config: {ads: {}}}, track_timeout_budgets: true}`)
	good := one(t, `{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: new, type: STATIC, connect_timeout: 1s}`)
	v, refused := c.Apply(Update{TypeURL: xds.ClusterType, Set: []*xds.Resource{badOne, good}}, t0)
	if len(refused) != 1 || refused[0].Name != apiCluster || !strings.Contains(refused[0].Reason, "track_timeout_budgets") {
		t.Fatalf("refused = %v", refused)
	}
	if v.Clusters[apiCluster] != old {
		t.Error("the refused cluster's previous version does not serve unchanged")
	}
	if v.Clusters["new"] == nil {
		t.Error("a good resource was lost because it shared a message with a bad one")
	}
	for _, a := range c.Resources(xds.ClusterType) {
		if a.Resource.Name == apiCluster && a.Resource != m[xds.ClusterType][0] {
			t.Error("dump shows the refused resource")
		}
	}
}

func TestAnEndpointPushLeavesEverythingElseThePointerItWas(t *testing.T) {
	c, _ := full(t)
	before := c.View()
	eds := one(t, `{'@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: `+apiCluster+`}`)
	after := apply(t, c, xds.EndpointType, eds)
	if after == before || len(after.Clusters[apiCluster].Endpoints) != 0 || !after.Clusters[apiCluster].Warm {
		t.Fatalf("push had no effect: %+v", after.Clusters[apiCluster])
	}
	if after.Clusters["PassthroughCluster"] != before.Clusters["PassthroughCluster"] || after.Listeners[httpName] != before.Listeners[httpName] || after.Routes["80"] != before.Routes["80"] {
		t.Error("an unrelated part was built anew")
	}
	if again := apply(t, c, xds.EndpointType, eds); again != after {
		t.Error("the same push again made a new View")
	}
}

func TestAListenerWaitsForItsRoutesAndItsOldVersionServesMeanwhile(t *testing.T) {
	c, m := full(t)
	old := c.View().Listeners[httpName]
	next := one(t, strings.ReplaceAll(`{'@type': type.googleapis.com/envoy.config.listener.v3.Listener, name: 0.0.0.0_80, address: {socket_address: {address: 0.0.0.0, port_value: 80}}, bind_to_port: false,
 filter_chains: [{filters: [{name: hcm, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: x,
 rds: {config_source: {ads: {}}, route_config_name: later}, http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}`, "\n", ""))
	v := apply(t, c, xds.ListenerType, next)
	if v.Listeners[httpName] != old {
		t.Fatal("the new version serves before its routes are there")
	}
	if got := c.Wanted(xds.RouteType); !slices.Equal(got, []string{"80", "later"}) {
		t.Errorf("wanted routes = %q, want those of both versions", got)
	}
	at, ok := c.Deadline()
	if !ok || !at.Equal(t0.Add(DefaultFetchTimeout)) {
		t.Errorf("deadline = %v, %v", at, ok)
	}
	if v := c.Expire(at.Add(-1)); v.Listeners[httpName] != old {
		t.Error("waiting ended early")
	}
	if v := c.Expire(at); v.Listeners[httpName] == old {
		t.Error("waiting did not end")
	}
	if _, ok := c.Deadline(); ok {
		t.Error("an ended wait is still pending")
	}
	_ = m
}

func TestAListenerGoesLiveWhenItsRoutesArrive(t *testing.T) {
	c := New(Settings{})
	m := load(t, "testdata/sidecar.yaml")
	apply(t, c, xds.ClusterType, m[xds.ClusterType]...)
	v := apply(t, c, xds.ListenerType, m[xds.ListenerType]...)
	if v.Listeners[httpName] != nil || v.Listeners["virtualOutbound"] == nil {
		t.Fatal("want only the listener without routes to serve")
	}
	if got := c.Pending(); !slices.Equal(got, []string{"EDS " + apiCluster, "RDS 80"}) {
		t.Errorf("pending = %q", got)
	}
	if k := v.Clusters[apiCluster]; k.Warm {
		t.Error("a cluster without endpoints is said to be warm")
	}
	if v = apply(t, c, xds.RouteType, m[xds.RouteType]...); v.Listeners[httpName] != nil {
		t.Error("the listener serves before the endpoints of its routes' clusters are known")
	}
	if v = apply(t, c, xds.EndpointType, m[xds.EndpointType]...); v.Listeners[httpName] == nil || v.Routes["80"] == nil {
		t.Error("routes and endpoints arrived, but the listener does not serve")
	}
	v, _ = c.Apply(Update{TypeURL: xds.ListenerType, Removed: []string{httpName}}, t0)
	if v.Listeners[httpName] != nil || len(c.Resources(xds.RouteType)) != 0 {
		t.Error("after the listener went its routes are kept")
	}
}

func TestReplaceRemovesWhatIsNotInTheUpdate(t *testing.T) {
	c, m := full(t)
	v, _ := c.Apply(Update{TypeURL: xds.ClusterType, Set: m[xds.ClusterType][:1], Replace: true}, t0)
	if len(v.Clusters) != 1 {
		t.Errorf("clusters = %d, want 1", len(v.Clusters))
	}
}

func TestAChainThatDidNotChangeIsTakenOverByTheListenersNextVersion(t *testing.T) {
	chainText := func(name, cluster string) string {
		return `{name: c` + name + `, filter_chain_match: {destination_port: ` + name + `}, filters: [{name: tcp, typed_config: {'@type': ` + tp + typeTCP + `, stat_prefix: x, cluster: ` + cluster + `}}]}`
	}
	text := func(chains ...string) string {
		return `{'@type': ` + xds.ListenerType + `, name: l, address: {socket_address: {address: 0.0.0.0, port_value: 15006}}, filter_chains: [` + strings.Join(chains, ",") + `]}`
	}
	c := New(Settings{})
	before := apply(t, c, xds.ListenerType, one(t, text(chainText("1", "a"), chainText("2", "a")))).Listeners["l"]
	after := apply(t, c, xds.ListenerType, one(t, text(chainText("3", "a"), chainText("1", "b"), chainText("2", "a")))).Listeners["l"]
	if before.Chains[1] != after.Chains[2] {
		t.Error("an unchanged chain was built anew: its connections would be drained")
	}
	if before.Chains[0] == after.Chains[1] {
		t.Error("a changed chain was taken over")
	}
}

func TestTrafficMovesToANewClusterWhenItsEndpointsAreKnown(t *testing.T) {
	c, _ := full(t)
	old := c.View().Routes["80"]
	apply(t, c, xds.ClusterType, one(t, `{'@type': `+xds.ClusterType+`, name: v2, type: EDS, connect_timeout: 1s, eds_cluster_config: {eds_config: {ads: {}}}}`))
	next := one(t, `{'@type': `+xds.RouteType+`, name: '80', virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: v2}}]}]}`)
	if v := apply(t, c, xds.RouteType, next); v.Routes["80"] != old {
		t.Fatal("routes to a cluster without endpoints serve")
	}
	t.Run("they arrive", func(t *testing.T) {
		eds := one(t, `{'@type': `+xds.EndpointType+`, cluster_name: v2}`)
		if v := apply(t, c, xds.EndpointType, eds); v.Routes["80"] == old || !v.Clusters["v2"].Warm {
			t.Error("endpoints are known, but the old routes serve")
		}
	})
}

func TestNothingWaitsForWhatTheServerSaysDoesNotExist(t *testing.T) {
	c := New(Settings{})
	m := load(t, "testdata/sidecar.yaml")
	apply(t, c, xds.ClusterType, m[xds.ClusterType]...)
	if v := c.View(); v.Clusters[apiCluster].Warm {
		t.Fatal("warm without endpoints")
	}
	v, _ := c.Apply(Update{TypeURL: xds.EndpointType, Removed: []string{apiCluster}}, t0)
	if !v.Clusters[apiCluster].Warm || len(c.Pending()) != 0 {
		t.Errorf("still waiting for %q", c.Pending())
	}
	if v = apply(t, c, xds.EndpointType, m[xds.EndpointType]...); len(v.Clusters[apiCluster].Endpoints) != 1 {
		t.Error("endpoints that came into being are not used")
	}
}
