package conformance

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/proxytest"
	"weft.mesh/weft/xds"
)

// tlsModes is every way of TLS at a gateway and behind it. All servers share one port.
const tlsModes = `
{{define "server"}}  - {port: {number: {{.Port}}, name: {{.Name}}, protocol: {{.Protocol}}}, bind: 127.0.0.1, hosts: ["{{.Name}}.example.com"], tls: {{.TLS}}}
{{end -}}
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  selector: {app: edge}
  servers:
{{range .Servers}}{{template "server" .}}{{end}}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [simple.example.com, old.example.com, mutual.example.com, optional.example.com, mesh.example.com]
  gateways: [edge]
  http:
  - {match: [{uri: {prefix: /originate-simple}}], route: [{destination: {host: ext-simple.example.com}}]}
  - {match: [{uri: {prefix: /originate-mutual}}], route: [{destination: {host: ext-mutual.example.com}}]}
  - {match: [{uri: {prefix: /originate-without}}], route: [{destination: {host: ext-without.example.com}}]}
  - {match: [{uri: {prefix: /originate-other-name}}], route: [{destination: {host: ext-name.example.com}}]}
  - {match: [{uri: {prefix: /originate-other-root}}], route: [{destination: {host: ext-root.example.com}}]}
  - {route: [{destination: {host: app.example.com}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bytes, namespace: default}
spec:
  hosts: [bytes.example.com]
  gateways: [edge]
  tcp: [{route: [{destination: {host: app.example.com}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: pass, namespace: default}
spec:
  hosts: [pass.example.com, pass2.example.com]
  gateways: [edge]
  tls:
  - {match: [{sniHosts: [pass.example.com]}], route: [{destination: {host: tls1.example.com}}]}
  - {match: [{sniHosts: [pass2.example.com]}], route: [{destination: {host: tls2.example.com}}]}
{{range .Hosts}}---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: {{.Name}}, namespace: default}
spec:
  hosts: [{{.Name}}.example.com]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: port, protocol: {{.Protocol}}, targetPort: {{.Port}}}]
  endpoints: [{address: 127.0.0.1}]
{{if .TLS}}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: {{.Name}}, namespace: default}
spec: {host: {{.Name}}.example.com, trafficPolicy: {tls: {{.TLS}}}}
{{end}}{{end}}`

const tlsModesPod = `
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: default, labels: {app: edge}}
spec: {serviceAccountName: edge, containers: [{name: istio-proxy}]}
status: {podIP: 127.0.0.1, conditions: [{type: Ready, status: "True"}]}
`

type tlsServer struct {
	Port                int
	Name, Protocol, TLS string
}

// startGateway runs a gateway that is configured by what translate makes of YAML.
func startGateway(t *testing.T, mesh *proxytest.Mesh, yaml string) {
	t.Helper()
	dir := t.TempDir()
	decode := func(name, text string, o convert.Options) []snapshot.Change {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return translatetest.Decode(t, file, snapshot.Defaults(model.Mesh{}), o)
	}
	settings := snapshot.Defaults(model.Mesh{})
	changes := append(decode("in.yaml", yaml, convert.Options{}), decode("pods.yaml", tlsModesPod, convert.Options{Pods: true})...)
	world := snapshot.Build(snapshot.Empty(settings), changes, time.Unix(0, 0))
	n := &xds.Node{Type: xds.Router, Namespace: "default", Name: "edge-1", Domain: "default.svc.cluster.local", IP: netip.MustParseAddr("127.0.0.1"), WeftProxy: true}
	n.ID = xds.NodeID(n.Type, n.IP, n.Name, n.Namespace, n.Domain)
	snap := translate.New(world, settings)
	p := mesh.StartCold(proxytest.Options{Name: "edge", Role: xds.Router})
	for _, typ := range xds.PushOrder {
		rs, err := snap.Resources(n, typ, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.ADS.Set(rs...)
	}
	p.WaitReady()
}

// pemFiles writes a certificate and its key.
func pemFiles(t *testing.T, dir, name string, c tls.Certificate) (cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// tlsApp answers over TLS with its name, the server name that it was asked for and the client's common names.
func tlsApp(t *testing.T, name string, cfg *tls.Config) int {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			client = strings.Join(r.TLS.PeerCertificates[0].DNSNames, ",")
		}
		fmt.Fprintf(w, "%s asked for %s by %s", name, r.TLS.ServerName, client)
	}), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return ln.Addr().(*net.TCPAddr).Port
}

func TestTLSAtAGatewayAndBehindItMeansWhatItSays(t *testing.T) {
	mesh, public, clients, stranger := proxytest.NewMesh(t), identitytest.NewCA(t, "public"), identitytest.NewCA(t, "clients"), identitytest.NewCA(t, "stranger")
	dir := t.TempDir()
	cert, key := pemFiles(t, dir, "edge", public.Certificate(t, "", identitytest.DNS("*.example.com")))
	own, ownKey := pemFiles(t, dir, "own", clients.Certificate(t, "", identitytest.DNS("edge")))
	roots := map[string]string{}
	for name, ca := range map[string]*identitytest.CA{"public": public, "clients": clients, "stranger": stranger} {
		roots[name] = filepath.Join(dir, name+".ca")
		if err := os.WriteFile(roots[name], []byte(identitytest.PEM(ca.Cert)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	app := proxytest.StartApp(t, "app")
	app.Handle(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "app %s", r.URL.Path) })
	server := public.Certificate(t, "", identitytest.DNS("real.example.com", "tls1.example.com"))
	one := tlsApp(t, "one", &tls.Config{Certificates: []tls.Certificate{server}})
	two := tlsApp(t, "two", &tls.Config{Certificates: []tls.Certificate{server}})
	strict := tlsApp(t, "strict", &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: identitytest.Pool(clients)})
	port := proxytest.Port(t)
	files := fmt.Sprintf("serverCertificate: %s, privateKey: %s", cert, key)
	originate := func(mode, root, san, more string) string {
		return fmt.Sprintf("{mode: %s, sni: real.example.com, caCertificates: %s, subjectAltNames: [%s]%s}", mode, roots[root], san, more)
	}
	var text strings.Builder
	if err := template.Must(template.New("").Parse(tlsModes)).Execute(&text, map[string]any{
		"Servers": []tlsServer{
			{port, "simple", "HTTPS", "{mode: SIMPLE, " + files + ", minProtocolVersion: TLSV1_3}"},
			{port, "old", "HTTPS", "{mode: SIMPLE, " + files + ", maxProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-ECDSA-AES256-GCM-SHA384]}"},
			{port, "mutual", "HTTPS", "{mode: MUTUAL, " + files + ", caCertificates: " + roots["clients"] + ", subjectAltNames: [till]}"},
			{port, "optional", "HTTPS", "{mode: OPTIONAL_MUTUAL, " + files + ", caCertificates: " + roots["clients"] + "}"},
			{port, "mesh", "HTTPS", "{mode: ISTIO_MUTUAL}"},
			{port, "bytes", "TLS", "{mode: SIMPLE, " + files + "}"},
			{port, "pass", "TLS", "{mode: PASSTHROUGH}"},
			{port, "pass2", "TLS", "{mode: PASSTHROUGH}"},
		},
		"Hosts": []tlsServer{
			{app.Port, "app", "HTTP", ""},
			{one, "tls1", "TLS", ""}, {two, "tls2", "TLS", ""},
			{one, "ext-simple", "HTTP", originate("SIMPLE", "public", "real.example.com", "")},
			{strict, "ext-mutual", "HTTP", originate("MUTUAL", "public", "real.example.com", ", clientCertificate: "+own+", privateKey: "+ownKey)},
			{strict, "ext-without", "HTTP", originate("SIMPLE", "public", "real.example.com", "")},
			{one, "ext-name", "HTTP", originate("SIMPLE", "public", "other.example.com", "")},
			{one, "ext-root", "HTTP", originate("SIMPLE", "stranger", "real.example.com", "")},
		},
	}); err != nil {
		t.Fatal(err)
	}
	startGateway(t, mesh, text.String())
	with := func(c ...tls.Certificate) *tls.Config { return &tls.Config{Certificates: c} }
	till, thief := clients.Certificate(t, "", identitytest.DNS("till")), clients.Certificate(t, "", identitytest.DNS("thief"))
	forged := stranger.Certificate(t, "", identitytest.DNS("till"))
	svid := mesh.CA.Certificate(t, proxytest.SPIFFE("shop"))
	for _, tt := range []struct {
		name, host, path string
		client           *tls.Config
		want             string // of the answer; "": no answer
	}{
		{"SIMPLE", "simple", "/a", with(), "app /a"},
		{"a version below the least", "simple", "/a", &tls.Config{MaxVersion: tls.VersionTLS12}, ""},
		{"the suite that is allowed", "old", "/a", &tls.Config{CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}}, "app /a"},
		{"a suite that is not", "old", "/a", &tls.Config{CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}, ""},
		{"a version above the greatest", "old", "/a", &tls.Config{MinVersion: tls.VersionTLS13}, ""},
		{"MUTUAL with a good certificate", "mutual", "/a", with(till), "app /a"},
		{"MUTUAL without", "mutual", "/a", with(), ""},
		{"MUTUAL with another name", "mutual", "/a", with(thief), ""},
		{"MUTUAL with a certificate of nobody's", "mutual", "/a", with(forged), ""},
		{"OPTIONAL_MUTUAL with a good certificate", "optional", "/a", with(thief), "app /a"},
		{"OPTIONAL_MUTUAL without", "optional", "/a", with(), "app /a"},
		{"OPTIONAL_MUTUAL with a certificate of nobody's", "optional", "/a", with(forged), ""},
		{"ISTIO_MUTUAL with a workload's certificate", "mesh", "/a", with(svid), "app /a"},
		{"ISTIO_MUTUAL with another certificate", "mesh", "/a", with(till), ""},
		{"TLS that ends before bytes", "bytes", "/a", with(), "app /a"},
		{"PASSTHROUGH by name", "pass", "/a", with(), "one asked for pass.example.com by nobody"},
		{"PASSTHROUGH by another name", "pass2", "/a", with(till), "two asked for pass2.example.com by nobody"},
		{"a name that nobody serves", "none", "/a", with(), ""},
		{"origination, SIMPLE", "simple", "/originate-simple", with(), "one asked for real.example.com by nobody"},
		{"origination, MUTUAL", "simple", "/originate-mutual", with(), "strict asked for real.example.com by edge"},
		{"origination without the certificate that is wanted", "simple", "/originate-without", with(), "503 "},
		{"origination to a server of another name", "simple", "/originate-other-name", with(), "503 "},
		{"origination to a server of another root", "simple", "/originate-other-root", with(), "503 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := tt.client.Clone()
			cfg.ServerName, cfg.InsecureSkipVerify = tt.host+".example.com", true
			got, err := askTLS(t.Context(), port, cfg, tt.path)
			if tt.want == "" {
				if err == nil {
					t.Errorf("answered with %q, want the connection to be refused", got)
				}
				return
			}
			if err != nil || !strings.Contains(got, tt.want) {
				t.Errorf("got %q (%v), want %q", got, err, tt.want)
			}
		})
	}
}

// askTLS returns status and body.
func askTLS(ctx context.Context, port int, cfg *tls.Config, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	d := tls.Dialer{Config: cfg}
	c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, cfg.ServerName); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, b), err
}
