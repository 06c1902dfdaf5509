package translate

import (
	"net/netip"
	"slices"
	"strings"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

// nameTableKey finds the last name table of those that see the same hosts with the same addresses.
type nameTableKey struct {
	namespace string
	dns       bool // allocated addresses are in it
}

// nameListKey finds the last list with a name table.
type nameListKey struct{ nameTableKey }

// nameRevisions are those of everything that names are made from.
func nameRevisions(r snapshot.Revisions) snapshot.Revisions {
	return snapshot.Revisions{Services: r.Services, Addresses: r.Addresses}
}

// nameTable is what a proxy answers to its workload's DNS queries: the hosts that its
// clusters are made from, with the addresses that its listeners are for. It is made
// when somebody asks for it, once for all of a namespace, and is the same
// list as before where nothing in it changed.
func (s *Snapshot) nameTable(v *view) []*xds.Resource {
	k := nameTableKey{v.namespace, v.dns}
	r := latest(s.cache, k, inputs{nameRevisions(s.world.Revisions())}, func() *xds.Resource {
		return s.encoded(xds.NameTableType, xds.NameTableName, nds.Encode(s.names(scopeKey{namespace: k.namespace, dns: k.dns})))
	})
	return latest(s.cache, nameListKey{k}, inputs{r}, func() []*xds.Resource { return []*xds.Resource{r} })
}

// names lists the hosts of a scope that have an address. Others are left to other DNS.
func (s *Snapshot) names(k scopeKey) map[string]nds.Info {
	table := map[string]nds.Info{}
	for _, svc := range s.world.Visible(k.namespace) {
		if svc.Headless {
			s.headlessNames(svc, table)
			continue
		}
		if addrs := k.addresses(svc); len(addrs) > 0 {
			table[strings.ToLower(svc.Host)] = s.nameInfo(svc, "", addrs)
		}
	}
	return table
}

// headlessNames adds the names of a headless service and of its pods.
func (s *Snapshot) headlessNames(svc *snapshot.Service, table map[string]nds.Info) {
	names, host := map[string][]netip.Addr{}, strings.ToLower(svc.Host)
	s.world.HeadlessNames(svc, names)
	for name, addrs := range names {
		if len(addrs) > 0 {
			slices.SortFunc(addrs, netip.Addr.Compare)
			table[name] = s.nameInfo(svc, strings.TrimSuffix(strings.TrimSuffix(name, host), "."), addrs)
		}
	}
}

// nameInfo is what a name's entry says, for a service or one pod of it.
func (s *Snapshot) nameInfo(svc *snapshot.Service, pod string, addrs []netip.Addr) nds.Info {
	info := nds.Info{Registry: nds.External}
	for _, a := range addrs {
		info.IPs = append(info.IPs, a.String())
	}
	if svc.Entry {
		return info
	}
	info.Registry = nds.Kubernetes
	if short := svc.ShortName(s.mesh.Domain); short != "" {
		info.Shortname, info.Namespace = short, svc.Namespace
		if pod != "" {
			info.Shortname = pod + "." + short
		}
	}
	return info
}
