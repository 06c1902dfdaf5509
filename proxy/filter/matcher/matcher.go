// Package matcher compiles Envoy's string, header, path and address matchers
// for routes and filters. What it does not know it refuses by name, and so it does
// fields that this build's protobuf does not know: a condition that is left out
// would let through what it should not.
package matcher

import (
	"fmt"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"weft.mesh/weft/proxy/route"
)

// String compiles a StringMatcher.
func String(m *matcherv3.StringMatcher) (route.StringMatch, error) {
	s := route.StringMatch{IgnoreCase: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		s.Kind, s.Value = route.StringExact, p.Exact
	case *matcherv3.StringMatcher_Prefix:
		s.Kind, s.Value = route.StringPrefix, p.Prefix
	case *matcherv3.StringMatcher_Suffix:
		s.Kind, s.Value = route.StringSuffix, p.Suffix
	case *matcherv3.StringMatcher_Contains:
		s.Kind, s.Value = route.StringContains, p.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		re, err := route.FullRegexp(p.SafeRegex.GetRegex())
		if err != nil {
			return s, fmt.Errorf("safe_regex: %w", err)
		}
		// Envoy ignores ignore_case for regular expressions.
		return route.StringMatch{Kind: route.StringRegex, Regex: re, Value: p.SafeRegex.GetRegex()}, nil
	default:
		return s, fmt.Errorf("string matcher %T: want exact, prefix, suffix, contains or safe_regex", p)
	}
	if s.IgnoreCase {
		s.Value = strings.ToLower(s.Value) // what route.StringMatch wants
	}
	return s, nil
}

// Header compiles a HeaderMatcher, also in its older forms.
func Header(m *routev3.HeaderMatcher) (route.HeaderMatch, error) {
	h := route.HeaderMatch{Name: strings.ToLower(m.GetName()), Invert: m.GetInvertMatch(), TreatMissingAsEmpty: m.GetTreatMissingHeaderAsEmpty()}
	if h.Name == "" {
		return h, fmt.Errorf("header matcher: no name")
	}
	var err error
	switch p := m.GetHeaderMatchSpecifier().(type) {
	case nil:
		h.Match.Kind = route.StringPresent
	case *routev3.HeaderMatcher_StringMatch:
		h.Match, err = String(p.StringMatch)
	case *routev3.HeaderMatcher_PresentMatch:
		h.Match.Kind = route.StringPresent
		h.Invert = h.Invert == p.PresentMatch // present_match: false means absent
	case *routev3.HeaderMatcher_RangeMatch:
		h.Range = &route.Range{Start: p.RangeMatch.GetStart(), End: p.RangeMatch.GetEnd()}
	case *routev3.HeaderMatcher_ExactMatch:
		h.Match = route.StringMatch{Kind: route.StringExact, Value: p.ExactMatch}
	case *routev3.HeaderMatcher_PrefixMatch:
		h.Match = route.StringMatch{Kind: route.StringPrefix, Value: p.PrefixMatch}
	case *routev3.HeaderMatcher_SuffixMatch:
		h.Match = route.StringMatch{Kind: route.StringSuffix, Value: p.SuffixMatch}
	case *routev3.HeaderMatcher_ContainsMatch:
		h.Match = route.StringMatch{Kind: route.StringContains, Value: p.ContainsMatch}
	case *routev3.HeaderMatcher_SafeRegexMatch:
		h.Match.Kind, h.Match.Value = route.StringRegex, p.SafeRegexMatch.GetRegex()
		h.Match.Regex, err = route.FullRegexp(p.SafeRegexMatch.GetRegex())
	default:
		err = fmt.Errorf("%T is not supported", p)
	}
	if err != nil {
		return h, fmt.Errorf("header matcher %q: %w", h.Name, err)
	}
	return h, nil
}

// Path compiles a PathMatcher; it compares the path without its query.
func Path(m *matcherv3.PathMatcher) (route.StringMatch, error) {
	p, ok := m.GetRule().(*matcherv3.PathMatcher_Path)
	if !ok {
		return route.StringMatch{}, fmt.Errorf("path matcher: want path")
	}
	return String(p.Path)
}

// CIDR compiles an address range.
func CIDR(c *corev3.CidrRange) (netip.Prefix, error) {
	a, err := netip.ParseAddr(c.GetAddressPrefix())
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("address range: %w", err)
	}
	p, err := a.Unmap().Prefix(int(min(c.GetPrefixLen().GetValue(), 1000)))
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("address range %s: %w", c.GetAddressPrefix(), err)
	}
	return p, nil
}

// Fraction compiles a share; nil is all.
func Fraction(f *typev3.FractionalPercent) (*route.Fraction, error) {
	if f == nil {
		return nil, nil
	}
	den, ok := map[typev3.FractionalPercent_DenominatorType]uint32{
		typev3.FractionalPercent_HUNDRED: 100, typev3.FractionalPercent_TEN_THOUSAND: 10_000, typev3.FractionalPercent_MILLION: 1_000_000,
	}[f.GetDenominator()]
	if !ok {
		return nil, fmt.Errorf("percentage: denominator %v is unknown", f.GetDenominator())
	}
	return &route.Fraction{Numerator: min(f.GetNumerator(), den), Denominator: den}, nil
}

// Known refuses a message that holds, at any depth, fields of which the protobuf definition in this build knows nothing.
func Known(m proto.Message) error { return known(m.ProtoReflect(), 0) }

// maxDepth bounds how deep policies may nest.
const maxDepth = 100

func known(m protoreflect.Message, depth int) (err error) {
	if depth > maxDepth {
		return fmt.Errorf("%s: nested deeper than %d", m.Descriptor().FullName(), maxDepth)
	}
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%s: has fields that this version does not know", m.Descriptor().FullName())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					err = known(v.Message(), depth+1)
					return err == nil
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = known(v.List().Get(i).Message(), depth+1)
			}
		default:
			err = known(v.Message(), depth+1)
		}
		return err == nil
	})
	return err
}

// Only refuses a message in which any field but those named is set.
func Only(m proto.Message, names ...string) (err error) {
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		for _, n := range names {
			if string(fd.Name()) == n {
				return true
			}
		}
		err = fmt.Errorf("%s.%s: is not supported", m.ProtoReflect().Descriptor().FullName(), fd.Name())
		return false
	})
	return err
}
