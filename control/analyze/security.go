package analyze

import (
	"fmt"
	"slices"
	"strings"

	"weft.mesh/weft/model"
)

// checkPeerConflicts refuses a second policy for a whole namespace or the whole mesh: only the oldest counts.
func (s *set) checkPeerConflicts() {
	first := map[string]*item{}
	for _, it := range s.items { // oldest first
		for _, m := range it.models {
			p, ok := m.(*model.PeerAuthentication)
			if !ok || len(p.Selector) > 0 {
				continue
			}
			if other := first[p.Namespace]; other != nil {
				s.fail(it, CodePeerConflict, "metadata.name", p.Name, other.obj.Key.String()+" is for all of namespace "+p.Namespace+" too, and only one can count", "keep one of them, or add a selector")
				continue
			}
			first[p.Namespace] = it
		}
	}
}

// mtlsMode is what a workload accepts on a port: the policy of the workload, of its namespace, of the mesh; the oldest of each.
func (s *set) mtlsMode(w workload, port uint16) string {
	var byWorkload, byNS, byMesh string
	for _, p := range s.peers {
		switch {
		case len(p.Selector) > 0 && p.Namespace == w.namespace && matches(p.Selector, w.labels):
			mode := p.Mode
			if pm := p.Ports[port]; pm != "" && pm != model.MTLSUnset {
				mode = pm
			}
			setMode(&byWorkload, mode)
		case len(p.Selector) == 0 && p.Namespace == w.namespace:
			setMode(&byNS, p.Mode)
		case len(p.Selector) == 0 && s.isRoot(p.Namespace):
			setMode(&byMesh, p.Mode)
		}
	}
	for _, m := range []string{byWorkload, byNS, byMesh} {
		if m != "" {
			return m
		}
	}
	return model.MTLSPermissive
}

func setMode(to *string, mode string) {
	if *to == "" && mode != model.MTLSUnset {
		*to = mode
	}
}

// checkMTLS refuses a rule that sends something else than mutual TLS to a service that takes nothing else.
func (s *set) checkMTLS(it *item, path string, tls *model.ClientTLS, svcs []service, port uint16) {
	if tls == nil || tls.Mode == model.TLSIstioMutual {
		return
	}
	for _, svc := range svcs {
		if svc.External || len(svc.Selector) == 0 {
			continue
		}
		for _, w := range s.selected(svc.Selector, svc.Namespace) {
			strict := len(svc.Ports) > 0
			for _, p := range svc.Ports {
				if port != 0 && p.Number != port {
					continue
				}
				target := p.TargetPort
				if p.TargetName != "" {
					target = w.ports[p.TargetName]
				} else if target == 0 {
					target = p.Number
				}
				strict = strict && s.mtlsMode(w, target) == model.MTLSStrict
			}
			if strict {
				s.fail(it, CodeMTLSConflict, path, tls.Mode, "the service "+svc.Host+" accepts mutual TLS only (PeerAuthentication STRICT), so every call would fail", "remove tls, or use mode ISTIO_MUTUAL")
				return
			}
		}
	}
}

// checkProxyProtocol tells of PROXY headers where mutual TLS follows: the header comes before the
// handshake, and no sidecar takes one there.
func (s *set) checkProxyProtocol(it *item, path string, version uint8, tls *model.ClientTLS, svcs []service) {
	if version == 0 || tls != nil && tls.Mode != model.TLSIstioMutual {
		return
	}
	path += ".proxyProtocol"
	const hint = "set tls: {mode: DISABLE} (or SIMPLE), or remove proxyProtocol"
	if tls != nil {
		s.fail(it, CodeMTLSConflict, path, fmt.Sprintf("V%d", version), "the PROXY header would come before mutual TLS, which no sidecar takes", hint)
		return
	}
	for _, svc := range svcs {
		if !svc.External && len(svc.Selector) > 0 {
			s.warn(it, CodeMTLSConflict, path, fmt.Sprintf("V%d", version), "pods of "+svc.Host+" that have a sidecar are called with mutual TLS, and no sidecar takes a PROXY header before it", hint)
			return
		}
	}
}

func (s *set) checkAuthorization(it *item, p *model.AuthorizationPolicy) {
	for i, r := range p.Rules {
		path := fmt.Sprintf("spec.rules[%d]", i)
		for j, f := range r.From {
			sp := fmt.Sprintf("%s.from[%d].source", path, j)
			s.checkPrincipals(it, sp+".principals", f.Principals)
			s.checkAccounts(it, sp+".serviceAccounts", f.ServiceAccounts, p.Namespace)
		}
		s.checkHTTPOnTCP(it, path, p, r)
	}
}

// checkPrincipals warns of identities that nobody has. Patterns and other trust domains are left alone.
func (s *set) checkPrincipals(it *item, path string, list []string) {
	for i, pr := range list {
		td, rest, ok := strings.Cut(pr, "/ns/")
		if !ok || strings.Contains(pr, "*") || td != s.mesh.TrustDomain && td != "cluster.local" {
			continue
		}
		ns, sa, ok := strings.Cut(rest, "/sa/")
		if ok && !s.hasAccount(ns, sa) {
			s.warn(it, CodeUnknownPrincipal, fmt.Sprintf("%s[%d]", path, i), pr, "there is no ServiceAccount "+ns+"/"+sa, "write "+s.mesh.TrustDomain+"/ns/<namespace>/sa/<account>")
		}
	}
}

func (s *set) checkAccounts(it *item, path string, list []string, ns string) {
	for i, ref := range list {
		n, sa, ok := strings.Cut(ref, "/")
		if !ok {
			n, sa = ns, ref
		}
		if !s.hasAccount(n, sa) {
			s.warn(it, CodeUnknownPrincipal, fmt.Sprintf("%s[%d]", path, i), ref, "there is no ServiceAccount "+n+"/"+sa, "write namespace/name of an existing ServiceAccount")
		}
	}
}

// hasAccount: every namespace has an account "default", and what runs has one.
func (s *set) hasAccount(ns, sa string) bool { return sa == "default" || s.accounts[ns+"/"+sa] }

// checkHTTPOnTCP warns of HTTP conditions where only bytes are seen.
func (s *set) checkHTTPOnTCP(it *item, path string, p *model.AuthorizationPolicy, r model.AuthzRule) {
	field := httpField(path, r)
	if field == "" {
		return
	}
	var ports []string
	for _, w := range s.selected(p.Selector, s.scope(p.Namespace)) {
		for _, svc := range s.byNS[w.namespace] {
			if len(svc.Selector) == 0 || !matches(svc.Selector, w.labels) {
				continue
			}
			for _, sp := range svc.Ports {
				if sp.Protocol == model.ProtocolAuto || sp.Protocol.IsHTTP() {
					return
				}
				if name := fmt.Sprintf("%s:%d (%s)", svc.Name, sp.Number, sp.Protocol); !slices.Contains(ports, name) {
					ports = append(ports, name)
				}
			}
		}
	}
	if len(ports) == 0 {
		return
	}
	slices.Sort(ports)
	what := "an ALLOW rule with HTTP fields never matches there"
	if p.Action == model.AuthzDeny {
		what = "a DENY rule ignores HTTP fields there and denies more than is written"
	}
	s.warn(it, CodeHTTPOnTCP, field, "", "the selected workloads have no HTTP port ("+strings.Join(ports, ", ")+"): "+what, "use principals, namespaces, ipBlocks and ports, or name the service port http-…")
}

// httpField gives the path of the first HTTP condition of a rule.
func httpField(path string, r model.AuthzRule) string {
	for i, o := range r.To {
		p := fmt.Sprintf("%s.to[%d].operation", path, i)
		for _, f := range []struct {
			name string
			n    int
		}{{"methods", len(o.Methods) + len(o.NotMethods)}, {"paths", len(o.Paths) + len(o.NotPaths)}, {"hosts", len(o.Hosts) + len(o.NotHosts)}} {
			if f.n > 0 {
				return p + "." + f.name
			}
		}
	}
	for i, w := range r.When {
		if strings.HasPrefix(w.Key, "request.headers[") {
			return fmt.Sprintf("%s.when[%d].key", path, i)
		}
	}
	return ""
}
