package snapshot

import (
	"slices"

	"weft.mesh/weft/model"
)

// MTLS is what a workload accepts: Mode, and other modes of single ports. No
// value is UNSET.
type MTLS struct {
	Mode  string
	Ports map[uint16]string
}

// Of is the mode of a port.
func (m MTLS) Of(port uint16) string {
	if p, ok := m.Ports[port]; ok {
		return p
	}
	return m.Mode
}

// PeerAuthentication resolves what a workload accepts: the oldest policy of its
// own selector, then of its namespace, then of the root namespace; UNSET
// inherits, and the end of the chain is PERMISSIVE. Ports count only in a
// policy with a selector. A policy with a selector in the root namespace has no
// effect (as in Istio).
func (w *World) PeerAuthentication(namespace string, labels map[string]string) MTLS {
	mode := model.MTLSPermissive
	for _, root := range w.roots() {
		mode = w.namespaceMode(root, mode)
	}
	if w.mesh.IsRoot(namespace) {
		return MTLS{Mode: mode}
	}
	mode = w.namespaceMode(namespace, mode)
	for _, p := range w.authn[namespace] {
		if len(p.Selector) == 0 || !Matches(p.Selector, labels) {
			continue
		}
		m := MTLS{Mode: inherit(p.Mode, mode)}
		for port, pm := range p.Ports {
			if m.Ports == nil {
				m.Ports = map[uint16]string{}
			}
			m.Ports[port] = inherit(pm, m.Mode)
		}
		return m
	}
	return MTLS{Mode: mode}
}

func (w *World) namespaceMode(ns, inherited string) string {
	for _, p := range w.authn[ns] {
		if len(p.Selector) == 0 {
			return inherit(p.Mode, inherited)
		}
	}
	return inherited
}

func inherit(mode, from string) string {
	if mode == "" || mode == model.MTLSUnset {
		return from
	}
	return mode
}

// AuthorizationPolicies returns the policies of a workload: of the root
// namespace and of its own whose selectors match, oldest first in each.
func (w *World) AuthorizationPolicies(namespace string, labels map[string]string) []*model.AuthorizationPolicy {
	var out []*model.AuthorizationPolicy
	add := func(ns string) {
		for _, p := range w.authz[ns] {
			if Matches(p.Selector, labels) {
				out = append(out, p)
			}
		}
	}
	for _, root := range w.roots() {
		add(root)
	}
	if !w.mesh.IsRoot(namespace) {
		add(namespace)
	}
	return out
}

// roots are the namespaces whose policies hold for the whole mesh: Istio's
// first, ours last, so that ours decides where only one can.
func (w *World) roots() []string {
	if w.mesh.RootNamespace == model.IstioRootNamespace {
		return []string{model.IstioRootNamespace}
	}
	return []string{model.IstioRootNamespace, w.mesh.RootNamespace}
}

func authnIndex(all []*model.PeerAuthentication) map[string][]*model.PeerAuthentication {
	slices.SortFunc(all, func(a, b *model.PeerAuthentication) int { return older(&a.Meta, &b.Meta) })
	x := map[string][]*model.PeerAuthentication{}
	for _, p := range all {
		x[p.Namespace] = append(x[p.Namespace], p)
	}
	return x
}

func authzIndex(all []*model.AuthorizationPolicy) map[string][]*model.AuthorizationPolicy {
	slices.SortFunc(all, func(a, b *model.AuthorizationPolicy) int { return older(&a.Meta, &b.Meta) })
	x := map[string][]*model.AuthorizationPolicy{}
	for _, p := range all {
		x[p.Namespace] = append(x[p.Namespace], p)
	}
	return x
}
