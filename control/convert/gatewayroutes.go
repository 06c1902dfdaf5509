package convert

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	gw "sigs.k8s.io/gateway-api/apis/v1"
)

var (
	apiPathRE    = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`)
	grpcService  = regexp.MustCompile(`^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`)
	grpcMethodRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9]*$`)
	corsOriginRE = regexp.MustCompile(`^(\*|https?://(\*|(\*\.)?([A-Za-z0-9-]+\.)*[A-Za-z0-9-]+)(:([0-9]{1,5}|\*))?)$`)
)

// parentRefs checks what a route is attached to.
func (c *conv) parentRefs(s *gw.CommonRouteSpec) {
	c.limited("spec.parentRefs", len(s.ParentRefs), 32)
	if s.UseDefaultGateways != "" && s.UseDefaultGateways != gw.GatewayDefaultScopeNone {
		c.unsupported("spec.useDefaultGateways", string(s.UseDefaultGateways), "name a Gateway in parentRefs")
	}
	seen := map[string]bool{}
	for i, r := range s.ParentRefs {
		p := idx("spec.parentRefs", i)
		c.groupKind(p, r.Group, r.Kind)
		c.objectName(p+".name", string(r.Name))
		c.namespaceName(p+".namespace", r.Namespace)
		if r.SectionName != nil {
			c.sectionName(p+".sectionName", *r.SectionName, false)
		}
		if r.Port != nil {
			c.apiPort(p+".port", *r.Port)
		}
		if r.Name != "" && !parentKind(deref1(r.Group, gw.GroupName), deref1(r.Kind, "Gateway")) {
			c.unsupported(p+".kind", string(deref1(r.Kind, "Gateway")), `a route's parent is a Gateway, a ListenerSet, or a Service (group "")`)
		}
		k := fmt.Sprint(deref1(r.Kind, "Gateway"), deref1(r.Namespace, ""), "/", r.Name, "#", deref1(r.SectionName, ""), ":", deref1(r.Port, 0))
		if seen[k] {
			c.fail(CodeDuplicateObject, p, string(r.Name), "the parent is named twice", "give each its own sectionName or port, or keep one of them")
		}
		seen[k] = true
	}
}

func parentKind(group gw.Group, kind gw.Kind) bool {
	switch group {
	case gw.GroupName:
		return kind == "Gateway" || kind == "ListenerSet"
	case "":
		return kind == "Service"
	}
	return false
}

// ruleNames checks that names of rules are names, each once.
func (c *conv) ruleName(p string, name *gw.SectionName, seen map[gw.SectionName]bool) {
	if name == nil {
		return
	}
	c.sectionName(p+".name", *name, true)
	if seen[*name] {
		c.fail(CodeDuplicateObject, p+".name", string(*name), "two rules have the same name", "rename one of them")
	}
	seen[*name] = true
}

func (c *conv) apiHTTPRoute(s *gw.HTTPRouteSpec) {
	c.parentRefs(&s.CommonRouteSpec)
	c.limited("spec.hostnames", len(s.Hostnames), 16)
	c.apiHosts("spec.hostnames", s.Hostnames)
	c.limited("spec.rules", len(s.Rules), 16)
	names, matches := map[gw.SectionName]bool{}, 0
	for i := range s.Rules {
		r := &s.Rules[i]
		p := idx("spec.rules", i)
		matches += max(len(r.Matches), 1)
		c.ruleName(p, r.Name, names)
		c.httpRule(p, r)
	}
	if matches > 128 {
		c.fail(CodeInvalidValue, "spec.rules", strconv.Itoa(matches)+" matches", "the route has too many matches", "at most 128 in all rules together")
	}
}

func (c *conv) httpRule(p string, r *gw.HTTPRouteRule) {
	c.limited(p+".matches", len(r.Matches), 64)
	for i := range r.Matches {
		c.apiHTTPMatch(idx(p+".matches", i), &r.Matches[i])
	}
	c.limited(p+".filters", len(r.Filters), 16)
	c.httpFilters(p, r, r.Filters, "")
	if redirects(r.Filters) && len(r.BackendRefs) > 0 {
		c.fail(CodeExclusive, p+".backendRefs", "", "a rule that redirects has no backendRefs", "remove the RequestRedirect filter or the backendRefs")
	}
	c.limited(p+".backendRefs", len(r.BackendRefs), 16)
	for i := range r.BackendRefs {
		b := &r.BackendRefs[i]
		bp := idx(p+".backendRefs", i)
		c.backendRef(bp, &b.BackendRef)
		c.httpFilters(bp, r, b.Filters, "a backendRef")
	}
	if t := r.Timeouts; t != nil {
		all, one := c.apiDuration(p+".timeouts.request", t.Request), c.apiDuration(p+".timeouts.backendRequest", t.BackendRequest)
		if all > 0 && one > all {
			c.fail(CodeInvalidDuration, p+".timeouts.backendRequest", string(*t.BackendRequest), "the timeout of one try is longer than that of the request", "make it at most "+string(*t.Request))
		}
	}
	c.httpRetry(p+".retry", r.Retry)
	if r.SessionPersistence != nil {
		c.unsupported(p+".sessionPersistence", "", "use a DestinationRule with trafficPolicy.loadBalancer.consistentHash.httpCookie")
	}
}

func (c *conv) httpRetry(p string, r *gw.HTTPRouteRetry) {
	if r == nil {
		return
	}
	for i, code := range r.Codes {
		if code < 400 || code > 599 {
			c.fail(CodeInvalidValue, idx(p+".codes", i), strconv.Itoa(int(code)), "the status is no error", "use 400 to 599")
		}
	}
	if r.Attempts != nil && *r.Attempts < 1 {
		c.fail(CodeInvalidValue, p+".attempts", strconv.Itoa(*r.Attempts), "the number of retries is too small", "use 1 or more, or remove retry")
	}
	c.apiDuration(p+".backoff", r.Backoff)
}

func redirects(fs []gw.HTTPRouteFilter) bool {
	return slices.ContainsFunc(fs, func(f gw.HTTPRouteFilter) bool { return f.RequestRedirect != nil })
}

func (c *conv) apiHTTPMatch(p string, m *gw.HTTPRouteMatch) {
	if m.Path != nil {
		c.apiPathMatch(p+".path", m.Path)
	}
	c.limited(p+".headers", len(m.Headers), 16)
	for i, h := range m.Headers {
		hp := idx(p+".headers", i)
		c.headerName(hp+".name", string(h.Name))
		c.valueMatch(hp, string(deref1(h.Type, gw.HeaderMatchExact)), h.Value, 4096)
	}
	c.limited(p+".queryParams", len(m.QueryParams), 16)
	for i, q := range m.QueryParams {
		qp := idx(p+".queryParams", i)
		c.headerName(qp+".name", string(q.Name))
		c.valueMatch(qp, string(deref1(q.Type, gw.QueryParamMatchExact)), q.Value, 1024)
	}
	if m.Method != nil {
		c.oneOf(p+".method", string(*m.Method), "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
	}
}

func (c *conv) headerName(p, name string) {
	switch {
	case name == "":
		c.missing(p, "name it")
	case !isHeaderName(name) || len(name) > 256:
		c.fail(CodeInvalidName, p, name, "the name is not valid", "use letters, digits and '-'")
	}
}

func (c *conv) valueMatch(p, kind, value string, most int) {
	c.oneOf(p+".type", kind, "Exact", "RegularExpression")
	switch {
	case value == "":
		c.missing(p+".value", "say what the value must be")
	case len(value) > most:
		c.fail(CodeInvalidValue, p+".value", value, "the value is too long", fmt.Sprintf("at most %d bytes", most))
	case kind == "RegularExpression":
		c.regex(p+".value", value)
	}
}

func (c *conv) apiPathMatch(p string, m *gw.HTTPPathMatch) {
	kind, value := deref1(m.Type, gw.PathMatchPathPrefix), deref1(m.Value, "/")
	c.oneOf(p+".type", string(kind), "Exact", "PathPrefix", "RegularExpression")
	if len(value) > 1024 {
		c.fail(CodeInvalidValue, p+".value", value, "the path is too long", "at most 1024 bytes")
	}
	if kind == gw.PathMatchRegularExpression {
		if value == "" {
			c.fail(CodeInvalidRegex, p+".value", "", "the regular expression is empty", "remove the condition")
		}
		c.regex(p+".value", value)
		return
	}
	if msg := apiPathProblem(value); msg != "" {
		c.fail(CodeInvalidValue, p+".value", value, msg, "write an absolute path like /shop/cart, without query")
	}
}

func apiPathProblem(v string) string {
	switch {
	case !strings.HasPrefix(v, "/"):
		return "the path does not begin with /"
	case strings.Contains(v, "//"):
		return "the path has an empty element (//)"
	case strings.Contains(v, "/./"), strings.Contains(v, "/../"), strings.HasSuffix(v, "/."), strings.HasSuffix(v, "/.."):
		return "the path has an element . or .."
	case strings.Contains(strings.ToLower(v), "%2f"):
		return "the path has an encoded slash"
	case strings.Contains(v, "#"):
		return "the path has a fragment"
	case !apiPathRE.MatchString(v):
		return "the path has characters that a path cannot have"
	}
	return ""
}

// backendRef checks a reference to a backend. Its kind is not judged: one that cannot be used gives a condition and 500 in its share, as the
// Gateway API wants it, and control/analyze says so to who writes it.
func (c *conv) backendRef(p string, r *gw.BackendRef) {
	c.backendObject(p, &r.BackendObjectReference)
	if w := r.Weight; w != nil && (*w < 0 || *w > 1000000) {
		c.fail(CodeInvalidWeight, p+".weight", strconv.Itoa(int(*w)), "the weight is out of range", "use 0 to 1000000")
	}
}

func (c *conv) backendObject(p string, r *gw.BackendObjectReference) {
	c.groupKind(p, r.Group, r.Kind)
	c.namespaceName(p+".namespace", r.Namespace)
	g, k := deref1(r.Group, ""), deref1(r.Kind, "Service")
	if g == "networking.istio.io" && k == "Hostname" {
		c.host(p+".name", string(r.Name), false)
	} else {
		c.objectName(p+".name", string(r.Name))
	}
	if r.Port != nil {
		c.apiPort(p+".port", *r.Port)
	} else if g == "" && k == "Service" {
		c.missing(p+".port", "a Service is referred to with one of its ports")
	}
}

// httpFilters checks the filters of a rule, or of a backendRef in it (where names it).
func (c *conv) httpFilters(p string, r *gw.HTTPRouteRule, fs []gw.HTTPRouteFilter, where string) {
	count := map[gw.HTTPRouteFilterType]int{}
	for i := range fs {
		f := &fs[i]
		fp := idx(p+".filters", i)
		if count[f.Type]++; count[f.Type] > 1 && f.Type != gw.HTTPRouteFilterRequestMirror {
			c.fail(CodeExclusive, fp+".type", string(f.Type), "the filter is written twice", "merge them")
		}
		c.httpFilter(fp, r, f, where)
	}
	if count[gw.HTTPRouteFilterRequestRedirect] > 0 && count[gw.HTTPRouteFilterURLRewrite] > 0 {
		c.fail(CodeExclusive, p+".filters", "", "RequestRedirect and URLRewrite exclude each other", "keep one of them")
	}
}

func (c *conv) httpFilter(p string, r *gw.HTTPRouteRule, f *gw.HTTPRouteFilter, where string) {
	if f.Type == gw.HTTPRouteFilterExtensionRef || f.Type == gw.HTTPRouteFilterExternalAuth {
		hint := "no kind of filter of others is known: remove it"
		if f.Type == gw.HTTPRouteFilterExternalAuth {
			hint = "external authorization is not implemented yet: use an AuthorizationPolicy"
		}
		c.unsupported(p+".type", string(f.Type), hint)
		return
	}
	set := map[gw.HTTPRouteFilterType]bool{
		gw.HTTPRouteFilterRequestHeaderModifier: f.RequestHeaderModifier != nil, gw.HTTPRouteFilterResponseHeaderModifier: f.ResponseHeaderModifier != nil,
		gw.HTTPRouteFilterRequestMirror: f.RequestMirror != nil, gw.HTTPRouteFilterRequestRedirect: f.RequestRedirect != nil,
		gw.HTTPRouteFilterURLRewrite: f.URLRewrite != nil, gw.HTTPRouteFilterCORS: f.CORS != nil,
	}
	if _, known := set[f.Type]; !known {
		c.oneOf(p+".type", string(f.Type), "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS")
		return
	}
	for _, t := range []gw.HTTPRouteFilterType{"RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS"} {
		field := strings.ToLower(string(t[:1])) + string(t[1:])
		switch t {
		case gw.HTTPRouteFilterURLRewrite:
			field = "urlRewrite"
		case gw.HTTPRouteFilterCORS:
			field = "cors"
		}
		if t == f.Type && !set[t] {
			c.missing(p+"."+field, "a filter of type "+string(t)+" needs it")
		} else if t != f.Type && set[t] {
			c.fail(CodeExclusive, p+"."+field, "", "the field does not belong to a filter of type "+string(f.Type), "write it as a filter of its own, of type "+string(t))
		}
	}
	if where != "" && f.Type != gw.HTTPRouteFilterRequestHeaderModifier && f.Type != gw.HTTPRouteFilterResponseHeaderModifier {
		c.unsupported(p+".type", string(f.Type), where+" takes header modifiers only: write the filter into the rule")
	}
	c.headerFilter(p+".requestHeaderModifier", f.RequestHeaderModifier)
	c.headerFilter(p+".responseHeaderModifier", f.ResponseHeaderModifier)
	c.mirrorFilter(p+".requestMirror", f.RequestMirror)
	c.redirectFilter(p+".requestRedirect", r, f.RequestRedirect)
	if w := f.URLRewrite; w != nil {
		if w.Hostname != nil {
			c.apiHost(p+".urlRewrite.hostname", string(*w.Hostname), false)
		}
		c.pathModifier(p+".urlRewrite.path", r, w.Path)
	}
	c.corsFilter(p+".cors", f.CORS)
}

func (c *conv) headerFilter(p string, f *gw.HTTPHeaderFilter) {
	if f == nil {
		return
	}
	for _, part := range []struct {
		name string
		list []gw.HTTPHeader
	}{{"set", f.Set}, {"add", f.Add}} {
		c.limited(p+"."+part.name, len(part.list), 16)
		seen := map[string]bool{}
		for i, h := range part.list {
			hp := idx(p+"."+part.name, i)
			c.headerName(hp+".name", string(h.Name))
			if n := strings.ToLower(string(h.Name)); seen[n] {
				c.fail(CodeExclusive, hp+".name", string(h.Name), "the header is written twice", "write both values into one, with a comma between")
			} else {
				seen[n] = true
			}
			if h.Value == "" || strings.ContainsAny(h.Value, "\r\n\x00") {
				c.fail(CodeInvalidValue, hp+".value", h.Value, "the value is empty or has a line break", "give it a value, or use remove")
			}
		}
	}
	c.limited(p+".remove", len(f.Remove), 16)
	for i, n := range f.Remove {
		c.headerName(idx(p+".remove", i), n)
	}
}

func (c *conv) mirrorFilter(p string, f *gw.HTTPRequestMirrorFilter) {
	if f == nil {
		return
	}
	c.backendObject(p+".backendRef", &f.BackendRef)
	if f.Percent != nil && f.Fraction != nil {
		c.fail(CodeExclusive, p+".fraction", "", "percent and fraction exclude each other", "keep one of them")
	}
	if v := f.Percent; v != nil && (*v < 0 || *v > 100) {
		c.fail(CodeInvalidValue, p+".percent", strconv.Itoa(int(*v)), "a percentage is from 0 to 100", "use 0 to 100")
	}
	if v := f.Fraction; v != nil {
		if d := deref1(v.Denominator, 100); d < 1 || v.Numerator < 0 || v.Numerator > d {
			c.fail(CodeInvalidValue, p+".fraction", fmt.Sprintf("%d/%d", v.Numerator, d), "the fraction is not between 0 and 1", "make numerator at most denominator (100 if it is not written)")
		}
	}
}

func (c *conv) redirectFilter(p string, r *gw.HTTPRouteRule, f *gw.HTTPRequestRedirectFilter) {
	if f == nil {
		return
	}
	if f.Scheme != nil {
		c.oneOf(p+".scheme", *f.Scheme, "http", "https")
	}
	if f.Hostname != nil {
		c.apiHost(p+".hostname", string(*f.Hostname), false)
	}
	if f.Port != nil {
		c.apiPort(p+".port", *f.Port)
	}
	if f.StatusCode != nil {
		c.oneOf(p+".statusCode", strconv.Itoa(*f.StatusCode), "301", "302", "303", "307", "308")
	}
	c.pathModifier(p+".path", r, f.Path)
}

func (c *conv) pathModifier(p string, r *gw.HTTPRouteRule, m *gw.HTTPPathModifier) {
	if m == nil {
		return
	}
	value := m.ReplaceFullPath
	switch m.Type {
	case gw.FullPathHTTPPathModifier:
		if m.ReplacePrefixMatch != nil {
			c.fail(CodeExclusive, p+".replacePrefixMatch", *m.ReplacePrefixMatch, "the field does not belong to type ReplaceFullPath", "remove it")
		}
	case gw.PrefixMatchHTTPPathModifier:
		value = m.ReplacePrefixMatch
		if m.ReplaceFullPath != nil {
			c.fail(CodeExclusive, p+".replaceFullPath", *m.ReplaceFullPath, "the field does not belong to type ReplacePrefixMatch", "remove it")
		}
		if len(r.Matches) > 1 || len(r.Matches) == 1 && r.Matches[0].Path != nil && deref1(r.Matches[0].Path.Type, gw.PathMatchPathPrefix) != gw.PathMatchPathPrefix {
			c.fail(CodeExclusive, p+".type", string(m.Type), "a prefix can be replaced only where exactly one PathPrefix is matched", "give the rule one match of type PathPrefix")
		}
	default:
		c.oneOf(p+".type", string(m.Type), "ReplaceFullPath", "ReplacePrefixMatch")
		return
	}
	if value == nil {
		c.missing(p+"."+strings.ToLower(string(m.Type[:1]))+string(m.Type[1:]), "say what the path becomes")
	} else if len(*value) > 1024 || strings.ContainsAny(*value, "?# \r\n\x00") {
		c.fail(CodeInvalidValue, p, *value, "this is not a path", "write an absolute path like /shop, without query, at most 1024 bytes")
	}
}

func (c *conv) corsFilter(p string, f *gw.HTTPCORSFilter) {
	if f == nil {
		return
	}
	c.limited(p+".allowOrigins", len(f.AllowOrigins), 64)
	for i, o := range f.AllowOrigins {
		if !corsOriginRE.MatchString(string(o)) {
			c.fail(CodeInvalidValue, idx(p+".allowOrigins", i), string(o), "this is not an origin", "write it like https://shop.example.com or https://*.example.com:8443, or * for all")
		}
	}
	for i, m := range f.AllowMethods {
		c.oneOf(idx(p+".allowMethods", i), string(m), "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*")
	}
	if len(f.AllowMethods) > 1 && slices.Contains(f.AllowMethods, "*") {
		c.fail(CodeExclusive, p+".allowMethods", "*", `"*" stands alone`, "keep one entry")
	}
	for name, list := range map[string][]gw.HTTPHeaderName{"allowHeaders": f.AllowHeaders, "exposeHeaders": f.ExposeHeaders} {
		c.limited(p+"."+name, len(list), 64)
		for i, h := range list {
			c.headerName(idx(p+"."+name, i), string(h))
		}
	}
	if f.MaxAge < 0 {
		c.fail(CodeInvalidValue, p+".maxAge", strconv.Itoa(int(f.MaxAge)), "the number is negative", "use 1 or more seconds")
	}
}

func (c *conv) apiGRPCRoute(s *gw.GRPCRouteSpec) {
	c.parentRefs(&s.CommonRouteSpec)
	c.limited("spec.hostnames", len(s.Hostnames), 16)
	c.apiHosts("spec.hostnames", s.Hostnames)
	c.limited("spec.rules", len(s.Rules), 16)
	names := map[gw.SectionName]bool{}
	for i := range s.Rules {
		r := &s.Rules[i]
		p := idx("spec.rules", i)
		c.ruleName(p, r.Name, names)
		c.limited(p+".matches", len(r.Matches), 64)
		for j := range r.Matches {
			c.grpcMatch(idx(p+".matches", j), &r.Matches[j])
		}
		c.grpcFilters(p, r.Filters, "")
		c.limited(p+".backendRefs", len(r.BackendRefs), 16)
		for j := range r.BackendRefs {
			bp := idx(p+".backendRefs", j)
			c.backendRef(bp, &r.BackendRefs[j].BackendRef)
			c.grpcFilters(bp, r.BackendRefs[j].Filters, "a backendRef")
		}
		if r.SessionPersistence != nil {
			c.unsupported(p+".sessionPersistence", "", "use a DestinationRule with trafficPolicy.loadBalancer.consistentHash.httpCookie")
		}
	}
}

func (c *conv) grpcMatch(p string, m *gw.GRPCRouteMatch) {
	if mm := m.Method; mm != nil {
		kind := string(deref1(mm.Type, gw.GRPCMethodMatchExact))
		c.oneOf(p+".method.type", kind, "Exact", "RegularExpression")
		service, method := deref1(mm.Service, ""), deref1(mm.Method, "")
		if service == "" && method == "" {
			c.missing(p+".method.service", "name a service, a method, or both")
		}
		for field, v := range map[string]string{"service": service, "method": method} {
			re := grpcMethodRE
			if field == "service" {
				re = grpcService
			}
			switch {
			case v == "":
			case kind == "RegularExpression":
				c.regex(p+".method."+field, v)
			case !re.MatchString(v):
				c.fail(CodeInvalidValue, p+".method."+field, v, "this is not the name of a gRPC "+field, "write it like helloworld.Greeter (service) and SayHello (method)")
			}
		}
	}
	c.limited(p+".headers", len(m.Headers), 16)
	for i, h := range m.Headers {
		hp := idx(p+".headers", i)
		c.headerName(hp+".name", string(h.Name))
		c.valueMatch(hp, string(deref1(h.Type, gw.GRPCHeaderMatchExact)), h.Value, 4096)
	}
}

// grpcFilters checks filters as those of an HTTPRoute, of which a GRPCRoute has three.
func (c *conv) grpcFilters(p string, fs []gw.GRPCRouteFilter, where string) {
	list := make([]gw.HTTPRouteFilter, 0, len(fs))
	for i, f := range fs {
		switch f.Type {
		case gw.GRPCRouteFilterRequestHeaderModifier, gw.GRPCRouteFilterResponseHeaderModifier, gw.GRPCRouteFilterRequestMirror, gw.GRPCRouteFilterExtensionRef:
		default:
			c.oneOf(idx(p+".filters", i)+".type", string(f.Type), "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror")
			return
		}
		list = append(list, gw.HTTPRouteFilter{Type: gw.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef})
	}
	c.limited(p+".filters", len(fs), 16)
	c.httpFilters(p, &gw.HTTPRouteRule{}, list, where)
}

func (c *conv) apiTLSRoute(s *gw.TLSRouteSpec) {
	c.parentRefs(&s.CommonRouteSpec)
	c.needed("spec.hostnames", len(s.Hostnames), "name the server names (SNI) that the route takes")
	c.apiHosts("spec.hostnames", s.Hostnames)
	if n := len(s.Rules); n != 1 {
		c.fail(CodeInvalidValue, "spec.rules", strconv.Itoa(n)+" rules", "a TLSRoute has one rule", "write one rule; its backendRefs may be several")
	}
	for i, r := range s.Rules {
		c.l4Rule(idx("spec.rules", i), r.BackendRefs)
	}
}

func (c *conv) apiTCPRoute(s *gw.TCPRouteSpec) {
	c.parentRefs(&s.CommonRouteSpec)
	if n := len(s.Rules); n != 1 {
		c.fail(CodeInvalidValue, "spec.rules", strconv.Itoa(n)+" rules", "a TCPRoute has one rule", "write one rule; its backendRefs may be several")
	}
	for i, r := range s.Rules {
		c.l4Rule(idx("spec.rules", i), r.BackendRefs)
	}
}

func (c *conv) l4Rule(p string, refs []gw.BackendRef) {
	c.needed(p+".backendRefs", len(refs), "name a Service and its port")
	c.limited(p+".backendRefs", len(refs), 16)
	for i := range refs {
		c.backendRef(idx(p+".backendRefs", i), &refs[i])
	}
}
