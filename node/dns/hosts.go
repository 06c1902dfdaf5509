package dns

import (
	"net/netip"
	"strings"
)

// Host is a host of the mesh as the name table of a control plane has it.
type Host struct {
	Name  string // full, without a dot at the end; "*.suffix" for all names below suffix
	Addrs []string
	// Short and Namespace are those of a Kubernetes Service; empty for other hosts. A pod of a headless
	// Service has "pod.service".
	Short, Namespace string
}

// PodTable is the table of a server beside a workload in a namespace of a cluster with the domain:
// what Istio's agent answers. Services of the cluster have their shorter names too: service.namespace,
// service.namespace.svc, and in the workload's own namespace the service alone. Hosts without an
// IPv4 address are left out: other DNS may know more of them.
func PodTable(hosts []Host, namespace, domain string) map[string][]string {
	table := make(map[string][]string, len(hosts))
	for _, h := range hosts {
		if !hasIPv4(h.Addrs) {
			continue
		}
		// A host that is called like the short form of another is that host.
		table[key(h.Name)] = h.Addrs
	}
	for _, h := range hosts {
		if h.Short == "" || table[key(h.Name)] == nil || !strings.HasSuffix(key(h.Name), "."+key(domain)) {
			continue
		}
		names := []string{h.Short + "." + h.Namespace, h.Short + "." + h.Namespace + ".svc"}
		if h.Namespace == namespace {
			names = append(names, h.Short)
		}
		for _, n := range names {
			if _, taken := table[key(n)]; !taken {
				table[key(n)] = h.Addrs
			}
		}
	}
	return table
}

// key is a name as tables have it.
func key(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func hasIPv4(addrs []string) bool {
	for _, s := range addrs {
		if a, err := netip.ParseAddr(s); err == nil && a.Unmap().Is4() {
			return true
		}
	}
	return false
}
