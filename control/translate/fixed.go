package translate

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// inboundSource is the address that a sidecar calls its own workload from, so
// that capture does not take the connection again (Istio's 127.0.0.6).
const inboundSource = "127.0.0.6"

type fixedKey string

// passthroughCluster leads to where the connection was going.
func (s *Snapshot) passthroughCluster() *xds.Resource {
	return remember(s.cache, fixedKey(xds.ClusterPassthrough), func() *xds.Resource {
		return s.resource(xds.ClusterType, xds.ClusterPassthrough, s.originalDst(xds.ClusterPassthrough))
	})
}

// blackHoleCluster has no endpoints: what goes there ends.
func (s *Snapshot) blackHoleCluster() *xds.Resource {
	return remember(s.cache, fixedKey(xds.ClusterBlackHole), func() *xds.Resource {
		return s.resource(xds.ClusterType, xds.ClusterBlackHole, &clusterv3.Cluster{
			Name: xds.ClusterBlackHole, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
			ConnectTimeout: duration(s.mesh.ConnectTimeout),
		})
	})
}

// originalDst is a cluster to the original destination, in the client's protocol.
func (s *Snapshot) originalDst(name string) *clusterv3.Cluster {
	c := &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy: clusterv3.Cluster_CLUSTER_PROVIDED, ConnectTimeout: duration(s.mesh.ConnectTimeout),
	}
	applyPool(c, model.TrafficPolicy{}, model.ProtocolAuto)
	return c
}

// inboundPassthrough leads to the workload's own port that the connection was for.
func (s *Snapshot) inboundPassthrough() *xds.Resource {
	return remember(s.cache, fixedKey(xds.ClusterInboundPass), func() *xds.Resource {
		c := s.originalDst(xds.ClusterInboundPass)
		c.UpstreamBindConfig = bindInbound()
		return s.resource(xds.ClusterType, xds.ClusterInboundPass, c)
	})
}

func bindInbound() *corev3.BindConfig {
	return &corev3.BindConfig{SourceAddress: &corev3.SocketAddress{
		Address: inboundSource, PortSpecifier: &corev3.SocketAddress_PortValue{},
	}}
}
