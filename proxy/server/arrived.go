package server

import (
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/hcm"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/xds"
)

// arrived changes with each connection and each request from others to our workload. It only says whether there was one: what
// a listener that was replaced has counted is not in it any more. At a gateway it is requests and TCP connections from anywhere: a load
// balancer that only looks whether a port of HTTP is open keeps no gateway up.
func (s *Server) arrived() uint64 {
	if s.set.Role == xds.Router {
		n := s.listeners.Stats().TCP.Load()
		s.servers.each(func(_ *config.HTTPManager, m *hcm.Manager) { n += m.Stats.RqTotal.Load() })
		return n
	}
	inbound := map[*config.HTTPManager]bool{}
	for _, l := range s.live.View().Listeners {
		if l.Direction != stream.Inbound {
			continue
		}
		for _, ch := range l.Chains {
			inbound[ch.HTTP] = true
		}
		if l.Default != nil {
			inbound[l.Default.HTTP] = true
		}
	}
	n := s.listeners.Stats().Inbound.Load()
	s.servers.each(func(cfg *config.HTTPManager, m *hcm.Manager) {
		if inbound[cfg] {
			n += m.Stats.RqTotal.Load()
		}
	})
	return n
}
