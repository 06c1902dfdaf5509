package snapshot

import (
	"maps"
	"slices"
	"strings"

	"weft.mesh/weft/model"
)

// Rule is what one namespace says about a host: its DestinationRules for it,
// merged. Subsets are appended in order of age, the oldest wins where two name
// the same subset; the first traffic policy wins whole.
type Rule struct {
	Namespace string
	Host      string
	Policy    model.TrafficPolicy
	Subsets   []model.Subset
	ExportTo  []string
	Selector  map[string]string
	From      []*model.DestinationRule // oldest first
}

// Subset returns a subset by name.
func (r *Rule) Subset(name string) (model.Subset, bool) {
	if r != nil {
		for _, s := range r.Subsets {
			if s.Name == name {
				return s, true
			}
		}
	}
	return model.Subset{}, false
}

// ruleIndex has the merged rules by namespace and host.
type ruleIndex struct {
	byNamespace map[string]*namespaceRules
	selectors   map[string][]map[string]string        // workloadSelectors by namespace
	backend     map[ServiceKey]*model.DestinationRule // of BackendTLSPolicies
}

type namespaceRules struct {
	exact     map[string][]*Rule
	wildcards []string // longest suffix first
	wild      map[string][]*Rule
}

// newRuleIndex merges rules; groups that are the same as in prev keep their pointers.
func newRuleIndex(all []*model.DestinationRule, prev *ruleIndex) *ruleIndex {
	x := &ruleIndex{byNamespace: map[string]*namespaceRules{}, selectors: map[string][]map[string]string{}, backend: map[ServiceKey]*model.DestinationRule{}}
	slices.SortFunc(all, func(a, b *model.DestinationRule) int { return older(&a.Meta, &b.Meta) })
	groups := map[string]map[string][]*model.DestinationRule{}
	for _, d := range all {
		if d.Backend {
			if k := (ServiceKey{d.Host, d.Namespace}); x.backend[k] == nil {
				x.backend[k] = d
			}
			continue
		}
		if groups[d.Namespace] == nil {
			groups[d.Namespace] = map[string][]*model.DestinationRule{}
		}
		groups[d.Namespace][d.Host] = append(groups[d.Namespace][d.Host], d)
		if len(d.Selector) > 0 {
			x.selectors[d.Namespace] = append(x.selectors[d.Namespace], d.Selector)
		}
	}
	for ns, hosts := range groups {
		nr := &namespaceRules{exact: map[string][]*Rule{}, wild: map[string][]*Rule{}}
		for host, ds := range hosts {
			rules := mergeRules(ns, host, ds, prev.find(ns, host))
			if strings.HasPrefix(host, "*") {
				nr.wild[host] = rules
				nr.wildcards = append(nr.wildcards, host)
			} else {
				nr.exact[host] = rules
			}
		}
		slices.SortFunc(nr.wildcards, moreSpecific)
		x.byNamespace[ns] = nr
	}
	return x
}

func (x *ruleIndex) find(ns, host string) []*Rule {
	if x == nil || x.byNamespace[ns] == nil {
		return nil
	}
	if r := x.byNamespace[ns].exact[host]; r != nil {
		return r
	}
	return x.byNamespace[ns].wild[host]
}

// mergeRules makes one Rule of those with the same selector and visibility.
func mergeRules(ns, host string, ds []*model.DestinationRule, prev []*Rule) []*Rule {
	var out []*Rule
	for _, d := range ds {
		i := slices.IndexFunc(out, func(r *Rule) bool {
			return maps.Equal(r.Selector, d.Selector) && sameExport(r.ExportTo, d.ExportTo)
		})
		if i < 0 {
			out = append(out, &Rule{Namespace: ns, Host: host, ExportTo: d.ExportTo, Selector: d.Selector})
			i = len(out) - 1
		}
		out[i].add(d)
	}
	for i, r := range out {
		for _, p := range prev {
			if slices.Equal(p.From, r.From) {
				out[i] = p
			}
		}
	}
	return out
}

func (r *Rule) add(d *model.DestinationRule) {
	if r.noPolicy() {
		r.Policy = d.Policy
	}
	for _, s := range d.Subsets {
		if _, ok := r.Subset(s.Name); !ok {
			r.Subsets = append(r.Subsets, s)
		}
	}
	r.From = append(r.From, d)
}

func (r *Rule) noPolicy() bool {
	p := &r.Policy
	return p.LB == nil && p.Pool == nil && p.Outlier == nil && p.TLS == nil && len(p.Ports) == 0 && p.RetryBudget == nil && p.ProxyProtocol == 0
}

func sameExport(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	all := []string{"*"}
	if len(a) == 0 {
		a = all
	}
	if len(b) == 0 {
		b = all
	}
	return slices.Equal(a, b)
}

// moreSpecific orders wildcards longest first, then by name.
func moreSpecific(a, b string) int {
	if len(a) != len(b) {
		return len(b) - len(a)
	}
	return cmpString(a, b)
}

// hostCovers tells whether a host or wildcard ("*", "*.suffix") covers a host,
// which may be a wildcard itself.
func hostCovers(pattern, host string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		if h, wild := strings.CutPrefix(host, "*"); wild {
			return strings.HasSuffix(h, suffix)
		}
		return strings.HasSuffix(host, suffix)
	}
	return pattern == host
}

type ruleQuery struct {
	client string
	key    ServiceKey
}

// rulesFor returns the candidates that clients of a namespace have for a
// service: those of the first of client namespace, service namespace (if
// exported) and root namespace (if exported) that has any.
func (w *World) rulesFor(client string, k ServiceKey) []*Rule {
	return w.derived.rules.of(ruleQuery{client, k}, func() []*Rule { return w.lookUpRules(client, k) })
}

func (w *World) lookUpRules(client string, k ServiceKey) []*Rule {
	inRoot := w.mesh.IsRoot(client)
	if !inRoot {
		if r := w.rules.of(client, k.Host, nil); len(r) > 0 {
			return r
		}
	}
	exported := func(r *Rule) bool { return VisibleTo(r.ExportTo, r.Namespace, client) }
	if k.Namespace != client || inRoot {
		if r := w.rules.of(k.Namespace, k.Host, exported); len(r) > 0 {
			return r
		}
	}
	roots := w.roots()
	for i := range roots {
		if r := w.rules.of(roots[len(roots)-1-i], k.Host, exported); len(r) > 0 {
			return r // ours before Istio's
		}
	}
	return nil
}

// of returns the rules of a namespace for a host: the exact ones, else those of the longest wildcard.
func (x *ruleIndex) of(ns, host string, keep func(*Rule) bool) []*Rule {
	nr := x.byNamespace[ns]
	if nr == nil {
		return nil
	}
	if r := filterRules(nr.exact[host], keep); len(r) > 0 {
		return r
	}
	if strings.HasPrefix(host, "*") {
		if r := filterRules(nr.wild[host], keep); len(r) > 0 {
			return r
		}
	}
	for _, p := range nr.wildcards {
		if hostCovers(p, host) {
			if r := filterRules(nr.wild[p], keep); len(r) > 0 {
				return r
			}
		}
	}
	return nil
}

func filterRules(rs []*Rule, keep func(*Rule) bool) []*Rule {
	if keep == nil {
		return rs
	}
	var out []*Rule
	for _, r := range rs {
		if keep(r) {
			out = append(out, r)
		}
	}
	return out
}

// Rule returns how clients of a namespace with the given labels talk to a
// service: a rule whose workloadSelector matches (of the client's namespace),
// else the one without a selector. Nil if there is none.
func (w *World) Rule(client string, labels map[string]string, k ServiceKey) *Rule {
	var general *Rule
	for _, r := range w.rulesFor(client, k) {
		if len(r.Selector) == 0 {
			if general == nil {
				general = r
			}
			continue
		}
		if r.Namespace == client && Matches(r.Selector, labels) {
			return r
		}
	}
	return general
}

// BackendTLS returns how gateways open connections to a port of a service by its
// BackendTLSPolicies; nil if none is about it.
func (w *World) BackendTLS(k ServiceKey, port uint16) *model.ClientTLS {
	d := w.rules.backend[k]
	if d == nil {
		return nil
	}
	if p, ok := d.Policy.Ports[port]; ok {
		return p.TLS
	}
	return d.Policy.TLS
}

// RuleSelectors returns the workloadSelectors of a namespace's rules: what of a
// client's labels decides which rules it follows.
func (w *World) RuleSelectors(namespace string) []map[string]string {
	return w.rules.selectors[namespace]
}

// AllRules returns every merged rule of a namespace, sorted by host.
func (w *World) AllRules(namespace string) []*Rule {
	nr := w.rules.byNamespace[namespace]
	if nr == nil {
		return nil
	}
	var out []*Rule
	for _, h := range sortedKeys(nr.exact) {
		out = append(out, nr.exact[h]...)
	}
	for _, h := range nr.wildcards {
		out = append(out, nr.wild[h]...)
	}
	return out
}
