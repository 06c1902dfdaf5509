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
		out.Principals = append(out.Principals, principals.all(ids))
	}
	for i := range r.From {
		out.Principals = append(out.Principals, principals.all(append(b.source(&r.From[i]), ids...)))
	}
	if len(r.To) == 0 {
		out.Permissions = append(out.Permissions, permissions.all(perms))
	}
	for i := range r.To {
		out.Permissions = append(out.Permissions, permissions.all(append(b.operation(&r.To[i]), perms...)))
	}
	return out
}

// source lists the conditions on who calls.
func (b *ruleBuilder) source(f *model.AuthzSource) []*rbacv3.Principal {
	var ids []*rbacv3.Principal
	add := func(p ...*rbacv3.Principal) { ids = append(ids, p...) }
	add(pair(&principals, f.Principals, f.NotPrincipals, b.principal)...)
	add(pair(&principals, f.Namespaces, f.NotNamespaces, namespaceID)...)
	add(pair(&principals, f.ServiceAccounts, f.NotServiceAccounts, b.serviceAccount)...)
	add(pair(&principals, f.TrustDomains, f.NotTrustDomains, trustDomainID)...)
	add(pair(&principals, f.IPBlocks, f.NotIPBlocks, directIP)...)
	add(pair(&principals, f.RemoteIPBlocks, f.NotRemoteIPBlocks, remoteIP)...)
	return ids
}

// operation lists the conditions on what is called.
func (b *ruleBuilder) operation(o *model.AuthzOperation) []*rbacv3.Permission {
	var ps []*rbacv3.Permission
	add := func(p ...*rbacv3.Permission) { ps = append(ps, p...) }
	add(pair(&permissions, o.Ports, o.NotPorts, destinationPort)...)
	if len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) == 0 {
		return ps
	}
	b.http = true
	if b.tcp {
		return ps
	}
	add(pair(&permissions, o.Hosts, o.NotHosts, hostPermission)...)
	add(pair(&permissions, o.Methods, o.NotMethods, methodPermission)...)
	add(pair(&permissions, o.Paths, o.NotPaths, pathPermission)...)
	return ps
}

// logic joins the conditions of one kind: on who calls, or on what is called.
type logic[C any] struct {
	any     func() C
	and, or func([]C) C
	not     func(C) C
}

var principals = logic[*rbacv3.Principal]{
	any: func() *rbacv3.Principal { return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}} },
	and: func(ids []*rbacv3.Principal) *rbacv3.Principal {
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: ids}}}
	},
	or: func(ids []*rbacv3.Principal) *rbacv3.Principal {
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: ids}}}
	},
	not: func(id *rbacv3.Principal) *rbacv3.Principal {
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: id}}
	},
}

var permissions = logic[*rbacv3.Permission]{
	any: func() *rbacv3.Permission { return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}} },
	and: func(ps []*rbacv3.Permission) *rbacv3.Permission {
		return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: ps}}}
	},
	or: func(ps []*rbacv3.Permission) *rbacv3.Permission {
		return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: ps}}}
	},
	not: func(p *rbacv3.Permission) *rbacv3.Permission {
		return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
	},
}

// all holds when every condition does; of none it holds always.
func (l *logic[C]) all(cs []C) C {
	if len(cs) == 0 {
		return l.any()
	}
	return l.and(cs)
}

// never holds for nobody.
func (l *logic[C]) never() C { return l.not(l.any()) }

// pair is "one of values" and "none of notValues", where they are set.
func pair[T, C any](l *logic[C], values, notValues []T, f func(T) C) []C {
	one := func(vs []T) C {
		cs := make([]C, len(vs))
		for i, v := range vs {
			cs[i] = f(v)
		}
		return l.or(cs)
	}
	var out []C
	if len(values) > 0 {
		out = append(out, one(values))
	}
	if len(notValues) > 0 {
		out = append(out, l.not(one(notValues)))
	}
	return out
}
