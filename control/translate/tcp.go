package translate

import (
	"net/netip"
	"slices"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// forwardTCP is the chain end that sends bytes to one or several destinations.
func (s *Snapshot) forwardTCP(r *router, weft bool, dests []model.Destination) []*listenerv3.Filter {
	p := s.tcpProxy("", "")
	var policy model.TrafficPolicy
	var weighted tcpv3.TcpProxy_WeightedCluster
	for i := range dests {
		d := &dests[i]
		if d.Weight == 0 && len(dests) > 1 {
			continue
		}
		name, _ := r.cluster(d)
		if d.Unresolved {
			name = xds.ClusterBlackHole // its share of the connections ends
		} else {
			_, port, subset, _, _ := xds.ParseCluster(name)
			policy = policyFor(r.rule(r.service(d.Host)), subset, port)
		}
		p.StatPrefix, p.ClusterSpecifier = name, &tcpv3.TcpProxy_Cluster{Cluster: name}
		weighted.Clusters = append(weighted.Clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: name, Weight: max(d.Weight, 1)})
	}
	if len(weighted.Clusters) > 1 {
		p.ClusterSpecifier = &tcpv3.TcpProxy_WeightedClusters{WeightedClusters: &weighted}
	}
	if p.StatPrefix == "" {
		p = s.tcpProxy(xds.ClusterBlackHole, xds.ClusterBlackHole)
	}
	if pool := policy.Pool; pool != nil {
		p.IdleTimeout, p.MaxDownstreamConnectionDuration = optional(pool.TCPIdleTimeout), optional(pool.MaxConnDuration)
	}
	if lb := policy.LB; lb != nil && lb.Policy == model.LBConsistent && lb.Hash != nil && lb.Hash.SourceIP {
		p.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	}
	return append(tcpFilters(weft, false, nil, nil), networkFilter(filterTCP, pack(p)))
}

// forwardTo is the chain end that sends bytes to a fixed cluster.
func (s *Snapshot) forwardTo(cluster string, weft bool) []*listenerv3.Filter {
	return append(tcpFilters(weft, false, nil, nil), networkFilter(filterTCP, pack(s.tcpProxy(cluster, cluster))))
}

// l4Chain is where connections that a route set's TCP or TLS routes match go.
type l4Chain struct {
	sni      []string
	prefixes []netip.Prefix
	forward  []model.Destination
}

// l4Routes lists the chains of routes for this client, up to the first that
// takes everything.
func (r *router) l4Routes(routes []model.L4Route) (chains []l4Chain, all bool) {
	for i := range routes {
		rt := &routes[i]
		if len(rt.Matches) == 0 {
			return append(chains, l4Chain{forward: rt.Forward}), true
		}
		for _, m := range rt.Matches {
			if !r.applies(m.Port, m.SourceLabels, m.SourceNamespace, m.Gateways) {
				continue
			}
			chains = append(chains, l4Chain{m.SNIHosts, m.DestinationSubnets, rt.Forward})
			if len(m.SNIHosts) == 0 && len(m.DestinationSubnets) == 0 {
				return chains, true
			}
		}
	}
	return chains, false
}

// portChains are the chains of a TCP or TLS port of a service: those of its
// host's route set, and the one to the service itself for the rest. sni tells
// that the service is told apart from others by server name only.
func (c *scope) portChains(r *router, p servicePort, sni bool) []l4Chain {
	var chains []l4Chain
	if rs := c.s.world.Routes(c.namespace, p.service.Host); rs != nil {
		tls := portProtocol(p.port).IsTLS()
		if tls {
			chains, _ = r.l4Routes(rs.TLS)
		}
		more, all := r.l4Routes(rs.TCP)
		for _, x := range more {
			if sni && len(x.sni) == 0 {
				x.sni = []string{p.service.Host}
			}
			chains = append(chains, x)
		}
		if all {
			return chains
		}
	}
	own := l4Chain{forward: []model.Destination{{Host: p.service.Host, Port: p.port.Number, Weight: 1}}}
	if sni {
		own.sni = []string{p.service.Host}
	}
	return append(chains, own)
}

// distinct drops chains whose match an earlier one has: Envoy refuses a
// listener with two.
func distinct(chains []l4Chain) []l4Chain {
	var out []l4Chain
	seenSNI, seenPrefix, seenAll := map[string]bool{}, map[netip.Prefix]bool{}, false
	seenBoth := map[string]bool{}
	for _, x := range chains {
		switch {
		case len(x.sni) > 0 && len(x.prefixes) > 0:
			x.sni = slices.DeleteFunc(slices.Clone(x.sni), func(n string) bool {
				return slices.ContainsFunc(x.prefixes, func(p netip.Prefix) bool { return seenBoth[n+" "+p.String()] })
			})
			for _, n := range x.sni {
				for _, p := range x.prefixes {
					seenBoth[n+" "+p.String()] = true
				}
			}
			if len(x.sni) == 0 {
				continue
			}
		case len(x.sni) > 0:
			x.sni = keepNew(seenSNI, x.sni)
			if len(x.sni) == 0 {
				continue
			}
		case len(x.prefixes) > 0:
			x.prefixes = keepNew(seenPrefix, x.prefixes)
			if len(x.prefixes) == 0 {
				continue
			}
		case seenAll:
			continue
		default:
			seenAll = true
		}
		out = append(out, x)
	}
	return out
}

func keepNew[T comparable](seen map[T]bool, vs []T) []T {
	var out []T
	for _, v := range vs {
		if !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	return out
}

// match is what Envoy compares.
func (x *l4Chain) match() *listenerv3.FilterChainMatch {
	m := &listenerv3.FilterChainMatch{}
	if len(x.sni) > 0 {
		m.ServerNames = envoyServerNames(x.sni)
		m.TransportProtocol = transportTLS
	}
	for _, p := range x.prefixes {
		m.PrefixRanges = append(m.PrefixRanges, cidr(p))
	}
	return m
}

// envoyServerNames leaves out "*" alone, which Envoy writes as no name.
func envoyServerNames(sni []string) []string {
	var out []string
	for _, n := range sni {
		if n == "*" {
			return nil
		}
		out = append(out, n)
	}
	return out
}
