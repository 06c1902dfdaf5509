package translate

import (
	"fmt"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"weft.mesh/weft/model"
)

// authorization makes the rules of a workload's policies, for HTTP and for TCP.
type authorization struct {
	policies    []*model.AuthorizationPolicy
	trustDomain string
}

func (s *Snapshot) authorization(policies []*model.AuthorizationPolicy) *authorization {
	return &authorization{policies, s.mesh.TrustDomain}
}

// http returns the rules for requests; nil where there are no policies of the
// action. ALLOW rules that match nothing deny everything.
func (a *authorization) http() (deny, allow *rbacv3.RBAC) {
	return a.rules(model.AuthzDeny, false), a.rules(model.AuthzAllow, false)
}

// tcp returns the rules for connections. What only requests have cannot be
// compared: a DENY rule then denies more, an ALLOW rule allows nothing.
func (a *authorization) tcp() (deny, allow *rbacv3.RBAC) {
	return a.rules(model.AuthzDeny, true), a.rules(model.AuthzAllow, true)
}

func (a *authorization) rules(action string, tcp bool) *rbacv3.RBAC {
	var out *rbacv3.RBAC
	for _, p := range a.policies {
		if p.Action != action {
			continue
		}
		if out == nil {
			out = &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: map[string]*rbacv3.Policy{}}
			if action == model.AuthzDeny {
				out.Action = rbacv3.RBAC_DENY
			}
		}
		for i := range p.Rules {
			b := ruleBuilder{namespace: p.Namespace, trustDomain: a.trustDomain, action: action, tcp: tcp}
			if rule := b.build(&p.Rules[i]); rule != nil && !(tcp && b.http && action == model.AuthzAllow) {
				out.Policies[fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", p.Namespace, p.Name, i)] = rule
			}
		}
	}
	return out
}

// ruleBuilder makes one rule. http tells that it needs what only requests have.
type ruleBuilder struct {
	namespace   string
	trustDomain string
	action      string
	tcp         bool
	http        bool
}

func (b *ruleBuilder) build(r *model.AuthzRule) *rbacv3.Policy {
	ids, perms := b.conditions(r.When)
	out := &rbacv3.Policy{}
	if len(r.From) == 0 {
		out.Principals = append(out.Principals, andIDs(ids))
	}
	for i := range r.From {
		out.Principals = append(out.Principals, andIDs(append(b.source(&r.From[i]), ids...)))
	}
	if len(r.To) == 0 {
		out.Permissions = append(out.Permissions, andPermissions(perms))
	}
	for i := range r.To {
		out.Permissions = append(out.Permissions, andPermissions(append(b.operation(&r.To[i]), perms...)))
	}
	return out
}

// source lists the conditions on who calls.
func (b *ruleBuilder) source(f *model.AuthzSource) []*rbacv3.Principal {
	var ids []*rbacv3.Principal
	add := func(p ...*rbacv3.Principal) { ids = append(ids, p...) }
	add(idPair(f.Principals, f.NotPrincipals, b.principal)...)
	add(idPair(f.Namespaces, f.NotNamespaces, namespaceID)...)
	add(idPair(f.ServiceAccounts, f.NotServiceAccounts, b.serviceAccount)...)
	add(idPair(f.TrustDomains, f.NotTrustDomains, trustDomainID)...)
	add(idPair(f.IPBlocks, f.NotIPBlocks, directIP)...)
	add(idPair(f.RemoteIPBlocks, f.NotRemoteIPBlocks, remoteIP)...)
	return ids
}

// operation lists the conditions on what is called.
func (b *ruleBuilder) operation(o *model.AuthzOperation) []*rbacv3.Permission {
	var ps []*rbacv3.Permission
	add := func(p ...*rbacv3.Permission) { ps = append(ps, p...) }
	add(permissionPair(o.Ports, o.NotPorts, destinationPort)...)
	if len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) == 0 {
		return ps
	}
	b.http = true
	if b.tcp {
		return ps
	}
	add(permissionPair(o.Hosts, o.NotHosts, hostPermission)...)
	add(permissionPair(o.Methods, o.NotMethods, methodPermission)...)
	add(permissionPair(o.Paths, o.NotPaths, pathPermission)...)
	return ps
}

// idPair is "one of values" and "none of notValues", where they are set.
func idPair[T any](values, notValues []T, f func(T) *rbacv3.Principal) []*rbacv3.Principal {
	var out []*rbacv3.Principal
	if len(values) > 0 {
		out = append(out, orIDs(values, f))
	}
	if len(notValues) > 0 {
		out = append(out, &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: orIDs(notValues, f)}})
	}
	return out
}

func orIDs[T any](values []T, f func(T) *rbacv3.Principal) *rbacv3.Principal {
	set := &rbacv3.Principal_Set{}
	for _, v := range values {
		set.Ids = append(set.Ids, f(v))
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: set}}
}

func andIDs(ids []*rbacv3.Principal) *rbacv3.Principal {
	if len(ids) == 0 {
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: ids}}}
}

func permissionPair[T any](values, notValues []T, f func(T) *rbacv3.Permission) []*rbacv3.Permission {
	var out []*rbacv3.Permission
	if len(values) > 0 {
		out = append(out, orPermissions(values, f))
	}
	if len(notValues) > 0 {
		out = append(out, &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: orPermissions(notValues, f)}})
	}
	return out
}

func orPermissions[T any](values []T, f func(T) *rbacv3.Permission) *rbacv3.Permission {
	set := &rbacv3.Permission_Set{}
	for _, v := range values {
		set.Rules = append(set.Rules, f(v))
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: set}}
}

func andPermissions(ps []*rbacv3.Permission) *rbacv3.Permission {
	if len(ps) == 0 {
		return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: ps}}}
}
