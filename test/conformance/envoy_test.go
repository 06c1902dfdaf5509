package conformance

import (
	"bytes"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// TestARealEnvoyTakesWhatTranslateMakes puts what each node of the golden cases
// gets into a bootstrap and lets Envoy check it.
func TestARealEnvoyTakesWhatTranslateMakes(t *testing.T) {
	envoy, err := exec.LookPath("envoy")
	if err != nil {
		t.Skip("SKIPPED: no envoy on PATH, so nothing proves that a real Envoy takes our resources")
	}
	cases := translatetest.Load(t, "../../control/translate/testdata")
	for seed := range uint64(4) {
		cases = append(cases, translatetest.Random(seed))
	}
	for _, c := range cases {
		for _, n := range c.Nodes {
			if n.Kind == "grpc" {
				continue
			}
			t.Run(c.Name+"/"+n.Kind+" "+n.Name, func(t *testing.T) {
				node := *n.Node
				node.WeftProxy = false
				dir := t.TempDir()
				config := bootstrap(t, translate.New(c.World, c.Mesh), &node, dir)
				file := filepath.Join(dir, "envoy.json")
				if err := os.WriteFile(file, config, 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command(envoy, "--mode", "validate", "-c", file, "--log-level", "warning").CombinedOutput()
				if err != nil {
					t.Errorf("envoy: %v\n%s", err, out)
				}
			})
		}
	}
}

// bootstrap is a static configuration of all the node's resources. Route tables
// are checked inside listeners made for them.
func bootstrap(t *testing.T, s *translate.Snapshot, n *xds.Node, dir string) []byte {
	t.Helper()
	b := &bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: n.ID, Cluster: "test"},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "xds"},
			}}},
		}},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{controlPlane(t)}},
	}
	for _, r := range resources(t, s, n, xds.ClusterType) {
		c := &clusterv3.Cluster{}
		decode(t, r, c)
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, c)
	}
	for _, r := range resources(t, s, n, xds.ListenerType) {
		l := &listenerv3.Listener{}
		decode(t, r, l)
		b.StaticResources.Listeners = append(b.StaticResources.Listeners, l)
	}
	for _, r := range resources(t, s, n, xds.RouteType) {
		rc := &routev3.RouteConfiguration{}
		decode(t, r, rc)
		b.StaticResources.Listeners = append(b.StaticResources.Listeners, tableListener(t, rc))
	}
	j, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return withFiles(t, j, dir)
}

func resources(t *testing.T, s *translate.Snapshot, n *xds.Node, typ string) []*xds.Resource {
	t.Helper()
	rs, err := s.Resources(n, typ, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func decode(t *testing.T, r *xds.Resource, m proto.Message) {
	t.Helper()
	if err := proto.Unmarshal(r.Body, m); err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
}

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func controlPlane(t *testing.T) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: "xds", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(t, &upstreamsv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
					ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}},
				}},
			}),
		},
	}
}

func tableListener(t *testing.T, rc *routev3.RouteConfiguration) *listenerv3.Listener {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: "table", RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: rc},
		HttpFilters: []*hcmv3.HttpFilter{
			{Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(t, &routerv3.Router{})}},
		},
	}
	return &listenerv3.Listener{
		Name: "table " + rc.Name,
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 0},
		}}},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, m)},
		}}}},
	}
}

// withFiles puts certificates where the configuration says they are, below dir.
func withFiles(t *testing.T, config []byte, dir string) []byte {
	t.Helper()
	cert, key := pair()
	for _, folder := range []string{"/etc/certs/", "/certs/"} {
		config = bytes.ReplaceAll(config, []byte(`"`+folder), []byte(`"`+dir+`/`))
	}
	for _, name := range []string{"tls.crt", "ca.crt", "c.crt", "tls.key", "c.key"} {
		data := cert
		if strings.HasSuffix(name, ".key") {
			data = key
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return secretsFromFiles(t, config, dir)
}

// secretsFromFiles lets secrets come from files: a static cluster is made
// before there is an ADS stream, which Envoy's validation does not survive.
func secretsFromFiles(t *testing.T, config []byte, dir string) []byte {
	t.Helper()
	var tree any
	if err := json.Unmarshal(config, &tree); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{xds.SecretWorkload: true, xds.SecretRoot: true}
	replaceSDS(tree, dir, names)
	cert := map[string]any{"filename": filepath.Join(dir, "tls.crt")}
	for name := range names {
		kind, secret := "tlsCertificate", map[string]any{"certificateChain": cert, "privateKey": map[string]any{"filename": filepath.Join(dir, "tls.key")}}
		if name == xds.SecretRoot || strings.HasSuffix(name, model.CredentialCASuffix) {
			kind, secret = "validationContext", map[string]any{"trustedCa": cert}
		}
		data, err := json.Marshal(map[string]any{"resources": []any{map[string]any{"@type": xds.SecretType, "name": name, kind: secret}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(secretFile(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// secretFile is where a secret is: its name may be an address.
func secretFile(dir, name string) string { return filepath.Join(dir, url.QueryEscape(name)+".json") }

func replaceSDS(v any, dir string, names map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["sdsConfig"]; ok {
			name := v["name"].(string)
			names[name] = true
			v["sdsConfig"] = map[string]any{
				"resourceApiVersion": "V3", "pathConfigSource": map[string]any{"path": secretFile(dir, name)},
			}
			return
		}
		for _, x := range v {
			replaceSDS(x, dir, names)
		}
	case []any:
		for _, x := range v {
			replaceSDS(x, dir, names)
		}
	}
}
