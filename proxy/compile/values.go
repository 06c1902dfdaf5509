package compile

import (
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"weft.mesh/weft/proxy/route"
)

// Bounds on regular expressions: what a config push may cost in memory.
const (
	maxRegexLen  = 8 << 10 // bytes of pattern
	maxRegexProg = 10_000  // instructions; Envoy warns from 100 on
)

// duration reads a duration that may be zero; nil is def.
func duration(path string, d *durationpb.Duration, def time.Duration) (time.Duration, error) {
	if d == nil {
		return def, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, at(path, err)
	}
	v := d.AsDuration()
	if v < 0 {
		return 0, bad(path, v, "negative duration")
	}
	return v, nil
}

// fraction reads a share of requests; nil means all.
func fraction(path string, f *corev3.RuntimeFractionalPercent) (*route.Fraction, error) {
	if f == nil {
		return nil, nil
	}
	return plainFraction(path+".default_value", f.GetDefaultValue())
}

func plainFraction(path string, f *typev3.FractionalPercent) (*route.Fraction, error) {
	den := uint32(100)
	switch f.GetDenominator() {
	case typev3.FractionalPercent_HUNDRED:
	case typev3.FractionalPercent_TEN_THOUSAND:
		den = 10_000
	case typev3.FractionalPercent_MILLION:
		den = 1_000_000
	default:
		return nil, bad(path+".denominator", f.GetDenominator(), "unknown")
	}
	return &route.Fraction{Numerator: min(f.GetNumerator(), den), Denominator: den}, nil
}

// Regexp compiles an RE2 pattern within bounds; full anchors it at both ends.
func Regexp(pattern string, full bool) (*regexp.Regexp, error) {
	if len(pattern) > maxRegexLen {
		return nil, fmt.Errorf("regular expression of %d bytes: at most %d", len(pattern), maxRegexLen)
	}
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("regular expression %s: %w", quote(pattern), err)
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, fmt.Errorf("regular expression %s: %w", quote(pattern), err)
	}
	if n := len(prog.Inst); n > maxRegexProg {
		return nil, fmt.Errorf("regular expression %s: program of %d instructions, at most %d", quote(pattern), n, maxRegexProg)
	}
	if full {
		pattern = `\A(?:` + pattern + `)\z`
	}
	r, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("regular expression %s: %w", quote(pattern), err)
	}
	return r, nil
}

func regexMatcher(path string, m *matcherv3.RegexMatcher) (*regexp.Regexp, error) {
	r, err := Regexp(m.GetRegex(), true)
	return r, at(path+".regex", err)
}

// stringMatch compiles a StringMatcher.
func stringMatch(path string, m *matcherv3.StringMatcher) (route.StringMatch, error) {
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
		re, err := regexMatcher(path+".safe_regex", p.SafeRegex)
		if err != nil {
			return s, err
		}
		// Envoy ignores ignore_case for regular expressions.
		return route.StringMatch{Kind: route.StringRegex, Value: p.SafeRegex.GetRegex(), Regex: re}, nil
	default:
		return s, missing(path, "want exact, prefix, suffix, contains or safe_regex")
	}
	if s.IgnoreCase {
		s.Value = strings.ToLower(s.Value)
	}
	return s, nil
}

// substitution turns RE2's \1 into Go's ${1} and protects '$'. It refuses groups that the pattern does not have.
func substitution(path, s string, groups int) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$':
			b.WriteString("$$")
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(s) && s[i+1] == '\\':
			b.WriteByte('\\')
			i++
		case i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9':
			if n := int(s[i+1] - '0'); n > groups {
				return "", bad(path, s, "\\%d: the pattern has %d groups", n, groups)
			}
			b.WriteString("${" + s[i+1:i+2] + "}")
			i++
		default:
			return "", bad(path, s, "a backslash must be followed by a digit or a backslash")
		}
	}
	return b.String(), nil
}

func regexRewrite(path string, m *matcherv3.RegexMatchAndSubstitute) (*route.RegexRewrite, error) {
	if m == nil {
		return nil, nil
	}
	re, err := Regexp(m.GetPattern().GetRegex(), false)
	if err != nil {
		return nil, at(path+".pattern.regex", err)
	}
	sub, err := substitution(path+".substitution", m.GetSubstitution(), re.NumSubexp())
	if err != nil {
		return nil, err
	}
	return &route.RegexRewrite{Regex: re, Substitution: sub}, nil
}

// socketAddress reads an IP address and port.
func socketAddress(path string, a *corev3.Address) (netip.AddrPort, error) {
	s := a.GetSocketAddress()
	if s == nil {
		return netip.AddrPort{}, missing(path+".socket_address", "want a TCP address")
	}
	ip, port, err := hostPort(path+".socket_address", s)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.AddrPort{}, bad(path+".socket_address.address", ip, "want an IP address")
	}
	return netip.AddrPortFrom(addr.Unmap(), port), nil
}

func hostPort(path string, s *corev3.SocketAddress) (host string, port uint16, err error) {
	if s.GetProtocol() != corev3.SocketAddress_TCP {
		return "", 0, bad(path+".protocol", s.GetProtocol(), "only TCP is supported")
	}
	if s.GetPortValue() > 65535 {
		return "", 0, bad(path+".port_value", s.GetPortValue(), "want 0 to 65535")
	}
	return s.GetAddress(), uint16(s.GetPortValue()), nil
}

func prefix(path string, c *corev3.CidrRange) (netip.Prefix, error) {
	ip, err := netip.ParseAddr(c.GetAddressPrefix())
	if err != nil {
		return netip.Prefix{}, bad(path+".address_prefix", c.GetAddressPrefix(), "want an IP address")
	}
	p, err := ip.Unmap().Prefix(int(min(c.GetPrefixLen().GetValue(), 1000)))
	if err != nil {
		return netip.Prefix{}, bad(path+".prefix_len", c.GetPrefixLen().GetValue(), "%v", err)
	}
	return p, nil
}

func prefixes(path string, cs []*corev3.CidrRange) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, c := range cs {
		p, err := prefix(fmt.Sprintf("%s[%d]", path, i), c)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// overADS refuses any source of configuration but ADS.
func overADS(path string, c *corev3.ConfigSource) error {
	if c == nil {
		return missing(path, "want ads: {}")
	}
	if c.GetAds() == nil {
		return bad(path, fmt.Sprintf("%T", c.GetConfigSourceSpecifier()), "only ads: {} is supported")
	}
	return nil
}

// dataSource reads inline data or a file.
func (c *Compiler) dataSource(path string, d *corev3.DataSource) ([]byte, error) {
	switch s := d.GetSpecifier().(type) {
	case *corev3.DataSource_InlineBytes:
		return s.InlineBytes, nil
	case *corev3.DataSource_InlineString:
		return []byte(s.InlineString), nil
	case *corev3.DataSource_Filename:
		if c.set.ReadFile == nil {
			return nil, bad(path+".filename", s.Filename, "files are not allowed here; use inline_string or SDS")
		}
		b, err := c.set.ReadFile(s.Filename)
		if err != nil {
			return nil, bad(path+".filename", s.Filename, "%v", err)
		}
		return b, nil
	}
	return nil, missing(path, "want inline_string, inline_bytes or filename")
}
