package snapshot

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"strings"

	"weft.mesh/weft/model"
)

// vips gives addresses of the service range to services that bring none. An
// address depends on the host alone unless two hosts collide, and a host keeps
// its address as long as it exists.
type vips struct {
	cidr   netip.Prefix
	byHost table[ServiceKey, netip.Addr]
	taken  table[netip.Addr, ServiceKey]
	given  bool // addresses are never allocated, only those that services bring are noted
}

func newVIPs(cidr netip.Prefix) vips { return vips{cidr: cidr.Masked()} }

// vipEditor makes the next version of vips.
type vipEditor struct {
	cidr   netip.Prefix
	byHost *editor[ServiceKey, netip.Addr]
	taken  *editor[netip.Addr, ServiceKey]
	given  bool
}

func (v vips) edit() *vipEditor {
	return &vipEditor{v.cidr, edit(v.byHost), edit(v.taken), v.given}
}

func (e *vipEditor) done() vips { return vips{e.cidr, e.byHost.done(), e.taken.done(), e.given} }

// autoCIDR is where addresses of hosts of ServiceEntries come from: Istio's
// range, which nobody routes (RFC 1112's class E).
var autoCIDR = netip.MustParsePrefix("240.240.0.0/16")

// labelAutoAllocate with the value "false" on a ServiceEntry keeps it without an address.
const labelAutoAllocate = "networking.istio.io/enable-autoallocate-ip"

// wantsVIP tells whether a Service gets an address of the service range: if it
// brings none and is not headless. On Kubernetes a Service's address is the API
// server's business; one without (ExternalName) has none.
func (e *vipEditor) wantsVIP(s *model.Service) bool {
	return !e.given && !s.Entry && len(s.Addresses) == 0 && !s.Headless
}

// wantsAuto tells whether a host of a ServiceEntry gets an address for clients
// that ask the mesh for names: it brings none, is not forwarded to where it was
// going anyhow, and is one host.
func wantsAuto(s *model.Service) bool {
	return s.Entry && len(s.Addresses) == 0 && s.Resolution != model.ResolveNone && !strings.HasPrefix(s.Host, "*") &&
		s.Labels[labelAutoAllocate] != "false"
}

// autoKey is one for all namespaces, as the name is.
func autoKey(host string) ServiceKey { return ServiceKey{Host: host} }

// addresses returns the single addresses of a service, allocating if it wants one.
func (e *vipEditor) addresses(k ServiceKey, s *model.Service) []netip.Addr {
	if e.wantsVIP(s) {
		if a := e.allocate(k); a.IsValid() {
			return []netip.Addr{a}
		}
		return nil
	}
	e.release(k)
	var out []netip.Addr
	for _, p := range s.Addresses {
		if p.IsSingleIP() {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// reserve marks a given address as taken. A service that had it allocated
// moves; its key is returned so that it is built again.
func (e *vipEditor) reserve(a netip.Addr, by ServiceKey) (moved ServiceKey, ok bool) {
	if !e.cidr.Contains(a) {
		return moved, false
	}
	prev, taken := e.taken.get(a)
	if taken && prev != by && e.byHost.at(prev) == a {
		e.byHost.delete(prev)
		e.taken.set(a, by)
		return prev, true
	}
	if !taken {
		e.taken.set(a, by)
	}
	return moved, false
}

// unreserve frees given addresses of a service that is gone or changed.
func (e *vipEditor) unreserve(a netip.Addr, by ServiceKey) {
	if k, ok := e.taken.get(a); ok && k == by && e.byHost.at(by) != a {
		e.taken.delete(a)
	}
}

func (e *vipEditor) release(k ServiceKey) {
	if a, ok := e.byHost.get(k); ok {
		e.byHost.delete(k)
		e.taken.delete(a)
	}
}

// allocate probes linearly from the hash of the host. The first and the last
// 16 addresses of the range are left out (network, gateway, broadcast, and the
// fixed ones that clusters put there).
func (e *vipEditor) allocate(k ServiceKey) netip.Addr {
	if a, ok := e.byHost.get(k); ok {
		return a
	}
	bits := e.cidr.Addr().BitLen() - e.cidr.Bits()
	size := uint64(1) << min(bits, 32)
	const edge = 16
	if size <= 4*edge {
		return netip.Addr{}
	}
	h := fnv.New64a()
	h.Write([]byte(k.Host))
	span := size - 2*edge
	start := h.Sum64() % span
	for i := range span {
		a := offset(e.cidr.Addr(), edge+(start+i)%span)
		if _, taken := e.taken.get(a); !taken {
			e.taken.set(a, k)
			e.byHost.set(k, a)
			return a
		}
	}
	return netip.Addr{}
}

// offset adds n to the low 64 bits of an address.
func offset(a netip.Addr, n uint64) netip.Addr {
	if a.Is4() {
		b := a.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b)
}
