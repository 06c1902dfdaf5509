package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"

	"weft.mesh/weft/model"
)

func (c *conv) peerAuthentication(v *security.PeerAuthentication) []model.Object {
	p := &model.PeerAuthentication{Meta: c.meta(), Mode: model.MTLSUnset}
	if v.Selector != nil {
		p.Selector = c.selector("spec.selector", "matchLabels", true, v.Selector.MatchLabels)
	}
	if v.Mtls != nil {
		p.Mode = v.Mtls.Mode.String()
	}
	if len(v.PortLevelMtls) == 0 {
		return []model.Object{p}
	}
	if len(p.Selector) == 0 {
		c.fail(CodeMissingField, "spec.portLevelMtls", "", "portLevelMtls needs a selector: ports are those of certain workloads", "add selector: {matchLabels: {app: …}}")
	}
	p.Ports = map[uint16]string{}
	for _, n := range sortedPorts(v.PortLevelMtls) {
		path := "spec.portLevelMtls[" + strconv.FormatUint(uint64(n), 10) + "]"
		p.Ports[c.port(path, n)] = v.PortLevelMtls[n].GetMode().String()
	}
	return []model.Object{p}
}

func sortedPorts[V any](m map[uint32]V) []uint32 {
	var out []uint32
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (c *conv) authorizationPolicy(v *security.AuthorizationPolicy) []model.Object {
	p := &model.AuthorizationPolicy{Meta: c.meta(), Action: v.Action.String()}
	switch v.Action {
	case security.AuthorizationPolicy_ALLOW, security.AuthorizationPolicy_DENY:
	default:
		c.fail(CodeUnsupportedField, "spec.action", v.Action.String(), "the action is not implemented yet", "use ALLOW or DENY")
	}
	if v.Selector != nil {
		p.Selector = c.selector("spec.selector", "matchLabels", true, v.Selector.MatchLabels)
	}
	if v.Action == security.AuthorizationPolicy_DENY && len(v.Rules) == 0 {
		c.warn(CodeEmptyRules, "spec.rules", "", "a DENY policy without rules denies nothing", "add a rule ([{}] denies everything), or remove the policy")
	}
	for i, r := range v.Rules {
		p.Rules = append(p.Rules, c.authzRule(idx("spec.rules", i), r))
	}
	return []model.Object{p}
}

func (c *conv) authzRule(path string, r *security.Rule) model.AuthzRule {
	var out model.AuthzRule
	// An empty list would be lost in the model and the rule would match everything.
	for _, f := range []string{"from", "to", "when"} {
		if c.o.Has(path+"."+f) && !c.o.Has(path+"."+f+"[0]") {
			c.fail(CodeMissingField, path+"."+f, "", f+" is empty", "add an entry, or remove it to match all")
		}
	}
	for i, f := range r.From {
		p := idx(path+".from", i) + ".source"
		if f.Source == nil {
			c.missing(p, "add source: with at least one field")
			continue
		}
		out.From = append(out.From, c.authzSource(p, f.Source))
	}
	for i, t := range r.To {
		p := idx(path+".to", i) + ".operation"
		if t.Operation == nil {
			c.missing(p, "add operation: with at least one field")
			continue
		}
		out.To = append(out.To, c.authzOperation(p, t.Operation))
	}
	for i, w := range r.When {
		out.When = append(out.When, c.authzCondition(idx(path+".when", i), w))
	}
	return out
}

// values checks a list of match strings. A list that is written must not be empty: it would match everything.
func (c *conv) values(path string, list []string, check func(path, s string)) []string {
	if len(list) == 0 && c.o.Has(path) {
		c.fail(CodeMissingField, path, "", "the list is empty", "add an entry, or remove the field")
	}
	for i, s := range list {
		p := idx(path, i)
		if s == "" {
			c.fail(CodeInvalidValue, p, "", "the entry is empty", "write a value, a prefix like abc*, a suffix like *abc, or * for any")
			continue
		}
		if check != nil {
			check(p, s)
		}
	}
	return list
}

// pattern allows "*" only at one end.
func (c *conv) pattern(path, s string) {
	if strings.Contains(strings.TrimSuffix(strings.TrimPrefix(s, "*"), "*"), "*") || len(s) > 1 && strings.HasPrefix(s, "*") && strings.HasSuffix(s, "*") {
		c.fail(CodeInvalidValue, path, s, "* is only allowed at the beginning or at the end", "write exact, prefix* or *suffix")
	}
}

func (c *conv) authzSource(path string, s *security.Source) model.AuthzSource {
	out := model.AuthzSource{
		Principals: c.values(path+".principals", s.Principals, c.principal), NotPrincipals: c.values(path+".notPrincipals", s.NotPrincipals, c.principal),
		Namespaces: c.values(path+".namespaces", s.Namespaces, c.pattern), NotNamespaces: c.values(path+".notNamespaces", s.NotNamespaces, c.pattern),
		ServiceAccounts:    c.values(path+".serviceAccounts", s.ServiceAccounts, c.accountRef),
		NotServiceAccounts: c.values(path+".notServiceAccounts", s.NotServiceAccounts, c.accountRef),
		IPBlocks:           c.blocks(path+".ipBlocks", s.IpBlocks), NotIPBlocks: c.blocks(path+".notIpBlocks", s.NotIpBlocks),
		RemoteIPBlocks: c.blocks(path+".remoteIpBlocks", s.RemoteIpBlocks), NotRemoteIPBlocks: c.blocks(path+".notRemoteIpBlocks", s.NotRemoteIpBlocks),
		TrustDomains: c.values(path+".trustDomains", s.TrustDomains, c.pattern), NotTrustDomains: c.values(path+".notTrustDomains", s.NotTrustDomains, c.pattern),
	}
	if len(s.ServiceAccounts)+len(s.NotServiceAccounts) > 0 && len(s.Principals)+len(s.NotPrincipals)+len(s.Namespaces)+len(s.NotNamespaces) > 0 {
		c.fail(CodeExclusive, path+".serviceAccounts", "", "serviceAccounts excludes principals and namespaces", "write two sources")
	}
	if sourceEmpty(out) && !c.anyUnder(path) {
		c.fail(CodeMissingField, path, "", "the source has no field and would match everyone", "add principals, namespaces or ipBlocks, or remove from")
	}
	return out
}

func sourceEmpty(s model.AuthzSource) bool {
	return len(s.Principals)+len(s.NotPrincipals)+len(s.Namespaces)+len(s.NotNamespaces)+len(s.ServiceAccounts)+len(s.NotServiceAccounts)+
		len(s.IPBlocks)+len(s.NotIPBlocks)+len(s.RemoteIPBlocks)+len(s.NotRemoteIPBlocks)+len(s.TrustDomains)+len(s.NotTrustDomains) == 0
}

// anyUnder tells whether a field below the path was written (and so reported already).
func (c *conv) anyUnder(path string) bool {
	for p := range c.o.pos.at {
		if strings.HasPrefix(p, path+".") {
			return true
		}
	}
	return false
}

func (c *conv) principal(path, s string) {
	c.pattern(path, s)
	if rest, ok := strings.CutPrefix(s, "spiffe://"); ok {
		c.fail(CodeInvalidValue, path, s, "principals are written without the scheme", "did you mean "+rest+"?")
	}
}

func (c *conv) accountRef(path, s string) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok {
		ns, name = "default", s
	}
	if !isLabel(ns) || !isSubdomain(name) {
		c.fail(CodeInvalidValue, path, s, "this is not a service account", "write name or namespace/name; patterns are not allowed here")
	}
}

func (c *conv) blocks(path string, list []string) []netip.Prefix {
	c.values(path, list, nil)
	if slices.Contains(list, "") {
		return nil
	}
	return c.prefixes(path, list)
}

// authzMethods are HTTP's methods, for a hint only: any token may be a method.
var authzMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

func (c *conv) authzOperation(path string, o *security.Operation) model.AuthzOperation {
	out := model.AuthzOperation{
		Hosts: c.values(path+".hosts", o.Hosts, c.authzHost(false)), NotHosts: c.values(path+".notHosts", o.NotHosts, c.authzHost(true)),
		Ports: c.authzPorts(path+".ports", o.Ports), NotPorts: c.authzPorts(path+".notPorts", o.NotPorts),
		Methods: c.values(path+".methods", o.Methods, c.authzMethod), NotMethods: c.values(path+".notMethods", o.NotMethods, c.authzMethod),
		Paths: c.values(path+".paths", o.Paths, c.authzPath), NotPaths: c.values(path+".notPaths", o.NotPaths, c.authzPath),
	}
	if len(out.Hosts)+len(out.NotHosts)+len(out.Ports)+len(out.NotPorts)+len(out.Methods)+len(out.NotMethods)+len(out.Paths)+len(out.NotPaths) == 0 && !c.anyUnder(path) {
		c.fail(CodeMissingField, path, "", "the operation has no field and would match everything", "add methods, paths, hosts or ports, or remove to")
	}
	return out
}

func (c *conv) authzMethod(path, s string) {
	c.pattern(path, s)
	plain := strings.Trim(s, "*")
	if up := strings.ToUpper(plain); plain != up && slices.Contains(authzMethods, up) {
		c.fail(CodeInvalidValue, path, s, "methods are case-sensitive", "did you mean "+up+"?")
	}
}

func (c *conv) authzPath(path, s string) {
	if strings.ContainsAny(s, "{}") {
		c.pathTemplate(path, s)
		return
	}
	c.pattern(path, s)
	if !strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "*") {
		c.fail(CodeInvalidValue, path, s, "a path begins with /", "did you mean /"+s+"?")
	}
}

// pathTemplate checks a path with {*}, which is one segment, or {**}, which is any rest.
func (c *conv) pathTemplate(path, s string) {
	const hint = "{*} stands for one whole segment and {**} for any number, once and as the last of them, like /api/{*}/items/{**}"
	if !strings.HasPrefix(s, "/") {
		c.fail(CodeInvalidValue, path, s, "a path template begins with /", hint)
		return
	}
	many := false
	for _, seg := range strings.Split(s[1:], "/") {
		operator := seg == "{*}" || seg == "{**}"
		if !operator && strings.ContainsAny(seg, "{}*") || operator && many {
			c.fail(CodeInvalidValue, path, s, "this is not a path template", hint)
			return
		}
		many = many || seg == "{**}"
	}
}

// authzHost warns of the hole that hosts without a port leave: a Host header may carry one.
func (c *conv) authzHost(not bool) func(path, s string) {
	return func(path, s string) {
		c.pattern(path, s)
		deny := c.o.Value.(*security.AuthorizationPolicy).Action == security.AuthorizationPolicy_DENY
		if strings.Contains(s, ":") || strings.HasSuffix(s, "*") || not == deny {
			return
		}
		c.warn(CodePortOpenHost, path, s, "the host has no port: a request with `Host: "+s+":80` is another host and passes by this rule", fmt.Sprintf("list %q as well", s+":*"))
	}
}

func (c *conv) authzPorts(path string, list []string) []uint16 {
	c.values(path, list, nil)
	var out []uint16
	for i, s := range list {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			c.fail(CodeInvalidPort, idx(path, i), s, "this is not a port", "use 1 to 65535")
			continue
		}
		out = append(out, uint16(n))
	}
	return out
}

// authzKeys are the condition keys that are honoured; request.headers[…] is one too.
var authzKeys = []string{"source.ip", "remote.ip", "source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain",
	"destination.ip", "destination.port", "connection.sni"}

func (c *conv) authzCondition(path string, w *security.Condition) model.AuthzCondition {
	out := model.AuthzCondition{Key: w.Key, Values: w.Values, NotValues: w.NotValues}
	keys := append(slices.Clone(authzKeys), "request.headers[name]")
	header, isHeader := strings.CutPrefix(w.Key, "request.headers[")
	switch {
	case w.Key == "":
		c.missing(path+".key", "use "+quoteList(keys))
	case strings.HasPrefix(w.Key, "request.auth."):
		c.fail(CodeUnsupportedField, path+".key", w.Key, "JWT (RequestAuthentication) is not implemented yet", "use source.principal, source.namespace or request.headers[name]")
	case strings.HasPrefix(w.Key, "experimental."):
		c.fail(CodeUnsupportedField, path+".key", w.Key, "experimental conditions are not implemented", "use "+quoteList(keys))
	case isHeader:
		name, ok := strings.CutSuffix(header, "]")
		if !ok || !isHeaderName(name) {
			c.fail(CodeInvalidValue, path+".key", w.Key, "this is not a header", "write request.headers[name]")
		}
	case !slices.Contains(authzKeys, w.Key):
		c.fail(CodeInvalidValue, path+".key", w.Key, "this is not a condition key", meant(w.Key, keys))
	}
	if len(w.Values)+len(w.NotValues) == 0 {
		c.missing(path+".values", "add values or notValues")
	}
	check := c.conditionCheck(w.Key)
	c.values(path+".values", w.Values, check)
	c.values(path+".notValues", w.NotValues, check)
	return out
}

func (c *conv) conditionCheck(key string) func(path, s string) {
	switch key {
	case "source.ip", "remote.ip", "destination.ip":
		return func(path, s string) { c.prefix(path, s) }
	case "destination.port":
		return func(path, s string) { c.authzPort(path, s) }
	case "source.principal":
		return c.principal
	case "source.serviceAccount":
		return c.accountRef
	}
	return c.pattern
}

func (c *conv) authzPort(path, s string) {
	if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 {
		c.fail(CodeInvalidPort, path, s, "this is not a port", "use 1 to 65535")
	}
}
