// Package rbac is the HTTP authorization filter: it answers requests that its
// policies do not let pass with 403 "RBAC: access denied". Per-route
// configuration replaces the policies. Shadow rules are refused.
package rbac

import (
	"fmt"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/filter/matcher"
	"weft.mesh/weft/proxy/filter/rbacrules"
)

// Name of the filter in Envoy's configuration.
const Name = "envoy.filters.http.rbac"

// Filter is one compiled policy set. Immutable.
type Filter struct{ rules *rbacrules.Rules }

var _ filter.HTTP = (*Filter)(nil)

// New compiles the filter's configuration.
func New(c *rbacv3.RBAC) (*Filter, error) {
	if err := matcher.Known(c); err != nil {
		return nil, fmt.Errorf("rbac: %w", err)
	}
	if err := matcher.Only(c, "rules", "rules_stat_prefix"); err != nil {
		return nil, fmt.Errorf("rbac: %w", err)
	}
	r, err := rbacrules.Compile(c.GetRules())
	if err != nil {
		return nil, fmt.Errorf("rbac: %w", err)
	}
	return &Filter{r}, nil
}

// Route compiles per-route configuration. Without rules the route is not guarded by this filter.
func Route(c *rbacv3.RBACPerRoute) (*Filter, error) {
	if err := matcher.Known(c); err != nil {
		return nil, fmt.Errorf("rbac: %w", err)
	}
	if c.GetRbac() == nil {
		return &Filter{}, nil
	}
	return New(c.GetRbac())
}

// Name implements [filter.HTTP].
func (f *Filter) Name() string { return Name }

// Request implements [filter.HTTP].
func (f *Filter) Request(s *filter.Stream) filter.Verdict {
	rules := f.rules
	if r, ok := s.PerRoute[Name].(*Filter); ok {
		rules = r.rules
	}
	if rules == nil {
		return filter.Continue
	}
	ok, details := rules.Check(s.Conn, s.Req, s.Info.Client.Addr())
	if ok {
		return filter.Continue
	}
	return filter.End(&filter.Reply{Status: 403, Body: denied, Details: details})
}

var denied = []byte("RBAC: access denied")

// Response implements [filter.HTTP].
func (f *Filter) Response(*filter.Stream) {}
