package snapshot

import (
	"net/netip"
	"slices"
	"strings"
)

// NameTable is what a DNS server of the mesh answers. Names are lower case and
// full, without a trailing dot; "*.suffix" answers every name below suffix.
type NameTable struct {
	Version string
	Names   map[string][]netip.Addr
	// Auto are addresses that lead anywhere only through a sidecar: of hosts of
	// ServiceEntries that bring none. Who has no sidecar, and the sidecar itself, must ask elsewhere.
	Auto   map[string]netip.Addr
	domain string
}

// NameTable lists the addresses of all hosts: the service's address, for a
// headless service its ready endpoints (and each pod's own name), for a
// ServiceEntry its addresses, or in Auto the one that was allocated. Hosts without an address are left to other DNS.
func (w *World) NameTable() NameTable {
	t := NameTable{Version: w.version, Names: make(map[string][]netip.Addr, w.hosts.len()), Auto: map[string]netip.Addr{}, domain: w.mesh.Domain}
	for host, candidates := range w.hosts.all() {
		s := candidates[0]
		name := strings.ToLower(host)
		if s.Headless {
			w.HeadlessNames(s, t.Names)
			continue
		}
		if len(s.VIPs) > 0 {
			t.Names[name] = s.VIPs
			continue
		}
		if i := slices.IndexFunc(candidates, func(s *Service) bool { return s.Auto.IsValid() }); i >= 0 {
			t.Auto[name] = candidates[i].Auto
		}
	}
	return t
}

// HeadlessNames adds to a table the ready endpoints of a headless service, sorted, and each of
// them under its pod's name (as a StatefulSet's pods have). A service without endpoints has none.
func (w *World) HeadlessNames(s *Service, names map[string][]netip.Addr) {
	name := strings.ToLower(s.Host)
	var all []netip.Addr
	for _, eps := range w.Endpoints(s.Key).byPort() {
		for _, e := range eps {
			if !e.Addr.IsValid() || e.Draining || slices.Contains(all, e.Addr) {
				continue
			}
			all = append(all, e.Addr)
			if x := e.Workload; x != nil && !x.Entry {
				pod := strings.ToLower(x.Name) + "." + name
				names[pod] = append(names[pod], e.Addr)
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	names[name] = all
}

func (e *Endpoints) byPort() map[uint16][]Endpoint {
	if e == nil {
		return nil
	}
	return e.ByPort
}

// Lookup answers a name as a client of a namespace writes it: short, with
// namespace, with svc, or full. ok is false if the name is not the mesh's.
func (t NameTable) Lookup(namespace, name string) (addrs []netip.Addr, ok bool) {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	for _, n := range []string{name, name + "." + namespace + ".svc." + t.domain, name + ".svc." + t.domain, name + "." + t.domain} {
		if a, ok := t.Names[n]; ok {
			return a, true
		}
	}
	for rest := name; ; {
		_, after, found := strings.Cut(rest, ".")
		if !found {
			return nil, false
		}
		if a, ok := t.Names["*."+after]; ok {
			return a, true
		}
		rest = after
	}
}
