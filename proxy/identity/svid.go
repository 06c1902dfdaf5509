package identity

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"weft.mesh/weft/spiffe"
)

// ErrNone says that there is no certificate yet.
var ErrNone = errors.New("identity: no certificate yet (is the certificate authority reachable and the join token valid?)")

// ErrExpired says that the certificate's life is over and no new one came.
var ErrExpired = errors.New("identity: certificate expired and could not be renewed")

// SVID is one identity document with its key. Immutable.
type SVID struct {
	ID         spiffe.ID
	Generation uint64              // grows with every new certificate or trust bundle
	Chain      []*x509.Certificate // leaf first, without the root
	Key        crypto.Signer
	// TLS is Chain and Key in the form of crypto/tls.
	TLS tls.Certificate
}

// Leaf is the workload's own certificate.
func (s *SVID) Leaf() *x509.Certificate { return s.Chain[0] }

// Bundle is the set of roots of one trust domain. Immutable.
type Bundle struct {
	TrustDomain string
	Roots       []*x509.Certificate
	Pool        *x509.CertPool
}

// NewBundle makes a bundle of roots.
func NewBundle(trustDomain string, roots []*x509.Certificate) *Bundle {
	b := &Bundle{TrustDomain: trustDomain, Roots: roots, Pool: x509.NewCertPool()}
	for _, r := range roots {
		b.Pool.AddCert(r)
	}
	return b
}

// newSVID checks that chain, key and roots belong together and are for id at time now.
func newSVID(id spiffe.ID, chain []*x509.Certificate, key crypto.Signer, roots *x509.CertPool, now time.Time) (*SVID, error) {
	if len(chain) == 0 {
		return nil, errors.New("no certificate in the chain")
	}
	leaf := chain[0]
	pub, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return nil, errors.New("certificate is not for our key")
	}
	got, err := spiffe.FromCertificate(leaf)
	if err != nil {
		return nil, err
	}
	if got != id {
		return nil, fmt.Errorf("certificate is for %s, want %s", got, id)
	}
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inter, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("certificate does not chain to the roots: %w", err)
	}
	s := &SVID{ID: id, Chain: chain, Key: key}
	s.TLS = tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range chain {
		s.TLS.Certificate = append(s.TLS.Certificate, c.Raw)
	}
	return s, nil
}
