package translate

import (
	"net/netip"
	"strings"

	"weft.mesh/weft/control/snapshot"
)

// domains are the names by which clients of a namespace reach a service. The
// port of the Host header takes no part (ignore_port_in_host_matching), so they
// are written without. A headless service has the names of its pods too.
func domains(s *snapshot.Service, vips []netip.Addr, namespace, meshDomain string) []string {
	names := []string{s.Host}
	if short, ns, ok := kubeName(s.Host, meshDomain); ok {
		if ns == namespace {
			names = append(names, short)
		}
		names = append(names, short+"."+ns, short+"."+ns+".svc")
	}
	if !s.Wildcard() {
		names = append(names, s.Host+".") // the absolute form
	}
	if s.Headless {
		for _, n := range names {
			names = append(names, "*."+n)
		}
	}
	for _, a := range vips {
		if a.Is6() {
			names = append(names, "["+a.String()+"]")
		} else {
			names = append(names, a.String())
		}
	}
	return names
}

// kubeName splits name.namespace.svc.<domain>.
func kubeName(host, meshDomain string) (name, namespace string, ok bool) {
	rest, ok := strings.CutSuffix(host, ".svc."+meshDomain)
	if !ok {
		return "", "", false
	}
	name, namespace, ok = strings.Cut(rest, ".")
	return name, namespace, ok && name != "" && namespace != "" && !strings.Contains(namespace, ".")
}

// unique drops domains that an earlier virtual host of the table has: Envoy
// refuses a table with a domain twice, and the earlier one wins.
func unique(taken map[string]bool, names []string) []string {
	var out []string
	for _, n := range names {
		if k := strings.ToLower(n); !taken[k] {
			taken[k] = true
			out = append(out, n)
		}
	}
	return out
}
