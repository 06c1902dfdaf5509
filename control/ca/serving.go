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
	"sync"
	"time"

	"weft.mesh/weft/spiffe"
)

// ServerNames are the DNS names of the control plane's certificate.
// Proxies verify the first; the second is what Istio's agents expect.
var ServerNames = []string{"weft.weft-system.svc", "istiod.istio-system.svc"}

// Serving makes and renews the control plane's own certificate.
type Serving struct {
	ca  *CA
	id  spiffe.ID
	ips []net.IP

	mu   sync.Mutex // protects cert
	cert *tls.Certificate
}

// NewServing makes the serving identity spiffe://<td>/ns/weft-system/sa/weft.
func NewServing(c *CA, ips []net.IP) (*Serving, error) {
	id, err := spiffe.New(c.trustDomain, "weft-system", "weft")
	if err != nil {
		return nil, err
	}
	return &Serving{ca: c, id: id, ips: ips}, nil
}

// TLSConfig is for the xDS and CA port: TLS 1.3, client certificates are
// verified if given (a first CSR comes with a token instead).
func (s *Serving) TLSConfig() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.cert)
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() },
		NextProtos:     []string{"h2"},
	}
}

// certificate returns the current certificate, renewed at half life.
func (s *Serving) certificate() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert != nil {
		leaf := s.cert.Leaf
		if s.ca.now().Before(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)) {
			return s.cert, nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := s.ca.sign(key.Public(), &x509.Certificate{
		URIs:        []*url.URL{s.id.URL()},
		DNSNames:    ServerNames,
		IPAddresses: s.ips,
	}, 7*24*time.Hour)
	if err != nil {
		return nil, fmt.Errorf("ca: serving certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	s.cert = &tls.Certificate{Certificate: [][]byte{der, s.ca.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return s.cert, nil
}
