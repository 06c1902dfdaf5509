package compile

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/proxy/config"
)

// protocolOptionsKey is the only extension of typed_extension_protocol_options that we know.
const protocolOptionsKey = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// clusterProtocol reads how HTTP is spoken to the endpoints.
func clusterProtocol(x *clusterv3.Cluster, k *cluster) error {
	var opts *anypb.Any
	for name, a := range x.GetTypedExtensionProtocolOptions() {
		if name != protocolOptionsKey {
			return bad("typed_extension_protocol_options", name, "extension not supported; want %s", protocolOptionsKey)
		}
		opts = a
	}
	if opts == nil { // the older form, which some control planes still send
		k.base.Protocol = config.ProtoHTTP1
		if x.GetHttp2ProtocolOptions() != nil {
			k.base.Protocol = config.ProtoHTTP2
		}
		if err := http2Upstream("http2_protocol_options", x.GetHttp2ProtocolOptions(), k.base); err != nil {
			return err
		}
		if err := http1Upstream("http_protocol_options", x.GetHttpProtocolOptions(), k.base); err != nil {
			return err
		}
		return commonUpstream("common_http_protocol_options", x.GetCommonHttpProtocolOptions(), k.base)
	}
	path := "typed_extension_protocol_options[" + protocolOptionsKey + "]"
	if x.GetHttp2ProtocolOptions() != nil || x.GetHttpProtocolOptions() != nil || x.GetCommonHttpProtocolOptions() != nil {
		return bad("http2_protocol_options", "set", "use %s only", path)
	}
	var o upstreamsv3.HttpProtocolOptions
	if err := unpack(opts, &o); err != nil {
		return at(path, err)
	}
	return at(path, protocolOptions(&o, k))
}

func protocolOptions(o *upstreamsv3.HttpProtocolOptions, k *cluster) error {
	b := k.base
	if err := commonUpstream("common_http_protocol_options", o.GetCommonHttpProtocolOptions(), b); err != nil {
		return err
	}
	if u := o.GetUpstreamHttpProtocolOptions(); u != nil {
		if u.GetAutoSanValidation() {
			return bad("upstream_http_protocol_options.auto_san_validation", true, "not supported; set match_typed_subject_alt_names")
		}
		b.AutoSNI = u.GetAutoSni()
	}
	switch p := o.GetUpstreamProtocolOptions().(type) {
	case *upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_:
		return explicitHTTP(p.ExplicitHttpConfig, b)
	case *upstreamsv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
		b.Protocol = config.ProtoDownstream
		c := p.UseDownstreamProtocolConfig
		if err := http1Upstream("use_downstream_protocol_config.http_protocol_options", c.GetHttpProtocolOptions(), b); err != nil {
			return err
		}
		return http2Upstream("use_downstream_protocol_config.http2_protocol_options", c.GetHttp2ProtocolOptions(), b)
	case *upstreamsv3.HttpProtocolOptions_AutoConfig:
		b.Protocol = config.ProtoALPN
		c := p.AutoConfig
		if err := http1Upstream("auto_config.http_protocol_options", c.GetHttpProtocolOptions(), b); err != nil {
			return err
		}
		return http2Upstream("auto_config.http2_protocol_options", c.GetHttp2ProtocolOptions(), b)
	}
	return missing("upstream_protocol_options", "want explicit_http_config, use_downstream_protocol_config or auto_config")
}

func explicitHTTP(c *upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig, b *config.Cluster) error {
	switch p := c.GetProtocolConfig().(type) {
	case *upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions:
		b.Protocol = config.ProtoHTTP1
		return http1Upstream("explicit_http_config.http_protocol_options", p.HttpProtocolOptions, b)
	case *upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions:
		b.Protocol = config.ProtoHTTP2
		return http2Upstream("explicit_http_config.http2_protocol_options", p.Http2ProtocolOptions, b)
	}
	return bad("explicit_http_config", fmt.Sprintf("%T", c.GetProtocolConfig()), "want http_protocol_options or http2_protocol_options")
}

func commonUpstream(path string, o *corev3.HttpProtocolOptions, b *config.Cluster) error {
	var err error
	if b.IdleTimeout, err = duration(path+".idle_timeout", o.GetIdleTimeout(), b.IdleTimeout); err != nil {
		return err
	}
	if b.MaxConnDuration, err = duration(path+".max_connection_duration", o.GetMaxConnectionDuration(), 0); err != nil {
		return err
	}
	if o.GetMaxRequestsPerConnection() != nil {
		b.MaxRequestsPerConn = o.GetMaxRequestsPerConnection().GetValue()
	}
	if o.GetMaxHeadersCount() != nil || o.GetMaxStreamDuration() != nil {
		return bad(path, "max_headers_count or max_stream_duration", "not supported towards an upstream")
	}
	return nil
}

func http1Upstream(path string, o *corev3.Http1ProtocolOptions, _ *config.Cluster) error {
	if o.GetAcceptHttp_10() {
		return bad(path+".accept_http_10", true, "not supported towards an upstream")
	}
	_, err := headerKeyFormat(path, o)
	return err
}

func http2Upstream(path string, o *corev3.Http2ProtocolOptions, b *config.Cluster) error {
	if o == nil {
		return nil
	}
	if o.GetAllowConnect() {
		return bad(path+".allow_connect", true, "not supported towards an upstream")
	}
	for name, set := range map[string]bool{
		"initial_stream_window_size":     o.GetInitialStreamWindowSize() != nil,
		"initial_connection_window_size": o.GetInitialConnectionWindowSize() != nil,
		"connection_keepalive":           o.GetConnectionKeepalive() != nil,
	} {
		if set {
			return bad(path+"."+name, true, "not supported towards an upstream")
		}
	}
	b.MaxConcurrentStreams = o.GetMaxConcurrentStreams().GetValue()
	return nil
}
