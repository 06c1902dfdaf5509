package ingress

import (
	"cmp"
	"regexp"
	"strings"

	"weft.mesh/weft/model"
)

// match is what a path matches. Exactly one of exact and prefix is meant: kind says which.
type match struct {
	kind string // model.PathExact, model.PathPrefix (by path elements) or textPrefix
	path string // of a prefix by elements without the slash at its end; "" is all paths
}

// textPrefix is a prefix of the text, as Istio reads a ".*" at the end of an ImplementationSpecific path.
const textPrefix = "text prefix"

func (m match) key() pathKey { return pathKey{m.kind, m.path} }

// regexSigns are what regular expressions have and paths that people mean as text have not.
const regexSigns = `*[](){}|^$\?+`

// match reads a path; false if it cannot be matched.
func (s *state) match(ing *model.Ingress, p *model.IngressPath) (match, bool) {
	switch p.Type {
	case model.PathExact:
		return match{model.PathExact, p.Path}, true
	case model.PathPrefix:
		return match{model.PathPrefix, strings.TrimRight(p.Path, "/")}, true
	}
	m := match{model.PathExact, p.Path}
	switch {
	case p.Path == "" || p.Path == "/*" || p.Path == "/.*" || p.Path == "*" || p.Path == ".*":
		m = match{kind: model.PathPrefix}
	case strings.HasSuffix(p.Path, "/*"):
		m = match{model.PathPrefix, strings.TrimRight(strings.TrimSuffix(p.Path, "*"), "/")}
	case strings.HasSuffix(p.Path, ".*"):
		m = match{textPrefix, strings.TrimSuffix(p.Path, ".*")}
	}
	if strings.ContainsAny(m.path, regexSigns) || m.path != "" && m.path[0] != '/' {
		s.fail(ing, CodeRegex, p.Field+".path", p.Path, "a path of type ImplementationSpecific is no regular expression here: requests for it are not routed",
			"use type Prefix or Exact; or end it with /* for a prefix; a VirtualService can match regular expressions")
		return match{}, false
	}
	return m, true
}

// precedence orders paths as the API says: the longest first, and of two that
// are equally long Exact. An exact match is as long as its request, so that all of them go first.
func precedence(a, b entry) int {
	exact := func(e entry) int {
		if e.match.kind == model.PathExact {
			return 0
		}
		return 1
	}
	return cmp.Or(exact(a)-exact(b), len(b.match.path)-len(a.match.path), strings.Compare(a.match.path, b.match.path), strings.Compare(a.match.kind, b.match.kind))
}

// model is the match of requests for a host. A wildcard is one label, which no virtual host says.
func (m match) model(host string) []model.HTTPMatch {
	var out model.HTTPMatch
	any := true
	switch {
	case m.kind == model.PathExact:
		out.URI, any = &model.StringMatch{Exact: &m.path}, false
	case m.kind == textPrefix && m.path != "/":
		out.URI, any = &model.StringMatch{Prefix: &m.path}, false
	case m.kind == model.PathPrefix && m.path != "":
		out.PathPrefix, any = m.path, false
	}
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		re := `(?i)[^.]+` + regexp.QuoteMeta(suffix) + `\.?(:[0-9]+)?`
		out.Authority, any = &model.StringMatch{Regex: &re}, false
	}
	if any {
		return nil
	}
	return []model.HTTPMatch{out}
}
