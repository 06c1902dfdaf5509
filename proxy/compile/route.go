package compile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/xds"
)

// maxDirectBody bounds direct response bodies in bytes (Envoy's max_direct_response_body_size_bytes default).
const maxDirectBody = 4096

// table is a compiled RDS resource and the clusters it sends requests to.
type table struct {
	made     *route.Table
	clusters []string
}

func (c *Compiler) routes(body []byte) (*table, error) {
	var x routev3.RouteConfiguration
	if err := decode(body, &x); err != nil {
		return nil, err
	}
	t, err := c.routeTable(&x)
	if err != nil {
		return nil, err
	}
	return &table{t, clustersOf(t)}, nil
}

// clustersOf lists the clusters that routes forward to, sorted. Mirrors do not count: nobody waits for their answers.
func clustersOf(t *route.Table) []string {
	var names []string
	for _, v := range t.VirtualHosts {
		for _, r := range v.Routes {
			if r.Forward == nil {
				continue
			}
			if r.Forward.Cluster != "" {
				names = append(names, r.Forward.Cluster)
			}
			for i := range r.Forward.Weighted {
				names = append(names, r.Forward.Weighted[i].Cluster)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// routeTable compiles a route configuration, from RDS or inline.
func (c *Compiler) routeTable(x *routev3.RouteConfiguration) (*route.Table, error) {
	if x.GetValidateClusters().GetValue() {
		return nil, bad("validate_clusters", true, "clusters may come later than routes; remove it")
	}
	maxBody := maxDirectBody
	if n := x.GetMaxDirectResponseBodySizeBytes(); n != nil {
		maxBody = int(n.GetValue())
	}
	t := &route.Table{Name: x.GetName(), IgnorePort: x.GetIgnorePortInHostMatching(), ByAddress: weftFlag(x.GetMetadata(), xds.MetadataByAddress)}
	var err error
	if t.Headers, err = headerOps(x); err != nil {
		return nil, err
	}
	for i, v := range x.GetVirtualHosts() {
		h, err := c.virtualHost(v, maxBody)
		if err != nil {
			return nil, at(fmt.Sprintf("virtual_hosts[%d:%s]", i, v.GetName()), err)
		}
		t.VirtualHosts = append(t.VirtualHosts, h)
	}
	if err := route.Build(t); err != nil {
		return nil, err
	}
	return t, nil
}

// weftFlag reads a bool that metadata says to weft-proxy only.
func weftFlag(m *corev3.Metadata, name string) bool {
	return m.GetFilterMetadata()[xds.MetadataWeft].GetFields()[name].GetBoolValue()
}

func (c *Compiler) virtualHost(x *routev3.VirtualHost, maxBody int) (*route.VirtualHost, error) {
	v := &route.VirtualHost{Name: x.GetName(), Domains: x.GetDomains(), IncludeAttemptCount: x.GetIncludeRequestAttemptCount()}
	var err error
	if v.Headers, err = headerOps(x); err != nil {
		return nil, err
	}
	if v.PerFilter, err = c.perFilter(x.GetTypedPerFilterConfig()); err != nil {
		return nil, err
	}
	retry, err := retryPolicy("retry_policy", x.GetRetryPolicy())
	if err != nil {
		return nil, err
	}
	for i, r := range x.GetRoutes() {
		o, err := c.route(r, maxBody)
		if err != nil {
			if r.GetName() != "" {
				return nil, at(fmt.Sprintf("routes[%d:%s]", i, r.GetName()), err)
			}
			return nil, index("routes", i, err)
		}
		if o.Forward != nil && o.Forward.Retry == nil {
			o.Forward.Retry = retry
		}
		if len(v.PerFilter) > 0 {
			o.PerFilter = merged(v.PerFilter, o.PerFilter)
		}
		v.Routes = append(v.Routes, o)
	}
	return v, nil
}

// merged lays the more specific config over the less specific one.
func merged(base, over map[string]any) map[string]any {
	m := make(map[string]any, len(base)+len(over))
	for k, v := range base {
		m[k] = v
	}
	for k, v := range over {
		m[k] = v
	}
	return m
}

func (c *Compiler) route(x *routev3.Route, maxBody int) (*route.Route, error) {
	r := &route.Route{Name: x.GetName(), Operation: x.GetDecorator().GetOperation()}
	var err error
	if r.Match, err = routeMatch(x.GetMatch()); err != nil {
		return nil, at("match", err)
	}
	if r.Headers, err = headerOps(x); err != nil {
		return nil, err
	}
	if r.PerFilter, err = c.perFilter(x.GetTypedPerFilterConfig()); err != nil {
		return nil, err
	}
	switch a := x.GetAction().(type) {
	case *routev3.Route_Route:
		r.Forward, err = c.forward(a.Route, r.PerFilter)
		err = at("route", err)
	case *routev3.Route_Redirect:
		r.Redirect, err = redirect(a.Redirect)
		if err == nil {
			r.Redirect.DropPort = weftFlag(x.GetMetadata(), xds.MetadataDropPort)
		}
		err = at("redirect", err)
	case *routev3.Route_DirectResponse:
		r.Direct, err = c.direct(a.DirectResponse, maxBody)
		err = at("direct_response", err)
	default:
		err = missing("action", "want route, redirect or direct_response")
	}
	return r, err
}

// perFilter compiles typed_per_filter_config by the filter's name.
func (c *Compiler) perFilter(m map[string]*anypb.Any) (map[string]any, error) {
	if len(m) == 0 {
		return nil, nil
	}
	out := make(map[string]any, len(m))
	for name, a := range m {
		v, err := c.routeConfig(name, a)
		if err != nil {
			return nil, at("typed_per_filter_config["+name+"]", err)
		}
		if v != nil {
			out[name] = v
		}
	}
	return out, nil
}

func (c *Compiler) routeConfig(name string, a *anypb.Any) (any, error) {
	optional := false
	if a.MessageName() == "envoy.config.route.v3.FilterConfig" {
		var w routev3.FilterConfig
		if err := decode(a.GetValue(), &w); err != nil {
			return nil, err
		}
		a, optional = w.GetConfig(), w.GetIsOptional()
	}
	for _, f := range c.set.HTTPFilters {
		if f.Name == name && f.Route != nil {
			return f.Route(a)
		}
	}
	if optional {
		return nil, nil
	}
	return nil, bad("name", name, "no filter of this name takes per-route configuration")
}

type headerSource interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

func headerOps(x headerSource) (route.HeaderOps, error) {
	var h route.HeaderOps
	var err error
	if h.Request, err = ops("request_headers", x.GetRequestHeadersToAdd(), x.GetRequestHeadersToRemove()); err != nil {
		return h, err
	}
	h.Response, err = ops("response_headers", x.GetResponseHeadersToAdd(), x.GetResponseHeadersToRemove())
	return h, err
}

func ops(field string, add []*corev3.HeaderValueOption, remove []string) (route.Ops, error) {
	var o route.Ops
	for _, n := range remove {
		o.Remove = append(o.Remove, strings.ToLower(n))
	}
	for i, a := range add {
		m, err := mutation(a)
		if err != nil {
			return o, index(field+"_to_add", i, err)
		}
		o.Mutations = append(o.Mutations, m)
	}
	return o, nil
}

func mutation(a *corev3.HeaderValueOption) (route.Mutation, error) {
	m := route.Mutation{Name: strings.ToLower(a.GetHeader().GetKey()), Value: a.GetHeader().GetValue(), KeepEmpty: a.GetKeepEmptyValue()}
	if raw := a.GetHeader().GetRawValue(); len(raw) > 0 {
		if m.Value != "" {
			return m, bad("header.raw_value", "set", "set value or raw_value, not both")
		}
		m.Value = string(raw)
	}
	switch a.GetAppendAction() {
	case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
		m.Action = route.AppendOrAdd
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		m.Action = route.AddIfAbsent
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		m.Action = route.OverwriteOrAdd
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		m.Action = route.OverwriteIfExists
	default:
		return m, bad("append_action", a.GetAppendAction(), "unknown")
	}
	if v := a.GetAppend(); v != nil { // the older field; it wins only where the newer one is at its default
		if a.GetAppendAction() != corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
			return m, bad("append", v.GetValue(), "set append_action only")
		}
		if !v.GetValue() {
			m.Action = route.OverwriteOrAdd
		}
	}
	return m, nil
}

func redirect(x *routev3.RedirectAction) (*route.Redirect, error) {
	r := &route.Redirect{
		HTTPS: x.GetHttpsRedirect(), Scheme: x.GetSchemeRedirect(), Host: x.GetHostRedirect(), Port: x.GetPortRedirect(),
		StripQuery: x.GetStripQuery(), Path: x.GetPathRedirect(),
	}
	switch p := x.GetPathRewriteSpecifier().(type) {
	case *routev3.RedirectAction_PrefixRewrite:
		r.PrefixRewrite = &p.PrefixRewrite
	case *routev3.RedirectAction_RegexRewrite:
		var err error
		if r.RegexRewrite, err = regexRewrite("regex_rewrite", p.RegexRewrite); err != nil {
			return nil, err
		}
	case *routev3.RedirectAction_PathRewrite:
		return nil, bad("path_rewrite", p.PathRewrite, "not supported; use path_redirect")
	}
	switch x.GetResponseCode() {
	case routev3.RedirectAction_MOVED_PERMANENTLY:
		r.Status = 301
	case routev3.RedirectAction_FOUND:
		r.Status = 302
	case routev3.RedirectAction_SEE_OTHER:
		r.Status = 303
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		r.Status = 307
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		r.Status = 308
	default:
		return nil, bad("response_code", x.GetResponseCode(), "unknown")
	}
	if r.Port > 65535 {
		return nil, bad("port_redirect", r.Port, "want at most 65535")
	}
	return r, nil
}

func (c *Compiler) direct(x *routev3.DirectResponseAction, maxBody int) (*route.Direct, error) {
	d := &route.Direct{Status: int(x.GetStatus())}
	if d.Status < 200 || d.Status > 599 {
		return nil, bad("status", d.Status, "want 200 to 599")
	}
	if x.GetBody() == nil {
		return d, nil
	}
	b, err := c.dataSource("body", x.GetBody())
	if err != nil {
		return nil, err
	}
	if len(b) > maxBody {
		return nil, bad("body", fmt.Sprintf("%d bytes", len(b)), "at most %d; raise max_direct_response_body_size_bytes", maxBody)
	}
	d.Body = b
	return d, nil
}

// defaultRouteTimeout is Envoy's RouteAction.timeout.
const defaultRouteTimeout = 15 * time.Second
