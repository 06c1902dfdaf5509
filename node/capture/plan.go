package capture

import (
	"net/netip"
	"slices"
)

// TableCapture and TableServices are the nftables tables of a pod.
const (
	TableCapture  = "weft_capture"
	TableServices = "weft_services"
)

// Priorities of the nat chains. Capture looks first: the first chain that
// translates a connection decides, so service addresses are translated only
// for what capture left alone.
const (
	priorityCapture  = -100 // dstnat
	priorityServices = -90
	priorityRaw      = -300 // before connections are tracked
)

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// Plan is the ruleset that captures a pod's traffic as c says.
func Plan(c Config) (Ruleset, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return Ruleset{}, err
	}
	return Ruleset{Table: TableCapture, Chains: append(zones(c),
		Chain{Name: "inbound", Rules: inbound(c)},
		Chain{Name: "prerouting", Hook: HookPrerouting, Priority: priorityCapture, Rules: prerouting(c)},
		Chain{Name: "output", Hook: HookOutput, Priority: priorityCapture, Rules: outbound(c)},
	)}, nil
}

// prerouting is what happens to what reaches the pod.
func prerouting(c Config) []Rule {
	var rules []Rule
	for _, name := range c.Traffic.ExcludeInterfaces {
		rules = append(rules, when(Match{Kind: MatchInIf, Interface: name}).returns())
	}
	return append(rules, when(tcp()).jump("inbound"))
}

// proxies are the ways to tell that a socket is the proxy's.
func (c Config) proxies() []Match {
	var out []Match
	if c.Mark != 0 {
		out = append(out, Match{Kind: MatchMark, Mark: c.Mark})
	}
	for _, id := range c.Users {
		out = append(out, Match{Kind: MatchUser, ID: id})
	}
	for _, id := range c.Groups {
		out = append(out, Match{Kind: MatchGroup, ID: id})
	}
	return out
}

// inbound is what happens to a connection to the pod.
func inbound(c Config) []Rule {
	var rules []Rule
	skip := append(slices.Clone(proxyPorts), c.InboundPort)
	for _, p := range sortedPorts(append(skip, c.Traffic.ExcludeInboundPorts...)) {
		rules = append(rules, when(tcp(), port(p)).returns())
	}
	if c.Traffic.InboundPorts == nil {
		return append(rules, when(tcp()).redirect(c.InboundPort))
	}
	for _, p := range sortedPorts(c.Traffic.InboundPorts) {
		rules = append(rules, when(tcp(), port(p)).redirect(c.InboundPort))
	}
	return rules
}

// outbound is what happens to a connection that the pod opens.
func outbound(c Config) []Rule {
	lo := Match{Kind: MatchOutIf, Interface: "lo"}
	notLoopback := Match{Kind: MatchDest, Not: true, Prefix: loopback}
	notInbound := Match{Kind: MatchSource, Not: true, Prefix: single(InboundSource)}
	var rules []Rule
	if c.Probe {
		rules = append(rules, when(tcp(), dest(single(InboundSource)), port(ProbePort)).redirect(ProbeAnswerPort))
	}
	for _, name := range c.Traffic.ExcludeInterfaces {
		rules = append(rules, when(Match{Kind: MatchOutIf, Interface: name}).returns())
	}
	// The proxy calls its own pod through a service: the server side
	// (mTLS, policy, metrics) must see it. Its calls to the application
	// come from InboundSource and are past that side already.
	for _, proxy := range c.proxies() {
		rules = append(rules, when(lo, proxy, notLoopback, notInbound, tcp()).jump("inbound"))
	}
	for _, proxy := range c.proxies() {
		rules = append(rules, when(proxy).returns())
	}
	rules = append(rules, c.Names.redirects()...) // also to a name server on loopback
	// The application calls itself, or a probe does.
	rules = append(rules, when(lo).returns(), when(Match{Kind: MatchDest, Prefix: loopback}).returns())
	if c.DNS.IsValid() {
		rules = append(rules, when(tcp(), dest(single(c.DNS.Addr())), port(c.DNS.Port())).returns())
	}
	t := c.Traffic
	for _, p := range sortedPorts(t.ExcludeOutboundPorts) {
		rules = append(rules, when(tcp(), port(p)).returns())
	}
	for _, r := range t.ExcludeOutboundRanges {
		rules = append(rules, when(dest(r)).returns())
	}
	for _, p := range sortedPorts(t.OutboundPorts) {
		rules = append(rules, when(tcp(), port(p)).redirect(c.OutboundPort))
	}
	if t.OutboundRanges == nil {
		return append(rules, when(tcp()).redirect(c.OutboundPort))
	}
	for _, r := range t.OutboundRanges {
		rules = append(rules, when(tcp(), dest(r)).redirect(c.OutboundPort))
	}
	return rules
}

// ServicePort is one port of one service as clients see it, and the pods that
// serve it.
type ServicePort struct {
	Address  netip.AddrPort // the service's own address and port
	UDP      bool
	Backends []netip.AddrPort // ready pods; none means that connections fail
}

// PlanServices is the ruleset that turns service addresses into those of a
// random backend, decided once for each connection. IPv6 entries are left out:
// pods have IPv4 addresses only.
func PlanServices(ports []ServicePort) Ruleset {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b ServicePort) int {
		if d := a.Address.Compare(b.Address); d != 0 {
			return d
		}
		return boolInt(a.UDP) - boolInt(b.UDP)
	})
	var rules []Rule
	for _, p := range ports {
		if p.Address.Addr().Is4() {
			rules = append(rules, balance(p)...)
		}
	}
	return Ruleset{Table: TableServices, Chains: []Chain{
		{Name: "output", Hook: HookOutput, Priority: priorityServices, Rules: rules},
	}}
}

// balance gives each of n backends one n-th: the first takes 1/n, the second
// 1/(n-1) of the rest, and so on.
func balance(p ServicePort) []Rule {
	proto := tcp()
	if p.UDP {
		proto = Match{Kind: MatchUDP}
	}
	backends := slices.DeleteFunc(slices.Clone(p.Backends), func(b netip.AddrPort) bool { return !b.Addr().Is4() })
	slices.SortFunc(backends, netip.AddrPort.Compare)
	var rules []Rule
	for i, b := range backends {
		m := []Match{proto, dest(single(p.Address.Addr())), port(p.Address.Port())}
		if left := len(backends) - i; left > 1 {
			m = append(m, Match{Kind: MatchRandom, Modulus: uint32(left)})
		}
		rules = append(rules, Rule{Matches: m, Action: Action{Kind: ActionDNAT, Target: b}})
	}
	return rules
}

type matches []Match

func when(m ...Match) matches            { return m }
func (m matches) returns() Rule          { return Rule{m, Action{Kind: ActionReturn}} }
func (m matches) redirect(p uint16) Rule { return Rule{m, Action{Kind: ActionRedirect, Port: p}} }
func (m matches) jump(chain string) Rule { return Rule{m, Action{Kind: ActionJump, Chain: chain}} }
func tcp() Match                         { return Match{Kind: MatchTCP} }
func port(p uint16) Match                { return Match{Kind: MatchPort, Port: p} }
func dest(p netip.Prefix) Match          { return Match{Kind: MatchDest, Prefix: p} }
func single(a netip.Addr) netip.Prefix   { return netip.PrefixFrom(a, a.BitLen()) }
func sortedPorts(in []uint16) []uint16 {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
