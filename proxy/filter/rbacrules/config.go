package rbacrules

import (
	"fmt"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"weft.mesh/weft/proxy/filter/matcher"
)

// peerPrincipal is the filter state in which Istio's proxy keeps the peer's identity.
const peerPrincipal = "io.istio.peer_principal"

// Compile makes rules of a policy set. Nil rules stay nil: nothing is enforced.
func Compile(r *rbacv3.RBAC) (*Rules, error) {
	if r == nil {
		return nil, nil
	}
	if err := matcher.Known(r); err != nil {
		return nil, err
	}
	if err := matcher.Only(r, "action", "policies"); err != nil {
		return nil, err
	}
	out := &Rules{}
	switch r.GetAction() {
	case rbacv3.RBAC_ALLOW:
	case rbacv3.RBAC_DENY:
		out.deny = true
	default:
		return nil, fmt.Errorf("rules.action: %v: only ALLOW and DENY are supported", r.GetAction())
	}
	for name, p := range r.GetPolicies() {
		if err := out.compile(name, p); err != nil {
			return nil, fmt.Errorf("rules.policies[%q]: %w", name, err)
		}
	}
	out.sort()
	return out, nil
}

func (r *Rules) compile(name string, p *rbacv3.Policy) error {
	if err := matcher.Only(p, "permissions", "principals"); err != nil {
		return err
	}
	if len(p.GetPermissions()) == 0 || len(p.GetPrincipals()) == 0 {
		return fmt.Errorf("needs at least one permission and one principal")
	}
	perms, err := permissions(p.GetPermissions())
	if err != nil {
		return err
	}
	ids, err := principals(p.GetPrincipals())
	if err != nil {
		return err
	}
	r.add(name, anyOf(perms), anyOf(ids))
	return nil
}

func permissions(ps []*rbacv3.Permission) ([]match, error) {
	out := make([]match, 0, len(ps))
	for i, p := range ps {
		m, err := permission(p)
		if err != nil {
			return nil, fmt.Errorf("permissions[%d]: %w", i, err)
		}
		out = append(out, m)
	}
	return out, nil
}

func permission(p *rbacv3.Permission) (match, error) {
	switch r := p.GetRule().(type) {
	case *rbacv3.Permission_Any:
		return isAny(r.Any)
	case *rbacv3.Permission_AndRules:
		return set(permissions(r.AndRules.GetRules()))(all)
	case *rbacv3.Permission_OrRules:
		return set(permissions(r.OrRules.GetRules()))(anyOf)
	case *rbacv3.Permission_NotRule:
		m, err := permission(r.NotRule)
		if err != nil {
			return nil, fmt.Errorf("not_rule: %w", err)
		}
		return not(m), nil
	case *rbacv3.Permission_Header:
		h, err := matcher.Header(r.Header)
		return header(h), err
	case *rbacv3.Permission_UrlPath:
		m, err := matcher.Path(r.UrlPath)
		return urlPath(m), err
	case *rbacv3.Permission_DestinationIp:
		c, err := matcher.CIDR(r.DestinationIp)
		return destinationIP(c), err
	case *rbacv3.Permission_DestinationPort:
		return destinationPort(r.DestinationPort, r.DestinationPort+1), nil
	case *rbacv3.Permission_DestinationPortRange:
		from, to := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		if from < 0 || to < from {
			return nil, fmt.Errorf("destination_port_range [%d, %d): not a range", from, to)
		}
		return destinationPort(uint32(from), uint32(to)), nil
	case *rbacv3.Permission_RequestedServerName:
		m, err := matcher.String(r.RequestedServerName)
		return serverName(m), err
	default:
		return nil, fmt.Errorf("%T is not supported", r)
	}
}

func principals(ps []*rbacv3.Principal) ([]match, error) {
	out := make([]match, 0, len(ps))
	for i, p := range ps {
		m, err := identifier(p)
		if err != nil {
			return nil, fmt.Errorf("principals[%d]: %w", i, err)
		}
		out = append(out, m)
	}
	return out, nil
}

func identifier(p *rbacv3.Principal) (match, error) {
	switch r := p.GetIdentifier().(type) {
	case *rbacv3.Principal_Any:
		return isAny(r.Any)
	case *rbacv3.Principal_AndIds:
		return set(principals(r.AndIds.GetIds()))(all)
	case *rbacv3.Principal_OrIds:
		return set(principals(r.OrIds.GetIds()))(anyOf)
	case *rbacv3.Principal_NotId:
		m, err := identifier(r.NotId)
		if err != nil {
			return nil, fmt.Errorf("not_id: %w", err)
		}
		return not(m), nil
	case *rbacv3.Principal_Authenticated_:
		name := r.Authenticated.GetPrincipalName()
		if name == nil {
			return principal(nil), nil
		}
		m, err := matcher.String(name)
		return principal(&m), err
	case *rbacv3.Principal_FilterState:
		return filterState(r)
	case *rbacv3.Principal_SourceIp:
		c, err := matcher.CIDR(r.SourceIp)
		return sourceIP(c), err
	case *rbacv3.Principal_DirectRemoteIp:
		c, err := matcher.CIDR(r.DirectRemoteIp)
		return directRemoteIP(c), err
	case *rbacv3.Principal_RemoteIp:
		c, err := matcher.CIDR(r.RemoteIp)
		return remoteIP(c), err
	case *rbacv3.Principal_Header:
		h, err := matcher.Header(r.Header)
		return header(h), err
	case *rbacv3.Principal_UrlPath:
		m, err := matcher.Path(r.UrlPath)
		return urlPath(m), err
	default:
		return nil, fmt.Errorf("%T is not supported", r)
	}
}

func filterState(r *rbacv3.Principal_FilterState) (match, error) {
	if key := r.FilterState.GetKey(); key != peerPrincipal {
		return nil, fmt.Errorf("filter_state %q: only %s is supported", key, peerPrincipal)
	}
	if r.FilterState.GetStringMatch() == nil {
		return nil, fmt.Errorf("filter_state %q: want string_match", peerPrincipal)
	}
	m, err := matcher.String(r.FilterState.GetStringMatch())
	return principal(&m), err
}

func isAny(v bool) (match, error) {
	if !v {
		return nil, fmt.Errorf("any: must be true")
	}
	return always, nil
}

// set combines a compiled list, which must not be empty: "and" of nothing would let all in.
func set(ms []match, err error) func(func([]match) match) (match, error) {
	return func(combine func([]match) match) (match, error) {
		if err != nil {
			return nil, err
		}
		if len(ms) == 0 {
			return nil, fmt.Errorf("empty set of rules")
		}
		return combine(ms), nil
	}
}
