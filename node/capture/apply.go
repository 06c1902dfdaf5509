package capture

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"weft.mesh/weft/node/netns"
)

// Registers of the nftables machine that rules use.
const (
	regMatch = 1
	regAddr  = 1
	regPort  = 2
)

// Apply replaces the table of r in the namespace by r, in one transaction.
// It needs CAP_NET_ADMIN in the user namespace that owns the network namespace.
func Apply(ns *netns.Handle, r Ruleset) error {
	conn, done, err := open(ns)
	if err != nil {
		return fmt.Errorf("capture: open nftables: %w", err)
	}
	defer done()
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: r.Table}
	// Adding first makes deleting right whether or not the table is there.
	conn.AddTable(t)
	conn.DelTable(t)
	conn.AddTable(t)
	for _, c := range r.Chains {
		chain := conn.AddChain(baseChain(t, c))
		for _, rule := range c.Rules {
			exprs, err := compile(rule)
			if err != nil {
				return fmt.Errorf("capture: table %s, chain %s, rule %q: %w", r.Table, c.Name, rule, err)
			}
			conn.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs})
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("capture: install table %s (is the kernel built with nf_tables and nft_redir, and for DNS queries with NF_CONNTRACK_ZONES?): %w", r.Table, err)
	}
	return nil
}

// Remove takes the table named out of the namespace; a missing one is no error.
func Remove(ns *netns.Handle, table string) error {
	conn, done, err := open(ns)
	if err != nil {
		return fmt.Errorf("capture: open nftables: %w", err)
	}
	defer done()
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: table}
	conn.AddTable(t)
	conn.DelTable(t)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("capture: remove table %s: %w", table, err)
	}
	return nil
}

// Present tells whether the namespace has the table named.
func Present(ns *netns.Handle, table string) (bool, error) {
	conn, done, err := open(ns)
	if err != nil {
		return false, fmt.Errorf("capture: open nftables: %w", err)
	}
	defer done()
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("capture: list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == table }), nil
}

// open opens the namespace's rules; done must be called by the same goroutine after the
// last Flush. The thread's own namespace is not entered: that takes CAP_SYS_ADMIN, which an init container has not.
func open(ns *netns.Handle) (conn *nftables.Conn, done func(), err error) {
	runtime.LockOSThread()
	var opts []nftables.ConnOption
	own, err := netns.FromThread()
	if err == nil {
		defer own.Close()
	}
	if err != nil || own.Inode() != ns.Inode() {
		opts = append(opts, nftables.WithNetNSFd(ns.FD()))
	}
	if conn, err = nftables.New(opts...); err != nil {
		runtime.UnlockOSThread()
		return nil, nil, err
	}
	return conn, runtime.UnlockOSThread, nil
}

func baseChain(t *nftables.Table, c Chain) *nftables.Chain {
	chain := &nftables.Chain{Name: c.Name, Table: t}
	if c.Hook == "" {
		return chain
	}
	chain.Type = nftables.ChainTypeNAT
	if c.Raw {
		chain.Type = nftables.ChainTypeFilter
	}
	chain.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Priority))
	chain.Hooknum = nftables.ChainHookOutput
	if c.Hook == HookPrerouting {
		chain.Hooknum = nftables.ChainHookPrerouting
	}
	accept := nftables.ChainPolicyAccept
	chain.Policy = &accept
	return chain
}

func compile(r Rule) ([]expr.Any, error) {
	var out []expr.Any
	for _, m := range r.Matches {
		e, err := m.exprs()
		if err != nil {
			return nil, err
		}
		out = append(out, e...)
	}
	return append(out, r.Action.exprs()...), nil
}

func (m Match) exprs() ([]expr.Any, error) {
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	cmp := func(data []byte) expr.Any { return &expr.Cmp{Op: op, Register: regMatch, Data: data} }
	switch m.Kind {
	case MatchMark:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: regMatch}, cmp(binaryutil.NativeEndian.PutUint32(m.Mark))}, nil
	case MatchOutIf:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: regMatch}, cmp(ifname(m.Interface))}, nil
	case MatchInIf:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: regMatch}, cmp(ifname(m.Interface))}, nil
	case MatchUser:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeySKUID, Register: regMatch}, cmp(binaryutil.NativeEndian.PutUint32(m.ID))}, nil
	case MatchGroup:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeySKGID, Register: regMatch}, cmp(binaryutil.NativeEndian.PutUint32(m.ID))}, nil
	case MatchSource:
		return addrExprs(12, m.Prefix, cmp), nil
	case MatchDest:
		return addrExprs(16, m.Prefix, cmp), nil
	case MatchTCP:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regMatch}, cmp([]byte{unix.IPPROTO_TCP})}, nil
	case MatchUDP:
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regMatch}, cmp([]byte{unix.IPPROTO_UDP})}, nil
	case MatchPort:
		return []expr.Any{&expr.Payload{DestRegister: regMatch, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			cmp(binaryutil.BigEndian.PutUint16(m.Port))}, nil
	case MatchSourcePort:
		return []expr.Any{&expr.Payload{DestRegister: regMatch, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
			cmp(binaryutil.BigEndian.PutUint16(m.Port))}, nil
	case MatchRandom:
		return []expr.Any{&expr.Numgen{Register: regMatch, Modulus: m.Modulus, Type: unix.NFT_NG_RANDOM}, cmp(binaryutil.NativeEndian.PutUint32(0))}, nil
	}
	return nil, fmt.Errorf("unknown kind of match %d", m.Kind)
}

// addrExprs compares the address at offset of the IPv4 header with p.
func addrExprs(offset uint32, p netip.Prefix, cmp func([]byte) expr.Any) []expr.Any {
	p = p.Masked()
	addr := p.Addr().As4()
	out := []expr.Any{&expr.Payload{DestRegister: regMatch, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}}
	if p.Bits() < 32 {
		mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - p.Bits()))
		if p.Bits() == 0 {
			mask = make([]byte, 4)
		}
		out = append(out, &expr.Bitwise{SourceRegister: regMatch, DestRegister: regMatch, Len: 4, Mask: mask, Xor: make([]byte, 4)})
	}
	return append(out, cmp(addr[:]))
}

func (a Action) exprs() []expr.Any {
	switch a.Kind {
	case ActionRedirect:
		return []expr.Any{
			&expr.Immediate{Register: regPort, Data: binaryutil.BigEndian.PutUint16(a.Port)},
			&expr.Redir{RegisterProtoMin: regPort},
		}
	case ActionDNAT:
		addr := a.Target.Addr().As4()
		return []expr.Any{
			&expr.Immediate{Register: regAddr, Data: addr[:]},
			&expr.Immediate{Register: regPort, Data: binaryutil.BigEndian.PutUint16(a.Target.Port())},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regAddr, RegProtoMin: regPort, Specified: true},
		}
	case ActionZone:
		return []expr.Any{
			&expr.Immediate{Register: regMatch, Data: binaryutil.NativeEndian.PutUint16(a.Zone)},
			&expr.Ct{Key: expr.CtKeyZONE, Register: regMatch, SourceRegister: true},
			&expr.Verdict{Kind: expr.VerdictReturn},
		}
	case ActionJump:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: a.Chain}}
	}
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
}

// ifname is a name as the kernel compares it: padded to IFNAMSIZ.
func ifname(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}
