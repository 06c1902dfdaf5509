package transport_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/internal/memnet"
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/identity"
	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/transport"
	"weft.mesh/weft/proxy/transport/exchange"
)

const (
	reviews = "spiffe://cluster.local/ns/default/sa/reviews"
	ratings = "spiffe://cluster.local/ns/default/sa/ratings"
)

var serverAddr = netip.MustParseAddrPort("10.1.0.7:8080")

// outcome is what both sides saw.
type outcome struct {
	client, server       *stream.ConnInfo
	serverSaw            *stream.Workload
	clientErr, serverErr error
}

// meet dials a server over a network in memory and lets one byte go each way: in TLS 1.3 a client learns
// only by reading that the server refused its certificate.
func meet(t *testing.T, d transport.DialSettings, target transport.Target, s transport.ServerSettings, down *config.DownstreamTLS, node *exchange.Node) outcome {
	t.Helper()
	n := memnet.New(memnet.Link{})
	ln, err := n.Listen(serverAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	d.Connect = func(ctx context.Context, _ netip.Addr, to netip.AddrPort) (net.Conn, error) {
		return n.DialContext(ctx, "tcp", to.String())
	}
	target.Addr = serverAddr
	out := outcome{server: &stream.ConnInfo{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := ln.Accept()
		if err != nil {
			out.serverErr = err
			return
		}
		c := netio.New(nc)
		defer func() { _ = c.Close() }()
		if out.serverErr = transport.NewServer(s).Handshake(t.Context(), c, down, 0, out.server); out.serverErr != nil {
			return
		}
		if node != nil {
			if _, out.serverErr = c.Write(node.Preamble()); out.serverErr == nil {
				out.serverSaw, out.serverErr = exchange.Read(c)
			}
		}
		_, _ = c.Write([]byte("s"))
		_, _ = c.Peek(1)
	}()
	c, info, err := transport.NewDialer(d).Dial(t.Context(), target)
	out.client, out.clientErr = info, err
	if err == nil {
		_, _ = c.Write([]byte("c"))
		if _, err := c.Peek(1); err != nil {
			out.clientErr = err
		}
		_ = c.Close()
	}
	<-done
	return out
}

func exact(s string) config.SANMatch {
	return config.SANMatch{Kind: config.SANURI, Match: route.StringMatch{Kind: route.StringExact, Value: s}}
}

func TestWorkloadsProveTheirIdentityToEachOther(t *testing.T) {
	root, foreign := identitytest.NewCA(t, "root"), identitytest.NewCA(t, "foreign")
	client, server := root.Source(t, reviews), root.Source(t, ratings)
	mesh := &config.DownstreamTLS{Workload: true, RequireClient: true, ALPN: []string{"istio-peer-exchange", "istio-http/1.1", "istio-h2", "h2", "http/1.1"}}
	stranger := foreign.Source(t, reviews)
	partner := foreign.Source(t, "spiffe://partner/ns/x/sa/y")
	tests := []struct {
		name           string
		client, server *identity.Source
		up             config.UpstreamTLS
		down           *config.DownstreamTLS
		clientWants    string // "" success, else part of the client's error
		serverWants    string
	}{
		{"both of one root", client, server, config.UpstreamTLS{SANs: []config.SANMatch{exact(ratings)}}, mesh, "", ""},
		{"no condition: any workload of the trust domain", client, server, config.UpstreamTLS{}, mesh, "", ""},
		{"the server is somebody else", client, server, config.UpstreamTLS{SANs: []config.SANMatch{exact("spiffe://cluster.local/ns/default/sa/details")}}, mesh,
			"no name that is allowed: has " + ratings, "bad certificate"},
		{"one of several conditions holds", client, server, config.UpstreamTLS{SANs: []config.SANMatch{exact("spiffe://x/y"), {
			Kind: config.SANURI, Match: route.StringMatch{Kind: route.StringPrefix, Value: "spiffe://cluster.local/"}}}}, mesh, "", ""},
		{"a condition on DNS names does not see the URI", client, server, config.UpstreamTLS{SANs: []config.SANMatch{{Kind: config.SANDNS, Match: exact(ratings).Match}}}, mesh,
			"no name that is allowed", "bad certificate"},
		{"a regex must match all of the name", client, server, config.UpstreamTLS{SANs: []config.SANMatch{{Kind: config.SANURI,
			Match: route.StringMatch{Kind: route.StringRegex, Regex: regexp.MustCompile(`spiffe://cluster.local/ns/default`)}}}}, mesh, "no name that is allowed", "bad certificate"},
		{"the client's root is not ours", stranger, server, config.UpstreamTLS{}, mesh, "unknown authority", ""},
		{"the client's trust domain is not trusted", root.Source(t, reviews, foreign), partner, config.UpstreamTLS{}, mesh, `trust domain "partner" is not trusted`, ""},
		{"the client is not on the server's list", client, server, config.UpstreamTLS{}, &config.DownstreamTLS{Workload: true, RequireClient: true,
			SANs: []config.SANMatch{exact("spiffe://cluster.local/ns/default/sa/admin")}}, "tls: ", "no name that is allowed: has " + reviews},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.up.Workload = true
			tt.up.SNI = "outbound_.9080_._.ratings.default.svc.cluster.local"
			tt.up.ALPN = []string{"istio-http/1.1", "istio"}
			out := meet(t, transport.DialSettings{Identity: tt.client}, transport.Target{TLS: &tt.up},
				transport.ServerSettings{Identity: tt.server}, tt.down, nil)
			wantError(t, "client", out.clientErr, tt.clientWants)
			if tt.serverWants != "" || tt.clientWants == "" {
				wantError(t, "server", out.serverErr, tt.serverWants)
			}
			if tt.clientWants != "" {
				if out.serverErr == nil {
					t.Error("the server took the connection")
				}
				return
			}
			if out.server.PeerID.String() != reviews || out.server.LocalID.String() != ratings || !out.server.TLS || out.server.SNI != tt.up.SNI {
				t.Errorf("server saw %+v", out.server)
			}
			if out.client.PeerID.String() != ratings || out.client.LocalID.String() != reviews || !out.client.MutualTLS() {
				t.Errorf("client saw %+v", out.client)
			}
			if len(tt.down.ALPN) > 0 && (out.client.ALPN != "istio-http/1.1" || out.server.ALPN != "istio-http/1.1") {
				t.Errorf("ALPN = %q and %q, want istio-http/1.1", out.client.ALPN, out.server.ALPN)
			}
		})
	}
}

func wantError(t *testing.T, who string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v, want success", who, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v, want an error with %q", who, err, want)
	}
}

// TestCertificatesThatAreNoIdentity: the server presents what a Source would never hold.
func TestCertificatesThatAreNoIdentity(t *testing.T) {
	root := identitytest.NewCA(t, "root")
	inter := root.Intermediate(t, "intermediate")
	client := root.Source(t, reviews)
	viaInter := inter.Certificate(t, ratings)
	viaInter.Certificate = append(viaInter.Certificate, inter.Cert.Raw)
	two := root.Certificate(t, ratings, func(c *x509.Certificate) { c.URIs = append(c.URIs, identitytest.ID(t, reviews).URL()) })
	tests := []struct {
		name string
		cert tls.Certificate
		want string
	}{
		{"signed by an intermediate that is sent along", viaInter, ""},
		{"intermediate not sent", tls.Certificate{Certificate: viaInter.Certificate[:1], PrivateKey: viaInter.PrivateKey}, "unknown authority"},
		{"expired", root.Certificate(t, ratings, identitytest.Life(-2*time.Hour, -time.Hour)), "expired"},
		{"not yet valid", root.Certificate(t, ratings, identitytest.Life(time.Hour, 2*time.Hour)), "not yet valid"},
		{"no SPIFFE ID", root.Certificate(t, "", identitytest.DNS("ratings")), "0 URI names"},
		{"two SPIFFE IDs", two, "2 URI names"},
		{"no SPIFFE scheme", root.Certificate(t, "https://ratings"), "must begin with spiffe://"},
		{"for clients only", root.Certificate(t, ratings, identitytest.Usage(x509.ExtKeyUsageClientAuth)), "incompatible key usage"},
		{"an authority itself", root.Certificate(t, ratings, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), "authority's"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := meet(t, transport.DialSettings{Identity: client}, transport.Target{TLS: &config.UpstreamTLS{Workload: true}},
				transport.ServerSettings{}, &config.DownstreamTLS{Certificates: []tls.Certificate{tt.cert}}, nil)
			wantError(t, "client", out.clientErr, tt.want)
			if tt.want == "" {
				return
			}
			se, ok := stream.AsError(out.clientErr)
			if !ok || se.Side != stream.Upstream || se.Flag != stream.FlagUpstreamConnectFailure || !se.Unsent {
				t.Errorf("error %+v, want upstream, UF and safe to retry", se)
			}
			if r := transport.FailureReason(out.clientErr); !strings.HasPrefix(r, "TLS_error:_") || strings.Contains(r, " ") {
				t.Errorf("failure reason %q", r)
			}
		})
	}
}

func TestAClientWithoutCertificateIsRefusedInTheMesh(t *testing.T) {
	root := identitytest.NewCA(t, "root")
	out := meet(t, transport.DialSettings{}, transport.Target{TLS: &config.UpstreamTLS{Insecure: true}},
		transport.ServerSettings{Identity: root.Source(t, ratings)}, &config.DownstreamTLS{Workload: true, RequireClient: true}, nil)
	wantError(t, "server", out.serverErr, "client didn't provide a certificate")
	if out.clientErr == nil || !out.server.PeerID.IsZero() {
		t.Errorf("client %v, server saw %v", out.clientErr, out.server.PeerID)
	}
}

func TestOriginationVerifiesNamesOutsideTheMesh(t *testing.T) {
	root := identitytest.NewCA(t, "public")
	down := &config.DownstreamTLS{Certificates: []tls.Certificate{root.Certificate(t, "", identitytest.DNS("api.example.com", "*.wild.example.com"))}}
	dns := func(v string) []config.SANMatch {
		return []config.SANMatch{{Kind: config.SANDNS, Match: route.StringMatch{Kind: route.StringExact, Value: v}}}
	}
	tests := []struct {
		name string
		up   config.UpstreamTLS
		sni  string
		want string
	}{
		{"name fits", config.UpstreamTLS{SNI: "api.example.com", RootCAs: identitytest.Pool(root)}, "", ""},
		{"name from the request", config.UpstreamTLS{RootCAs: identitytest.Pool(root)}, "api.example.com", ""},
		{"another name", config.UpstreamTLS{SNI: "other.example.com", RootCAs: identitytest.Pool(root)}, "", "not other.example.com"},
		{"SAN condition instead of the name", config.UpstreamTLS{SNI: "other.example.com", SANs: dns("API.example.com"), RootCAs: identitytest.Pool(root)}, "", ""},
		{"a wildcard covers one label", config.UpstreamTLS{SANs: dns("a.wild.example.com"), RootCAs: identitytest.Pool(root)}, "", ""},
		{"a wildcard does not cover two", config.UpstreamTLS{SANs: dns("a.b.wild.example.com"), RootCAs: identitytest.Pool(root)}, "", "no name that is allowed"},
		{"another root", config.UpstreamTLS{SNI: "api.example.com", RootCAs: identitytest.Pool(identitytest.NewCA(t, "other"))}, "", "unknown authority"},
		{"system roots do not know it", config.UpstreamTLS{SNI: "api.example.com"}, "", "certificate"},
		{"nothing to verify by is refused", config.UpstreamTLS{}, "", "neither a name"},
		{"insecure takes anything", config.UpstreamTLS{Insecure: true}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := meet(t, transport.DialSettings{}, transport.Target{TLS: &tt.up, SNI: tt.sni}, transport.ServerSettings{}, down, nil)
			wantError(t, "client", out.clientErr, tt.want)
			if out.clientErr == nil && (out.client.MutualTLS() || !out.client.TLS) {
				t.Errorf("client saw %+v, want TLS and no identity", out.client)
			}
		})
	}
}

func TestGatewayServesSecretsAndAsksForClientCertificates(t *testing.T) {
	root, clients := identitytest.NewCA(t, "public"), identitytest.NewCA(t, "clients")
	cert := root.Certificate(t, "", identitytest.DNS("shop.example.com"))
	user := clients.Certificate(t, "")
	secrets := map[string]*config.Secret{}
	get := transport.ServerSettings{Secret: func(n string) *config.Secret { return secrets[n] }}
	up := config.UpstreamTLS{SNI: "shop.example.com", RootCAs: identitytest.Pool(root)}
	mutual := &config.DownstreamTLS{Secret: "shop", RequireClient: true, ClientCAs: identitytest.Pool(clients)}

	out := meet(t, transport.DialSettings{}, transport.Target{TLS: &up}, get, mutual, nil)
	wantError(t, "server", out.serverErr, `secret "shop": no certificate was delivered`)
	secrets["shop"] = &config.Secret{Name: "shop", Certificate: &cert}
	out = meet(t, transport.DialSettings{}, transport.Target{TLS: &up}, get, mutual, nil)
	wantError(t, "server without client certificate", out.serverErr, "client didn't provide")
	with := up
	with.Certificates = []tls.Certificate{user}
	out = meet(t, transport.DialSettings{}, transport.Target{TLS: &with}, get, mutual, nil)
	wantError(t, "server", out.serverErr, "")
	wantError(t, "client", out.clientErr, "")
	with.Certificates = []tls.Certificate{root.Certificate(t, "")}
	out = meet(t, transport.DialSettings{}, transport.Target{TLS: &with}, get, mutual, nil)
	wantError(t, "server, certificate of another root", out.serverErr, "unknown authority")
	out = meet(t, transport.DialSettings{}, transport.Target{TLS: &up}, get, &config.DownstreamTLS{Secret: "shop", RequireClient: true}, nil)
	wantError(t, "server without roots", out.serverErr, "no roots to verify them with")
}

// Istio's OPTIONAL_MUTUAL: a client may come without a certificate, but not with a bad one.
func TestAnOptionalClientCertificateMustBeGood(t *testing.T) {
	root, clients := identitytest.NewCA(t, "public"), identitytest.NewCA(t, "clients")
	down := &config.DownstreamTLS{Certificates: []tls.Certificate{root.Certificate(t, "", identitytest.DNS("shop.example.com"))}, ClientCAs: identitytest.Pool(clients),
		SANs: []config.SANMatch{{Kind: config.SANDNS, Match: route.StringMatch{Kind: route.StringExact, Value: "till"}}}}
	for _, tt := range []struct {
		name string
		cert []tls.Certificate
		want string
	}{
		{"without", nil, ""},
		{"a good one", []tls.Certificate{clients.Certificate(t, "", identitytest.DNS("till"))}, ""},
		{"of another root", []tls.Certificate{root.Certificate(t, "", identitytest.DNS("till"))}, "unknown authority"},
		{"another name", []tls.Certificate{clients.Certificate(t, "", identitytest.DNS("thief"))}, "no name that is allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := &config.UpstreamTLS{SNI: "shop.example.com", RootCAs: identitytest.Pool(root), Certificates: tt.cert}
			out := meet(t, transport.DialSettings{}, transport.Target{TLS: up}, transport.ServerSettings{}, down, nil)
			wantError(t, "server", out.serverErr, tt.want)
		})
	}
}

func TestCipherSuitesOfTLS12(t *testing.T) {
	root := identitytest.NewCA(t, "public")
	down := &config.DownstreamTLS{Certificates: []tls.Certificate{root.Certificate(t, "", identitytest.DNS("shop.example.com"))},
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}}
	for _, tt := range []struct {
		name  string
		max   uint16
		suite uint16
		want  string
	}{
		{"the one that is allowed", tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, ""},
		{"another one", tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "no cipher suite supported by both"},
		{"TLS 1.3 has its own", tls.VersionTLS13, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := &config.UpstreamTLS{SNI: "shop.example.com", RootCAs: identitytest.Pool(root), MaxVersion: tt.max, CipherSuites: []uint16{tt.suite}}
			out := meet(t, transport.DialSettings{}, transport.Target{TLS: up}, transport.ServerSettings{}, down, nil)
			wantError(t, "server", out.serverErr, tt.want)
		})
	}
}

func TestTheExpectedIdentityIsTheOnlyOne(t *testing.T) {
	root := identitytest.NewCA(t, "root")
	d := transport.DialSettings{Identity: root.Source(t, reviews)}
	up, down := &config.UpstreamTLS{Workload: true}, &config.DownstreamTLS{Workload: true, RequireClient: true}
	for id, want := range map[string]string{ratings: "", "spiffe://cluster.local/ns/default/sa/details": "is " + ratings + ", want"} {
		out := meet(t, d, transport.Target{TLS: up, Expect: identitytest.ID(t, id)}, transport.ServerSettings{Identity: root.Source(t, ratings)}, down, nil)
		wantError(t, "client", out.clientErr, want)
	}
}

func TestVersions(t *testing.T) {
	root := identitytest.NewCA(t, "root")
	client, server := root.Source(t, reviews), root.Source(t, ratings)
	old := &config.UpstreamTLS{Workload: true, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
	out := meet(t, transport.DialSettings{Identity: client}, transport.Target{TLS: old}, transport.ServerSettings{Identity: server},
		&config.DownstreamTLS{Workload: true, RequireClient: true}, nil)
	wantError(t, "client", out.clientErr, "protocol version")
	out = meet(t, transport.DialSettings{Identity: client}, transport.Target{TLS: old}, transport.ServerSettings{Identity: server},
		&config.DownstreamTLS{Workload: true, RequireClient: true, MinVersion: tls.VersionTLS12}, nil)
	wantError(t, "client with 1.2 allowed", out.clientErr, "")
}

func TestTheHandshakeIsPostQuantumByDefault(t *testing.T) {
	root := identitytest.NewCA(t, "root")
	srv := transport.NewServer(transport.ServerSettings{Identity: root.Source(t, ratings)})
	client, server := memnet.Pipe(memnet.Link{})
	done := make(chan error, 1)
	go func() {
		done <- tls.Client(client, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{root.Certificate(t, reviews)}}).Handshake()
	}()
	c := netio.New(server)
	if err := srv.Handshake(t.Context(), c, &config.DownstreamTLS{Workload: true, RequireClient: true}, 0, &stream.ConnInfo{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := c.TLSState(); s.Version != tls.VersionTLS13 || s.CurveID != tls.X25519MLKEM768 {
		t.Errorf("version %x, key exchange %v; want TLS 1.3 and X25519MLKEM768", s.Version, s.CurveID)
	}
	_ = c.Close()
	_ = client.Close()
}

func TestConnectionsFollowARenewedIdentity(t *testing.T) {
	root, next := identitytest.NewCA(t, "root"), identitytest.NewCA(t, "next")
	client, server := root.Source(t, reviews), root.Source(t, ratings)
	d := transport.DialSettings{Identity: client}
	srv := transport.ServerSettings{Identity: server}
	up, down := &config.UpstreamTLS{Workload: true}, &config.DownstreamTLS{Workload: true, RequireClient: true}
	out := meet(t, d, transport.Target{TLS: up}, srv, down, nil)
	wantError(t, "client", out.clientErr, "")
	// The server moves to another root; the client learns of it with its next certificate.
	key := identitytest.NewKey(t)
	if err := server.Replace([]*x509.Certificate{next.Issue(t, ratings, key.Public())}, key, []*x509.Certificate{root.Cert, next.Cert}); err != nil {
		t.Fatal(err)
	}
	out = meet(t, d, transport.Target{TLS: up}, srv, down, nil)
	wantError(t, "client that does not know the new root", out.clientErr, "unknown authority")
	key = identitytest.NewKey(t)
	if err := client.Replace([]*x509.Certificate{root.Issue(t, reviews, key.Public())}, key, []*x509.Certificate{root.Cert, next.Cert}); err != nil {
		t.Fatal(err)
	}
	out = meet(t, d, transport.Target{TLS: up}, srv, down, nil)
	wantError(t, "client that knows both", out.clientErr, "")
}

func TestMetadataExchangeTellsBothSides(t *testing.T) {
	root := identitytest.NewCA(t, "root")
	mine, err := exchange.NewNode("sidecar~10.0.0.1~reviews", &stream.Workload{Name: "reviews-v1", Namespace: "default", App: "reviews", Version: "v1", CanonicalName: "reviews", CanonicalRevision: "v1", Cluster: "Kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := exchange.NewNode("sidecar~10.0.0.2~ratings", &stream.Workload{Name: "ratings-v1", Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	alpn := []string{"istio-peer-exchange", "istio"}
	out := meet(t, transport.DialSettings{Identity: root.Source(t, reviews), Exchange: mine},
		transport.Target{TLS: &config.UpstreamTLS{Workload: true, ALPN: alpn}, MetadataExchange: true},
		transport.ServerSettings{Identity: root.Source(t, ratings)}, &config.DownstreamTLS{Workload: true, RequireClient: true, ALPN: alpn}, theirs)
	wantError(t, "client", out.clientErr, "")
	wantError(t, "server", out.serverErr, "")
	if p := out.client.Met.Peer(); p == nil || p.Name != "ratings-v1" {
		t.Errorf("client learnt %+v", p)
	}
	if p := out.serverSaw; p == nil || *p != (stream.Workload{Name: "reviews-v1", Namespace: "default", App: "reviews", Version: "v1", CanonicalName: "reviews", CanonicalRevision: "v1", Cluster: "Kubernetes"}) {
		t.Errorf("server learnt %+v", p)
	}
}

func TestASilentServerTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New(memnet.Link{})
		ln, err := n.Listen(serverAddr.String())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := ln.Accept()
			if err == nil {
				defer func() { _ = c.Close() }()
				<-t.Context().Done()
			}
		}()
		d := transport.NewDialer(transport.DialSettings{Connect: func(ctx context.Context, _ netip.Addr, to netip.AddrPort) (net.Conn, error) {
			return n.DialContext(ctx, "tcp", to.String())
		}})
		start := time.Now()
		_, _, err = d.Dial(t.Context(), transport.Target{Addr: serverAddr, TLS: &config.UpstreamTLS{Insecure: true}, Timeout: 3 * time.Second})
		se, ok := stream.AsError(err)
		if !ok || !se.Timeout || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v, want a timeout after 3s", time.Since(start), err)
		}
		_ = ln.Close()
	})
}

func TestNobodyListens(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	_ = ln.Close()
	_, _, err = transport.NewDialer(transport.DialSettings{}).Dial(t.Context(), transport.Target{Addr: addr})
	se, ok := stream.AsError(err)
	if !ok || se.Timeout || se.Details != "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}" {
		t.Errorf("error %+v", se)
	}
	if r := transport.FailureReason(err); r != "delayed_connect_error:_Connection_refused" {
		t.Errorf("reason %q", r)
	}
}

func TestSocketsAreBoundAndMarked(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	d := transport.NewDialer(transport.DialSettings{Mark: 0x539})
	c, info, err := d.Dial(t.Context(), transport.Target{
		Addr: ln.Addr().(*net.TCPAddr).AddrPort(), Source: netip.MustParseAddr("127.0.0.6"),
		Keepalive: &config.TCPKeepalive{Time: time.Minute, Interval: 10 * time.Second, Probes: 4},
	})
	if err != nil {
		if errors.Is(err, errNotPermitted) {
			t.Skip("SKIPPED: setting a socket mark needs CAP_NET_ADMIN")
		}
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if info.Local.Addr() != netip.MustParseAddr("127.0.0.6") {
		t.Errorf("local address %v, want 127.0.0.6", info.Local)
	}
	for name, want := range map[string]int{"mark": 0x539, "keepalive": 1, "idle": 60, "interval": 10, "count": 4} {
		if got := sockopt(t, c.Socket(), name); got != want {
			t.Errorf("%s = %#x, want %#x", name, got, want)
		}
	}
}

func TestProxyHeaders(t *testing.T) {
	a4, b4 := netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("10.0.0.2:80")
	a6, b6 := netip.MustParseAddrPort("[fd00::1]:4000"), netip.MustParseAddrPort("[fd00::2]:80")
	sig := "\r\n\r\n\x00\r\nQUIT\n"
	tests := []struct {
		name     string
		version  uint8
		from, to netip.AddrPort
		want     string
	}{
		{"version 1, IPv4", 1, a4, b4, "PROXY TCP4 10.0.0.1 10.0.0.2 4000 80\r\n"},
		{"version 1, IPv6", 1, a6, b6, "PROXY TCP6 fd00::1 fd00::2 4000 80\r\n"},
		{"version 1, mixed families", 1, a4, b6, "PROXY UNKNOWN\r\n"},
		{"version 2, IPv4", 2, a4, b4, sig + "\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x0f\xa0\x00\x50"},
		{"version 2, unknown", 2, netip.AddrPort{}, b4, sig + "\x20\x00\x00\x00"},
	}
	for _, tt := range tests {
		got, err := transport.AppendProxyHeader(nil, tt.version, tt.from, tt.to)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %q (%v), want %q", tt.name, got, err, tt.want)
		}
	}
	if _, err := transport.AppendProxyHeader(nil, 3, a4, b4); err == nil {
		t.Error("version 3 was accepted")
	}
}
