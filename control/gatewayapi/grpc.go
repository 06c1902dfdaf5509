package gatewayapi

import (
	"regexp"
	"strings"

	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// grpcRules reads a GRPCRoute: a method is a path (gRPC over HTTP/2, "Requests"), its filters are those of HTTP.
func (s *state) grpcRules(r *route, o *gw.GRPCRoute) {
	bad := r.invalid(o)
	rules := o.Spec.Rules
	if len(rules) == 0 {
		rules = []gw.GRPCRouteRule{{}}
	}
	for i := range rules {
		x := &rules[i]
		out := &rule{index: i, name: string(or(x.Name, ""))}
		for j := range x.Matches {
			if m, ok := grpcMatch(&x.Matches[j]); ok {
				out.matches = append(out.matches, m)
			}
		}
		if len(x.Matches) > 0 && len(out.matches) == 0 {
			continue
		}
		if len(x.Matches) == 0 {
			m, _ := grpcMatch(&gw.GRPCRouteMatch{})
			out.matches = []match{m}
		}
		if bad[i] == "" {
			s.grpcAnswer(r, out, x)
		} else {
			out.answer.Direct = &model.Direct{Status: 500}
		}
		r.rules = append(r.rules, out)
	}
	r.faulty(bad, len(rules))
}

func (s *state) grpcAnswer(r *route, out *rule, x *gw.GRPCRouteRule) {
	for _, f := range x.Filters {
		headers(&out.answer.Headers, f.RequestHeaderModifier, f.ResponseHeaderModifier)
		if f.RequestMirror != nil {
			s.mirror(r, &out.answer, f.RequestMirror)
		}
	}
	var dests []model.Destination
	for i := range x.BackendRefs {
		b := &x.BackendRefs[i]
		d := s.destination(r, &b.BackendObjectReference)
		d.Weight = uint32(max(or(b.Weight, 1), 0))
		for j := range b.Filters {
			headers(&d.Headers, b.Filters[j].RequestHeaderModifier, b.Filters[j].ResponseHeaderModifier)
		}
		dests = append(dests, d)
	}
	forward(&out.answer, dests)
}

// grpcMatch is false if a regular expression cannot be read. Precedence: the longer service, the longer method, more headers.
func grpcMatch(m *gw.GRPCRouteMatch) (match, bool) {
	out := &model.HTTPMatch{}
	var service, method string
	if mm := m.Method; mm != nil {
		service, method = strings.TrimPrefix(or(mm.Service, ""), "."), or(mm.Method, "")
		if or(mm.Type, gw.GRPCMethodMatchExact) == gw.GRPCMethodMatchRegularExpression {
			re := "/" + orAny(service) + "/" + orAny(method)
			if _, err := regexp.Compile(re); err != nil {
				return match{}, false
			}
			if service != "" || method != "" {
				out.URI = &model.StringMatch{Regex: &re}
			}
		} else {
			out.URI = exactMethod(service, method)
		}
	}
	for _, h := range m.Headers {
		kind := string(or(h.Type, gw.GRPCHeaderMatchExact))
		if _, err := regexp.Compile(h.Value); kind == "RegularExpression" && err != nil {
			return match{}, false
		}
		out.Headers = addMatch(out.Headers, strings.ToLower(string(h.Name)), kind, h.Value)
	}
	return match{out, [6]int{len(service), len(method), len(out.Headers)}}, true
}

func orAny(re string) string {
	if re == "" {
		return "[^/]+"
	}
	return "(?:" + re + ")"
}

func exactMethod(service, method string) *model.StringMatch {
	switch {
	case service != "" && method != "":
		v := "/" + service + "/" + method
		return &model.StringMatch{Exact: &v}
	case service != "":
		v := "/" + service + "/"
		return &model.StringMatch{Prefix: &v}
	case method != "":
		v := "/[^/]+/" + regexp.QuoteMeta(method)
		return &model.StringMatch{Regex: &v}
	}
	return nil
}
