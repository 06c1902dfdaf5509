package conformance

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/proxy/proxytest"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/xdstest"
)

// Both proxies listen on the same port of different loopback addresses, so that
// requests can be the same to the byte.
const (
	weftAddress  = "127.0.0.2"
	envoyAddress = "127.0.0.3"
)

// proxies are weft-proxy and Envoy with the same configuration.
type proxies struct {
	port int
	up   *backends
	self string // what Envoy calls clients on loopback
	// slower is what waits are multiplied by; 0 is 1.
	slower time.Duration
}

// startProxies translates differential.yaml for one node and starts both on it.
func startProxies(t *testing.T, up *backends, world *translate.Snapshot, typ xds.NodeType) *proxies {
	t.Helper()
	envoy, err := exec.LookPath("envoy")
	if err != nil {
		t.Skip("SKIPPED: no envoy on PATH, so nothing compares weft-proxy with a real Envoy")
	}
	p := &proxies{port: proxytest.Port(t), up: up}
	node := xds.Node{
		ID: xds.NodeID(typ, netip.MustParseAddr("127.0.0.1"), "ingress-1", "default", "default.svc.cluster.local"), Type: typ,
		IP: netip.MustParseAddr("127.0.0.1"), Name: "ingress-1", Namespace: "default", Domain: "default.svc.cluster.local",
		Metadata: xds.Metadata{Namespace: "default", Labels: map[string]string{"app": "ingress"}},
	}
	theirs := node
	p.startEnvoy(t, envoy, bindTo(t, world, &theirs, envoyAddress, p.port))
	ours := node
	ours.WeftProxy = true
	p.startWeft(t, typ, bindTo(t, world, &ours, weftAddress, p.port))
	for _, a := range []string{weftAddress, envoyAddress} {
		proxytest.Until(t, a+" to serve", func() bool {
			o := p.exchange(a, []byte("GET /exact HTTP/1.1\r\nhost: match.test\r\n\r\n"), 1, 0)
			return len(o) == 1 && strings.HasPrefix(o[0], "HTTP/1.1 211")
		})
	}
	p.learnSelf()
	return p
}

// bindTo is all that the node gets, with its listener for HTTP on an address of the test's.
func bindTo(t *testing.T, s *translate.Snapshot, n *xds.Node, address string, port int) []*xds.Resource {
	t.Helper()
	var out []*xds.Resource
	for _, typ := range []string{xds.ClusterType, xds.EndpointType, xds.RouteType} {
		out = append(out, resources(t, s, n, typ)...)
	}
	for _, r := range resources(t, s, n, xds.ListenerType) {
		l := &listenerv3.Listener{}
		decode(t, r, l)
		if l.Name != "0.0.0.0_8080" && l.Name != "0.0.0.0_80" {
			continue
		}
		a := l.Address.GetSocketAddress()
		a.Address, a.PortSpecifier = address, &corev3.SocketAddress_PortValue{PortValue: uint32(port)}
		l.BindToPort = wrapperspb.Bool(true)
		l.DefaultFilterChain = nil // passthrough would come back here
		body, err := proto.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, xds.NewResource(xds.ListenerType, l.Name, body))
	}
	return out
}

func (p *proxies) startWeft(t *testing.T, typ xds.NodeType, rs []*xds.Resource) {
	t.Helper()
	w := proxytest.NewMesh(t).StartCold(proxytest.Options{Name: "ingress-1", Role: typ})
	w.ADS.Set(rs...)
	w.WaitReady()
}

func (p *proxies) startEnvoy(t *testing.T, envoy string, rs []*xds.Resource) { runEnvoy(t, envoy, rs) }

// runEnvoy starts an Envoy and returns the control plane that it is connected to.
func runEnvoy(t *testing.T, envoy string, rs []*xds.Resource) *xdstest.FakeServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ads, g := xdstest.NewFakeServer(), grpc.NewServer()
	ads.Set(rs...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, ads)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { ads.Close(); g.Stop(); <-done })

	execEnvoy(t, envoy, envoyBootstrap(t, l.Addr().(*net.TCPAddr).Port, &corev3.Node{Id: "envoy", Cluster: "test"}, nil))
	return ads
}

// execEnvoy runs it until the test ends.
func execEnvoy(t *testing.T, envoy string, bootstrap []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, bootstrap, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, envoy, "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
	log := &proxytest.SafeBuffer{}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = log, log, 5*time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of envoy:\n%s", log)
		}
	})
}

// envoyBootstrap points Envoy at an incremental ADS server on loopback; without secure in plaintext.
func envoyBootstrap(t *testing.T, adsPort int, node *corev3.Node, secure *corev3.TransportSocket) []byte {
	t.Helper()
	c := controlPlane(t)
	c.TransportSocket = secure
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: "xds", Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(adsPort)},
			}}},
		}}}},
	}}}
	overADS := &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
	b := &bootstrapv3.Bootstrap{
		Node: node,
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			LdsConfig: overADS, CdsConfig: overADS,
			AdsConfig: &corev3.ApiConfigSource{
				ApiType: corev3.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
				GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "xds"},
				}}},
			},
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{c}},
	}
	j, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// differentialWorld is the mesh of differential.yaml with its backends.
func differentialWorld(t *testing.T, services map[string][]int) *translate.Snapshot {
	t.Helper()
	text, err := os.ReadFile("differential.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := template.New("mesh").Funcs(template.FuncMap{"inc": func(i int) int { return i + 1 }}).Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tmpl.Execute(&b, map[string]any{"Services": services}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "in.yaml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	mesh := snapshot.Defaults(model.Mesh{})
	changes := append(translatetest.Decode(t, file, mesh, convert.Options{}), gatewayAPI()...)
	return translate.New(snapshot.Build(snapshot.Empty(mesh), changes, time.Unix(0, 0)), mesh)
}

// startBackends starts one raw server per endpoint of the mesh.
func startBackends(t *testing.T) (*backends, map[string][]int) {
	t.Helper()
	up := &backends{}
	services := map[string][]int{"empty": nil, "dead": {proxytest.Port(t)}, "grpc": {grpcUpstream(t, up)}}
	for name, n := range map[string]int{"one": 1, "two": 2, "mirror": 1, "ring": 5, "maglev": 5, "query": 5, "cookie": 5} {
		for i := range n {
			services[name] = append(services[name], up.start(t, strings.TrimSuffix(fmt.Sprintf("%s-%d", name, i+1), map[bool]string{true: "-1"}[n == 1])))
		}
	}
	services["half"] = []int{services["dead"][0], services["one"][0]}
	return up, services
}
