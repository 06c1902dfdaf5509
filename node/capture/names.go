package capture

import (
	"fmt"
	"net/netip"
)

// namePort is where name servers are asked.
const namePort = 53

// Zones keep what the pod's programs ask the proxy apart from what the proxy asks for them, over UDP: the
// connection of a query is remembered for half a minute, and a query of the proxy from the same
// port to the same server would be taken for one more of it and come back to the proxy. Istio's numbers.
const (
	zoneProxy   = 1 // the proxy and the name servers
	zoneProgram = 2 // the programs and the proxy
)

func (n *Names) validate() error {
	if n == nil {
		return nil
	}
	if len(n.Servers) > maxItems {
		return fmt.Errorf("capture: %d name servers: at most %d", len(n.Servers), maxItems)
	}
	if n.Servers != nil && len(n.Servers) == 0 {
		return fmt.Errorf("capture: no name server whose queries could be redirected")
	}
	for _, s := range n.Servers {
		if !s.Is4() {
			return fmt.Errorf("capture: name server %q: want an IPv4 address", s)
		}
	}
	return nil
}

// servers are the matches of the servers, one without a condition for every server. address matches a server's.
func (n *Names) servers(address func(netip.Addr) Match) []matches {
	if n.Servers == nil {
		return []matches{nil}
	}
	var out []matches
	for _, s := range n.Servers {
		out = append(out, matches{address(s)})
	}
	return out
}

func toServer(a netip.Addr) Match   { return dest(single(a)) }
func fromServer(a netip.Addr) Match { return Match{Kind: MatchSource, Prefix: single(a)} }

// redirects are the rules by which a query that is not the proxy's reaches it.
func (n *Names) redirects() []Rule {
	if n == nil {
		return nil
	}
	var rules []Rule
	for _, proto := range []Match{udp(), tcp()} {
		for _, server := range n.servers(toServer) {
			rules = append(rules, append(append(matches{proto}, server...), port(namePort)).redirect(NamesPort))
		}
	}
	return rules
}

// zones are the chains that keep queries over UDP apart; none without redirected queries. What the chain before
// connections says of a packet is final, hence the order.
func zones(c Config) []Chain {
	if c.Names == nil {
		return nil
	}
	var out, in []Rule
	for _, proxy := range c.proxies() {
		out = append(out, append(matches{udp(), port(namePort)}, proxy).zone(zoneProxy), append(matches{udp(), sourcePort(NamesPort)}, proxy).zone(zoneProgram))
	}
	for _, server := range c.Names.servers(toServer) {
		out = append(out, append(append(matches{udp()}, server...), port(namePort)).zone(zoneProgram))
	}
	for _, server := range c.Names.servers(fromServer) {
		in = append(in, append(append(matches{udp()}, server...), sourcePort(namePort)).zone(zoneProxy))
	}
	return []Chain{
		{Name: "names_output", Hook: HookOutput, Raw: true, Priority: priorityRaw, Rules: out},
		{Name: "names_prerouting", Hook: HookPrerouting, Raw: true, Priority: priorityRaw, Rules: in},
	}
}

func (m matches) zone(z uint16) Rule { return Rule{m, Action{Kind: ActionZone, Zone: z}} }
func udp() Match                     { return Match{Kind: MatchUDP} }
func sourcePort(p uint16) Match      { return Match{Kind: MatchSourcePort, Port: p} }
