package translate

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

const (
	socketTLS = "envoy.transport_sockets.tls"
	socketRaw = "envoy.transport_sockets.raw_buffer"
	// systemRoots is where distributions keep the public roots; a real Envoy knows no other way to name them.
	systemRoots = "/etc/ssl/certs/ca-certificates.crt"
	// handshakeTimeout bounds a client's TLS handshake (Istio's 15 s).
	handshakeTimeout = 15 * time.Second
)

// ALPN of mesh traffic. weft-proxy offers the HTTP names itself where a cluster
// serves both; the rest of a list is for peers that choose by it.
var (
	alpnHTTP1 = []string{"istio-http/1.1", "istio"}
	alpnHTTP2 = []string{"istio-h2", "istio"}
	// What mTLS clients offer, by what is inside (Istio's matrix).
	alpnClientHTTP = []string{"istio-http/1.0", "istio-http/1.1", "istio-h2"}
	alpnClientTCP  = []string{"istio-peer-exchange", "istio"}
	alpnClientAll  = []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}
	// What the HTTP inspector finds.
	alpnPlainHTTP = []string{"http/1.0", "http/1.1", "h2c"}
)

// upstreamALPN is what a cluster's mTLS offers. A real Envoy cannot do the
// metadata exchange, so it must not offer it.
func upstreamALPN(p model.Protocol, weft bool) []string {
	switch {
	case p.IsHTTP2():
		return alpnHTTP2
	case p.IsHTTP():
		return alpnHTTP1
	case !weft:
		return []string{"istio"}
	}
	return xds.ALPNMeshTCP
}

// serverALPN is what an inbound chain accepts. weft-proxy's TLS fails the
// handshake if nothing fits, so it lists all; an Envoy goes on without, and
// must not choose istio-h2, which it would not take for HTTP/2.
func serverALPN(http, weft bool) []string {
	switch {
	case weft && http:
		return []string{"istio-h2", "istio-http/1.1", "istio-http/1.0", "h2", "http/1.1", "istio"}
	case weft:
		return []string{"istio-peer-exchange", "istio", "istio-h2", "istio-http/1.1", "istio-http/1.0", "h2", "http/1.1"}
	case http:
		return []string{"h2", "http/1.1"}
	}
	return []string{"istio", "h2", "http/1.1"}
}

func sds(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: ads()}
}

func meshVersions() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
	}
}

// meshContext is the workload's own identity and the mesh's roots. sans limits
// who the peer may be; none: anyone of the mesh.
func meshContext(alpn, sans []string) *tlsv3.CommonTlsContext {
	return &tlsv3.CommonTlsContext{
		TlsParams:                      meshVersions(),
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{sds(xds.SecretWorkload)},
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: sanMatchers(sans)},
				ValidationContextSdsSecretConfig: sds(xds.SecretRoot),
			},
		},
		AlpnProtocols: alpn,
	}
}

// sanMatchers matches names by their kind: a URI has a scheme.
func sanMatchers(sans []string) []*tlsv3.SubjectAltNameMatcher {
	var out []*tlsv3.SubjectAltNameMatcher
	for _, s := range sans {
		kind := tlsv3.SubjectAltNameMatcher_DNS
		if isURI(s) {
			kind = tlsv3.SubjectAltNameMatcher_URI
		}
		out = append(out, &tlsv3.SubjectAltNameMatcher{SanType: kind, Matcher: exact(s)})
	}
	return out
}

func isURI(s string) bool {
	for i := 0; i+2 < len(s); i++ {
		if s[i:i+3] == "://" {
			return true
		}
	}
	return false
}

func tlsSocket(c *tlsv3.UpstreamTlsContext) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: socketTLS, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(c)}}
}

func serverSocket(c *tlsv3.DownstreamTlsContext) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: socketTLS, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(c)}}
}

func rawSocket() *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: socketRaw, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&rawv3.RawBuffer{})}}
}

// meshSocket is mTLS to a service port.
func meshSocket(alpn, sans []string, sni string) *corev3.TransportSocket {
	return tlsSocket(&tlsv3.UpstreamTlsContext{CommonTlsContext: meshContext(alpn, sans), Sni: sni})
}

// meshServer accepts mTLS from any workload of the mesh.
func meshServer(http, weft bool) *corev3.TransportSocket {
	return serverSocket(&tlsv3.DownstreamTlsContext{
		CommonTlsContext: meshContext(serverALPN(http, weft), nil), RequireClientCertificate: boolean(true),
	})
}

func file(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

// originate is TLS to a server outside the mesh. Names are checked against
// sans; with no CA file the system's roots are trusted.
func originate(t *model.ClientTLS, sans []string, alpn []string, weft bool) *corev3.TransportSocket {
	return tlsSocket(&tlsv3.UpstreamTlsContext{CommonTlsContext: originateContext(t, sans, alpn, weft), Sni: t.SNI})
}

func originateContext(t *model.ClientTLS, sans []string, alpn []string, weft bool) *tlsv3.CommonTlsContext {
	common := &tlsv3.CommonTlsContext{AlpnProtocols: alpn}
	if t.Mode == model.TLSMutual && t.CertFile != "" {
		common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(t.CertFile), PrivateKey: file(t.KeyFile)}}
	}
	if !t.Insecure {
		v := &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: sanMatchers(sans)}
		switch {
		case len(t.CABundle) > 0:
			v.TrustedCa = inline(t.CABundle)
		case t.CAFile != "":
			v.TrustedCa = file(t.CAFile)
		case weft:
			v.SystemRootCerts = &tlsv3.CertificateValidationContext_SystemRootCerts{}
		default:
			v.TrustedCa = file(systemRoots)
		}
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
	}
	return common
}

func tlsVersion(v string, def tlsv3.TlsParameters_TlsProtocol) tlsv3.TlsParameters_TlsProtocol {
	switch v {
	case "TLSV1_2":
		return tlsv3.TlsParameters_TLSv1_2
	case "TLSV1_3":
		return tlsv3.TlsParameters_TLSv1_3
	}
	return def
}
