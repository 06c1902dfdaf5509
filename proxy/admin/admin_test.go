package admin

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/upstream"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

const key = "-----BEGIN PRIVATE KEY----- very secret"

type metrics string

func (m metrics) WriteText(w io.Writer) error {
	_, err := io.WriteString(w, string(m))
	return err
}

func inline(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}

func encode(t *testing.T, name string, m proto.Message) Resource {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return Resource{xds.NewResource(a.TypeUrl, name, a.Value), time.Unix(1, 0)}
}

type fake struct {
	drained, quit int
	live          bool
	level         slog.LevelVar
	resources     map[string][]Resource
}

func newServer(t *testing.T) (*Server, *fake) {
	t.Helper()
	cert := &tlsv3.TlsCertificate{CertificateChain: inline("chain"), PrivateKey: inline(key)}
	ctx, err := anypb.New(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: []*tlsv3.TlsCertificate{cert}}})
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{live: true, resources: map[string][]Resource{
		xds.ClusterType: {encode(t, "c", &clusterv3.Cluster{Name: "c", TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: ctx}}})},
		xds.SecretType:  {encode(t, "s", &tlsv3.Secret{Name: "s", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: cert}})},
	}}
	s, err := New(Settings{
		Resources: func(u string) []Resource { return f.resources[u] },
		Refused: func(u string) []Refused {
			if u == xds.ClusterType {
				return []Refused{{Name: "c", Reason: "because", At: time.Unix(2, 0)}}
			}
			return nil
		},
		View: func() *config.View { return &config.View{} },
		Clusters: func() []upstream.ClusterSnapshot {
			return []upstream.ClusterSnapshot{{Config: &config.Cluster{Name: "c"}, Hosts: []upstream.HostSnapshot{{
				Addr: netip.MustParseAddrPort("10.0.0.1:80"), Endpoint: &config.Endpoint{Weight: 1}, Ejected: true, RqTotal: 7}}}}
		},
		Listeners: func() []Listener {
			return []Listener{{Name: "virtualOutbound", Address: netip.MustParseAddrPort("0.0.0.0:15001"), Bound: true}}
		},
		Registry: metrics("# TYPE a counter\na{x=\"1\"} 3\nb 0\n"),
		Info:     func() Info { return Info{Version: "v", NodeID: "n", Started: time.Now()} },
		Healthy:  func() (bool, string) { return f.live, "no certificate yet" },
		State: func() string {
			if f.live {
				return "LIVE"
			}
			return "INITIALIZING"
		},
		Level: &f.level, Drain: func() { f.drained++ }, Quit: func() { f.quit++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, f
}

func do(h http.Handler, method, host, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://"+host+path, nil)
	r.RemoteAddr = "127.0.0.1:5000"
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAConfigDumpIsEnvoysAndShowsNoKey(t *testing.T) {
	s, _ := newServer(t)
	for _, path := range []string{"/config_dump", "/config_dump?include_eds", "/config_dump?resource=dynamic_active_clusters", "/config_dump?resource=dynamic_active_secrets"} {
		w := do(s.adminPages(), "GET", "localhost", path)
		if w.Code != 200 || strings.Contains(w.Body.String(), "secret\"") && strings.Contains(w.Body.String(), "very secret") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), "PRIVATE KEY") {
			t.Errorf("%s shows a private key", path)
		}
	}
	var d adminv3.ConfigDump
	b := do(s.adminPages(), "GET", "localhost", "/config_dump?include_eds").Body.Bytes()
	if err := (protojson.UnmarshalOptions{}).Unmarshal(b, &d); err != nil {
		t.Fatalf("not Envoy's ConfigDump: %v\n%s", err, b)
	}
	var clusters adminv3.ClustersConfigDump
	var names []string
	for _, c := range d.Configs {
		names = append(names, string(c.MessageName().Name()))
		if c.MessageIs(&clusters) {
			if err := c.UnmarshalTo(&clusters); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := strings.Join(names, " "); got != "BootstrapConfigDump ClustersConfigDump EndpointsConfigDump ListenersConfigDump RoutesConfigDump SecretsConfigDump EcdsConfigDump" {
		t.Errorf("dump has %s", got)
	}
	c := clusters.DynamicActiveClusters[0]
	if c.GetErrorState().GetDetails() != "because" || c.GetClientStatus() != adminv3.ClientResourceStatus_NACKED {
		t.Errorf("cluster = %v, want the refusal of its next version", c)
	}
	if w := do(s.adminPages(), "GET", "localhost", "/config_dump?name_regex=x"); strings.Contains(w.Body.String(), "dynamic_active_clusters") {
		t.Error("name_regex does not filter")
	}
	if w := do(s.adminPages(), "GET", "localhost", "/config_dump?resource=nonsense"); w.Code != 404 {
		t.Errorf("unknown resource: %d", w.Code)
	}
}

func TestOnlyLoopbackNamesReachTheAdminInterface(t *testing.T) {
	s, _ := newServer(t)
	h := guard(s.adminPages())
	for host, want := range map[string]int{"localhost:15000": 200, "127.0.0.1:15000": 200, "[::1]:15000": 200, "LOCALHOST": 200,
		"evil.example:15000": 403, "localhost.evil.example": 403, "10.0.0.1:15000": 403, "127.0.0.1.evil.example": 403} {
		if w := do(h, "GET", host, "/ready"); w.Code != want {
			t.Errorf("Host %s: %d, want %d", host, w.Code, want)
		}
	}
	if w := do(h, "POST", "localhost", "/quitquitquit", "Origin", "https://evil.example"); w.Code != 403 {
		t.Errorf("cross-origin POST: %d", w.Code)
	}
	for _, addr := range []string{"0.0.0.0:15000", ":15000", "10.0.0.1:0", "x"} {
		if _, err := New(Settings{Admin: addr}); err == nil {
			t.Errorf("admin on %q was allowed", addr)
		}
	}
}

func TestWhatChangesStateNeedsPOST(t *testing.T) {
	s, f := newServer(t)
	h := s.adminPages()
	for _, path := range []string{"/quitquitquit", "/drain_listeners?graceful", "/logging?level=debug"} {
		if w := do(h, "GET", "localhost", path); w.Code != 405 || w.Header().Get("Allow") != "POST" {
			t.Errorf("GET %s: %d, Allow %q", path, w.Code, w.Header().Get("Allow"))
		}
		if w := do(h, "POST", "localhost", path); w.Code != 200 {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	if f.quit != 1 || f.drained != 1 || f.level.Level() != slog.LevelDebug {
		t.Errorf("quit %d, drained %d, level %v", f.quit, f.drained, f.level.Level())
	}
	if w := do(h, "POST", "localhost", "/config_dump"); w.Code != 405 {
		t.Errorf("POST /config_dump: %d", w.Code)
	}
	if w := do(h, "POST", "localhost", "/logging?level=loud"); w.Code != 400 {
		t.Errorf("unknown level: %d", w.Code)
	}
}

func TestReadinessSaysWhyNot(t *testing.T) {
	s, f := newServer(t)
	if w := do(s.readyPages(), "GET", "10.0.0.1", "/healthz/ready"); w.Code != 200 {
		t.Errorf("ready: %d", w.Code)
	}
	f.live = false
	if w := do(s.readyPages(), "GET", "10.0.0.1", "/healthz/ready"); w.Code != 503 || !strings.Contains(w.Body.String(), "no certificate yet") {
		t.Errorf("not ready: %d %s", w.Code, w.Body)
	}
	if w := do(s.adminPages(), "GET", "localhost", "/ready"); w.Code != 503 || w.Body.String() != "INITIALIZING\n" {
		t.Errorf("/ready: %d %q", w.Code, w.Body)
	}
}

func TestPagesHaveEnvoysShape(t *testing.T) {
	s, _ := newServer(t)
	h := s.adminPages()
	if got := do(h, "GET", "localhost", "/listeners").Body.String(); got != "virtualOutbound::0.0.0.0:15001\n" {
		t.Errorf("/listeners = %q", got)
	}
	got := do(h, "GET", "localhost", "/clusters").Body.String()
	for _, want := range []string{"c::10.0.0.1:80::rq_total::7\n", "c::10.0.0.1:80::health_flags::/failed_outlier_check\n", "c::added_via_api::true\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("/clusters has no %q:\n%s", want, got)
		}
	}
	for path, m := range map[string]proto.Message{"/clusters?format=json": &adminv3.Clusters{}, "/listeners?format=json": &adminv3.Listeners{}, "/certs": &adminv3.Certificates{}, "/memory": &adminv3.Memory{}} {
		if err := protojson.Unmarshal(do(h, "GET", "localhost", path).Body.Bytes(), m); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if got := do(h, "GET", "localhost", "/stats?filter=a&usedonly").Body.String(); got != "a{x=\"1\"}: 3\n" {
		t.Errorf("/stats = %q", got)
	}
	var js struct{ Stats []struct{ Name string } }
	if err := json.Unmarshal(do(h, "GET", "localhost", "/stats?format=json").Body.Bytes(), &js); err != nil || len(js.Stats) != 2 {
		t.Errorf("/stats?format=json: %v %v", js, err)
	}
	if w := do(h, "GET", "localhost", "/runtime"); w.Code != 404 || !strings.Contains(w.Body.String(), "/config_dump") {
		t.Errorf("/runtime: %d %s", w.Code, w.Body)
	}
}

func TestMetricsOfTheApplicationComeAfterTheProxys(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "app 1\n") }))
	defer app.Close()
	s, _ := newServer(t)
	s.set.AppMetrics = app.URL
	if got := do(s.statusPages(), "GET", "10.0.0.1", "/stats/prometheus").Body.String(); !strings.HasSuffix(got, "b 0\napp 1\n") {
		t.Errorf("merged = %q", got)
	}
	app.Close()
	if got := do(s.statusPages(), "GET", "10.0.0.1", "/stats/prometheus").Body.String(); !strings.Contains(got, "b 0\n# application metrics from ") {
		t.Errorf("merged without the application = %q", got)
	}
}

func TestStrangersCannotQuitTheProxy(t *testing.T) {
	s, f := newServer(t)
	r := httptest.NewRequest("POST", "http://10.0.0.1:15020/quitquitquit", nil)
	r.RemoteAddr = "10.0.0.9:1234"
	w := httptest.NewRecorder()
	s.statusPages().ServeHTTP(w, r)
	if w.Code != 403 || f.quit != 0 {
		t.Errorf("status %d, quit %d", w.Code, f.quit)
	}
}

// The masks are those of istioctl proxy-config.
func TestAMaskOfADumpLeavesTheMessagesThatHaveItsFields(t *testing.T) {
	s, _ := newServer(t)
	for mask, want := range map[string]string{
		"bootstrap": "BootstrapConfigDump",
		"dynamic_active_clusters,dynamic_warming_clusters,static_clusters": "ClustersConfigDump",
		"dynamic_listeners,static_listeners":                               "ListenersConfigDump",
		"dynamic_route_configs,static_route_configs":                       "RoutesConfigDump",
		"dynamic_active_secrets,dynamic_warming_secrets":                   "SecretsConfigDump",
		"ecds_filters": "EcdsConfigDump",
		"nonsense":     "",
	} {
		w := do(s.adminPages(), "GET", "localhost", "/config_dump?mask="+mask)
		var d adminv3.ConfigDump
		if err := protojson.Unmarshal(w.Body.Bytes(), &d); err != nil {
			t.Fatalf("%s: %v\n%s", mask, err, w.Body)
		}
		var names []string
		for _, c := range d.Configs {
			names = append(names, string(c.MessageName().Name()))
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("mask %s: dump has %q, want %q", mask, got, want)
		}
		if strings.Contains(w.Body.String(), "PRIVATE KEY") {
			t.Errorf("mask %s shows a private key", mask)
		}
	}
	if w := do(s.adminPages(), "GET", "localhost", "/config_dump?mask=bootstrap"); strings.Contains(w.Body.String(), "last_updated") {
		t.Errorf("a field that the mask does not name is there: %s", w.Body)
	}
	if w := do(s.adminPages(), "GET", "localhost", "/config_dump?mask=dynamic_active_clusters"); !strings.Contains(w.Body.String(), `"name": "c"`) {
		t.Errorf("the field that the mask names is empty: %s", w.Body)
	}
	for _, q := range []string{"mask=", "mask=bootstrap.node", "mask=a,,b", "resource=dynamic_active_clusters&mask=cluster"} {
		if w := do(s.adminPages(), "GET", "localhost", "/config_dump?"+q); w.Code != 400 {
			t.Errorf("%s: %d, want 400", q, w.Code)
		}
	}
}

func TestTheBootstrapSaysWhoTheProxyIsAndWhereItsConfigurationComesFrom(t *testing.T) {
	s, _ := newServer(t)
	s.set.Admin = "127.0.0.1:15000"
	s.set.Info = func() Info {
		return Info{Version: "v1.2.3-4-gabc", NodeID: "n", ControlPlane: "istiod.istio-system.svc:15012",
			Node: &corev3.Node{Id: "n", Cluster: "app.ns", UserAgentName: xds.UserAgent, UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: "v1.2.3"}}}
	}
	var d adminv3.ConfigDump
	if err := protojson.Unmarshal(do(s.adminPages(), "GET", "localhost", "/config_dump?mask=bootstrap").Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	var b adminv3.BootstrapConfigDump
	if err := d.Configs[0].UnmarshalTo(&b); err != nil {
		t.Fatal(err)
	}
	n := b.Bootstrap.GetNode()
	if n.GetId() != "n" || n.GetCluster() != "app.ns" || n.GetUserAgentBuildVersion().GetVersion().GetMinorNumber() != 2 {
		t.Errorf("node = %v", n)
	}
	if got := b.Bootstrap.GetDynamicResources().GetAdsConfig().GetGrpcServices()[0].GetGoogleGrpc().GetTargetUri(); got != "istiod.istio-system.svc:15012" {
		t.Errorf("configuration comes from %q", got)
	}
	if got := b.Bootstrap.GetAdmin().GetAddress().GetSocketAddress().GetPortValue(); got != 15000 {
		t.Errorf("admin port = %d", got)
	}
}

func TestTheOneLoggerMayBeNamed(t *testing.T) {
	s, f := newServer(t)
	if w := do(s.adminPages(), "POST", "localhost", "/logging?weft-proxy=error"); w.Code != 200 || f.level.Level() != slog.LevelError {
		t.Errorf("%d, level %v", w.Code, f.level.Level())
	}
	for _, q := range []string{"http=debug", "paths=http:debug", "weft-proxy=loud", "level=debug&weft-proxy=debug"} {
		if w := do(s.adminPages(), "POST", "localhost", "/logging?"+q); w.Code != 400 || f.level.Level() != slog.LevelError {
			t.Errorf("%s: %d, level %v", q, w.Code, f.level.Level())
		}
	}
}

// The name table is shown in the form of Istio's agent, on 15000 and to this machine on 15020.
func TestTheNameTableIsShown(t *testing.T) {
	s, _ := newServer(t)
	const path = "/debug/ndsz"
	if w := do(s.adminPages(), "GET", "localhost", path); w.Code != 404 || !strings.Contains(w.Body.String(), "ISTIO_META_DNS_CAPTURE") {
		t.Errorf("without DNS capture: %d %s", w.Code, w.Body)
	}
	var table map[string]nds.Info
	s.set.Names = func() map[string]nds.Info { return table }
	if w := do(s.statusPages(), "GET", "localhost", path); w.Code != 404 || !strings.Contains(w.Body.String(), "no name table") {
		t.Errorf("before the first table: %d %s", w.Code, w.Body)
	}
	table = map[string]nds.Info{"web.default.svc.cluster.local": {IPs: []string{"10.0.0.1"}, Registry: nds.Kubernetes, Shortname: "web", Namespace: "default"}, "api.example.com": {IPs: []string{"240.240.0.1"}, Registry: nds.External}}
	for name, pages := range map[string]http.Handler{"15000": s.adminPages(), "15020": s.statusPages()} {
		w := do(pages, "GET", "localhost", path)
		var got map[string]map[string]map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %v %s", name, w.Code, err, w.Body)
		}
		want := map[string]map[string]any{
			"web.default.svc.cluster.local": {"ips": []any{"10.0.0.1"}, "registry": "Kubernetes", "shortname": "web", "namespace": "default"},
			"api.example.com":               {"ips": []any{"240.240.0.1"}, "registry": "External"},
		}
		if !reflect.DeepEqual(got["table"], want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	r := httptest.NewRequest("GET", "http://10.0.0.9:15020"+path, nil)
	r.RemoteAddr = "10.0.0.8:5000"
	w := httptest.NewRecorder()
	if s.statusPages().ServeHTTP(w, r); w.Code != 403 {
		t.Errorf("to another machine: %d", w.Code)
	}
}
