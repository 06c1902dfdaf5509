// Package spiffe holds workload identities: trust domains and SPIFFE IDs of the
// form spiffe://<trust domain>/ns/<namespace>/sa/<service account>, which is the
// form that Istio and the Kubernetes world use.
//
// An ID that exists is valid: it can only be made by [Parse], [FromURI] or [New].
// The package does no I/O and knows no certificate authority.
package spiffe

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
)

// MaxLen bounds a SPIFFE ID in bytes (SPIFFE-ID section 2.3).
const MaxLen = 2048

// ID is a valid SPIFFE ID. The zero ID means "no identity". IDs are comparable.
type ID struct{ s string }

// New builds spiffe://td/ns/namespace/sa/serviceAccount.
func New(trustDomain, namespace, serviceAccount string) (ID, error) {
	for _, x := range []struct{ what, name string }{{"namespace", namespace}, {"service account", serviceAccount}} {
		if strings.Contains(x.name, "/") { // it would be read as another's path
			return ID{}, fmt.Errorf("spiffe id: %s %q: want a name without /", x.what, x.name)
		}
	}
	return Parse("spiffe://" + trustDomain + "/ns/" + namespace + "/sa/" + serviceAccount)
}

// Parse reads a SPIFFE ID strictly (SPIFFE-ID sections 2.1 to 2.3): scheme
// "spiffe" in lower case, a lower-case trust domain, no port, user, query or
// fragment, and path segments of letters, digits, '.', '-' and '_'.
func Parse(s string) (ID, error) {
	if len(s) > MaxLen {
		return ID{}, fmt.Errorf("spiffe id: %d bytes, at most %d", len(s), MaxLen)
	}
	rest, ok := strings.CutPrefix(s, "spiffe://")
	if !ok {
		return ID{}, fmt.Errorf("spiffe id %q: must begin with spiffe://", s)
	}
	td, path, _ := strings.Cut(rest, "/")
	if err := ValidateTrustDomain(td); err != nil {
		return ID{}, fmt.Errorf("spiffe id %q: %w", s, err)
	}
	if len(rest) > len(td) {
		for seg := range strings.SplitSeq(path, "/") {
			if seg == "" || seg == "." || seg == ".." {
				return ID{}, fmt.Errorf("spiffe id %q: empty or relative path segment", s)
			}
			if i := strings.IndexFunc(seg, badPathRune); i >= 0 {
				return ID{}, fmt.Errorf("spiffe id %q: character %q not allowed in a path", s, seg[i])
			}
		}
	}
	return ID{s}, nil
}

// ValidateTrustDomain checks the trust domain's characters (SPIFFE-ID section 2.1).
func ValidateTrustDomain(td string) error {
	if td == "" {
		return fmt.Errorf("empty trust domain")
	}
	if len(td) > 255 {
		return fmt.Errorf("trust domain: %d bytes, at most 255", len(td))
	}
	if i := strings.IndexFunc(td, badDomainRune); i >= 0 {
		return fmt.Errorf("trust domain %q: character %q not allowed", td, td[i])
	}
	return nil
}

func badDomainRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

func badPathRune(r rune) bool {
	return badDomainRune(r) && (r < 'A' || r > 'Z')
}

// FromURI reads an ID from a certificate's URI name.
func FromURI(u *url.URL) (ID, error) { return Parse(u.String()) }

// FromCertificate returns the one SPIFFE ID of a certificate. An SVID has
// exactly one URI name (X509-SVID section 2), anything else is an error.
func FromCertificate(c *x509.Certificate) (ID, error) {
	if len(c.URIs) != 1 {
		return ID{}, fmt.Errorf("certificate: %d URI names, an SVID has exactly one", len(c.URIs))
	}
	return FromURI(c.URIs[0])
}

// String is the full URI, or "" for the zero ID.
func (id ID) String() string { return id.s }

// IsZero tells whether there is no identity.
func (id ID) IsZero() bool { return id.s == "" }

// Principal is the ID without its scheme, as Istio's policies write it:
// "cluster.local/ns/default/sa/reviews".
func (id ID) Principal() string { return strings.TrimPrefix(id.s, "spiffe://") }

// TrustDomain is the part before the path.
func (id ID) TrustDomain() string {
	td, _, _ := strings.Cut(id.Principal(), "/")
	return td
}

// Workload splits an ID of the form /ns/<namespace>/sa/<service account>.
// ok is false for any other path.
func (id ID) Workload() (namespace, serviceAccount string, ok bool) {
	_, path, _ := strings.Cut(id.Principal(), "/")
	parts := strings.Split(path, "/")
	if len(parts) != 4 || parts[0] != "ns" || parts[2] != "sa" {
		return "", "", false
	}
	return parts[1], parts[3], true
}

// URL is the ID as a URL, for certificates.
func (id ID) URL() *url.URL {
	u, err := url.Parse(id.s)
	if err != nil { // cannot be: the ID was parsed
		panic(fmt.Sprintf("spiffe: valid id %q is no URL: %v", id.s, err))
	}
	return u
}
