// Package ca is the mesh's certificate authority: a self-made root kept in the
// state directory, short-lived X.509-SVIDs signed from CSRs, single-use join
// tokens, and the gRPC service that Istio's agents speak.
//
// A workload's private key never comes here. The root's private key never
// leaves the process and its file (0600). The identity in a certificate is the
// one the caller proved, never the one its CSR asks for; a CSR that asks for
// another is refused.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"weft.mesh/weft/spiffe"
)

// Lifetimes, as Istio's defaults.
const (
	RootTTL     = 10 * 365 * 24 * time.Hour
	WorkloadTTL = 24 * time.Hour
	MaxTTL      = 90 * 24 * time.Hour
	backdate    = 2 * time.Minute // clocks differ
)

// Files in the CA's folder.
const (
	fileKey  = "ca-key.pem"
	fileCert = "ca-cert.pem"
)

// CA signs workload certificates. Safe for concurrent use.
type CA struct {
	trustDomain string
	signer      atomic.Pointer[signer]
	now         func() time.Time
}

// Open loads the root from dir, or makes one there on first use. The folder is
// 0700, its files 0600; a key that others can read is refused.
func Open(dir, trustDomain string) (*CA, error) {
	if err := spiffe.ValidateTrustDomain(trustDomain); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	c := &CA{trustDomain: trustDomain, now: time.Now}
	err := c.load(dir)
	if errors.Is(err, os.ErrNotExist) {
		err = c.create(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("ca: %s: %w", dir, err)
	}
	return c, nil
}

func (c *CA) load(dir string) error {
	keyFile := filepath.Join(dir, fileKey)
	st, err := os.Stat(keyFile)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: mode %04o lets others read the root key; chmod 600 it", fileKey, st.Mode().Perm())
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	certPEM, err := os.ReadFile(filepath.Join(dir, fileCert))
	if err != nil {
		return fmt.Errorf("%s is there without %s; restore it, or remove both to make a new root: %w", fileKey, fileCert, errors.New(err.Error()))
	}
	return c.use(keyPEM, certPEM)
}

func (c *CA) use(keyPEM, certPEM []byte) error {
	s, err := Material{Key: keyPEM, Cert: certPEM}.parse(c.now())
	if err != nil {
		return fmt.Errorf("%s, %s: %w; restore them, or remove both to make a new root", fileKey, fileCert, err)
	}
	c.signer.Store(s)
	return nil
}

func (c *CA) create(dir string) error {
	m, err := Generate(c.trustDomain, c.now())
	if err != nil {
		return err
	}
	// The certificate first: a key without certificate is a state that load refuses.
	if err := writeFile(filepath.Join(dir, fileCert), m.Cert); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, fileKey), m.Key); err != nil {
		return err
	}
	return c.use(m.Key, m.Cert)
}

// writeFile writes 0600 and atomically.
func writeFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// Roots is the PEM bundle that verifies every certificate of the trust domain.
func (c *CA) Roots() []byte { return c.signer.Load().rootPEM }

// Root is the root certificate; of several, the one that expires last.
func (c *CA) Root() *x509.Certificate {
	return slices.MaxFunc(c.signer.Load().roots, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
}

// TrustDomain of the identities that are signed.
func (c *CA) TrustDomain() string { return c.trustDomain }

// SignCSR signs a workload's CSR (PEM) for id. ttl 0 means WorkloadTTL; more than MaxTTL
// is cut to it. The chain is PEM, leaf first, root last.
func (c *CA) SignCSR(csrPEM []byte, id spiffe.ID, ttl time.Duration) ([]string, error) {
	csr, err := parseCSR(csrPEM)
	if err != nil {
		return nil, err
	}
	if len(csr.URIs) == 1 && csr.URIs[0].String() != id.String() {
		return nil, fmt.Errorf("csr: asks for %q, the caller proved %q", csr.URIs[0], id)
	}
	with := c.signer.Load()
	der, err := c.sign(with, csr.PublicKey, &x509.Certificate{URIs: []*url.URL{id.URL()}}, ttl)
	if err != nil {
		return nil, err
	}
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append([]string{string(leaf)}, with.chain...), nil
}

// parseCSR reads a request and checks all of it that does not depend on who asks.
func parseCSR(csrPEM []byte) (*x509.CertificateRequest, error) {
	b, rest := pem.Decode(csrPEM)
	if b == nil || b.Type != "CERTIFICATE REQUEST" && b.Type != "NEW CERTIFICATE REQUEST" {
		return nil, errors.New("csr: no PEM block of type CERTIFICATE REQUEST")
	}
	if len(rest) > 0 && len(rest) != 1 {
		return nil, errors.New("csr: data after the PEM block")
	}
	csr, err := x509.ParseCertificateRequest(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if len(csr.DNSNames)+len(csr.IPAddresses)+len(csr.EmailAddresses) > 0 || len(csr.URIs) > 1 {
		return nil, errors.New("csr: only one URI name, the SPIFFE ID, may be asked for")
	}
	return csr, nil
}

// checkKey refuses keys that are too weak for TLS 1.3 in a mesh.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("csr: ECDSA curve %s: want P-256 or P-384", k.Curve.Params().Name)
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 8192 {
			return nil
		}
		return fmt.Errorf("csr: RSA key of %d bits: want 2048 to 8192", k.N.BitLen())
	}
	return fmt.Errorf("csr: key type %T: want ECDSA P-256, P-384 or RSA", pub)
}

func (c *CA) sign(with *signer, pub crypto.PublicKey, tmpl *x509.Certificate, ttl time.Duration) ([]byte, error) {
	if ttl <= 0 {
		ttl = WorkloadTTL
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := c.now()
	if now.After(with.cert.NotAfter) { // it was in order when it was loaded
		return nil, fmt.Errorf("the CA certificate %q expired at %s: renew the key of the certificate authority", with.cert.Subject, with.cert.NotAfter.Format(time.RFC3339))
	}
	tmpl.SerialNumber = serial
	tmpl.NotBefore = now.Add(-backdate)
	tmpl.NotAfter = now.Add(min(ttl, MaxTTL))
	if tmpl.NotAfter.After(with.cert.NotAfter) {
		tmpl.NotAfter = with.cert.NotAfter
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	tmpl.BasicConstraintsValid = true
	return x509.CreateCertificate(rand.Reader, tmpl, with.cert, pub, with.key)
}
