// Package rbac is the authorization filter for connections: those that its
// policies do not let pass are closed. Conditions on HTTP fields find nothing on
// a connection. Shadow rules and delayed denial are refused.
package rbac

import (
	"fmt"
	"net/netip"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/filter/matcher"
	"weft.mesh/weft/proxy/filter/rbacrules"
	"weft.mesh/weft/proxy/stream"
)

// Name of the filter in Envoy's configuration.
const Name = "envoy.filters.network.rbac"

// Filter is one compiled policy set. Immutable.
type Filter struct{ rules *rbacrules.Rules }

var _ filter.Network = (*Filter)(nil)

// New compiles the filter's configuration.
func New(c *rbacv3.RBAC) (*Filter, error) {
	if err := matcher.Known(c); err != nil {
		return nil, fmt.Errorf("network rbac: %w", err)
	}
	if err := matcher.Only(c, "rules", "stat_prefix", "enforcement_type"); err != nil {
		return nil, fmt.Errorf("network rbac: %w", err)
	}
	if c.GetEnforcementType() != rbacv3.RBAC_ONE_TIME_ON_FIRST_BYTE {
		return nil, fmt.Errorf("network rbac: enforcement_type: %v: only ONE_TIME_ON_FIRST_BYTE is supported", c.GetEnforcementType())
	}
	r, err := rbacrules.Compile(c.GetRules())
	if err != nil {
		return nil, fmt.Errorf("network rbac: %w", err)
	}
	return &Filter{r}, nil
}

// Name implements [filter.Network].
func (f *Filter) Name() string { return Name }

// Connection implements [filter.Network].
func (f *Filter) Connection(c *stream.ConnInfo) (ok bool, details string) {
	if f.rules == nil {
		return true, ""
	}
	return f.rules.Check(c, nil, netip.Addr{})
}
