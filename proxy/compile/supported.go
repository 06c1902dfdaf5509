package compile

// Supported lists every field that compile reads and the proxy honours. A field that is not
// here is refused by name when it is set. A field that is here but has
// values that cannot be honoured is refused by the code that reads it. Fields without any effect on
// traffic (names for statistics, descriptions) are marked so.
var Supported = Fields{
	// Listeners.
	"envoy.config.listener.v3.Listener": "name address filter_chains default_filter_chain use_original_dst listener_filters" +
		" listener_filters_timeout continue_on_listener_filters_timeout bind_to_port access_log traffic_direction transparent" +
		" stat_prefix metadata enable_reuse_port", // no effect on traffic: stat_prefix, metadata, enable_reuse_port
	"envoy.config.listener.v3.FilterChain": "filter_chain_match filters transport_socket transport_socket_connect_timeout name" +
		" metadata", // no effect on traffic: metadata
	"envoy.config.listener.v3.FilterChainMatch":                           "destination_port prefix_ranges source_prefix_ranges source_ports server_names transport_protocol application_protocols",
	"envoy.config.listener.v3.Filter":                                     "name typed_config",
	"envoy.config.listener.v3.ListenerFilter":                             "name typed_config filter_disabled",
	"envoy.config.listener.v3.ListenerFilterChainMatchPredicate":          "or_match destination_port_range",
	"envoy.config.listener.v3.ListenerFilterChainMatchPredicate.MatchSet": "rules",
	"envoy.extensions.filters.listener.original_dst.v3.OriginalDst":       "",
	"envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector":     "",
	"envoy.extensions.filters.listener.http_inspector.v3.HttpInspector":   "",
	"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol": "allow_requests_without_proxy_protocol disallowed_versions" +
		" stat_prefix", // no effect on traffic: stat_prefix

	// Network filters.
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager": "codec_type stat_prefix rds route_config http_filters" +
		" tracing common_http_protocol_options http_protocol_options http2_protocol_options server_name server_header_transformation" +
		" max_request_headers_kb stream_idle_timeout request_timeout request_headers_timeout access_log use_remote_address" +
		" xff_num_trusted_hops skip_xff_append via generate_request_id preserve_external_request_id always_set_request_id_in_response" +
		" forward_client_cert_details set_current_client_cert_details upgrade_configs normalize_path merge_slashes" +
		" path_with_escaped_slashes_action strip_any_host_port",
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing":                     "client_sampling random_sampling overall_sampling operation",
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails": "subject cert chain dns uri",
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig":               "upgrade_type enabled",
	"envoy.extensions.filters.network.http_connection_manager.v3.Rds":                                               "config_source route_config_name",
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter":                                        "name typed_config is_optional",
	"envoy.extensions.filters.http.router.v3.Router":                                                                "dynamic_stats",
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": "stat_prefix cluster weighted_clusters idle_timeout access_log max_connect_attempts" +
		" hash_policy max_downstream_connection_duration",
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster":               "clusters",
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight": "name weight",
	"envoy.type.v3.HashPolicy":          "source_ip",
	"envoy.type.v3.HashPolicy.SourceIp": "",

	// Access logs.
	"envoy.config.accesslog.v3.AccessLog":                       "name typed_config",
	"envoy.extensions.access_loggers.file.v3.FileAccessLog":     "path format json_format log_format",
	"envoy.extensions.access_loggers.stream.v3.StdoutAccessLog": "log_format",
	"envoy.extensions.access_loggers.stream.v3.StderrAccessLog": "log_format",
	"envoy.config.core.v3.SubstitutionFormatString":             "text_format json_format text_format_source omit_empty_values",

	// Routes.
	"envoy.config.route.v3.RouteConfiguration": "name virtual_hosts response_headers_to_add response_headers_to_remove request_headers_to_add" +
		" request_headers_to_remove ignore_port_in_host_matching validate_clusters max_direct_response_body_size_bytes" +
		" metadata", // only weft.mesh route_by_address has an effect on traffic
	"envoy.config.route.v3.VirtualHost": "name domains routes request_headers_to_add request_headers_to_remove response_headers_to_add" +
		" response_headers_to_remove typed_per_filter_config include_request_attempt_count metadata retry_policy",
	"envoy.config.route.v3.Route": "name match route redirect direct_response metadata decorator typed_per_filter_config" +
		" request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove stat_prefix", // no effect: stat_prefix
	"envoy.config.route.v3.RouteMatch":                       "prefix path safe_regex path_separated_prefix connect_matcher case_sensitive runtime_fraction headers query_parameters grpc",
	"envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions": "",
	"envoy.config.route.v3.RouteMatch.ConnectMatcher":        "",
	"envoy.config.route.v3.HeaderMatcher":                    "*",
	"envoy.config.route.v3.QueryParameterMatcher":            "*",
	"envoy.type.matcher.v3.StringMatcher":                    "exact prefix suffix safe_regex contains ignore_case",
	"envoy.type.matcher.v3.RegexMatcher":                     "google_re2 regex",
	"envoy.type.matcher.v3.RegexMatcher.GoogleRE2":           "max_program_size",
	"envoy.type.matcher.v3.RegexMatchAndSubstitute":          "*",
	"envoy.type.v3.Int64Range":                               "*",
	"envoy.type.v3.Int32Range":                               "*",
	"envoy.type.v3.Percent":                                  "*",
	"envoy.type.v3.FractionalPercent":                        "*",
	"envoy.config.core.v3.RuntimeFractionalPercent":          "default_value",
	"envoy.config.core.v3.RuntimeDouble":                     "default_value",
	"envoy.config.route.v3.RouteAction": "cluster weighted_clusters prefix_rewrite regex_rewrite host_rewrite_literal timeout idle_timeout" +
		" retry_policy request_mirror_policies hash_policy max_grpc_timeout upgrade_configs max_stream_duration cluster_not_found_response_code",
	"envoy.config.route.v3.RouteAction.RequestMirrorPolicy":             "cluster runtime_fraction disable_shadow_host_suffix_append trace_sampled",
	"envoy.config.route.v3.RouteAction.HashPolicy":                      "header cookie connection_properties query_parameter terminal",
	"envoy.config.route.v3.RouteAction.HashPolicy.Header":               "header_name",
	"envoy.config.route.v3.RouteAction.HashPolicy.Cookie":               "*",
	"envoy.config.route.v3.RouteAction.HashPolicy.CookieAttribute":      "*",
	"envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties": "*",
	"envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter":       "*",
	"envoy.config.route.v3.RouteAction.UpgradeConfig":                   "upgrade_type enabled",
	"envoy.config.route.v3.RouteAction.MaxStreamDuration":               "max_stream_duration grpc_timeout_header_max",
	"envoy.config.route.v3.WeightedCluster":                             "clusters total_weight",
	"envoy.config.route.v3.WeightedCluster.ClusterWeight": "name weight request_headers_to_add request_headers_to_remove" +
		" response_headers_to_add response_headers_to_remove typed_per_filter_config",
	"envoy.config.route.v3.RetryPolicy": "retry_on num_retries per_try_timeout retry_host_predicate host_selection_retry_max_attempts" +
		" retriable_status_codes retry_back_off",
	"envoy.config.route.v3.RetryPolicy.RetryBackOff":                       "*",
	"envoy.config.route.v3.RetryPolicy.RetryHostPredicate":                 "name typed_config",
	"envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate": "",
	"envoy.config.route.v3.RedirectAction":                                 "*",
	"envoy.config.route.v3.DirectResponseAction":                           "status body",
	"envoy.config.route.v3.Decorator":                                      "operation",
	"envoy.config.route.v3.FilterConfig":                                   "config is_optional",
	"envoy.config.core.v3.HeaderValueOption":                               "*",
	"envoy.config.core.v3.HeaderValue":                                     "*",
	"envoy.config.core.v3.DataSource":                                      "filename inline_bytes inline_string",

	// Clusters.
	"envoy.config.cluster.v3.Cluster": "transport_socket_matches name alt_stat_name type eds_cluster_config connect_timeout lb_policy load_assignment" +
		" max_requests_per_connection circuit_breakers common_http_protocol_options http_protocol_options http2_protocol_options" +
		" typed_extension_protocol_options dns_refresh_rate dns_lookup_family outlier_detection upstream_bind_config ring_hash_lb_config" +
		" maglev_lb_config least_request_lb_config common_lb_config transport_socket metadata upstream_connection_options filters" +
		" cleanup_interval", // no effect on traffic: alt_stat_name; cleanup_interval only bounds how long unused original-destination hosts are remembered
	"envoy.config.cluster.v3.Cluster.TransportSocketMatch":                     "name match transport_socket",
	"envoy.config.cluster.v3.Cluster.EdsClusterConfig":                         "eds_config service_name",
	"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig":                     "choice_count",
	"envoy.config.cluster.v3.Cluster.RingHashLbConfig":                         "minimum_ring_size maximum_ring_size hash_function",
	"envoy.config.cluster.v3.Cluster.MaglevLbConfig":                           "table_size",
	"envoy.config.cluster.v3.Cluster.CommonLbConfig":                           "healthy_panic_threshold consistent_hashing_lb_config locality_weighted_lb_config",
	"envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig":  "",
	"envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig": "use_hostname_for_hashing",
	"envoy.config.cluster.v3.CircuitBreakers":                                  "thresholds",
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds":                       "priority max_connections max_pending_requests max_requests max_retries retry_budget track_remaining",
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget":           "budget_percent min_retry_concurrency",
	"envoy.config.cluster.v3.OutlierDetection": "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx" +
		" consecutive_gateway_failure enforcing_consecutive_gateway_failure split_external_local_origin_errors" +
		" consecutive_local_origin_failure enforcing_consecutive_local_origin_failure enforcing_success_rate" +
		" enforcing_local_origin_success_rate max_ejection_time",
	"envoy.config.cluster.v3.Filter":                                                 "name typed_config",
	"envoy.config.cluster.v3.UpstreamConnectionOptions":                              "tcp_keepalive",
	"envoy.config.core.v3.TcpKeepalive":                                              "*",
	"envoy.config.core.v3.BindConfig":                                                "source_address",
	"envoy.config.core.v3.Address":                                                   "socket_address",
	"envoy.config.core.v3.SocketAddress":                                             "protocol address port_value",
	"envoy.config.core.v3.CidrRange":                                                 "*",
	"envoy.config.core.v3.Metadata":                                                  "filter_metadata",
	"envoy.config.core.v3.TransportSocket":                                           "name typed_config",
	"envoy.config.core.v3.ConfigSource":                                              "ads initial_fetch_timeout resource_api_version",
	"envoy.config.core.v3.AggregatedConfigSource":                                    "",
	"envoy.config.core.v3.Locality":                                                  "*",
	"envoy.config.core.v3.HttpProtocolOptions":                                       "idle_timeout max_connection_duration max_headers_count max_stream_duration max_requests_per_connection",
	"envoy.config.core.v3.Http1ProtocolOptions":                                      "accept_http_10 header_key_format enable_trailers",
	"envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat":                      "stateful_formatter",
	"envoy.config.core.v3.TypedExtensionConfig":                                      "name typed_config",
	"envoy.config.core.v3.Http2ProtocolOptions":                                      "max_concurrent_streams initial_stream_window_size initial_connection_window_size connection_keepalive allow_connect",
	"envoy.config.core.v3.KeepaliveSettings":                                         "interval timeout",
	"envoy.config.core.v3.UpstreamHttpProtocolOptions":                               "auto_sni auto_san_validation",
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":                         "common_http_protocol_options upstream_http_protocol_options explicit_http_config use_downstream_protocol_config auto_config",
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig":      "http_protocol_options http2_protocol_options",
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig": "http_protocol_options http2_protocol_options",
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig":          "http_protocol_options http2_protocol_options",

	// Endpoints.
	"envoy.config.endpoint.v3.ClusterLoadAssignment":        "cluster_name endpoints policy",
	"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy": "overprovisioning_factor",
	"envoy.config.endpoint.v3.LocalityLbEndpoints":          "locality lb_endpoints load_balancing_weight priority",
	"envoy.config.endpoint.v3.LbEndpoint":                   "endpoint health_status metadata load_balancing_weight",
	"envoy.config.endpoint.v3.Endpoint":                     "address hostname",

	// TLS.
	"envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer":                          "",
	"envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport": "config transport_socket",
	"envoy.config.core.v3.ProxyProtocolConfig":                                            "version",
	"envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext":                        "common_tls_context sni auto_host_sni",
	"envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext":                      "common_tls_context require_client_certificate",
	"envoy.extensions.transport_sockets.tls.v3.CommonTlsContext": "tls_params tls_certificates tls_certificate_sds_secret_configs validation_context" +
		" validation_context_sds_secret_config combined_validation_context alpn_protocols",
	"envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext": "default_validation_context validation_context_sds_secret_config",
	"envoy.extensions.transport_sockets.tls.v3.TlsParameters":                                         "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites",
	"envoy.extensions.transport_sockets.tls.v3.TlsCertificate":                                        "certificate_chain private_key",
	"envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext":                          "trusted_ca system_root_certs match_typed_subject_alt_names trust_chain_verification",
	"envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext.SystemRootCerts":          "",
	"envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher":                                 "san_type matcher",
	"envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig":                                       "name sds_config",
	"envoy.extensions.transport_sockets.tls.v3.Secret":                                                "name tls_certificate validation_context",
}
