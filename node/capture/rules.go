package capture

import (
	"fmt"
	"net/netip"
	"strings"
)

// Hook is the place in the network stack where a chain looks at packets.
type Hook string

// Hooks that rulesets use. An empty hook is a chain that others jump to.
const (
	HookOutput     Hook = "output"
	HookPrerouting Hook = "prerouting"
)

// Ruleset is one nftables table of family ip. Applying it replaces the table.
type Ruleset struct {
	Table  string
	Chains []Chain
}

// Chain is a base chain of type nat when Hook is set, or of type filter with Raw, else one to jump to.
// Chains are listed before those that jump to them.
type Chain struct {
	Name     string
	Hook     Hook
	Raw      bool // it sees packets before their connections are known
	Priority int
	Rules    []Rule
}

// Rule applies its action to packets for which every match holds.
type Rule struct {
	Matches []Match
	Action  Action
}

// MatchKind says what a match compares.
type MatchKind int

// Kinds of matches.
const (
	MatchMark       MatchKind = iota // packet mark equals Mark
	MatchOutIf                       // leaves by interface Interface
	MatchSource                      // source address within Prefix
	MatchDest                        // destination address within Prefix
	MatchTCP                         // protocol is TCP
	MatchUDP                         // protocol is UDP
	MatchPort                        // destination port equals Port (after MatchTCP or MatchUDP)
	MatchRandom                      // a random number below Modulus is 0
	MatchInIf                        // came by interface Interface
	MatchUser                        // socket belongs to user ID
	MatchGroup                       // socket belongs to group ID
	MatchSourcePort                  // source port equals Port (after MatchTCP or MatchUDP)
)

// Match is one condition; Not turns it round.
type Match struct {
	Kind      MatchKind
	Not       bool
	Mark      uint32
	Interface string
	Prefix    netip.Prefix
	Port      uint16
	Modulus   uint32
	ID        uint32
}

// ActionKind says what happens to a packet.
type ActionKind int

// Kinds of actions.
const (
	ActionReturn   ActionKind = iota // leave the chain
	ActionRedirect                   // to Port of this pod
	ActionDNAT                       // to Target
	ActionJump                       // to chain Chain
	ActionZone                       // its connection is tracked in zone Zone, apart from others; leaves the chain
)

// Action is what a rule does.
type Action struct {
	Kind   ActionKind
	Port   uint16
	Target netip.AddrPort
	Chain  string
	Zone   uint16
}

// String is the ruleset in the syntax of the nft command.
func (r Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table ip %s {\n", r.Table)
	for i, c := range r.Chains {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if c.Hook != "" {
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.kind(), c.Hook, c.Priority)
		}
		for _, rule := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (c Chain) kind() string {
	if c.Raw {
		return "filter"
	}
	return "nat"
}

// String is the rule in the syntax of the nft command.
func (r Rule) String() string {
	parts := make([]string, 0, len(r.Matches)+1)
	proto := "tcp"
	for _, m := range r.Matches {
		if m.Kind == MatchUDP {
			proto = "udp"
		}
		parts = append(parts, m.text(proto))
	}
	return strings.Join(append(parts, r.Action.String()), " ")
}

func (m Match) text(proto string) string {
	op := ""
	if m.Not {
		op = "!= "
	}
	switch m.Kind {
	case MatchMark:
		return fmt.Sprintf("meta mark %s0x%08x", op, m.Mark)
	case MatchOutIf:
		return fmt.Sprintf("oifname %s%q", op, m.Interface)
	case MatchInIf:
		return fmt.Sprintf("iifname %s%q", op, m.Interface)
	case MatchUser:
		return fmt.Sprintf("meta skuid %s%d", op, m.ID)
	case MatchGroup:
		return fmt.Sprintf("meta skgid %s%d", op, m.ID)
	case MatchSource:
		return "ip saddr " + op + prefixText(m.Prefix)
	case MatchDest:
		return "ip daddr " + op + prefixText(m.Prefix)
	case MatchTCP, MatchUDP:
		return fmt.Sprintf("meta l4proto %s%s", op, proto)
	case MatchPort:
		return fmt.Sprintf("%s dport %s%d", proto, op, m.Port)
	case MatchSourcePort:
		return fmt.Sprintf("%s sport %s%d", proto, op, m.Port)
	case MatchRandom:
		return fmt.Sprintf("numgen random mod %d 0", m.Modulus)
	}
	return fmt.Sprintf("match-%d", m.Kind)
}

func prefixText(p netip.Prefix) string {
	if p.Bits() == p.Addr().BitLen() {
		return p.Addr().String()
	}
	return p.Masked().String()
}

// String is the action in the syntax of the nft command.
func (a Action) String() string {
	switch a.Kind {
	case ActionReturn:
		return "return"
	case ActionRedirect:
		return fmt.Sprintf("redirect to :%d", a.Port)
	case ActionDNAT:
		return fmt.Sprintf("dnat to %s", a.Target)
	case ActionJump:
		return "jump " + a.Chain
	case ActionZone:
		return fmt.Sprintf("ct zone set %d return", a.Zone)
	}
	return fmt.Sprintf("action-%d", a.Kind)
}
