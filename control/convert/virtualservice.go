package convert

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"weft.mesh/weft/model"
)

// MeshGateway is the reserved name that stands for all sidecars.
const MeshGateway = "mesh"

func (c *conv) virtualService(v *networking.VirtualService) []model.Object {
	r := &model.RouteSet{Meta: c.meta(), ExportTo: c.exportTo("spec.exportTo", v.ExportTo)}
	r.Gateways = c.gatewayNames("spec.gateways", v.Gateways)
	if len(r.Gateways) == 0 {
		r.Gateways = []string{MeshGateway}
	}
	c.routeHosts(r, v.Hosts)
	if len(v.Http)+len(v.Tls)+len(v.Tcp) == 0 {
		c.missing("spec.http", "add http, tls or tcp routes")
	}
	for i, h := range v.Http {
		r.HTTP = append(r.HTTP, c.httpRoute(idx("spec.http", i), h, r))
	}
	for i, t := range v.Tls {
		r.TLS = append(r.TLS, c.tlsRoute(idx("spec.tls", i), t, r))
	}
	for i, t := range v.Tcp {
		r.TCP = append(r.TCP, c.tcpRoute(idx("spec.tcp", i), t, r))
	}
	return []model.Object{r}
}

func (c *conv) routeHosts(r *model.RouteSet, hosts []string) {
	if len(hosts) == 0 {
		c.fail(CodeMissingField, "spec.hosts", "", "hosts is missing", "name the services that are routed; a VirtualService without hosts is for delegation, which is not implemented yet")
	}
	seen := map[string]bool{}
	for i, h := range hosts {
		path := idx("spec.hosts", i)
		full := c.host(path, h, true)
		if seen[full] {
			c.fail(CodeDuplicateHost, path, h, "the host is listed twice", "keep one of them")
		}
		seen[full] = true
		if full == "*" && slices.Contains(r.Gateways, MeshGateway) {
			c.fail(CodeInvalidHost, path, h, "the host * is not allowed for sidecars", "name the service, or set gateways to a gateway")
		}
		r.Hosts = append(r.Hosts, full)
	}
}

// gatewayNames resolves gateway references to "mesh" or namespace/name.
func (c *conv) gatewayNames(path string, list []string) []string {
	var out []string
	for i, g := range list {
		p := idx(path, i)
		if g == MeshGateway {
			out = append(out, g)
			continue
		}
		ns, name, ok := strings.Cut(g, "/")
		if !ok {
			ns, name = c.ns(), g
		}
		if !isLabel(ns) || !isSubdomain(name) {
			c.fail(CodeInvalidName, p, g, "this is not a gateway", "write name, namespace/name, or mesh for all sidecars")
		}
		full := ns + "/" + name
		if slices.Contains(out, full) {
			c.fail(CodeInvalidValue, p, g, "the gateway is listed twice", "keep one of them")
		}
		out = append(out, full)
	}
	return out
}

// matchGateways are gateways of a match, which must be among those of the VirtualService.
func (c *conv) matchGateways(path string, list []string, r *model.RouteSet) []string {
	out := c.gatewayNames(path, list)
	for i, g := range out {
		if !slices.Contains(r.Gateways, g) {
			c.fail(CodeInvalidValue, idx(path, i), list[i], "the match can never hold: spec.gateways does not list this gateway", "use one of "+quoteList(r.Gateways)+", or add it to spec.gateways")
		}
	}
	return out
}

func (c *conv) httpRoute(path string, h *networking.HTTPRoute, set *model.RouteSet) model.Route {
	host, headers := c.setHost(path+".headers", h.Headers)
	r := model.Route{Name: h.Name, Headers: c.headers(path+".headers", headers)}
	for i, m := range h.Match {
		r.Matches = append(r.Matches, c.httpMatch(idx(path+".match", i), m, set))
	}
	c.httpAction(path, h)
	var destinationHost string
	r.Forward, destinationHost = c.httpForward(path+".route", h.Route)
	r.Redirect = c.redirect(path+".redirect", h.Redirect)
	r.Direct = c.direct(path+".directResponse", h.DirectResponse)
	r.Rewrite = c.rewrite(path+".rewrite", h.Rewrite)
	if host = cmp.Or(host, destinationHost); host != "" {
		if len(h.Route) == 0 {
			c.fail(CodeExclusive, path+".headers.request.set", host, "the host has no effect without a route", "remove it, or add route")
		}
		if r.Rewrite == nil {
			r.Rewrite = &model.Rewrite{}
		}
		r.Rewrite.Authority = cmp.Or(r.Rewrite.Authority, host) // the rewrite counts more, as in Istio
	}
	if h.Timeout != nil {
		d := c.duration(path+".timeout", h.Timeout)
		r.Timeout = &d
	}
	r.Retries = c.retries(path+".retries", h.Retries)
	r.Fault = c.fault(path+".fault", h.Fault)
	r.Mirrors = c.mirrors(path, h)
	r.CORS = c.corsPolicy(path+".corsPolicy", h.CorsPolicy)
	return r
}

// httpAction checks that a route does exactly one thing.
func (c *conv) httpAction(path string, h *networking.HTTPRoute) {
	var actions []string
	for _, a := range []struct {
		name string
		set  bool
	}{{"route", len(h.Route) > 0}, {"redirect", h.Redirect != nil}, {"directResponse", h.DirectResponse != nil}} {
		if a.set {
			actions = append(actions, a.name)
		}
	}
	switch {
	case len(actions) == 0:
		c.fail(CodeMissingField, path, "", "the route does nothing", "add route, redirect or directResponse")
	case len(actions) > 1:
		c.fail(CodeExclusive, path+"."+actions[1], "", fmt.Sprintf("a route has either %s or %s", actions[0], actions[1]), "keep one of them")
	}
	if len(h.Route) > 0 {
		return
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"rewrite", h.Rewrite != nil}, {"retries", h.Retries != nil}, {"timeout", h.Timeout != nil}, {"mirror", h.Mirror != nil}, {"mirrors", len(h.Mirrors) > 0},
		{"fault", h.Fault != nil && h.Redirect != nil}} {
		if f.set {
			c.fail(CodeExclusive, path+"."+f.name, "", f.name+" has no effect without a route", "remove it, or add route")
		}
	}
}

// httpForward lists the destinations; host is what the headers of the only one set it to.
func (c *conv) httpForward(path string, ds []*networking.HTTPRouteDestination) (out []model.Destination, host string) {
	weights := make([]int32, len(ds))
	for i, d := range ds {
		p := idx(path, i)
		m := c.destination(p+".destination", d.Destination)
		headers := d.Headers
		if len(ds) == 1 {
			host, headers = c.setHost(p+".headers", headers)
		}
		m.Headers = c.headers(p+".headers", headers)
		weights[i] = d.Weight
		out = append(out, m)
	}
	c.weights(path, out, weights)
	return out, host
}

func (c *conv) l4Forward(path string, ds []*networking.RouteDestination) []model.Destination {
	if len(ds) == 0 {
		c.missing(path, "add a destination")
	}
	var out []model.Destination
	weights := make([]int32, len(ds))
	for i, d := range ds {
		weights[i] = d.Weight
		out = append(out, c.destination(idx(path, i)+".destination", d.Destination))
	}
	c.weights(path, out, weights)
	return out
}

// weights checks and sets weights: they are relative, and one destination alone gets everything.
func (c *conv) weights(path string, out []model.Destination, weights []int32) {
	var sum int64
	for i, w := range weights {
		if w < 0 {
			c.fail(CodeInvalidWeight, idx(path, i)+".weight", strconv.Itoa(int(w)), "the weight is negative", "use 0 or more")
			w = 0
		}
		out[i].Weight = uint32(w)
		sum += int64(w)
	}
	switch {
	case len(out) == 1 && !c.o.Has(idx(path, 0)+".weight"):
		out[0].Weight = 100
	case len(out) == 1 && out[0].Weight == 0:
		out[0].Weight = 100 // Istio takes a weight of 0 alone as all of it
	case len(out) > 1 && sum == 0:
		c.fail(CodeInvalidWeight, path, "0", "several destinations and no weights: nothing says who gets what", "give each a weight; the sum should be 100")
	case sum > math.MaxUint32:
		c.fail(CodeInvalidWeight, path, strconv.FormatInt(sum, 10), "the sum of the weights is too large", "use weights whose sum is 100")
	}
}

func (c *conv) destination(path string, d *networking.Destination) model.Destination {
	if d == nil {
		c.missing(path, "add host: and, if the service has subsets, subset:")
		return model.Destination{}
	}
	m := model.Destination{Host: c.host(path+".host", d.Host, false), Subset: d.Subset}
	if d.Subset != "" && !isSubsetName(d.Subset) {
		c.fail(CodeInvalidName, path+".subset", d.Subset, "the subset name is not valid", "use letters, digits, '-', '_' and '.'")
	}
	if d.Port != nil {
		m.Port = c.port(path+".port.number", d.Port.Number)
	}
	return m
}

func isSubsetName(s string) bool { return s != "" && len(s) <= 63 && labelText.MatchString(s) }

func (c *conv) httpMatch(path string, m *networking.HTTPMatchRequest, set *model.RouteSet) model.HTTPMatch {
	out := model.HTTPMatch{Name: m.Name, IgnoreURICase: m.IgnoreUriCase, SourceNamespace: m.SourceNamespace,
		URI:          c.stringMatch(path+".uri", m.Uri, false),
		Scheme:       c.stringMatch(path+".scheme", m.Scheme, false),
		Method:       c.stringMatch(path+".method", m.Method, false),
		Authority:    c.stringMatch(path+".authority", m.Authority, false),
		SourceLabels: c.labels(path+".sourceLabels", m.SourceLabels),
		Gateways:     c.matchGateways(path+".gateways", m.Gateways, set),
	}
	out.Headers = c.stringMatches(path+".headers", m.Headers, c.matchHeader)
	out.WithoutHeaders = c.stringMatches(path+".withoutHeaders", m.WithoutHeaders, c.matchHeader)
	out.Query = c.stringMatches(path+".queryParams", m.QueryParams, func(p, name string) {
		if name == "" {
			c.fail(CodeMissingField, p, "", "the query parameter has no name", "write its name as the key")
		}
	})
	if m.Port != 0 || c.o.Has(path+".port") {
		out.Port = c.port(path+".port", m.Port)
	}
	if m.IgnoreUriCase && (m.Uri == nil || m.Uri.GetRegex() != "") {
		c.fail(CodeInvalidValue, path+".ignoreUriCase", "true", "ignoreUriCase works on uri.exact and uri.prefix only", "use (?i) in a regex, or remove it")
	}
	c.sourceNamespace(path, m.SourceNamespace)
	return out
}

func (c *conv) sourceNamespace(path, ns string) {
	if ns != "" && !isLabel(ns) {
		c.fail(CodeInvalidName, path+".sourceNamespace", ns, "this is not a namespace", "write one namespace name, like default")
	}
}

// pseudoHeaders may be used as header names in matches.
var pseudoHeaders = []string{":method", ":authority", ":path", ":scheme"}

func (c *conv) matchHeader(path, name string) {
	switch {
	case strings.HasPrefix(name, "@request.auth."):
		c.fail(CodeUnsupportedField, path, name, "routing on JWT claims is not implemented yet", "match a header that the application or a gateway in front sets")
	case slices.Contains(pseudoHeaders, name):
	case !isHeaderName(name):
		c.fail(CodeInvalidName, path, name, "this is not a header name", "use letters, digits and '-'; pseudo headers: "+quoteList(pseudoHeaders))
	}
}

func (c *conv) tlsRoute(path string, t *networking.TLSRoute, set *model.RouteSet) model.L4Route {
	r := model.L4Route{Forward: c.l4Forward(path+".route", t.Route)}
	if len(t.Match) == 0 {
		c.missing(path+".match", "a tls route matches on sniHosts")
	}
	for i, m := range t.Match {
		p := idx(path+".match", i)
		out := model.L4Match{DestinationSubnets: c.prefixes(p+".destinationSubnets", m.DestinationSubnets),
			SourceLabels: c.labels(p+".sourceLabels", m.SourceLabels), SourceNamespace: m.SourceNamespace,
			Gateways: c.matchGateways(p+".gateways", m.Gateways, set)}
		if len(m.SniHosts) == 0 {
			c.missing(p+".sniHosts", "name the hosts of the TLS handshake")
		}
		for j, h := range m.SniHosts {
			out.SNIHosts = append(out.SNIHosts, c.sniHost(idx(p+".sniHosts", j), h, set))
		}
		if m.Port != 0 || c.o.Has(p+".port") {
			out.Port = c.port(p+".port", m.Port)
		}
		c.sourceNamespace(p, m.SourceNamespace)
		r.Matches = append(r.Matches, out)
	}
	return r
}

// sniHost checks that a name is covered by the hosts of the VirtualService. It is compared with the handshake as it is written.
func (c *conv) sniHost(path, h string, set *model.RouteSet) string {
	if msg := hostProblem(h, true); msg != "" {
		c.fail(CodeInvalidHost, path, h, msg, "write a name like www.example.com or *.example.com")
		return h
	}
	low := strings.ToLower(h)
	full := expandHost(h, c.ns(), c.mesh.Domain)
	for _, host := range set.Hosts {
		if HostCovers(host, low) || HostCovers(host, full) {
			return low
		}
	}
	c.fail(CodeInvalidHost, path, h, "spec.hosts does not cover this name", "use one of "+quoteList(set.Hosts)+", or add it to spec.hosts")
	return low
}

// HostCovers tells whether a host or wildcard contains another host or wildcard.
func HostCovers(pattern, host string) bool {
	if pattern == "*" || pattern == host {
		return true
	}
	suffix, ok := strings.CutPrefix(pattern, "*")
	return ok && strings.HasSuffix(host, suffix) && len(host) > len(suffix)
}

func (c *conv) tcpRoute(path string, t *networking.TCPRoute, set *model.RouteSet) model.L4Route {
	r := model.L4Route{Forward: c.l4Forward(path+".route", t.Route)}
	for i, m := range t.Match {
		p := idx(path+".match", i)
		out := model.L4Match{DestinationSubnets: c.prefixes(p+".destinationSubnets", m.DestinationSubnets),
			SourceLabels: c.labels(p+".sourceLabels", m.SourceLabels), SourceNamespace: m.SourceNamespace,
			Gateways: c.matchGateways(p+".gateways", m.Gateways, set)}
		if m.Port != 0 || c.o.Has(p+".port") {
			out.Port = c.port(p+".port", m.Port)
		}
		c.sourceNamespace(p, m.SourceNamespace)
		if len(m.DestinationSubnets) > 0 && !slices.Contains(set.Gateways, MeshGateway) {
			c.fail(CodeUnsupportedField, p+".destinationSubnets", strings.Join(m.DestinationSubnets, ", "), "a gateway does not look at destination addresses yet: every connection of the port would be taken", "remove it, or use another port for each destination")
		}
		r.Matches = append(r.Matches, out)
	}
	return r
}
