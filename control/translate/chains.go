package translate

import (
	"strconv"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// chainKind is one row of the inbound matrix: which connections, and what is
// done with them.
type chainKind struct {
	transport string
	alpn      []string
	http      bool
	mtls      bool // terminate mTLS
}

// matrix lists the chains of an inbound port by what it accepts and speaks.
// TLS that is not the mesh's (other ALPN) is the application's own and passes
// through, where plaintext is accepted at all.
func matrix(mode string, p model.Protocol) []chainKind {
	switch {
	case mode == model.MTLSStrict && p.IsHTTP():
		return []chainKind{{transport: transportTLS, http: true, mtls: true}}
	case mode == model.MTLSStrict && p != model.ProtocolAuto:
		return []chainKind{{transport: transportTLS, mtls: true}}
	case mode == model.MTLSStrict:
		return []chainKind{
			{transport: transportTLS, alpn: alpnClientHTTP, http: true, mtls: true},
			{transport: transportTLS, mtls: true},
		}
	case mode == model.MTLSDisable && p.IsHTTP():
		return []chainKind{{http: true}}
	case mode == model.MTLSDisable && p != model.ProtocolAuto:
		return []chainKind{{}}
	case mode == model.MTLSDisable:
		return []chainKind{{transport: transportPlain, alpn: alpnPlainHTTP, http: true}, {}}
	case p.IsHTTP():
		return []chainKind{
			{transport: transportTLS, alpn: alpnClientAll, http: true, mtls: true},
			{transport: transportPlain, http: true},
		}
	case p != model.ProtocolAuto:
		return []chainKind{
			{transport: transportTLS, alpn: alpnClientAll, mtls: true},
			{transport: transportTLS},
			{transport: transportPlain},
		}
	}
	return []chainKind{
		{transport: transportTLS, alpn: alpnClientHTTP, http: true, mtls: true},
		{transport: transportPlain, alpn: alpnPlainHTTP, http: true},
		{transport: transportTLS, alpn: alpnClientTCP, mtls: true},
		{transport: transportPlain},
		{transport: transportTLS},
	}
}

// inboundChains builds the chains of a port; port 0 is all ports that no other chain names.
func (s *Snapshot) inboundChains(v *view, p *inboundPort, authz *authorization) []*listenerv3.FilterChain {
	var out []*listenerv3.FilterChain
	for _, k := range matrix(p.mtls, p.protocol) {
		fc := &listenerv3.FilterChain{
			Name:             chainName(p, k),
			FilterChainMatch: &listenerv3.FilterChainMatch{TransportProtocol: k.transport, ApplicationProtocols: k.alpn},
		}
		if p.number != 0 {
			fc.FilterChainMatch.DestinationPort = u32(uint32(p.number))
		}
		if k.mtls {
			fc.TransportSocket, fc.TransportSocketConnectTimeout = meshServer(k.http, v.weft), duration(handshakeTimeout)
		}
		fc.Filters = s.inboundFilters(v, p, k, authz)
		out = append(out, fc)
	}
	return out
}

func chainName(p *inboundPort, k chainKind) string {
	switch {
	case p.number != 0:
		return anyAddress + "_" + strconv.Itoa(int(p.number))
	case k.http:
		return "virtualInbound-catchall-http"
	}
	return xds.ListenerVirtualInbound
}

func (s *Snapshot) inboundFilters(v *view, p *inboundPort, k chainKind, authz *authorization) []*listenerv3.Filter {
	cluster := xds.ClusterInboundPass
	if len(p.services) > 0 {
		cluster = xds.InboundCluster(p.number)
	}
	if k.http {
		deny, allow := authz.http()
		m := manager{
			direction: inbound, statPrefix: "inbound_" + anyAddress + "_" + strconv.Itoa(int(p.number)),
			routes: inboundRoutes(cluster, "inbound|http|"+strconv.Itoa(int(p.number)), p.operation()), deny: deny, allow: allow,
			grpcWeb: p.protocol == model.ProtocolGRPCWeb,
		}
		if p.number == 0 || len(p.services) == 0 {
			m.statPrefix = cluster
		}
		if v.weft {
			return []*listenerv3.Filter{networkFilter(filterPeerTCP, peerTCP()), s.httpManager(m, v.weft)}
		}
		return []*listenerv3.Filter{s.httpManager(m, v.weft)}
	}
	deny, allow := authz.tcp()
	return append(tcpFilters(v.weft, k.mtls, deny, allow), networkFilter(filterTCP, pack(s.tcpProxy(cluster, cluster))))
}
