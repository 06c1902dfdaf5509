package analyze

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

// checkReach finds routes that no request can reach because earlier ones take them all.
func (s *set) checkReach(it *item, r *model.RouteSet) {
	reach(s, it, "spec.http", r.HTTP, func(x model.Route) []model.HTTPMatch { return x.Matches }, coversHTTP)
	l4 := func(x model.L4Route) []model.L4Match { return x.Matches }
	reach(s, it, "spec.tls", r.TLS, l4, coversL4)
	reach(s, it, "spec.tcp", r.TCP, l4, coversL4)
}

func reach[R, M any](s *set, it *item, path string, routes []R, matchesOf func(R) []M, covers func(a, b *M) bool) {
	type place struct {
		route int
		match M
	}
	var before []place
	var anything M
	for i, r := range routes {
		ms := matchesOf(r)
		catchAll := len(ms) == 0
		if catchAll {
			ms = []M{anything}
		}
		taken := make([]int, len(ms))
		all := true
		for j := range ms {
			taken[j] = -1
			for _, b := range before {
				if covers(&b.match, &ms[j]) {
					taken[j] = b.route
					break
				}
			}
			all = all && taken[j] >= 0 && taken[j] < i
			before = append(before, place{i, ms[j]})
		}
		rp := fmt.Sprintf("%s[%d]", path, i)
		if all {
			s.fail(it, CodeUnreachableRoute, rp, "", fmt.Sprintf("no request reaches this route: %s[%d] takes all that it matches", path, taken[0]),
				fmt.Sprintf("move it before %s[%d], or remove it", path, taken[0]))
			continue
		}
		for j, by := range taken {
			if by >= 0 && !catchAll {
				what := fmt.Sprintf("%s[%d] takes all that it matches", path, by)
				if by == i {
					what = "an earlier match of this route takes all that it matches"
				}
				s.warn(it, CodeShadowedMatch, fmt.Sprintf("%s.match[%d]", rp, j), "", "the match has no effect: "+what, "remove it, or move the route")
			}
		}
	}
}

// coversHTTP tells whether every request that b matches is matched by a.
func coversHTTP(a, b *model.HTTPMatch) bool {
	if a.URI != nil {
		if b.URI == nil || b.IgnoreURICase && !a.IgnoreURICase || !coversURI(a, b) {
			return false
		}
	}
	return coversString(a.Scheme, b.Scheme) && coversString(a.Method, b.Method) && coversString(a.Authority, b.Authority) &&
		coversMap(a.Headers, b.Headers, true) && coversMap(a.WithoutHeaders, b.WithoutHeaders, false) && coversMap(a.Query, b.Query, true) &&
		coversCommon(a.Port, b.Port, a.SourceLabels, b.SourceLabels, a.SourceNamespace, b.SourceNamespace, a.Gateways, b.Gateways)
}

func coversURI(a, b *model.HTTPMatch) bool {
	x, y := *a.URI, *b.URI
	if a.IgnoreURICase {
		x, y = lower(x), lower(y)
	}
	if x.Prefix != nil && *x.Prefix == "/" || x.Regex != nil && (*x.Regex == ".*" || *x.Regex == "/.*") {
		return true
	}
	return coversMatch(x, y)
}

func lower(m model.StringMatch) model.StringMatch {
	low := func(p *string) *string {
		if p == nil {
			return nil
		}
		v := strings.ToLower(*p)
		return &v
	}
	return model.StringMatch{Exact: low(m.Exact), Prefix: low(m.Prefix), Regex: m.Regex}
}

func coversString(a, b *model.StringMatch) bool {
	return a == nil || b != nil && coversMatch(*a, *b)
}

// coversMatch compares two matchers of one value; regular expressions only when they are the same text.
func coversMatch(a, b model.StringMatch) bool {
	switch {
	case a.Exact != nil:
		return b.Exact != nil && *a.Exact == *b.Exact
	case a.Prefix != nil:
		return b.Exact != nil && strings.HasPrefix(*b.Exact, *a.Prefix) || b.Prefix != nil && strings.HasPrefix(*b.Prefix, *a.Prefix)
	case a.Regex != nil:
		return b.Regex != nil && *a.Regex == *b.Regex
	}
	return true // presence
}

// coversMap asks for each condition of a in b. Header names compare without case.
func coversMap(a, b map[string]model.StringMatch, weaker bool) bool {
	for k, am := range a {
		found := false
		for n, bm := range b {
			if !strings.EqualFold(k, n) {
				continue
			}
			// The absence of a wider set of values is the stronger condition.
			found = weaker && coversMatch(am, bm) || !weaker && coversMatch(bm, am)
			break
		}
		if !found {
			return false
		}
	}
	return true
}

func coversCommon(aPort, bPort uint16, aLabels, bLabels map[string]string, aNS, bNS string, aGW, bGW []string) bool {
	if aPort != 0 && aPort != bPort || aNS != "" && aNS != bNS || !matches(aLabels, bLabels) {
		return false
	}
	if len(aGW) == 0 {
		return true
	}
	return len(bGW) > 0 && !slices.ContainsFunc(bGW, func(g string) bool { return !slices.Contains(aGW, g) })
}

// coversL4 tells whether every connection that b matches is matched by a.
func coversL4(a, b *model.L4Match) bool {
	if len(a.SNIHosts) > 0 {
		if len(b.SNIHosts) == 0 {
			return false
		}
		for _, h := range b.SNIHosts {
			if !slices.ContainsFunc(a.SNIHosts, func(p string) bool { return convert.HostCovers(p, h) }) {
				return false
			}
		}
	}
	if len(a.DestinationSubnets) > 0 {
		if len(b.DestinationSubnets) == 0 {
			return false
		}
		for _, n := range b.DestinationSubnets {
			if !slices.ContainsFunc(a.DestinationSubnets, func(p netip.Prefix) bool { return p.Bits() <= n.Bits() && p.Contains(n.Addr()) }) {
				return false
			}
		}
	}
	return coversCommon(a.Port, b.Port, a.SourceLabels, b.SourceLabels, a.SourceNamespace, b.SourceNamespace, a.Gateways, b.Gateways)
}
