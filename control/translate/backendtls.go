package translate

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"weft.mesh/weft/model"
)

// backendTLS opens TLS to a service's endpoints as a BackendTLSPolicy has it. Where there is nothing to verify
// with, the cluster has no endpoints: requests are answered 503, and none goes out unprotected.
func backendTLS(c *clusterv3.Cluster, t *target, weft bool) {
	b := t.backend
	if b.Refuse {
		unreachable(c)
		return
	}
	sans := b.SANs
	if len(sans) == 0 && b.VerifyHost != "" {
		sans = []string{b.VerifyHost}
	}
	common := originateContext(b, sans, appALPN(portProtocol(t.port)), weft)
	if t.credential != "" {
		common.TlsCertificates = nil
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{sds(t.credential)}
	}
	c.TransportSocket = tlsSocket(&tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: b.SNI})
}

// unreachable takes the endpoints away.
func unreachable(c *clusterv3.Cluster) {
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.LbPolicy, c.EdsClusterConfig, c.LoadAssignment = clusterv3.Cluster_LEAST_REQUEST, nil, nil
	c.LbConfig, c.DnsRefreshRate = nil, nil
}

// credentialTLS opens TLS with a Secret's certificate and roots (a DestinationRule's credentialName). Without
// them, and at sidecars, which get no Secrets, nothing goes out.
func (s *Snapshot) credentialTLS(c *clusterv3.Cluster, t *target, k outboundKey, tls *model.ClientTLS) {
	if tls.Mode == model.TLSMutual && t.credential == "" || t.roots == "" && !tls.Insecure {
		unreachable(c)
		return
	}
	proto := portProtocol(t.port)
	common := &tlsv3.CommonTlsContext{AlpnProtocols: appALPN(proto)}
	if t.credential != "" {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{sds(t.credential)}
	}
	if !tls.Insecure {
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: sanMatchers(serverNames(t, k, tls))},
				ValidationContextSdsSecretConfig: sds(t.roots),
			},
		}
	}
	c.TransportSocket = tlsSocket(&tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: tls.SNI})
	if tls.SNI == "" && (proto.IsHTTP() || proto == model.ProtocolAuto) {
		autoSNI(c)
	}
}

// appALPN is what is offered to a server outside the mesh.
func appALPN(p model.Protocol) []string {
	switch {
	case p.IsHTTP2():
		return []string{"h2"}
	case p.IsHTTP():
		return []string{"http/1.1"}
	}
	return nil
}
