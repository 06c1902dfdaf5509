package xdsclient

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"weft.mesh/weft/internal/backoff"
	"weft.mesh/weft/proxy/compile"
)

// compilerSink is the proxy's real compiler as a Sink.
type compilerSink struct {
	*memorySink
	c *compile.Compiler
}

func (s *compilerSink) Apply(u Update) (refused []string, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, rs := s.c.Apply(compile.Update{TypeURL: u.TypeURL, Set: u.Set, Removed: u.Removed}, time.Now())
	for _, r := range rs {
		refused = append(refused, r.Name)
	}
	return refused, compile.NACK(rs)
}

func (s *compilerSink) Wanted(typeURL string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.c.Wanted(typeURL)
}

func mustAny(t *testing.T, m interface {
	types.Resource
}) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func snapshot(t *testing.T, version string, port uint32) *cache.Snapshot {
	t.Helper()
	ads := &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
	addr := func(ip string, port uint32) *corev3.Address {
		return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}
	}
	hcm := &hcmv3.HttpConnectionManager{StatPrefix: "http",
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads, RouteConfigName: "routes"}},
		HttpFilters: []*hcmv3.HttpFilter{{Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{
			TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}},
	}
	s, err := cache.NewSnapshot(version, map[resource.Type][]types.Resource{
		resource.ClusterType: {&clusterv3.Cluster{Name: "backend", ConnectTimeout: durationpb.New(time.Second),
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}, EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads}}},
		resource.EndpointType: {&endpointv3.ClusterLoadAssignment{ClusterName: "backend", Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{
			{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: addr("127.0.0.1", port)}}}}}}}},
		resource.ListenerType: {&listenerv3.Listener{Name: "front", Address: addr("127.0.0.1", 10000), FilterChains: []*listenerv3.FilterChain{{
			Filters: []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: mustAny(t, hcm)}}}}}}},
		resource.RouteType: {&routev3.RouteConfiguration{Name: "routes", VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "backend"}}}}}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The proxy takes its configuration from servers that are built on
// go-control-plane: its snapshot cache, in ADS mode and not, behind its delta server.
func TestAServerBuiltOnGoControlPlaneConfiguresTheProxy(t *testing.T) {
	for _, mode := range []struct {
		name string
		ads  bool
	}{{"snapshot cache in ADS mode", true}, {"snapshot cache without ADS mode", false}} {
		t.Run(mode.name, func(t *testing.T) {
			ctx := t.Context()
			snapshots := cache.NewSnapshotCache(mode.ads, cache.IDHash{}, nil)
			if err := snapshots.SetSnapshot(ctx, node.GetId(), snapshot(t, "1", 8080)); err != nil {
				t.Fatal(err)
			}
			srv := serverv3.NewServer(ctx, snapshots, nil)
			addr := serve(t, func(g *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, srv) })
			sink := &compilerSink{newSink(), compile.New(compile.Settings{})}
			c, err := New(Settings{Address: addr, Node: node, Credentials: insecure.NewCredentials(), Sink: sink,
				Backoff: backoff.Full(time.Millisecond, 5*time.Millisecond), File: filepath.Join(t.TempDir(), "x")})
			if err != nil {
				t.Fatal(err)
			}
			runCtx, cancel := context.WithCancel(ctx)
			done := make(chan struct{})
			go func() { defer close(done); _ = c.Run(runCtx) }()
			defer func() { cancel(); <-done }()
			port := func() uint16 {
				sink.mu.Lock()
				defer sink.mu.Unlock()
				v := sink.c.View()
				if v.Listeners["front"] == nil || v.Routes["routes"] == nil || v.Clusters["backend"] == nil || len(v.Clusters["backend"].Endpoints) == 0 {
					return 0
				}
				return v.Clusters["backend"].Endpoints[0].Addr.Port()
			}
			sink.until(t, "the first snapshot", func() bool { return port() == 8080 })
			if err := snapshots.SetSnapshot(ctx, node.GetId(), snapshot(t, "2", 9090)); err != nil {
				t.Fatal(err)
			}
			sink.until(t, "the second snapshot", func() bool { return port() == 9090 })
			if st := c.Status(); st.NACKs != 0 || st.Streams != 1 {
				t.Errorf("status = %+v", st)
			}
		})
	}
}
