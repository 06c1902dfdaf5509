package matcher

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// Routes and filters compile conditions here, so that one condition means one thing.
func TestStringsMatchAsEnvoyComparesThem(t *testing.T) {
	for name, tt := range map[string]struct {
		m    *matcherv3.StringMatcher
		fits string
		not  string
	}{
		"exact":                    {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "Ab"}}, "Ab", "ab"},
		"exact in any case":        {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "Ab"}, IgnoreCase: true}, "aB", "abc"},
		"prefix in any case":       {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "/Admin"}, IgnoreCase: true}, "/aDMIN/x", "/x/admin"},
		"suffix in any case":       {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: ".PHP"}, IgnoreCase: true}, "/a.php", "/a.phps"},
		"contains in any case":     {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: "X-Y"}, IgnoreCase: true}, "ax-yb", "axyb"},
		"an expression is of case": {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "A+"}}, IgnoreCase: true}, "AA", "aa"},
		"an expression is whole":   {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "a|b"}}}, "b", "ab"},
	} {
		s, err := String(tt.m)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !s.Matches([]byte(tt.fits)) || s.Matches([]byte(tt.not)) {
			t.Errorf("%s: %q %t, %q %t", name, tt.fits, s.Matches([]byte(tt.fits)), tt.not, s.Matches([]byte(tt.not)))
		}
	}
}

func TestWhatCannotBeComparedIsRefused(t *testing.T) {
	regex := func(s string) *matcherv3.StringMatcher {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: s}}}
	}
	for name, m := range map[string]*matcherv3.StringMatcher{
		"nothing": {}, "no expression": regex("("), "look-ahead": regex("(?=a)"), "a long expression": regex(strings.Repeat("a", 9<<10)),
		"an expression with a large program": regex("(a{1000}){1000}"), "many instructions": regex(strings.Repeat("[a-z]{900}", 20)),
	} {
		if s, err := String(m); err == nil {
			t.Errorf("%s is taken: %+v", name, s.Kind)
		}
	}
	if _, err := Header(&routev3.HeaderMatcher{}); err == nil {
		t.Error("a header without a name is taken")
	}
	if f, err := Fraction(&typev3.FractionalPercent{Numerator: 500}); err != nil || f.Numerator != 100 {
		t.Errorf("500 percent: %+v, %v", f, err)
	}
}
