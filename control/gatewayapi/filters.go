package gatewayapi

import (
	"regexp"
	"strings"
	"time"

	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

func (s *state) httpFilter(r *route, out *rule, f *gw.HTTPRouteFilter) {
	a := &out.answer
	headers(&a.Headers, f.RequestHeaderModifier, f.ResponseHeaderModifier)
	if f.RequestMirror != nil {
		s.mirror(r, a, f.RequestMirror)
	}
	if f.RequestRedirect != nil {
		out.redirect = f.RequestRedirect
	}
	if w := f.URLRewrite; w != nil {
		a.Rewrite = &model.Rewrite{Authority: string(or(w.Hostname, ""))}
		if p := w.Path; p != nil && p.Type == gw.PrefixMatchHTTPPathModifier {
			a.Rewrite.ReplacePrefix = replacement(p)
		} else if p != nil {
			a.Rewrite.FullPath = fullPath(p)
		}
	}
	if f.CORS != nil {
		a.CORS = cors(f.CORS)
	}
}

// replacement is what replaces a prefix: without a slash at its end, "" for the root.
func replacement(p *gw.HTTPPathModifier) *string {
	v := strings.TrimRight(or(p.ReplacePrefixMatch, ""), "/")
	if v != "" && v[0] != '/' {
		v = "/" + v
	}
	return &v
}

func fullPath(p *gw.HTTPPathModifier) *string {
	v := or(p.ReplaceFullPath, "")
	if !strings.HasPrefix(v, "/") {
		v = "/" + v
	}
	return &v
}

func headers(h *model.Headers, request, response *gw.HTTPHeaderFilter) {
	headerOps(&h.Request, request)
	headerOps(&h.Response, response)
}

func headerOps(o *model.HeaderOps, f *gw.HTTPHeaderFilter) {
	if f == nil {
		return
	}
	put := func(m map[string]string, list []gw.HTTPHeader) map[string]string {
		for _, h := range list {
			if m == nil {
				m = map[string]string{}
			}
			if _, dup := m[string(h.Name)]; !dup {
				m[string(h.Name)] = h.Value
			}
		}
		return m
	}
	o.Set, o.Add = put(o.Set, f.Set), put(o.Add, f.Add)
	o.Remove = append(o.Remove, f.Remove...)
}

// mirror copies requests. A mirror that cannot be resolved gets none; the route says so in ResolvedRefs.
func (s *state) mirror(r *route, a *model.Route, f *gw.HTTPRequestMirrorFilter) {
	d := s.destination(r, &f.BackendRef)
	if d.Unresolved {
		return
	}
	percent := float64(or(f.Percent, 100))
	if f.Fraction != nil {
		percent = 100 * float64(f.Fraction.Numerator) / float64(max(or(f.Fraction.Denominator, 100), 1))
	}
	a.Mirrors = append(a.Mirrors, model.Mirror{Destination: d, Percent: percent})
}

func cors(f *gw.HTTPCORSFilter) *model.CORS {
	out := &model.CORS{MaxAge: 5 * time.Second, Credentials: or(f.AllowCredentials, false)}
	if f.MaxAge > 0 {
		out.MaxAge = time.Duration(f.MaxAge) * time.Second
	}
	for _, o := range f.AllowOrigins {
		out.Origins = append(out.Origins, origin(string(o)))
	}
	for _, m := range f.AllowMethods {
		out.Methods = append(out.Methods, string(m))
	}
	for _, h := range f.AllowHeaders {
		out.Headers = append(out.Headers, string(h))
	}
	for _, h := range f.ExposeHeaders {
		out.Expose = append(out.Expose, string(h))
	}
	return out
}

// origin reads an allowed origin. "*" in a host stands for any number of labels, in a port for any port; the scheme's own port is not
// written in an origin (RFC 6454, 6.2).
func origin(o string) model.StringMatch {
	if o == "*" {
		all := ".*"
		return model.StringMatch{Regex: &all}
	}
	scheme, rest, _ := strings.Cut(o, "://")
	host, port, hasPort := strings.Cut(rest, ":")
	if hasPort && (scheme == "http" && port == "80" || scheme == "https" && port == "443") {
		hasPort = false
	}
	if !strings.Contains(rest, "*") {
		v := strings.ToLower(scheme + "://" + host)
		if hasPort {
			v += ":" + port
		}
		return model.StringMatch{Exact: &v}
	}
	re := regexp.QuoteMeta(scheme) + "://" + strings.ReplaceAll(regexp.QuoteMeta(strings.ToLower(host)), `\*`, `[^/:]+`)
	switch {
	case hasPort && port == "*":
		re += `(:[0-9]+)?`
	case hasPort:
		re += ":" + regexp.QuoteMeta(port)
	}
	return model.StringMatch{Regex: &re}
}

// redirect makes the answer of a redirect for the port and scheme that the request came by; port 0 is not known (mesh).
func redirect(f *gw.HTTPRequestRedirectFilter, port uint16, scheme string) *model.Redirect {
	out := &model.Redirect{Authority: string(or(f.Hostname, "")), Scheme: or(f.Scheme, ""), Code: uint32(or(f.StatusCode, 302))}
	if p := f.Path; p != nil && p.Type == gw.PrefixMatchHTTPPathModifier {
		out.ReplacePrefix = replacement(p)
	} else if p != nil {
		out.URI = *fullPath(p)
	}
	to := uint32(port)
	known := map[string]uint32{"http": 80, "https": 443}
	if out.Scheme != "" {
		scheme, to = out.Scheme, known[out.Scheme]
	}
	if f.Port != nil {
		to = uint32(*f.Port)
	}
	switch {
	case to == 0: // the port of the request stays
	case known[scheme] == to:
		out.DropPort = true
	default:
		out.Port = to
	}
	return out
}
