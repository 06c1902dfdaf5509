package admin

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/upstream"
)

// clusters prints Envoy's /clusters.
func (s *Server) clusters(w http.ResponseWriter, r *http.Request) {
	cs := s.set.Clusters()
	if wantsJSON(r) {
		writeJSON(w, map[string]any{"cluster_statuses": clusterStatuses(cs)})
		return
	}
	var b strings.Builder
	for i := range cs {
		clusterText(&b, &cs[i])
	}
	text(w, b.String())
}

func clusterText(b *strings.Builder, c *upstream.ClusterSnapshot) {
	n := c.Config.Name
	line := func(key string, v any) { fmt.Fprintf(b, "%s::%s::%v\n", n, key, v) }
	line("observability_name", n)
	line("default_priority::max_connections", c.Config.Breakers.MaxConnections)
	line("default_priority::max_pending_requests", c.Config.Breakers.MaxPending)
	line("default_priority::max_requests", c.Config.Breakers.MaxRequests)
	line("default_priority::max_retries", c.Config.Breakers.MaxRetries)
	line("added_via_api", true)
	if c.Config.Discovery == config.EDS {
		line("warm", c.Config.Warm)
	}
	for i := range c.Hosts {
		h := &c.Hosts[i]
		host := func(key string, v any) { fmt.Fprintf(b, "%s::%s::%s::%v\n", n, h.Addr, key, v) }
		host("cx_active", h.CxActive)
		host("cx_connect_fail", h.CxConnectFail)
		host("cx_total", h.CxTotal)
		host("rq_active", h.RqActive)
		host("rq_error", h.RqError)
		host("rq_success", h.RqSuccess)
		host("rq_timeout", h.RqTimeout)
		host("rq_total", h.RqTotal)
		host("hostname", h.Endpoint.Hostname)
		host("health_flags", healthFlags(h))
		host("weight", h.Endpoint.Weight)
		host("region", h.Endpoint.Locality.Region)
		host("zone", h.Endpoint.Locality.Zone)
		host("sub_zone", h.Endpoint.Locality.SubZone)
		host("canary", false)
		host("priority", h.Endpoint.Priority)
		host("success_rate", -1)
		host("local_origin_success_rate", -1)
	}
}

func healthFlags(h *upstream.HostSnapshot) string {
	var f []string
	if h.Ejected {
		f = append(f, "/failed_outlier_check")
	}
	switch h.Endpoint.Health {
	case config.Unhealthy:
		f = append(f, "/failed_eds_health")
	case config.Draining:
		f = append(f, "/eds_status_draining")
	}
	if len(f) == 0 {
		return "healthy"
	}
	return strings.Join(f, "")
}

func clusterStatuses(cs []upstream.ClusterSnapshot) []any {
	out := []any{}
	for i := range cs {
		c := &cs[i]
		hosts := []any{}
		for j := range c.Hosts {
			hosts = append(hosts, hostStatus(&c.Hosts[j]))
		}
		out = append(out, map[string]any{
			"name": c.Config.Name, "added_via_api": true, "observability_name": c.Config.Name, "host_statuses": hosts,
			"circuit_breakers": map[string]any{"thresholds": []any{map[string]any{
				"max_connections": c.Config.Breakers.MaxConnections, "max_pending_requests": c.Config.Breakers.MaxPending,
				"max_requests": c.Config.Breakers.MaxRequests, "max_retries": c.Config.Breakers.MaxRetries}}},
		})
	}
	return out
}

func hostStatus(h *upstream.HostSnapshot) map[string]any {
	eds := "HEALTHY"
	switch h.Endpoint.Health {
	case config.Unhealthy:
		eds = "UNHEALTHY"
	case config.Draining:
		eds = "DRAINING"
	}
	health := map[string]any{"eds_health_status": eds}
	if h.Ejected {
		health["failed_outlier_check"] = true
	}
	counter := func(name string, v uint64) map[string]any {
		return map[string]any{"name": name, "value": fmt.Sprint(v)}
	}
	gauge := func(name string, v int64) map[string]any {
		return map[string]any{"name": name, "type": "GAUGE", "value": fmt.Sprint(v)}
	}
	l := h.Endpoint.Locality
	return map[string]any{
		"address": socketAddress(h.Addr), "hostname": h.Endpoint.Hostname, "weight": h.Endpoint.Weight, "priority": h.Endpoint.Priority,
		"health_status": health, "locality": map[string]string{"region": l.Region, "zone": l.Zone, "sub_zone": l.SubZone},
		"stats": []any{
			counter("cx_connect_fail", h.CxConnectFail), counter("cx_total", h.CxTotal), counter("rq_error", h.RqError),
			counter("rq_success", h.RqSuccess), counter("rq_timeout", h.RqTimeout), counter("rq_total", h.RqTotal),
			gauge("cx_active", h.CxActive), gauge("rq_active", h.RqActive),
		},
	}
}

func socketAddress(a netip.AddrPort) map[string]any {
	return map[string]any{"socket_address": map[string]any{"address": a.Addr().String(), "port_value": a.Port()}}
}
