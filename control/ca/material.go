package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"weft.mesh/weft/spiffe"
)

// Material is a signing key with its certificates, as PEM.
type Material struct {
	Key   []byte // PKCS#8, PKCS#1 or SEC 1
	Cert  []byte // of the key; a root, or an intermediate
	Chain []byte // from Cert to below the root; may be empty, or begin with Cert
	Roots []byte // what verifies everything; empty: Cert, which is then a root
}

// signer is Material that was checked. Immutable.
type signer struct {
	key      crypto.Signer
	cert     *x509.Certificate
	roots    []*x509.Certificate
	rootPEM  []byte
	chain    []string // PEM: the signing certificate and what is between it and the root, then the root
	chainDER [][]byte
}

// parse checks material: an expired or foreign certificate never signs.
func (m Material) parse(now time.Time) (*signer, error) {
	key, err := parseKey(m.Key)
	if err != nil {
		return nil, err
	}
	certs, err := parseCerts("certificate", m.Cert)
	if err != nil {
		return nil, err
	}
	s := &signer{key: key, cert: certs[0]}
	if pub, ok := s.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(key.Public()) {
		return nil, errors.New("the certificate does not belong to the key")
	}
	if !s.cert.IsCA {
		return nil, fmt.Errorf("%q is no CA certificate", s.cert.Subject)
	}
	rootPEM := m.Roots
	if len(bytes.TrimSpace(rootPEM)) == 0 {
		rootPEM = m.Cert
	}
	if s.roots, err = parseCerts("root certificate", rootPEM); err != nil {
		return nil, err
	}
	between := certs[1:]
	if len(bytes.TrimSpace(m.Chain)) > 0 {
		more, err := parseCerts("certificate chain", m.Chain)
		if err != nil {
			return nil, err
		}
		between = append(between, more...)
	}
	return s, s.verify(between, now)
}

// verify orders the chain and holds it to the roots.
func (s *signer) verify(between []*x509.Certificate, now time.Time) error {
	if now.After(s.cert.NotAfter) {
		return fmt.Errorf("the certificate %q expired at %s", s.cert.Subject, s.cert.NotAfter.Format(time.RFC3339))
	}
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range s.roots {
		roots.AddCert(c)
		s.rootPEM = append(s.rootPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	for _, c := range between {
		middle.AddCert(c)
	}
	chains, err := s.cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("the certificate %q does not lead to the root: %w", s.cert.Subject, err)
	}
	for _, c := range chains[0] {
		s.chain = append(s.chain, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
		s.chainDER = append(s.chainDER, c.Raw)
	}
	return nil
}

func parseKey(text []byte) (crypto.Signer, error) {
	b, _ := pem.Decode(text)
	if b == nil {
		return nil, errors.New("the key holds no PEM block")
	}
	// A parser's error could quote bytes of the key.
	if k, err := x509.ParsePKCS8PrivateKey(b.Bytes); err == nil {
		if s, ok := k.(crypto.Signer); ok {
			return s, nil
		}
		return nil, errors.New("the key's type cannot sign")
	}
	if k, err := x509.ParseECPrivateKey(b.Bytes); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(b.Bytes); err == nil {
		return k, nil
	}
	return nil, fmt.Errorf("the key (PEM block %q) is none of PKCS#8, PKCS#1 and SEC 1", b.Type)
}

func parseCerts(what string, text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		b, rest := pem.Decode(text)
		if b == nil {
			break
		}
		if text = rest; b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the %s cannot be read: %w", what, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the %s holds no PEM block CERTIFICATE", what)
	}
	return out, nil
}

// Generate makes a root of a trust domain, ECDSA P-256, valid for RootTTL.
func Generate(trustDomain string, now time.Time) (Material, error) {
	if err := spiffe.ValidateTrustDomain(trustDomain); err != nil {
		return Material{}, fmt.Errorf("ca: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Material{}, err
	}
	serial, err := newSerial()
	if err != nil {
		return Material{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{trustDomain}, CommonName: "weft root CA"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(RootTTL),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return Material{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Material{}, err
	}
	return Material{Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// New makes a CA of material that is kept elsewhere (a Secret).
func New(trustDomain string, m Material) (*CA, error) {
	if err := spiffe.ValidateTrustDomain(trustDomain); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	c := &CA{trustDomain: trustDomain, now: time.Now}
	return c, c.Replace(m)
}

// Replace signs with other material from now on. On an error what was there stays.
func (c *CA) Replace(m Material) error {
	s, err := m.parse(c.now())
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	c.signer.Store(s)
	return nil
}
