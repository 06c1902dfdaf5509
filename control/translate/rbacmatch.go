package translate

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"weft.mesh/weft/model"
)

const (
	spiffeScheme = "spiffe://"
	// localDomain in a principal means the mesh's own trust domain, whatever its name (as in Istio).
	localDomain = "cluster.local/"
)

// wildcard reads Istio's match strings: "*" is any non-empty value, "x*" a
// prefix, "*x" a suffix, anything else itself. before is put in front of the value.
func wildcard(v, before string) *matcherv3.StringMatcher {
	switch {
	case v == "*":
		return matchesRegex(".+")
	case strings.HasPrefix(v, "*"):
		if before == "" {
			return suffix(v[1:])
		}
		return matchesRegex(regexp.QuoteMeta(before) + ".*" + regexp.QuoteMeta(v[1:]))
	case strings.HasSuffix(v, "*"):
		return prefix(before + v[:len(v)-1])
	}
	return exact(before + v)
}

func authenticated(m *matcherv3.StringMatcher) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: m}}}
}

func (b *ruleBuilder) principal(v string) *rbacv3.Principal {
	if rest, ok := strings.CutPrefix(v, localDomain); ok {
		v = b.trustDomain + "/" + rest
	}
	return authenticated(wildcard(v, spiffeScheme))
}

// anyOf quotes a match string for the middle of a regular expression, where "*" is part of one segment.
func anyOf(v string) string {
	return strings.ReplaceAll(regexp.QuoteMeta(v), `\*`, "[^/]*")
}

func namespaceID(ns string) *rbacv3.Principal {
	return authenticated(matchesRegex(spiffeScheme + "[^/]+/ns/" + anyOf(ns) + "/sa/[^/]+"))
}

// serviceAccount is "namespace/name", or a name of the policy's own namespace.
func (b *ruleBuilder) serviceAccount(v string) *rbacv3.Principal {
	ns, sa, ok := strings.Cut(v, "/")
	if !ok {
		ns, sa = b.namespace, v
	}
	return authenticated(matchesRegex(spiffeScheme + "[^/]+/ns/" + anyOf(ns) + "/sa/" + anyOf(sa)))
}

func trustDomainID(td string) *rbacv3.Principal {
	if strings.Contains(td, "*") {
		return authenticated(matchesRegex(spiffeScheme + anyOf(td) + "/.*"))
	}
	return authenticated(prefix(spiffeScheme + td + "/"))
}

func directIP(p netip.Prefix) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: cidr(p)}}
}

func remoteIP(p netip.Prefix) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_RemoteIp{RemoteIp: cidr(p)}}
}

func destinationPort(n uint16) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: uint32(n)}}
}

func headerPermission(name string, m *matcherv3.StringMatcher) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: headerMatcher(name, m)}}
}

// headerMatcher compares a header; nil is presence.
func headerMatcher(name string, m *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	h := &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
	if m != nil {
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: m}
	}
	return h
}

// headerValue is wildcard, except that "*" is presence, of an empty value too.
func headerValue(v string) *matcherv3.StringMatcher {
	if v == "*" {
		return nil
	}
	return wildcard(v, "")
}

func hostPermission(v string) *rbacv3.Permission {
	m := headerValue(v)
	if m != nil {
		m.IgnoreCase = true
	}
	return headerPermission(":authority", m)
}

func methodPermission(v string) *rbacv3.Permission {
	return headerPermission(":method", headerValue(v))
}

func pathPermission(v string) *rbacv3.Permission {
	m := wildcard(v, "")
	if strings.Contains(v, "{*}") || strings.Contains(v, "{**}") {
		m = matchesRegex(pathTemplate(v))
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: m}}}}
}

// pathTemplate turns {*} (one segment) and {**} (any rest) into a regular expression.
func pathTemplate(v string) string {
	q := regexp.QuoteMeta(v)
	q = strings.ReplaceAll(q, `\{\*\*\}`, ".*")
	return strings.ReplaceAll(q, `\{\*\}`, "[^/]+")
}

// conditions splits "when" into what is asked of the caller and of the destination.
func (b *ruleBuilder) conditions(when []model.AuthzCondition) (ids []*rbacv3.Principal, perms []*rbacv3.Permission) {
	for i := range when {
		c := &when[i]
		switch {
		case strings.HasPrefix(c.Key, "request.headers["):
			b.http = true
			if !b.tcp {
				name := strings.TrimSuffix(strings.TrimPrefix(c.Key, "request.headers["), "]")
				ids = append(ids, pair(&principals, c.Values, c.NotValues, func(v string) *rbacv3.Principal {
					return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{Header: headerMatcher(name, headerValue(v))}}
				})...)
			}
		case strings.HasPrefix(c.Key, "destination."), c.Key == "connection.sni":
			perms = append(perms, pair(&permissions, c.Values, c.NotValues, func(v string) *rbacv3.Permission { return destinationCondition(c.Key, v) })...)
		case !sourceKeys[c.Key]:
			// convert refuses what is not known. Should one come by another way, it fails closed.
			if b.action == model.AuthzAllow {
				ids = append(ids, principals.never())
			}
		default:
			ids = append(ids, pair(&principals, c.Values, c.NotValues, func(v string) *rbacv3.Principal { return b.sourceCondition(c.Key, v) })...)
		}
	}
	return ids, perms
}

// sourceKeys are the attributes of the caller that sourceCondition knows.
var sourceKeys = map[string]bool{
	"source.ip": true, "remote.ip": true, "source.namespace": true, "source.serviceAccount": true,
	"source.principal": true, "source.trustDomain": true,
}

// sourceCondition compares an attribute of the caller.
func (b *ruleBuilder) sourceCondition(key, v string) *rbacv3.Principal {
	switch key {
	case "source.ip":
		return directIP(block(v))
	case "remote.ip":
		return remoteIP(block(v))
	case "source.namespace":
		return namespaceID(v)
	case "source.serviceAccount":
		return b.serviceAccount(v)
	case "source.principal":
		return b.principal(v)
	case "source.trustDomain":
		return trustDomainID(v)
	}
	return principals.never()
}

func destinationCondition(key, v string) *rbacv3.Permission {
	switch key {
	case "destination.ip":
		return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: cidr(block(v))}}
	case "destination.port":
		if n, err := strconv.ParseUint(v, 10, 16); err == nil {
			return destinationPort(uint16(n))
		}
	case "connection.sni":
		return &rbacv3.Permission{Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: wildcard(v, "")}}
	}
	return permissions.never()
}

// block reads an address or a range; what is neither is an address that nobody has.
func block(v string) netip.Prefix {
	if p, err := netip.ParsePrefix(v); err == nil {
		return p.Masked()
	}
	if a, err := netip.ParseAddr(v); err == nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 32)
}
