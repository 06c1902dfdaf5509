package network

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// DefaultQuarantine is how long a released address is not given out again:
// proxies may still hold connections or stale endpoints for it.
const DefaultQuarantine = time.Minute

// Pool hands out pod addresses of one range. Addresses are taken in turn, so
// that one that was released stays unused for as long as possible, and at
// least for the quarantine. Safe for concurrent use.
type Pool struct {
	prefix     netip.Prefix  // set at creation
	node       netip.Addr    // set at creation; never handed out
	quarantine time.Duration // set at creation

	mu       sync.Mutex
	next     netip.Addr
	used     map[netip.Addr]bool
	released map[netip.Addr]time.Time
}

// NewPool makes a pool of the addresses in node's range but for node's own,
// the first (network) and the last (broadcast).
func NewPool(node netip.Prefix, quarantine time.Duration) (*Pool, error) {
	if !node.Addr().Is4() || node.Bits() > 30 || node.Bits() < 8 {
		return nil, fmt.Errorf("network: pod range %q: want an IPv4 address with a range of /8 to /30, like 10.97.0.1/16", node)
	}
	return &Pool{prefix: node.Masked(), node: node.Addr(), quarantine: quarantine,
		next: node.Masked().Addr().Next(), used: map[netip.Addr]bool{}, released: map[netip.Addr]time.Time{}}, nil
}

// Take hands out an address. now is the current time.
func (p *Pool) Take(now time.Time) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, t := range p.released {
		if now.Sub(t) >= p.quarantine {
			delete(p.released, a)
		}
	}
	last := lastOf(p.prefix)
	for range 1 << min(32-p.prefix.Bits(), 24) {
		a := p.next
		if p.next = a.Next(); p.next == last || !p.prefix.Contains(p.next) {
			p.next = p.prefix.Addr().Next()
		}
		if _, waiting := p.released[a]; a != p.node && !p.used[a] && !waiting {
			p.used[a] = true
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("network: no free pod address in %s: %d in use, %d released less than %s ago",
		p.prefix, len(p.used), len(p.released), p.quarantine)
}

// Release gives an address back.
func (p *Pool) Release(a netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used[a] {
		delete(p.used, a)
		p.released[a] = now
	}
}

// lastOf is the last address of an IPv4 range.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}
