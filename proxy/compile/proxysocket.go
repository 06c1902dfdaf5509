package compile

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxysocketv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
)

const typeProxySocket = "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"

// proxySocket takes an upstream PROXY protocol socket apart: the socket inside it and the
// version of the header to send before that one's first byte. Any other socket is returned as it is, with 0.
func proxySocket(s *corev3.TransportSocket) (inner *corev3.TransportSocket, version uint8, err error) {
	if s.GetTypedConfig().MessageName() != typeProxySocket {
		return s, 0, nil
	}
	var x proxysocketv3.ProxyProtocolUpstreamTransport
	if err := unpack(s.GetTypedConfig(), &x); err != nil {
		return nil, 0, err
	}
	switch v := x.GetConfig().GetVersion(); v {
	case corev3.ProxyProtocolConfig_V1:
		version = 1
	case corev3.ProxyProtocolConfig_V2:
		version = 2
	default:
		return nil, 0, bad("typed_config.config.version", v, "want V1 or V2")
	}
	inner = x.GetTransportSocket()
	switch {
	case inner == nil:
		return nil, 0, missing("typed_config.transport_socket", "want the socket that is used after the header, RawBuffer or UpstreamTlsContext")
	case inner.GetTypedConfig().MessageName() == typeProxySocket:
		return nil, 0, at("typed_config.transport_socket", bad("typed_config.type_url", inner.GetTypedConfig().GetTypeUrl(), "one PROXY header is enough"))
	}
	return inner, version, nil
}

// inside places an error of the inner socket.
func inside(version uint8, err error) error {
	if version == 0 {
		return err
	}
	return at("typed_config.transport_socket", err)
}
