package server

import (
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/hcm"
	"weft.mesh/weft/proxy/telemetry"
)

// register adds the proxy's own metrics.
func (s *Server) register() {
	r := s.registry
	telemetry.RegisterProcess(r, s.started, s.listeners.Draining)
	ls := s.listeners.Stats()
	for _, c := range []struct {
		name, help string
		f          func() uint64
	}{
		{"envoy_listener_downstream_cx_total", "Connections accepted.", ls.Total.Load},
		{"envoy_listener_downstream_cx_overflow", "Connections closed at once because of a bound.", ls.Overflow.Load},
		{"envoy_listener_no_filter_chain_match", "Connections that no filter chain matched.", ls.NoChain.Load},
		{"envoy_listener_ssl_connection_error", "TLS handshakes of clients that failed.", ls.TLSFailed.Load},
		{"weft_proxy_sniff_failures_total", "Connections closed because their first bytes could not be inspected.", ls.SniffFailed.Load},
		{"weft_proxy_network_filter_denied_total", "Connections that a network filter closed.", ls.Refused.Load},
		{"weft_proxy_accept_failures_total", "Failures to accept.", ls.AcceptFailed.Load},
		{"weft_proxy_direct_connections_total", "Connections to a capturing listener that were not redirected.", ls.Direct.Load},
	} {
		r.CounterFunc(c.name, c.help, func() float64 { return float64(c.f()) })
	}
	r.GaugeFunc("envoy_listener_downstream_cx_active", "Open connections of clients.", func() float64 { return float64(s.listeners.Active()) })
	r.GaugeFunc("weft_proxy_connections_parked", "Open connections of clients that idle and have no goroutine.", func() float64 { return float64(s.lot.Parked()) })
	r.GaugeFunc("weft_proxy_config_pending", "Resources that are waited for.", func() float64 { n, _ := s.conf.counts(); return float64(n) })
	r.GaugeFunc("weft_proxy_config_refused", "Resources whose latest version was refused.", func() float64 { _, n := s.conf.counts(); return float64(n) })
	r.GaugeFunc("weft_proxy_config_version", "Number of the configuration that serves, counted since the start.", func() float64 { return float64(s.live.View().Version) })
	r.GaugeFunc("weft_proxy_certificate_expiry_seconds", "Seconds until our own certificate ends; 0 without one.", s.certificateLeft)
	r.GaugeFunc("envoy_control_plane_connected_state", "1 if the control plane is connected.", func() float64 {
		if s.xds.Status().Connected {
			return 1
		}
		return 0
	})
	r.CounterFunc("weft_proxy_xds_updates_total", "Responses of the control plane.", func() float64 { return float64(s.xds.Status().Updates) })
	r.CounterFunc("weft_proxy_xds_nacks_total", "Responses refused, at least in part.", func() float64 { return float64(s.xds.Status().NACKs) })
	r.CounterFunc("weft_proxy_xds_streams_total", "Streams opened to the control plane.", func() float64 { return float64(s.xds.Status().Streams) })
	s.registerOverload()
	r.GaugeFunc("envoy_server_hot_restart_epoch", "Hot restarts since the first process of the line started.", func() float64 { return float64(s.hot.lineage.Epoch) })
	r.GaugeFunc("envoy_server_hot_restart_generation", "Processes of the line so far, this one included.", func() float64 { return float64(s.hot.lineage.Epoch) + 1 })
	r.Collect(s.writeClusters)
	r.Collect(s.writeHTTP)
	if s.names != nil {
		r.Collect(s.names.writeMetrics)
	}
}

func (s *Server) certificateLeft() float64 {
	svid, err := s.identity.Current()
	if err != nil {
		return 0
	}
	return time.Until(svid.Leaf().NotAfter).Seconds()
}

// writeClusters writes Envoy's most used cluster metrics.
func (s *Server) writeClusters(e *telemetry.Encoder) {
	snaps := s.upstreams.Snapshot()
	type column struct {
		name, help string
		kind       telemetry.Kind
		value      func(i int) float64
	}
	sum := func(i int, f func(h int) float64) (v float64) {
		for h := range snaps[i].Hosts {
			v += f(h)
		}
		return v
	}
	for _, c := range []column{
		{"envoy_cluster_upstream_cx_active", "Open connections.", telemetry.KindGauge, func(i int) float64 { return float64(snaps[i].Conns) }},
		{"envoy_cluster_upstream_rq_active", "Requests that run.", telemetry.KindGauge, func(i int) float64 { return float64(snaps[i].Requests) }},
		{"envoy_cluster_upstream_rq_pending_active", "Requests that wait for a connection.", telemetry.KindGauge, func(i int) float64 { return float64(snaps[i].Pending) }},
		{"envoy_cluster_upstream_cx_overflow", "Times the bound on connections was hit.", telemetry.KindCounter, func(i int) float64 { return float64(snaps[i].CxOverflow) }},
		{"envoy_cluster_upstream_rq_pending_overflow", "Requests refused by the bounds on waiting and running ones.", telemetry.KindCounter, func(i int) float64 { return float64(snaps[i].PendingOverflow + snaps[i].RqOverflow) }},
		{"envoy_cluster_upstream_rq_retry_overflow", "Retries not made because of their bound.", telemetry.KindCounter, func(i int) float64 { return float64(snaps[i].RetryOverflow) }},
		{"envoy_cluster_upstream_cx_none_healthy", "Times there was no healthy endpoint.", telemetry.KindCounter, func(i int) float64 { return float64(snaps[i].NoneUsable) }},
		{"envoy_cluster_membership_total", "Endpoints.", telemetry.KindGauge, func(i int) float64 { return float64(len(snaps[i].Hosts)) }},
		{"envoy_cluster_membership_healthy", "Endpoints that are healthy and not ejected.", telemetry.KindGauge, func(i int) float64 {
			return sum(i, func(h int) float64 {
				if x := &snaps[i].Hosts[h]; x.Ejected || x.Endpoint.Health != config.Healthy {
					return 0
				}
				return 1
			})
		}},
		{"envoy_cluster_outlier_detection_ejections_active", "Endpoints ejected now.", telemetry.KindGauge, func(i int) float64 { return float64(snaps[i].EjectionsActive) }},
		{"envoy_cluster_outlier_detection_ejections_enforced_total", "Ejections.", telemetry.KindCounter, func(i int) float64 { return float64(snaps[i].EjectionsTotal) }},
		{"envoy_cluster_upstream_cx_total", "Connections made, to present endpoints.", telemetry.KindGauge, func(i int) float64 {
			return sum(i, func(h int) float64 { return float64(snaps[i].Hosts[h].CxTotal) })
		}},
		{"envoy_cluster_upstream_cx_connect_fail", "Connections that failed, to present endpoints.", telemetry.KindGauge, func(i int) float64 {
			return sum(i, func(h int) float64 { return float64(snaps[i].Hosts[h].CxConnectFail) })
		}},
		{"envoy_cluster_upstream_rq_total", "Requests, to present endpoints.", telemetry.KindGauge, func(i int) float64 {
			return sum(i, func(h int) float64 { return float64(snaps[i].Hosts[h].RqTotal) })
		}},
	} {
		e.Family(c.name, c.help, c.kind)
		for i := range snaps {
			e.Sample("", c.value(i), telemetry.Label{Name: "cluster_name", Value: snaps[i].Config.Name})
		}
	}
}

// writeHTTP sums connection managers by their stat prefix. Managers of replaced chains
// are forgotten, so these are gauges of what serves now.
func (s *Server) writeHTTP(e *telemetry.Encoder) {
	type sums struct{ cx, rq, retries, mirrors float64 }
	by := map[string]*sums{}
	var names []string
	s.servers.each(func(cfg *config.HTTPManager, m *hcm.Manager) {
		x := by[cfg.StatPrefix]
		if x == nil {
			x = &sums{}
			by[cfg.StatPrefix] = x
			names = append(names, cfg.StatPrefix)
		}
		x.cx += float64(m.Stats.CxActive.Load())
		x.rq += float64(m.Stats.RqActive.Load())
		x.retries += float64(m.Stats.Retries.Load())
		x.mirrors += float64(m.Stats.MirrorDropped.Load())
	})
	for _, c := range []struct {
		name, help string
		value      func(*sums) float64
	}{
		{"envoy_http_downstream_cx_active", "Open HTTP connections of clients.", func(x *sums) float64 { return x.cx }},
		{"envoy_http_downstream_rq_active", "Requests that run.", func(x *sums) float64 { return x.rq }},
		{"weft_proxy_retries", "Retries since the filter chain was made.", func(x *sums) float64 { return x.retries }},
		{"weft_proxy_mirrors_dropped", "Mirrored requests not sent because too many ran, since the filter chain was made.", func(x *sums) float64 { return x.mirrors }},
	} {
		e.Family(c.name, c.help, telemetry.KindGauge)
		for _, n := range names {
			e.Sample("", c.value(by[n]), telemetry.Label{Name: "http_conn_manager_prefix", Value: n})
		}
	}
}
