package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/proxy/proxytest"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// Envoy speaks incremental ADS over mutual TLS with our control plane as on 15012: it takes more than any window of HTTP/2
// holds, follows changes, has its refusal in the status, and comes back.
func TestEnvoyFollowsOurControlPlane(t *testing.T) {
	envoy, err := exec.LookPath("envoy")
	if err != nil {
		t.Skip("SKIPPED: no envoy on PATH, so nothing proves that a real Envoy follows our control plane (make deps)")
	}
	p := startPlane(t)
	port := proxytest.Port(t)
	many := make([]*xds.Resource, 400)
	for i := range many {
		many[i] = idleCluster(t, fmt.Sprintf("cluster-%03d", i))
	}
	publish := func(version string, answer string) {
		l, err := proto.Marshal(answering(t, port, answer))
		if err != nil {
			t.Fatal(err)
		}
		p.ads.Publish(&fixed{version: version, byType: map[string][]*xds.Resource{
			xds.ClusterType: many, xds.ListenerType: {xds.NewResource(xds.ListenerType, "answers", l)},
		}})
	}
	publish("1", "one")
	_, at, err := net.SplitHostPort(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	adsPort, err := strconv.Atoi(at)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := structpb.NewStruct(map[string]any{"NAMESPACE": "default", "SERVICE_ACCOUNT": "app"})
	if err != nil {
		t.Fatal(err)
	}
	node := &corev3.Node{Id: "sidecar~127.0.0.1~app-1.default~default.svc.cluster.local", Cluster: "test", Metadata: meta}
	execEnvoy(t, envoy, envoyBootstrap(t, adsPort, node, p.clientTLS(t)))
	answers := func(want string) {
		t.Helper()
		proxytest.Until(t, "the answer "+want, func() bool {
			c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
			if err != nil {
				return false
			}
			c.Close()
			return ask(t, port) == want
		})
	}
	answers("one")
	for i := range 5 {
		publish(fmt.Sprint(2+i), fmt.Sprint("again-", i))
		answers(fmt.Sprint("again-", i))
	}
	many = append(many[:len(many):len(many)], xds.NewResource(xds.ClusterType, "zz-bad", badCluster(t)))
	publish("8", "with a bad cluster")
	proxytest.Until(t, "the refusal in the status", func() bool {
		for _, x := range p.tracker.Proxies() {
			if s := x.Types["CDS"]; s.State == admin.SyncRefused && s.LastNack != nil && strings.Contains(s.LastNack.Reason, "zz-bad") {
				return true
			}
		}
		return false
	})
	answers("with a bad cluster")
}

// idleCluster is one that nobody uses, of some two kilobytes.
func idleCluster(t *testing.T, name string) *xds.Resource {
	t.Helper()
	b, err := proto.Marshal(&clusterv3.Cluster{Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, AltStatName: strings.Repeat(name, 200)})
	if err != nil {
		t.Fatal(err)
	}
	return xds.NewResource(xds.ClusterType, name, b)
}

// badCluster asks for a transport socket that there is not.
func badCluster(t *testing.T) []byte {
	t.Helper()
	b, err := proto.Marshal(&clusterv3.Cluster{Name: "zz-bad", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, TransportSocket: &corev3.TransportSocket{Name: "example.unheard_of"}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// clientTLS is a transport socket with a certificate of the plane's authority for default/app.
func (p *plane) clientTLS(t *testing.T) *corev3.TransportSocket {
	t.Helper()
	id, err := spiffe.New("cluster.local", "default", "app")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}}, key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := p.ca.SignCSR(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), id, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(t, &tlsv3.UpstreamTlsContext{
		CommonTlsContext: &tlsv3.CommonTlsContext{
			AlpnProtocols:         []string{"h2"},
			TlsParams:             &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
			TlsCertificates:       []*tlsv3.TlsCertificate{{CertificateChain: inline([]byte(strings.Join(chain, ""))), PrivateKey: inline(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(p.ca.Roots())}},
		},
	})}}
}
