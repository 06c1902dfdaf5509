package translate

import (
	"regexp"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"weft.mesh/weft/model"
)

// wholePath replaces a path; Envoy's regex_rewrite leaves the query alone.
func wholePath(to string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: regex("^/.*$"), Substitution: literalSubstitution(to)}
}

// replacePrefix replaces the elements of a path that a match's PathPrefix took, or goes before the path if there
// is none. Envoy cuts bytes, so that only a regular expression joins what follows to the root with one slash.
// Both are empty if nothing changes.
func replacePrefix(m *model.HTTPMatch, to string) (prefix string, re *matcherv3.RegexMatchAndSubstitute) {
	to = strings.TrimRight(to, "/")
	switch {
	case m == nil || m.PathPrefix == "":
		if to == "" {
			return "", nil
		}
		return to + "/", nil // in the place of the leading slash
	case to == "":
		return "", &matcherv3.RegexMatchAndSubstitute{Pattern: regex("^" + regexp.QuoteMeta(m.PathPrefix) + "/*"), Substitution: "/"}
	}
	return to, nil
}

// literalSubstitution protects backslashes, which stand for groups.
func literalSubstitution(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

// kebab writes a kind as Istio does in the paths of objects: http-route for HTTPRoute.
func kebab(kind string) string {
	kind, _, _ = strings.Cut(kind, ".")
	var b strings.Builder
	for i, c := range kind {
		upper := 'A' <= c && c <= 'Z'
		if upper && i > 0 {
			prev := kind[i-1]
			next := i+1 < len(kind) && 'a' <= kind[i+1] && kind[i+1] <= 'z'
			if 'a' <= prev && prev <= 'z' || next {
				b.WriteByte('-')
			}
		}
		if upper {
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String()
}
