package translate

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	proxysocketv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
)

const (
	listenerProxyProtocol = "envoy.filters.listener.proxy_protocol"
	socketProxyProtocol   = "envoy.transport_sockets.upstream_proxy_protocol"
)

// proxyProtocol takes a PROXY header, of version 1 or 2, off every connection; it must be there.
func proxyProtocol() *listenerv3.ListenerFilter {
	return listenerFilter(listenerProxyProtocol, pack(&proxyprotocolv3.ProxyProtocol{}))
}

// applyProxyProtocol sends a PROXY header of a version before anything else, whichever
// socket an endpoint gets; 0: none. As with Istio it comes before the handshake of mutual TLS too,
// which a sidecar does not take.
func applyProxyProtocol(c *clusterv3.Cluster, version uint8) {
	if version == 0 {
		return
	}
	if c.TransportSocket == nil && len(c.TransportSocketMatches) == 0 {
		c.TransportSocket = rawSocket()
	}
	if c.TransportSocket != nil {
		c.TransportSocket = withProxyHeader(c.TransportSocket, version)
	}
	for _, m := range c.TransportSocketMatches {
		m.TransportSocket = withProxyHeader(m.TransportSocket, version)
	}
}

func withProxyHeader(inner *corev3.TransportSocket, version uint8) *corev3.TransportSocket {
	v := corev3.ProxyProtocolConfig_V1
	if version == 2 {
		v = corev3.ProxyProtocolConfig_V2
	}
	return &corev3.TransportSocket{Name: socketProxyProtocol, ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: pack(&proxysocketv3.ProxyProtocolUpstreamTransport{Config: &corev3.ProxyProtocolConfig{Version: v}, TransportSocket: inner}),
	}}
}
