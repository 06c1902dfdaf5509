package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/spiffe"
)

// ServerNames are the DNS names of the control plane's certificate.
// Proxies verify the first; the second is what Istio's agents expect.
var ServerNames = []string{"weft.weft-system.svc", "istiod.istio-system.svc"}

// Serving makes and renews the control plane's own certificate.
type Serving struct {
	ca    *CA
	id    spiffe.ID
	names []string
	ips   []net.IP

	mu   sync.Mutex // protects the following
	cert *tls.Certificate
	by   *signer // who signed it
}

// NewServing makes the serving identity spiffe://<td>/ns/weft-system/sa/weft.
// The certificate is for ServerNames, ips and names.
func NewServing(c *CA, ips []net.IP, names ...string) (*Serving, error) {
	id, err := spiffe.New(c.trustDomain, "weft-system", "weft")
	if err != nil {
		return nil, err
	}
	return &Serving{ca: c, id: id, names: slices.Concat(ServerNames, names), ips: ips}, nil
}

// TLSConfig is for the xDS and CA port: TLS 1.3, client certificates are
// verified if given (a first CSR comes with a token instead) against the roots
// of the moment.
func (s *Serving) TLSConfig() *tls.Config {
	base := &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() },
		NextProtos:     []string{"h2"},
	}
	var current atomic.Pointer[rooted]
	out := base.Clone()
	out.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		with := s.ca.signer.Load()
		r := current.Load()
		if r == nil || r.by != with {
			r = &rooted{base.Clone(), with}
			r.ClientCAs = x509.NewCertPool()
			for _, c := range with.roots {
				r.ClientCAs.AddCert(c)
			}
			current.Store(r)
		}
		return r.Config, nil
	}
	return out
}

// rooted is a configuration for the roots of one signer; it lasts, so that sessions can be resumed.
type rooted struct {
	*tls.Config
	by *signer
}

// WebhookTLSConfig is for webhooks: callers are not asked who they are, the API
// server has no certificate of the mesh.
func (s *Serving) WebhookTLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() },
		NextProtos:     []string{"h2", "http/1.1"},
	}
}

// certificate returns the current certificate, renewed at half life and when the CA has another key.
func (s *Serving) certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	with := s.ca.signer.Load()
	if s.cert != nil && s.by == with {
		leaf := s.cert.Leaf
		if s.ca.now().Before(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)) {
			return s.cert, nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := s.ca.sign(with, key.Public(), &x509.Certificate{
		URIs:        []*url.URL{s.id.URL()},
		DNSNames:    s.names,
		IPAddresses: s.ips,
	}, 7*24*time.Hour)
	if err != nil {
		return nil, fmt.Errorf("ca: serving certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	s.cert, s.by = &tls.Certificate{Certificate: append([][]byte{der}, with.chainDER...), PrivateKey: key, Leaf: leaf}, with
	return s.cert, nil
}
