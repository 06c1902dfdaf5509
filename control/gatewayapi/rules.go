package gatewayapi

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// rule is one rule of an HTTPRoute or GRPCRoute: what it matches, and the answer, which at a gateway depends on the listener
// (redirects).
type rule struct {
	index    int
	name     string
	matches  []match // at least one
	answer   model.Route
	redirect *gw.HTTPRequestRedirectFilter
}

// match is one match of a rule with what precedence compares.
type match struct {
	*model.HTTPMatch        // nil: everything
	weights          [6]int // the larger first, compared from the left
}

// Ranks of path conditions. The Gateway API leaves regular expressions open; here they go before prefixes, since one that is written
// beside a prefix is meant to be an exception from it.
const (
	rankPrefix = iota
	rankRegex
	rankExact
)

func (s *state) httpRules(r *route, o *gw.HTTPRoute) {
	bad := r.invalid(o)
	rules := o.Spec.Rules
	if len(rules) == 0 {
		rules = []gw.HTTPRouteRule{{}} // the CRD's default: everything, to nobody
	}
	for i := range rules {
		x := &rules[i]
		out := &rule{index: i, name: string(or(x.Name, ""))}
		if bad[i] == "" {
			for j := range x.Matches {
				out.matches = append(out.matches, httpMatch(&x.Matches[j]))
			}
			s.httpAnswer(r, out, x)
		} else {
			for j := range x.Matches {
				if m, ok := safeMatch(&x.Matches[j]); ok {
					out.matches = append(out.matches, m)
				}
			}
			if len(x.Matches) > 0 && len(out.matches) == 0 {
				continue
			}
			out.answer.Direct = &model.Direct{Status: 500}
		}
		if len(out.matches) == 0 {
			out.matches = []match{httpMatch(&gw.HTTPRouteMatch{})}
		}
		r.rules = append(r.rules, out)
	}
	r.faulty(bad, len(rules))
}

// safeMatch reads a match of a rule that is at fault somewhere; false if the match itself cannot be read.
func safeMatch(m *gw.HTTPRouteMatch) (match, bool) {
	ok := func(kind, value string) bool {
		_, err := regexp.Compile(value)
		return kind != "RegularExpression" || err == nil
	}
	if m.Path != nil && !ok(string(or(m.Path.Type, gw.PathMatchPathPrefix)), or(m.Path.Value, "/")) {
		return match{}, false
	}
	for _, h := range m.Headers {
		if !ok(string(or(h.Type, gw.HeaderMatchExact)), h.Value) {
			return match{}, false
		}
	}
	for _, q := range m.QueryParams {
		if !ok(string(or(q.Type, gw.QueryParamMatchExact)), q.Value) {
			return match{}, false
		}
	}
	return httpMatch(m), true
}

func httpMatch(m *gw.HTTPRouteMatch) match {
	out := &model.HTTPMatch{}
	kind, value := gw.PathMatchPathPrefix, "/"
	if m.Path != nil {
		kind, value = or(m.Path.Type, kind), or(m.Path.Value, value)
	}
	rank := rankPrefix
	switch kind {
	case gw.PathMatchExact:
		rank, out.URI = rankExact, &model.StringMatch{Exact: &value}
	case gw.PathMatchRegularExpression:
		rank, out.URI = rankRegex, &model.StringMatch{Regex: &value}
	default:
		out.PathPrefix = strings.TrimSuffix(value, "/")
	}
	method := 0
	if m.Method != nil {
		method = 1
		v := string(*m.Method)
		out.Method = &model.StringMatch{Exact: &v}
	}
	for _, h := range m.Headers {
		out.Headers = addMatch(out.Headers, strings.ToLower(string(h.Name)), string(or(h.Type, gw.HeaderMatchExact)), h.Value)
	}
	for _, q := range m.QueryParams {
		out.Query = addMatch(out.Query, string(q.Name), string(or(q.Type, gw.QueryParamMatchExact)), q.Value)
	}
	weights := [6]int{rank, len(value), method, len(out.Headers), len(out.Query)}
	return match{out, weights}
}

// addMatch adds a condition unless the name has one: the first counts.
func addMatch(m map[string]model.StringMatch, name, kind, value string) map[string]model.StringMatch {
	if m == nil {
		m = map[string]model.StringMatch{}
	}
	if _, dup := m[name]; dup {
		return m
	}
	if kind == "RegularExpression" {
		m[name] = model.StringMatch{Regex: &value}
	} else {
		m[name] = model.StringMatch{Exact: &value}
	}
	return m
}

// httpAnswer reads what a rule does with a request.
func (s *state) httpAnswer(r *route, out *rule, x *gw.HTTPRouteRule) {
	a := &out.answer
	for i := range x.Filters {
		s.httpFilter(r, out, &x.Filters[i])
	}
	timeouts(a, x)
	if out.redirect != nil {
		return
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
	forward(a, dests)
}

// forward splits between destinations. Where none is left that exists, the answer is 500.
func forward(a *model.Route, dests []model.Destination) {
	resolved := false
	for _, d := range dests {
		if d.Weight > 0 {
			a.Forward = append(a.Forward, d)
			resolved = resolved || !d.Unresolved
		}
	}
	if !resolved {
		a.Forward, a.Rewrite, a.Retries, a.Timeout = nil, nil, nil, nil
		a.Direct = &model.Direct{Status: 500}
	}
}

// defaultRetries is how often a rule with retry, or with a timeout for one try, tries again if it does not say (Istio's default).
const defaultRetries = 2

// retryOn is retried besides the codes that a rule names: what Istio retries by default, and connections that break before an answer.
const retryOn = "connect-failure,refused-stream,reset,unavailable,cancelled"

// timeouts reads timeouts and retries. 0s is no limit.
func timeouts(a *model.Route, x *gw.HTTPRouteRule) {
	read := func(d *gw.Duration) time.Duration {
		if d == nil {
			return 0
		}
		v, _ := time.ParseDuration(string(*d)) // convert has checked it
		return v
	}
	if x.Timeouts != nil {
		if v := read(x.Timeouts.Request); v > 0 {
			a.Timeout = &v
		}
		if v := read(x.Timeouts.BackendRequest); v > 0 {
			a.Retries = &model.Retries{Attempts: defaultRetries, PerTryTimeout: v}
		}
	}
	if x.Retry == nil {
		return
	}
	if a.Retries == nil {
		a.Retries = &model.Retries{}
	}
	a.Retries.Attempts, a.Retries.Backoff = int32(or(x.Retry.Attempts, defaultRetries)), read(x.Retry.Backoff)
	on := []string{retryOn}
	for _, code := range x.Retry.Codes {
		on = append(on, strconv.Itoa(int(code)))
	}
	a.Retries.RetryOn = strings.Join(on, ",")
}
