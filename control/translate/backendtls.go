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
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.LbPolicy, c.EdsClusterConfig, c.LoadAssignment = clusterv3.Cluster_LEAST_REQUEST, nil, nil
		c.LbConfig, c.DnsRefreshRate = nil, nil
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
