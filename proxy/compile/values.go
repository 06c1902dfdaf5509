package compile

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"weft.mesh/weft/proxy/filter/matcher"
	"weft.mesh/weft/proxy/route"
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
	if f == nil {
		f = &typev3.FractionalPercent{}
	}
	x, err := matcher.Fraction(f)
	return x, at(path, err)
}

// stringMatch compiles a StringMatcher.
func stringMatch(path string, m *matcherv3.StringMatcher) (route.StringMatch, error) {
	s, err := matcher.String(m)
	return s, at(path, err)
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
	re, err := route.Regexp(m.GetPattern().GetRegex())
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
	p, err := matcher.CIDR(c)
	return p, at(path, err)
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
