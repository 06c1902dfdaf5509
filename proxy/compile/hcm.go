package compile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

// Defaults of Envoy's HttpConnectionManager, and one of ours: Envoy waits for a head without end, which
// a few hundred connections that send a byte now and then take for a denial of service (slowloris).
const (
	defaultHeadersTime = time.Minute
	defaultHTTPIdle    = time.Hour
	defaultStreamIdle  = 5 * time.Minute
	defaultDrain       = 5 * time.Second
	defaultHeaderKB    = 60
	defaultHeaders     = 100
	defaultServer      = "envoy"
)

const typeRouter = "envoy.extensions.filters.http.router.v3.Router"

// httpManager compiles a connection manager. rds is the route name to subscribe to and how long to wait for it.
func (c *Compiler) httpManager(a *anypb.Any, dir stream.Direction) (m *config.HTTPManager, rds string, wait time.Duration, err error) {
	var x hcmv3.HttpConnectionManager
	if err := unpack(a, &x); err != nil {
		return nil, "", 0, err
	}
	m = &config.HTTPManager{StatPrefix: x.GetStatPrefix()}
	for _, step := range []func(*hcmv3.HttpConnectionManager, *config.HTTPManager) error{
		hcmCodec, hcmTimeouts, hcmLimits, hcmHeaders, hcmPath, hcmUpgrades, hcmTracing,
	} {
		if err := step(&x, m); err != nil {
			return nil, "", 0, at("typed_config", err)
		}
	}
	if m.Filters, err = c.httpFilters(x.GetHttpFilters(), dir); err != nil {
		return nil, "", 0, at("typed_config", err)
	}
	if m.AccessLogs, err = c.accessLogs(x.GetAccessLog(), false); err != nil {
		return nil, "", 0, at("typed_config", err)
	}
	rds, wait, err = c.hcmRoutes(&x, m)
	return m, rds, wait, at("typed_config", err)
}

func (c *Compiler) hcmRoutes(x *hcmv3.HttpConnectionManager, m *config.HTTPManager) (rds string, wait time.Duration, err error) {
	switch r := x.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_Rds:
		if err := overADS("rds.config_source", r.Rds.GetConfigSource()); err != nil {
			return "", 0, err
		}
		if r.Rds.GetRouteConfigName() == "" {
			return "", 0, missing("rds.route_config_name", "want the name of a route configuration")
		}
		m.RouteName = r.Rds.GetRouteConfigName()
		wait, err = fetchTimeout("rds.config_source", r.Rds.GetConfigSource())
		return m.RouteName, wait, err
	case *hcmv3.HttpConnectionManager_RouteConfig:
		m.Routes, err = c.routeTable(r.RouteConfig)
		return "", 0, at("route_config", err)
	}
	return "", 0, bad("route_specifier", fmt.Sprintf("%T", x.GetRouteSpecifier()), "want rds or route_config")
}

func hcmCodec(x *hcmv3.HttpConnectionManager, m *config.HTTPManager) error {
	switch x.GetCodecType() {
	case hcmv3.HttpConnectionManager_AUTO:
		m.Codec = config.CodecAuto
	case hcmv3.HttpConnectionManager_HTTP1:
		m.Codec = config.CodecHTTP1
	case hcmv3.HttpConnectionManager_HTTP2:
		m.Codec = config.CodecHTTP2
	default:
		return bad("codec_type", x.GetCodecType(), "want AUTO, HTTP1 or HTTP2")
	}
	var err error
	m.AllowHTTP10 = x.GetHttpProtocolOptions().GetAcceptHttp_10()
	if m.PreserveCase, err = headerKeyFormat("http_protocol_options", x.GetHttpProtocolOptions()); err != nil {
		return err
	}
	h2 := x.GetHttp2ProtocolOptions()
	m.MaxConcurrentStreams = h2.GetMaxConcurrentStreams().GetValue()
	m.InitialStreamWindow = h2.GetInitialStreamWindowSize().GetValue()
	m.InitialConnWindow = h2.GetInitialConnectionWindowSize().GetValue()
	m.AllowConnect = h2.GetAllowConnect()
	if h2.GetConnectionKeepalive() != nil {
		return bad("http2_protocol_options.connection_keepalive", "set", "not supported towards clients")
	}
	return nil
}

const typePreserveCase = "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"

// headerKeyFormat takes the preserve-case formatter, which is what this proxy's HTTP/1 codec does anyway.
func headerKeyFormat(path string, o *corev3.Http1ProtocolOptions) (preserve bool, err error) {
	f := o.GetHeaderKeyFormat().GetStatefulFormatter()
	if f == nil {
		return false, nil
	}
	if n := string(f.GetTypedConfig().MessageName()); n != typePreserveCase {
		return false, bad(path+".header_key_format.stateful_formatter", n, "want %s", typePreserveCase)
	}
	return true, nil
}

func hcmTimeouts(x *hcmv3.HttpConnectionManager, m *config.HTTPManager) error {
	common := x.GetCommonHttpProtocolOptions()
	var err error
	set := func(path string, to *time.Duration, d interface {
		AsDuration() time.Duration
		CheckValid() error
	}, given bool, def time.Duration) {
		switch {
		case err != nil:
		case !given:
			*to = def
		case d.CheckValid() != nil:
			err = at(path, d.CheckValid())
		case d.AsDuration() < 0:
			err = bad(path, d.AsDuration(), "negative duration")
		default:
			*to = d.AsDuration()
		}
	}
	set("common_http_protocol_options.idle_timeout", &m.IdleTimeout, common.GetIdleTimeout(), common.GetIdleTimeout() != nil, defaultHTTPIdle)
	set("common_http_protocol_options.max_connection_duration", &m.MaxConnectionDuration, common.GetMaxConnectionDuration(), common.GetMaxConnectionDuration() != nil, 0)
	set("common_http_protocol_options.max_stream_duration", &m.MaxStreamDuration, common.GetMaxStreamDuration(), common.GetMaxStreamDuration() != nil, 0)
	set("stream_idle_timeout", &m.StreamIdleTimeout, x.GetStreamIdleTimeout(), x.GetStreamIdleTimeout() != nil, defaultStreamIdle)
	set("request_timeout", &m.RequestTimeout, x.GetRequestTimeout(), x.GetRequestTimeout() != nil, 0)
	set("request_headers_timeout", &m.RequestHeadersTimeout, x.GetRequestHeadersTimeout(), x.GetRequestHeadersTimeout() != nil, defaultHeadersTime)
	m.DrainTimeout = defaultDrain
	return err
}

func hcmLimits(x *hcmv3.HttpConnectionManager, m *config.HTTPManager) error {
	m.MaxHeaderBytes, m.MaxHeaders = defaultHeaderKB<<10, defaultHeaders
	if n := x.GetMaxRequestHeadersKb(); n != nil {
		m.MaxHeaderBytes = int(n.GetValue()) << 10
	}
	common := x.GetCommonHttpProtocolOptions()
	if n := common.GetMaxHeadersCount(); n != nil {
		m.MaxHeaders = int(n.GetValue())
	}
	m.MaxRequestsPerConn = common.GetMaxRequestsPerConnection().GetValue()
	return nil
}

func hcmHeaders(x *hcmv3.HttpConnectionManager, m *config.HTTPManager) error {
	m.ServerName, m.Via = x.GetServerName(), x.GetVia()
	if m.ServerName == "" {
		m.ServerName = defaultServer
	}
	switch x.GetServerHeaderTransformation() {
	case hcmv3.HttpConnectionManager_OVERWRITE:
	case hcmv3.HttpConnectionManager_APPEND_IF_ABSENT:
		m.ServerAppend = true
	case hcmv3.HttpConnectionManager_PASS_THROUGH:
		m.ServerPass = true
	default:
		return bad("server_header_transformation", x.GetServerHeaderTransformation(), "unknown")
	}
	m.UseRemoteAddress, m.XFFTrustedHops, m.SkipXFFAppend = x.GetUseRemoteAddress().GetValue(), x.GetXffNumTrustedHops(), x.GetSkipXffAppend()
	m.GenerateRequestID = x.GetGenerateRequestId() == nil || x.GetGenerateRequestId().GetValue()
	m.PreserveRequestID, m.AlwaysSetRequestID = x.GetPreserveExternalRequestId(), x.GetAlwaysSetRequestIdInResponse()
	switch x.GetForwardClientCertDetails() {
	case hcmv3.HttpConnectionManager_SANITIZE:
		m.ForwardClientCert = config.XFCCSanitize
	case hcmv3.HttpConnectionManager_FORWARD_ONLY:
		m.ForwardClientCert = config.XFCCForwardOnly
	case hcmv3.HttpConnectionManager_APPEND_FORWARD:
		m.ForwardClientCert = config.XFCCAppendForward
	case hcmv3.HttpConnectionManager_SANITIZE_SET:
		m.ForwardClientCert = config.XFCCSanitizeSet
	case hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY:
		m.ForwardClientCert = config.XFCCAlwaysForwardOnly
	default:
		return bad("forward_client_cert_details", x.GetForwardClientCertDetails(), "unknown")
	}
	d := x.GetSetCurrentClientCertDetails()
	m.SetClientCert = config.ClientCertDetails{Subject: d.GetSubject().GetValue(), Cert: d.GetCert(), Chain: d.GetChain(), DNS: d.GetDns(), URI: d.GetUri()}
	m.StripHostPort = x.GetStripAnyHostPort()
	return nil
}

func hcmPath(x *hcmv3.HttpConnectionManager, m *config.HTTPManager) error {
	m.Normalize, m.MergeSlashes = x.GetNormalizePath().GetValue(), x.GetMergeSlashes()
	switch x.GetPathWithEscapedSlashesAction() {
	case hcmv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT, hcmv3.HttpConnectionManager_KEEP_UNCHANGED:
		m.EscapedSlashes = config.SlashesKeep
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		m.EscapedSlashes = config.SlashesReject
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		m.EscapedSlashes = config.SlashesUnescapeRedirect
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		m.EscapedSlashes = config.SlashesUnescapeForward
	default:
		return bad("path_with_escaped_slashes_action", x.GetPathWithEscapedSlashesAction(), "unknown")
	}
	return nil
}

func hcmUpgrades(x *hcmv3.HttpConnectionManager, m *config.HTTPManager) error {
	for i, u := range x.GetUpgradeConfigs() {
		t := strings.ToLower(u.GetUpgradeType())
		if u.GetEnabled() != nil && !u.GetEnabled().GetValue() {
			continue
		}
		if err := upgradeType(t); err != nil {
			return index("upgrade_configs", i, err)
		}
		if !slices.Contains(m.Upgrades, t) {
			m.Upgrades = append(m.Upgrades, t)
		}
	}
	return nil
}

// upgradeType takes any protocol's name, "connect" for plain CONNECT requests, and refuses the one that no
// proxy may pass on: h2c changes what speaks on the connection, and the next hop has a connection of its own.
func upgradeType(t string) error {
	switch {
	case !stream.ValidProtocol([]byte(t)):
		return bad("upgrade_type", t, "want the name of a protocol, e.g. websocket")
	case t == "h2c":
		return bad("upgrade_type", t, "h2c is between two neighbours and cannot be passed on")
	}
	return nil
}

func hcmTracing(x *hcmv3.HttpConnectionManager, m *config.HTTPManager) error {
	t := x.GetTracing()
	if t == nil {
		return nil
	}
	if t.GetOperation() != "" {
		return bad("tracing.operation", t.GetOperation(), "span names come from the route's decorator")
	}
	pct := func(p *typev3.Percent) float64 {
		if p == nil {
			return 100 // Envoy's default for all three
		}
		return p.GetValue()
	}
	if pct(t.GetClientSampling()) != 100 {
		return bad("tracing.client_sampling", pct(t.GetClientSampling()), "want 100")
	}
	m.Tracing = &config.Tracing{RandomSampling: pct(t.GetRandomSampling()), ClientSampling: pct(t.GetClientSampling()), OverallSampling: pct(t.GetOverallSampling())}
	return nil
}

// httpFilters compiles the chain. The router must come last, once; it is hcm itself.
func (c *Compiler) httpFilters(xs []*hcmv3.HttpFilter, dir stream.Direction) ([]filter.HTTP, error) {
	var out []filter.HTTP
	router := false
	for i, x := range xs {
		if router {
			return nil, index("http_filters", i-1, bad("name", xs[i-1].GetName(), "the router must be the last filter"))
		}
		if x.GetTypedConfig().MessageName() == typeRouter {
			if err := unpack(x.GetTypedConfig(), new(routerv3.Router)); err != nil {
				return nil, index("http_filters", i, err)
			}
			router = true
			continue
		}
		f, err := c.oneHTTPFilter(x, dir)
		if err != nil {
			return nil, at(fmt.Sprintf("http_filters[%d:%s]", i, x.GetName()), err)
		}
		if f != nil {
			out = append(out, f)
		}
	}
	if !router {
		return nil, missing("http_filters", "the last filter must be envoy.filters.http.router")
	}
	return out, nil
}

func (c *Compiler) oneHTTPFilter(x *hcmv3.HttpFilter, dir stream.Direction) (filter.HTTP, error) {
	fc, err := filterConfig(x.GetTypedConfig())
	if err != nil {
		return nil, err
	}
	fc.Direction = dir
	f, err := c.httpFilter(fc)
	if err == errUnknownFilter { //nolint:errorlint // our own sentinel, never wrapped
		if x.GetIsOptional() {
			return nil, nil // is_optional says to leave out what the proxy does not know
		}
		return nil, bad("typed_config.type_url", fc.TypeURL, "HTTP filter not supported; supported are %s and %s",
			known(c.set.HTTPFilters, func(f HTTPFilter) string { return f.TypeURL }), typeRouter)
	}
	return f, at("typed_config", err)
}
