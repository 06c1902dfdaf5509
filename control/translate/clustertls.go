package translate

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// tlsModeLabel is the key of endpoint metadata that says whether it takes mTLS.
const tlsModeLabel = "tlsMode"

// applyTLS sets how connections to the endpoints are secured: as the rule says,
// else mTLS to each endpoint that takes it (automatic mTLS).
func (s *Snapshot) applyTLS(c *clusterv3.Cluster, t *target, k outboundKey, p model.TrafficPolicy) {
	proto := portProtocol(t.port)
	alpn := upstreamALPN(proto, k.weft)
	sni := xds.SNI(t.port.Number, t.subset, t.service.Host)
	sans := k.ids.IDs
	if len(k.ids.SANs) > 0 {
		sans = append(append([]string{}, sans...), k.ids.SANs...)
	}
	switch tls := p.TLS; {
	case tls == nil:
		s.autoMTLS(c, t, k, meshSocket(alpn, sans, sni))
	case tls.Mode == model.TLSIstioMutual:
		if len(tls.SANs) > 0 {
			sans = tls.SANs
		}
		if tls.SNI != "" {
			sni = tls.SNI
		}
		c.TransportSocket = meshSocket(alpn, sans, sni)
		exchangeMetadata(c, proto, k.weft)
	case tls.Mode == model.TLSSimple, tls.Mode == model.TLSMutual:
		s.originateTLS(c, t, k, tls)
	}
}

// autoMTLS chooses by endpoint. A cluster that does not know its endpoints uses
// mTLS if all of the service's take it.
func (s *Snapshot) autoMTLS(c *clusterv3.Cluster, t *target, k outboundKey, mesh *corev3.TransportSocket) {
	if s.mesh.DisableAutoMTLS || t.service.External {
		return
	}
	proto := portProtocol(t.port)
	if c.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		if k.meshed {
			c.TransportSocket = mesh
			exchangeMetadata(c, proto, k.weft)
		}
		return
	}
	c.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{
		{Name: "tlsMode-istio", Match: tlsMode("istio"), TransportSocket: mesh},
		{Name: "tlsMode-disabled", Match: &structpb.Struct{}, TransportSocket: rawSocket()},
	}
	exchangeMetadata(c, proto, k.weft)
}

func tlsMode(mode string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{tlsModeLabel: structpb.NewStringValue(mode)}}
}

// exchangeMetadata lets weft-proxy tell a TCP peer who it is, where the peer
// chose to listen (ALPN istio-peer-exchange).
func exchangeMetadata(c *clusterv3.Cluster, p model.Protocol, weft bool) {
	if weft && !p.IsHTTP() {
		c.Filters = []*clusterv3.Filter{{Name: filterPeerTCP, TypedConfig: peerTCP()}}
	}
}

// originateTLS is TLS or mutual TLS with files.
func (s *Snapshot) originateTLS(c *clusterv3.Cluster, t *target, k outboundKey, tls *model.ClientTLS) {
	sans := serverNames(t, k, tls)
	proto := portProtocol(t.port)
	c.TransportSocket = originate(tls, sans, appALPN(proto), k.weft)
	if tls.SNI == "" && (proto.IsHTTP() || proto == model.ProtocolAuto) {
		autoSNI(c)
	}
}

// serverNames are the names of which a server's certificate must have one: those of the
// rule, of the ServiceEntry, else the server name, else the host itself.
func serverNames(t *target, k outboundKey, tls *model.ClientTLS) []string {
	sans := tls.SANs
	if len(sans) == 0 {
		sans = k.ids.SANs
	}
	if len(sans) == 0 && !tls.Insecure {
		switch {
		case tls.SNI != "":
			sans = []string{tls.SNI}
		case !t.service.Wildcard():
			sans = []string{t.service.Host}
		}
	}
	return sans
}

// autoSNI takes the server name from the request's authority.
func autoSNI(c *clusterv3.Cluster) {
	o := &upstreamsv3.HttpProtocolOptions{UpstreamProtocolOptions: explicitHTTP1()}
	if a := c.TypedExtensionProtocolOptions[extHTTP]; a != nil {
		if err := proto.Unmarshal(a.Value, o); err != nil { // we packed it
			panic("translate: http options of " + c.Name + ": " + err.Error())
		}
	}
	o.UpstreamHttpProtocolOptions = &corev3.UpstreamHttpProtocolOptions{AutoSni: true}
	setHTTP(c, o)
}
