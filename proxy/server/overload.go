package server

import (
	"fmt"
	"math"

	"weft.mesh/weft/proxy/overload"
)

// makeOverload makes the overload manager. The admin interface, probes and metrics have
// listeners of their own, which ask nobody.
func (s *Server) makeOverload() {
	s.overload = overload.New(overload.Settings{
		MemoryLimit: s.set.MemoryLimit, MaxStreams: s.set.MaxStreams, Memory: residentHeap, Collect: giveBack, Shrink: s.shrink, Log: s.set.Log,
	})
}

// shrink lets go of what idles: connections to upstreams at once, connections of clients
// by telling them to go, which ends idle ones at once and the others after what they do.
func (s *Server) shrink() {
	s.upstreams.CloseIdle()
	s.listeners.Relieve()
	s.memory.changed()
}

const (
	// spareDescriptors are left for the control plane, admin interfaces, logs and listeners.
	spareDescriptors = 128
	// leastConnections is the bound where there are hardly any descriptors.
	leastConnections = 64
)

// maxConnections is the bound on connections of clients: the one that is set, or three
// quarters of the descriptors, so that there are always some for upstreams. Most
// connections of clients idle; where all are busy at once (TCP), set half.
func (s *Server) maxConnections() int {
	if s.set.MaxConnections > 0 {
		return s.set.MaxConnections
	}
	n := descriptorLimit()
	if n == math.MaxInt32 {
		return 0
	}
	return max((n-spareDescriptors)/4*3, leastConnections)
}

// registerOverload adds Envoy's metrics of its overload manager and of memory.
func (s *Server) registerOverload() {
	r, st := s.registry, s.overload.Stats()
	r.GaugeFunc("envoy_server_memory_heap_size", "Bytes of the system's memory that the process holds, garbage too.", func() float64 { return float64(residentHeap()) })
	r.GaugeFunc("envoy_server_total_connections", "Open connections of clients.", func() float64 { return float64(s.listeners.Active()) })
	r.GaugeFunc("envoy_overload_envoy_resource_monitors_fixed_heap_pressure", "Percent of the memory limit in use; 0 without a limit.",
		func() float64 { return math.Trunc(100 * s.overload.Pressure()) })
	for _, a := range overload.Actions() {
		r.GaugeFunc(fmt.Sprintf("envoy_overload_envoy_overload_actions_%s_active", a), "1 while the overload manager takes this action.", func() float64 {
			if s.overload.Active(a) {
				return 1
			}
			return 0
		})
	}
	r.GaugeFunc("weft_proxy_memory_limit_bytes", "Memory limit that the overload manager keeps below; 0: none.", func() float64 { return float64(s.set.MemoryLimit) })
	for _, c := range []struct {
		name, help string
		f          func() uint64
	}{
		{"envoy_http_downstream_rq_overload_close", "Requests answered with 503 by the overload manager.", st.Requests.Load},
		{"envoy_listener_downstream_cx_overload_reject", "Connections closed at once by the overload manager.", st.Connections.Load},
		{"weft_proxy_overload_collections_total", "Garbage collections that the overload manager asked for.", st.Collections.Load},
		{"weft_proxy_overload_shrinks_total", "Times that idle connections were let go under pressure.", st.Shrinks.Load},
		{"weft_proxy_memory_given_back_total", "Times that memory was given back to the system after a burst of traffic.", s.memory.shrunk.Load},
	} {
		r.CounterFunc(c.name, c.help, func() float64 { return float64(c.f()) })
	}
}
