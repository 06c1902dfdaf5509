package listener

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// Transport protocols of a connection as chains match them.
const (
	transportTLS = "tls"
	transportRaw = "raw_buffer"
)

// matcher is the compiled form of a listener's chain matches. It follows Envoy: at
// each level the most specific entry that fits is taken, and a dead end further
// down does not lead back up but to the default chain.
//
//	destination port → destination IP → server name → transport → ALPN → source IP → source port
type matcher struct {
	ports map[uint16]*byPrefix[*serverNames] // 0: any
}

type serverNames struct {
	exact    map[string]*transports
	suffixes map[string]*transports // ".example.com"
	any      *transports
}

type transports struct{ by map[string]*protocols } // "": any

type protocols struct {
	by  map[string]*byPrefix[*sourcePorts]
	any *byPrefix[*sourcePorts]
}

type sourcePorts struct {
	by  map[uint16]*config.FilterChain
	any *config.FilterChain
}

// byPrefix finds the longest prefix that holds an address.
type byPrefix[T any] struct {
	m    map[netip.Prefix]T
	bits [2][]int // prefix lengths in use, longest first: IPv4, IPv6
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// at returns the entry of a prefix, made by mk if there is none.
func (b *byPrefix[T]) at(p netip.Prefix, mk func() T) T {
	if b.m == nil {
		b.m = map[netip.Prefix]T{}
	}
	p = p.Masked()
	if v, ok := b.m[p]; ok {
		return v
	}
	v := mk()
	b.m[p] = v
	f := family(p.Addr())
	if !slices.Contains(b.bits[f], p.Bits()) {
		b.bits[f] = append(b.bits[f], p.Bits())
		slices.SortFunc(b.bits[f], func(x, y int) int { return y - x })
	}
	return v
}

func (b *byPrefix[T]) find(a netip.Addr) (zero T, ok bool) {
	for _, bits := range b.bits[family(a)] {
		p, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if v, ok := b.m[p]; ok {
			return v, true
		}
	}
	return zero, false
}

var anyPrefixes = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

func orAny(p []netip.Prefix) []netip.Prefix {
	if len(p) == 0 {
		return anyPrefixes
	}
	return p
}

func orEmpty[T comparable](v []T) []T {
	if len(v) == 0 {
		var zero T
		return []T{zero}
	}
	return v
}

// newMatcher compiles chains. Two chains that match the same are an error.
func newMatcher(chains []*config.FilterChain) (*matcher, error) {
	m := &matcher{ports: map[uint16]*byPrefix[*serverNames]{}}
	for _, c := range chains {
		if err := m.add(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *matcher) add(c *config.FilterChain) error {
	ips := m.ports[c.Match.DestinationPort]
	if ips == nil {
		ips = &byPrefix[*serverNames]{}
		m.ports[c.Match.DestinationPort] = ips
	}
	for _, p := range orAny(c.Match.Prefixes) {
		names := ips.at(p, func() *serverNames { return &serverNames{} })
		for _, n := range orEmpty(c.Match.ServerNames) {
			if err := names.at(n).add(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *serverNames) at(name string) *transports {
	name = strings.ToLower(name)
	if name == "" {
		if s.any == nil {
			s.any = &transports{}
		}
		return s.any
	}
	m := &s.exact
	if strings.HasPrefix(name, "*.") {
		m, name = &s.suffixes, name[1:]
	}
	if *m == nil {
		*m = map[string]*transports{}
	}
	if (*m)[name] == nil {
		(*m)[name] = &transports{}
	}
	return (*m)[name]
}

func (t *transports) add(c *config.FilterChain) error {
	if t.by == nil {
		t.by = map[string]*protocols{}
	}
	p := t.by[c.Match.Transport]
	if p == nil {
		p = &protocols{by: map[string]*byPrefix[*sourcePorts]{}}
		t.by[c.Match.Transport] = p
	}
	for _, a := range orEmpty(c.Match.ALPN) {
		for _, src := range orAny(c.Match.SourcePrefixes) {
			if err := p.at(a).at(src, func() *sourcePorts { return &sourcePorts{} }).add(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *protocols) at(alpn string) *byPrefix[*sourcePorts] {
	if alpn == "" {
		if p.any == nil {
			p.any = &byPrefix[*sourcePorts]{}
		}
		return p.any
	}
	if p.by[alpn] == nil {
		p.by[alpn] = &byPrefix[*sourcePorts]{}
	}
	return p.by[alpn]
}

func (s *sourcePorts) add(c *config.FilterChain) error {
	for _, port := range orEmpty(c.Match.SourcePorts) {
		if port == 0 {
			if s.any != nil {
				return sameMatch(s.any, c)
			}
			s.any = c
			continue
		}
		if s.by == nil {
			s.by = map[uint16]*config.FilterChain{}
		}
		if s.by[port] != nil {
			return sameMatch(s.by[port], c)
		}
		s.by[port] = c
	}
	return nil
}

func sameMatch(a, b *config.FilterChain) error {
	return fmt.Errorf("filter chains %q and %q match the same connections", a.Name, b.Name)
}

// facts is what is known of a connection when its chain is chosen.
type facts struct {
	local, remote netip.AddrPort
	transport     string
	sni           string   // lower case
	alpn          []string // offered by the client, or found by looking at the bytes
}

// find returns the chain, nil if none matches.
func (m *matcher) find(f *facts) *config.FilterChain {
	ips := m.ports[f.local.Port()]
	if ips == nil {
		if ips = m.ports[0]; ips == nil {
			return nil
		}
	}
	names, ok := ips.find(f.local.Addr())
	if !ok {
		return nil
	}
	t := names.find(f.sni)
	if t == nil {
		return nil
	}
	p := t.by[f.transport]
	if p == nil {
		if p = t.by[""]; p == nil {
			return nil
		}
	}
	sources := p.find(f.alpn)
	if sources == nil {
		return nil
	}
	ports, ok := sources.find(f.remote.Addr())
	if !ok {
		return nil
	}
	if c := ports.by[f.remote.Port()]; c != nil {
		return c
	}
	return ports.any
}

func (s *serverNames) find(sni string) *transports {
	if sni != "" {
		if t := s.exact[sni]; t != nil {
			return t
		}
		for rest := sni; len(s.suffixes) > 0; {
			i := strings.IndexByte(rest, '.')
			if i < 0 {
				break
			}
			if t := s.suffixes[rest[i:]]; t != nil {
				return t
			}
			rest = rest[i+1:]
		}
	}
	return s.any
}

func (p *protocols) find(alpn []string) *byPrefix[*sourcePorts] {
	for _, a := range alpn {
		if s := p.by[a]; s != nil {
			return s
		}
	}
	return p.any
}

// noChain makes the record of a connection that no chain wants.
func noChain(info *stream.ConnInfo) *stream.Info {
	return &stream.Info{
		Conn: info, Flags: stream.FlagNoRoute, Details: "filter_chain_not_found", GRPCCode: -1, ServiceTime: -1,
	}
}
