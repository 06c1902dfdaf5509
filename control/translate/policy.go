package translate

import (
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
)

// policyFor is the traffic policy of a port of a host or subset: a subset's
// blocks replace the destination's block by block, and the settings of the
// port, where there are any, replace the blocks of their level whole. TLS is
// the exception: a port that sets none keeps the destination's.
func policyFor(r *snapshot.Rule, subset string, port uint16) model.TrafficPolicy {
	if r == nil {
		return model.TrafficPolicy{}
	}
	p := atPort(r.Policy, port)
	if s, ok := r.Subset(subset); ok && subset != "" {
		p = override(p, s.Policy, port)
	}
	p.Ports = nil
	return p
}

// atPort applies a policy's settings of a port.
func atPort(p model.TrafficPolicy, port uint16) model.TrafficPolicy {
	pp, ok := p.Ports[port]
	if !ok {
		return p
	}
	out := model.TrafficPolicy{LB: pp.LB, Pool: pp.Pool, Outlier: pp.Outlier, TLS: pp.TLS, RetryBudget: p.RetryBudget, ProxyProtocol: p.ProxyProtocol}
	if out.TLS == nil {
		out.TLS = p.TLS
	}
	return out
}

// override puts a subset's policy over the destination's.
func override(base, subset model.TrafficPolicy, port uint16) model.TrafficPolicy {
	if pp, ok := subset.Ports[port]; ok {
		if pp.LB != nil {
			subset.LB = pp.LB
		}
		if pp.Pool != nil {
			subset.Pool = pp.Pool
		}
		if pp.Outlier != nil {
			subset.Outlier = pp.Outlier
		}
		if pp.TLS != nil {
			subset.TLS = pp.TLS
		}
	}
	if subset.LB != nil {
		base.LB = subset.LB
	}
	if subset.Pool != nil {
		base.Pool = subset.Pool
	}
	if subset.Outlier != nil {
		base.Outlier = subset.Outlier
	}
	if subset.TLS != nil {
		base.TLS = subset.TLS
	}
	if subset.RetryBudget != nil {
		base.RetryBudget = subset.RetryBudget
	}
	if subset.ProxyProtocol != 0 {
		base.ProxyProtocol = subset.ProxyProtocol
	}
	return base
}

// portProtocol is what a port speaks. A port without a declared protocol is
// sniffed, except for the well-known ones whose servers speak first (Istio's list).
func portProtocol(p model.Port) model.Protocol {
	if p.Protocol != model.ProtocolAuto {
		return p.Protocol
	}
	for _, n := range []uint16{25, 53, 3306, 27017} {
		if p.Number == n || p.TargetPort == n {
			return model.ProtocolTCP
		}
	}
	return model.ProtocolAuto
}
