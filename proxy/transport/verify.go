package transport

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/identity"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/spiffe"
)

// ErrSAN says that the peer's certificate is valid but for another name.
var ErrSAN = errors.New("certificate has no name that is allowed")

// verifySVID checks a chain as an SVID against the bundle of its own trust domain and returns its identity.
func verifySVID(chain []*x509.Certificate, bundles map[string]*identity.Bundle, use x509.ExtKeyUsage) (spiffe.ID, error) {
	if len(chain) == 0 {
		return spiffe.ID{}, errors.New("peer sent no certificate")
	}
	leaf := chain[0]
	if leaf.IsCA {
		return spiffe.ID{}, errors.New("peer's certificate is an authority's, not a workload's")
	}
	id, err := spiffe.FromCertificate(leaf)
	if err != nil {
		return spiffe.ID{}, err
	}
	b := bundles[id.TrustDomain()]
	if b == nil {
		return spiffe.ID{}, fmt.Errorf("%s: trust domain %q is not trusted", id, id.TrustDomain())
	}
	if err := verifyChain(chain, b.Pool, "", use); err != nil {
		return spiffe.ID{}, fmt.Errorf("%s: %w", id, err)
	}
	return id, nil
}

// verifyChain checks a chain against roots (nil: the system's), and the name if one is given.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, name string, use x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return errors.New("peer sent no certificate")
	}
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inter, DNSName: name, KeyUsages: []x509.ExtKeyUsage{use},
	})
	return err
}

// matchSANs tells whether one of the certificate's names fits one of the conditions. No conditions: anything fits.
func matchSANs(leaf *x509.Certificate, sans []config.SANMatch) error {
	if len(sans) == 0 {
		return nil
	}
	for i := range sans {
		if matchSAN(leaf, &sans[i]) {
			return nil
		}
	}
	return fmt.Errorf("%w: has %s", ErrSAN, names(leaf))
}

func matchSAN(leaf *x509.Certificate, m *config.SANMatch) bool {
	if m.Kind == config.SANURI || m.Kind == config.SANAny {
		for _, u := range leaf.URIs {
			if matchString(&m.Match, u.String()) {
				return true
			}
		}
	}
	if m.Kind == config.SANDNS || m.Kind == config.SANAny {
		for _, d := range leaf.DNSNames {
			if matchDNS(&m.Match, d) {
				return true
			}
		}
	}
	if m.Kind == config.SANAny {
		for _, ip := range leaf.IPAddresses {
			if matchString(&m.Match, ip.String()) {
				return true
			}
		}
	}
	return false
}

// matchDNS compares a certificate's DNS name, in which a leading "*." covers one label (Envoy's dnsNameMatch).
func matchDNS(m *route.StringMatch, name string) bool {
	if m.Kind == route.StringExact {
		if suffix, ok := strings.CutPrefix(name, "*."); ok {
			label, rest, found := strings.Cut(m.Value, ".")
			return found && label != "" && strings.EqualFold(rest, suffix) && net.ParseIP(m.Value) == nil
		}
		return strings.EqualFold(m.Value, name)
	}
	return matchString(m, name)
}

func matchString(m *route.StringMatch, s string) bool {
	v := m.Value
	if m.IgnoreCase && m.Kind != route.StringRegex {
		s, v = strings.ToLower(s), strings.ToLower(v)
	}
	switch m.Kind {
	case route.StringPresent:
		return true
	case route.StringExact:
		return s == v
	case route.StringPrefix:
		return strings.HasPrefix(s, v)
	case route.StringSuffix:
		return strings.HasSuffix(s, v)
	case route.StringContains:
		return strings.Contains(s, v)
	case route.StringRegex:
		return m.Regex != nil && fullMatch(m.Regex, s)
	}
	return false
}

// fullMatch tells whether all of s matches, however the expression was compiled.
func fullMatch(re *regexp.Regexp, s string) bool {
	if loc := re.FindStringIndex(s); loc != nil && loc[0] == 0 && loc[1] == len(s) {
		return true
	}
	// A leftmost-first match may be shorter than the full one ("a|ab"): ask for the longest.
	long := re.Copy() //nolint:staticcheck // Longest changes its receiver
	long.Longest()
	loc := long.FindStringIndex(s)
	return loc != nil && loc[0] == 0 && loc[1] == len(s)
}

func names(leaf *x509.Certificate) string {
	var out []string
	for _, u := range leaf.URIs {
		out = append(out, u.String())
	}
	out = append(out, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		out = append(out, ip.String())
	}
	if len(out) == 0 {
		return "no names"
	}
	return strings.Join(out, ", ")
}
