package translate

import (
	"cmp"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/model"
)

const (
	serverName = "istio-envoy"
	// TextLogFormat is Istio's default access log line.
	TextLogFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
		`%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ` +
		`%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ` +
		`"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ` +
		`%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"
)

// jsonLog is Istio's default access log as JSON.
var jsonLog = map[string]string{
	"start_time": "%START_TIME%", "route_name": "%ROUTE_NAME%", "method": "%REQ(:METHOD)%", "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
	"protocol": "%PROTOCOL%", "response_code": "%RESPONSE_CODE%", "response_flags": "%RESPONSE_FLAGS%",
	"response_code_details": "%RESPONSE_CODE_DETAILS%", "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
	"bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "duration": "%DURATION%",
	"upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
	"user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%", "authority": "%REQ(:AUTHORITY)%",
	"upstream_host": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%", "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
	"downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%", "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
	"requested_server_name": "%REQUESTED_SERVER_NAME%", "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}

// accessLogs is the mesh's access log; none if it is off.
func accessLogs(m model.Mesh) []*accesslogv3.AccessLog {
	if m.AccessLogFile == "" {
		return nil
	}
	f := &corev3.SubstitutionFormatString{}
	if m.AccessLogJSON {
		s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
		if m.AccessLogFormat == "" || protojson.Unmarshal([]byte(m.AccessLogFormat), s) != nil { // it was checked to be an object
			for k, v := range jsonLog {
				s.Fields[k] = structpb.NewStringValue(v)
			}
		}
		f.Format = &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: s}
	} else {
		f.Format = &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: cmp.Or(m.AccessLogFormat, TextLogFormat)},
		}}
	}
	return []*accesslogv3.AccessLog{{
		Name: "envoy.access_loggers.file",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(&filev3.FileAccessLog{
			Path: m.AccessLogFile, AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: f},
		})},
	}}
}

// manager describes a connection manager.
type manager struct {
	direction   direction
	statPrefix  string
	routeName   string                      // over RDS
	routes      *routev3.RouteConfiguration // or inline
	deny, allow *rbacv3.RBAC
	topology    model.Topology // of a gateway
	grpcWeb     bool           // a port that this serves is named so
}

// httpManager builds the connection manager as a network filter. Sidecars trust
// what their own workload says of itself; inbound they add the caller's
// certificate to x-forwarded-client-cert; gateways face clients and take
// addresses, certificates and trace decisions from the connection only.
func (s *Snapshot) httpManager(m manager, weft bool) *listenerv3.Filter {
	h := &hcmv3.HttpConnectionManager{
		StatPrefix: m.statPrefix, CodecType: hcmv3.HttpConnectionManager_AUTO,
		HttpFilters: httpFilters(m, weft), Tracing: s.tracing(),
		AccessLog: accessLogs(s.mesh), StreamIdleTimeout: duration(0),
		UseRemoteAddress: boolean(m.direction == gateway), NormalizePath: boolean(true),
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
		UpgradeConfigs:               []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
	}
	if m.routes != nil {
		h.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: m.routes}
	} else {
		h.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: m.routeName}}
	}
	if m.direction != outbound { // to its own workload a sidecar answers as "envoy", Envoy's default
		h.ServerName = serverName
	}
	switch m.direction {
	case inbound:
		h.ForwardClientCertDetails = hcmv3.HttpConnectionManager_APPEND_FORWARD
		h.SetCurrentClientCertDetails = certDetails()
	case gateway:
		h.XffNumTrustedHops = m.topology.TrustedProxies
		h.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		if d := m.topology.ForwardClientCert; d != "" {
			h.ForwardClientCertDetails = hcmv3.HttpConnectionManager_ForwardClientCertDetails(hcmv3.HttpConnectionManager_ForwardClientCertDetails_value[d])
		}
		if h.ForwardClientCertDetails == hcmv3.HttpConnectionManager_SANITIZE_SET || h.ForwardClientCertDetails == hcmv3.HttpConnectionManager_APPEND_FORWARD {
			h.SetCurrentClientCertDetails = certDetails()
		}
	}
	return networkFilter(filterHCM, pack(h))
}

func certDetails() *hcmv3.HttpConnectionManager_SetCurrentClientCertDetails {
	return &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Subject: boolean(true), Dns: true, Uri: true}
}

// tracing decides which requests are sampled; without a provider it only makes and passes trace context.
func (s *Snapshot) tracing() *hcmv3.HttpConnectionManager_Tracing {
	return &hcmv3.HttpConnectionManager_Tracing{
		ClientSampling: percent(100), RandomSampling: percent(max(s.mesh.TraceSampling, 0)), OverallSampling: percent(100),
	}
}

func percent(p float64) *typev3.Percent { return &typev3.Percent{Value: p} }

// tcpProxy forwards to one cluster.
func (s *Snapshot) tcpProxy(statPrefix, cluster string) *tcpv3.TcpProxy {
	return &tcpv3.TcpProxy{
		StatPrefix: statPrefix, ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: cluster}, AccessLog: accessLogs(s.mesh),
	}
}
