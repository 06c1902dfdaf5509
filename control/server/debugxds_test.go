package server_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"weft.mesh/weft/control/server"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

// startDebug runs a control plane in istio-system that knows four tokens, and connects a proxy of the namespace default.
func startDebug(t *testing.T) *plane {
	t.Helper()
	accounts := map[string][2]string{"operator": {"istio-system", "default"}, "gateway": {"istio-system", "gateway"}, "app": {"default", "web"}, "stranger": {"other", "default"}}
	p := startWith(t, stateDir(t), func(s *server.Settings) {
		s.Name, s.Namespace, s.Local = "istiod-1", "istio-system", true
		s.AttestCaller = func(_ context.Context, token string) (spiffe.ID, error) {
			a, ok := accounts[token]
			if !ok {
				return spiffe.ID{}, errors.New("token: not authenticated")
			}
			return spiffe.New("cluster.local", a[0], a[1])
		}
	})
	if _, err := p.Apply(t.Context(), files(app)); err != nil {
		t.Fatal(err)
	}
	p.connect(t, "sidecar~10.0.0.1~web-1.default~default.svc.cluster.local")
	return p
}

// page is what a page of the control plane says.
func (p *plane) page(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + p.http + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", path, resp.StatusCode, b, err)
	}
	return string(b)
}

// connect brings a proxy that has its clusters, and stays.
func (p *plane) connect(t *testing.T, node string) {
	t.Helper()
	conn := dial(t, p.plain, insecure.NewCredentials())
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DiscoveryRequest{Node: &corev3.Node{Id: node}, TypeUrl: xds.ClusterType}); err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DiscoveryRequest{TypeUrl: xds.ClusterType, ResponseNonce: r.Nonce, VersionInfo: r.VersionInfo}); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, addr string, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask does what istioctl does: TLS without a certificate, a token, one request with a nonce of its own.
func (p *plane) ask(t *testing.T, token, typeURL string, names ...string) (*discovery.DiscoveryResponse, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	conn := dial(t, p.secure, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}))
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	node := &corev3.Node{Id: "sidecar~127.0.0.1~test-1.default~default.svc.cluster.local"}
	if err := stream.Send(&discovery.DiscoveryRequest{Node: node, TypeUrl: typeURL, ResourceNames: names, ResponseNonce: "2026-11-22"}); err != nil && err != io.EOF {
		return nil, err
	}
	r, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	if _, end := stream.Recv(); end != io.EOF { // the caller's turn is over
		t.Errorf("after the answer: %v", end)
	}
	return r, nil
}

// synced asks who is in sync, in the form of pod.namespace TYPE=STATE.
func (p *plane) synced(t *testing.T, token string) string {
	t.Helper()
	r, err := p.ask(t, token, "istio.io/debug/syncz")
	if err != nil {
		return status.Code(err).String()
	}
	var out []string
	for _, a := range r.Resources {
		var c statusv3.ClientConfig
		if err := a.UnmarshalTo(&c); err != nil {
			t.Fatal(err)
		}
		line := c.GetNode().GetId()
		for _, g := range c.GenericXdsConfigs {
			if g.ConfigStatus != statusv3.ConfigStatus_UNKNOWN {
				line += " " + xds.ShortName(g.TypeUrl) + "=" + g.ConfigStatus.String()
			}
		}
		if got := c.GetNode().GetMetadata().GetFields()["NAMESPACE"].GetStringValue(); !strings.HasSuffix(c.GetNode().GetId(), "."+got) {
			t.Errorf("%s is in %q", c.GetNode().GetId(), got)
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func TestTheDebugAPIShowsCallersWhatTheyMaySee(t *testing.T) {
	p := startDebug(t)
	until(t, "the proxy is in sync", func() bool { return p.synced(t, "operator") == "web-1.default CDS=SYNCED" })
	for token, want := range map[string]string{"app": "web-1.default CDS=SYNCED", "stranger": "", "gateway": "", "nonsense": "Unauthenticated", "": "Unauthenticated"} {
		if got := p.synced(t, token); got != want {
			t.Errorf("token %q: %q, want %q", token, got, want)
		}
	}
	dump := func(token, name string) string {
		r, err := p.ask(t, token, "istio.io/debug/config_dump", name)
		if err != nil {
			return status.Code(err).String()
		}
		var clusters adminv3.ClustersConfigDump
		for _, a := range r.Resources {
			if a.MessageIs(&clusters) {
				if err := a.UnmarshalTo(&clusters); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(clusters.DynamicActiveClusters) > 0 {
			return "clusters"
		}
		return string(r.Resources[0].Value)
	}
	const notHere = "Proxy not connected to this Pilot instance. It may be connected to another instance."
	for _, tt := range []struct{ token, name, want string }{
		{"operator", "web-1.default", "clusters"}, {"app", "web-1.default", "clusters"},
		{"operator", "web-2.default", notHere}, {"stranger", "web-1.default", notHere}, {"gateway", "web-1.default", notHere}, {"nonsense", "web-1.default", "Unauthenticated"},
	} {
		if got := dump(tt.token, tt.name); got != tt.want {
			t.Errorf("dump of %s for %s: %q, want %q", tt.name, tt.token, got, tt.want)
		}
	}
}

func TestPagesAreForTheAccountOfIstioctlOnly(t *testing.T) {
	p := startDebug(t)
	for _, tt := range []struct {
		token, typeURL string
		names          []string
		want           codes.Code
	}{
		{"operator", "istio.io/debug", []string{"syncz"}, codes.OK},
		{"operator", "istio.io/debug", []string{"config_dump?proxyID=web-1.default"}, codes.OK},
		{"operator", "istio.io/debug", nil, codes.InvalidArgument},
		{"operator", "istio.io/debug", []string{"syncz", "configz"}, codes.InvalidArgument},
		{"operator", "istio.io/debug", []string{"%zz"}, codes.InvalidArgument},
		{"operator", "istio.io/debug/config_dump", nil, codes.InvalidArgument},
		{"operator", xds.ClusterType, nil, codes.PermissionDenied}, // a token makes nobody a proxy
		{"operator", xds.SecretType, []string{"default"}, codes.PermissionDenied},
		{"gateway", "istio.io/debug", []string{"syncz"}, codes.PermissionDenied},
		{"app", "istio.io/debug", []string{"configz"}, codes.PermissionDenied},
		{"", "istio.io/debug", []string{"syncz"}, codes.Unauthenticated},
	} {
		r, err := p.ask(t, tt.token, tt.typeURL, tt.names...)
		if status.Code(err) != tt.want {
			t.Errorf("%s asks %s %q: %v, want %s", tt.token, tt.typeURL, tt.names, err, tt.want)
		}
		if err == nil && (r.TypeUrl != tt.typeURL || !json.Valid(r.Resources[0].Value)) {
			t.Errorf("%s asks %s %q: %.200v", tt.token, tt.typeURL, tt.names, r)
		}
	}
	r, err := p.ask(t, "operator", "istio.io/debug", "nonsense")
	if err != nil || !strings.Contains(string(r.Resources[0].Value), "404 page not found") { // istioctl lists the pages then
		t.Errorf("a page that is not there: %v %v", r, err)
	}
	if r, err := p.ask(t, "operator", "istio.io/debug", "pprof/"); err != nil || !strings.Contains(string(r.Resources[0].Value), "404") {
		t.Errorf("profiles: %v %v", r, err)
	}
	r, err = p.ask(t, "operator", "istio.io/debug/syncz")
	if err != nil {
		t.Fatal(err)
	}
	var self struct {
		Component, ID string
		Info          struct{ Version string }
	}
	if err := json.Unmarshal([]byte(r.GetControlPlane().GetIdentifier()), &self); err != nil || self.Component != "istiod" || self.ID != "istiod-1" || self.Info.Version == "" {
		t.Errorf("control plane %q: %v", r.GetControlPlane().GetIdentifier(), err)
	}
}

// registered is what Kiali reads of a service.
type registered struct {
	Attributes struct{ ServiceRegistry, Name, Namespace string }
	Hostname   string `json:"hostname"`
	Ports      []struct {
		Name, Protocol string
		Port           int
	} `json:"ports"`
}

// The state of a gateway is told as that of a sidecar, to istioctl and on the page that Kiali reads.
func TestTheStateOfAGatewayIsTold(t *testing.T) {
	p := startDebug(t)
	p.connect(t, "router~10.0.0.9~gw-1.edge~edge.svc.cluster.local")
	until(t, "the gateway is in sync", func() bool {
		var sync []struct {
			Proxy string `json:"proxy"`
			Type  string `json:"proxy_type"`
			Sent  string `json:"cluster_sent"`
			Acked string `json:"cluster_acked"`
		}
		if err := json.Unmarshal([]byte(p.page(t, "/debug/syncz?namespace=edge")), &sync); err != nil {
			t.Fatal(err)
		}
		return len(sync) == 1 && sync[0].Proxy == "gw-1.edge" && sync[0].Type == "router" && sync[0].Sent != "" && sync[0].Sent == sync[0].Acked
	})
	if got := p.synced(t, "operator"); !strings.Contains(got, "gw-1.edge CDS=SYNCED") {
		t.Errorf("istioctl hears %q", got)
	}
}

func TestPagesHaveTheShapesThatToolsRead(t *testing.T) {
	p := startDebug(t)
	get := func(path string, to any) string {
		t.Helper()
		b := p.page(t, path)
		if to != nil {
			if err := json.Unmarshal([]byte(b), to); err != nil {
				t.Fatalf("%s: %v\n%s", path, err, b)
			}
		}
		return b
	}
	var services []registered
	get("/debug/registryz", &services)
	i := slices.IndexFunc(services, func(s registered) bool { return s.Attributes.Name == "web" })
	if i < 0 || services[i].Attributes.Namespace != "default" || services[i].Attributes.ServiceRegistry != "Kubernetes" || services[i].Hostname != "web.default.svc.cluster.local" ||
		len(services[i].Ports) != 1 || services[i].Ports[0].Port != 80 || services[i].Ports[0].Name != "http" {
		t.Errorf("registryz = %+v", services)
	}
	var objects []struct {
		Kind     string
		Metadata struct{ Name, Namespace string }
	}
	get("/debug/configz", &objects)
	if len(objects) != 2 || objects[0].Metadata.Name != "web" {
		t.Errorf("configz = %+v", objects)
	}
	var endpoints map[string]map[string]struct{ Shards map[string][]any }
	get("/debug/endpointShardz", &endpoints)
	if _, ok := endpoints["web.default.svc.cluster.local"]["default"].Shards["Kubernetes/Kubernetes"]; !ok {
		t.Errorf("endpointShardz = %+v", endpoints)
	}
	var sync []struct {
		Proxy     string `json:"proxy"`
		ClusterID string `json:"cluster_id"`
		Resources map[string]struct{ Sent string }
	}
	get("/debug/syncz?namespace=default", &sync)
	if len(sync) != 1 || sync[0].Proxy != "web-1.default" || sync[0].ClusterID != "Kubernetes" || sync[0].Resources[xds.ClusterType].Sent == "" {
		t.Errorf("syncz = %+v", sync)
	}
	if get("/debug/syncz?namespace=other", &sync); len(sync) != 0 {
		t.Errorf("syncz of another namespace = %+v", sync)
	}
	var dump adminv3.ConfigDump
	if err := protojson.Unmarshal([]byte(get("/debug/config_dump?proxyID=web-1.default", nil)), &dump); err != nil || len(dump.Configs) != len(xds.PushOrder) {
		t.Errorf("config_dump: %d messages, %v", len(dump.Configs), err)
	}
	var names struct {
		Configs []struct {
			Type  string              `json:"@type"`
			Table map[string]nds.Info `json:"table"`
		}
	}
	get("/debug/ndsz?proxyID=web-1.default", &names)
	if len(names.Configs) != 1 || names.Configs[0].Type != xds.NameTableType || names.Configs[0].Table["web.default.svc.cluster.local"].Shortname != "web" {
		t.Errorf("ndsz = %+v", names)
	}
	for _, path := range []string{"/ready", "/debug/syncz"} { // where Kiali asks
		resp, err := http.Get("http://" + p.local + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s on 8080: %s", path, resp.Status)
		}
	}
	// As istioctl takes it apart: version, commit and state by the last two dashes.
	if parts := strings.Split(get("/version", nil), "-"); len(parts) < 3 || parts[len(parts)-1] != "Weft" {
		t.Errorf("version = %q", parts)
	}
}
