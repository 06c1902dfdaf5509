package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	security "istio.io/api/security/v1alpha1"

	"weft.mesh/weft/spiffe"
)

// DefaultServerName is a name in the control plane's serving certificate.
const DefaultServerName = "weft.weft-system.svc"

const (
	callTimeout = 10 * time.Second
	maxResponse = 1 << 20 // bytes of a CreateCertificate response
	maxToken    = 64 << 10
)

// CA says how to reach the certificate authority.
type CA struct {
	// Address is host:port of the IstioCertificateService.
	Address string
	// Roots verify the server until the first certificate came; afterwards the served roots count too.
	Roots *x509.CertPool
	// RootsNow, if set, is asked instead of Roots at each connection: for a file that changes.
	RootsNow func() *x509.CertPool
	// ServerName is the DNS name the server must prove; default [DefaultServerName].
	ServerName string
	// Token returns the bearer token for the first certificate; it is asked for each try.
	// nil: only the current certificate authenticates.
	Token func() (string, error)
	// ClusterID is sent as metadata; may be empty.
	ClusterID string
	// Dial opens the TCP connection (socket mark); nil: an ordinary dial.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

func (c *CA) check() error {
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return fmt.Errorf("identity: certificate authority address %q: %w", c.Address, err)
	}
	if c.Roots == nil && c.RootsNow == nil {
		return errors.New("identity: certificate authority: no roots to verify it with")
	}
	return nil
}

func (c *CA) roots() *x509.CertPool {
	if c.RootsNow != nil {
		return c.RootsNow()
	}
	return c.Roots
}

// dialOptions is our dialer, if there is one.
func (c *CA) dialOptions() []grpc.DialOption {
	if c.Dial == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithContextDialer(c.Dial)}
}

// issue gets one certificate. With useToken the bearer token authenticates, else the current SVID.
func (s *Source) issue(ctx context.Context, useToken bool) (err error) {
	ca := s.set.CA
	key, err := s.newKey(useToken)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	csr, err := makeCSR(s.set.ID, key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	creds, err := s.callCredentials(useToken)
	if err != nil {
		return err
	}
	opts := append(ca.dialOptions(), creds...)
	opts = append(opts, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)), grpc.WithDisableServiceConfig(), grpc.WithNoProxy())
	conn, err := grpc.NewClient("passthrough:///"+ca.Address, opts...)
	if err != nil {
		return fmt.Errorf("certificate authority %s: %w", ca.Address, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if ca.ClusterID != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "clusterid", ca.ClusterID)
	}
	res, err := security.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &security.IstioCertificateRequest{
		Csr: string(csr), ValidityDuration: int64(s.set.TTL / time.Second),
	})
	if err != nil {
		return fmt.Errorf("certificate authority %s: create certificate: %w", ca.Address, err)
	}
	if err := s.accept(res.GetCertChain(), key); err != nil {
		return err
	}
	s.joining = nil
	return nil
}

// newKey makes the key of a request. One with a join token keeps its key until it is answered: an answer
// that was lost can be asked for again only by the key that the token was used for.
func (s *Source) newKey(useToken bool) (*ecdsa.PrivateKey, error) {
	if useToken && s.joining != nil {
		return s.joining, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if useToken {
		s.joining = key
	}
	return key, err
}

// accept checks a response, makes it current and saves it.
func (s *Source) accept(pems []string, key crypto.Signer) error {
	certs, err := ParseCertificates([]byte(strings.Join(pems, "\n")))
	if err != nil {
		return fmt.Errorf("response: %w", err)
	}
	chain, roots := split(certs)
	if err := s.install(chain, key, roots, time.Now()); err != nil {
		return fmt.Errorf("response: %w", err)
	}
	return s.save()
}

// save writes the current identity. Roots go first: a root too many is harmless, one too few is not.
func (s *Source) save() error {
	if s.set.Dir == "" {
		return nil
	}
	st := s.cur.Load()
	if err := saveRoots(s.set.Dir, st.bundles[s.set.ID.TrustDomain()].Roots); err != nil {
		return err
	}
	return saveSVID(s.set.Dir, st.svid)
}

func (s *Source) callCredentials(useToken bool) ([]grpc.DialOption, error) {
	if !useToken {
		return []grpc.DialOption{grpc.WithTransportCredentials(s.TransportCredentials())}, nil
	}
	if s.set.CA.Token == nil {
		return nil, errors.New("no join token set and no valid certificate to authenticate with")
	}
	token, err := s.set.CA.Token()
	if err != nil {
		return nil, fmt.Errorf("join token: %w", err)
	}
	token = strings.TrimSpace(token)
	if token == "" || len(token) > maxToken {
		return nil, fmt.Errorf("join token: %d bytes, want 1 to %d", len(token), maxToken)
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(s.clientTLS(false))),
		grpc.WithPerRPCCredentials(bearer(token)),
	}, nil
}

// bearer is a token that only travels over TLS.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// TransportCredentials authenticate us to the control plane by the current
// SVID and verify it by the set roots, or those of our trust domain, and its name. They
// follow renewals: every new connection uses what is current then.
func (s *Source) TransportCredentials() credentials.TransportCredentials {
	return credentials.NewTLS(s.clientTLS(true))
}

// clientTLS verifies the server against the set roots and the served ones.
// The check is a VerifyConnection callback because the roots change at run time;
// it does what crypto/tls would do with RootCAs and ServerName.
func (s *Source) clientTLS(present bool) *tls.Config {
	name := DefaultServerName
	if s.set.CA != nil && s.set.CA.ServerName != "" {
		name = s.set.CA.ServerName
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: name,
		// Verification is done by VerifyConnection below.
		InsecureSkipVerify: true,
		VerifyConnection:   func(cs tls.ConnectionState) error { return s.verifyServer(cs, name) },
	}
	if present {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			svid, err := s.Current()
			if err != nil {
				return nil, err
			}
			return &svid.TLS, nil
		}
	}
	return cfg
}

func (s *Source) verifyServer(cs tls.ConnectionState, name string) error {
	inter := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		inter.AddCert(c)
	}
	opts := x509.VerifyOptions{DNSName: name, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	var errs []error
	if s.set.CA != nil {
		opts.Roots = s.set.CA.roots()
		_, err := cs.PeerCertificates[0].Verify(opts)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if b := s.Bundle(s.set.ID.TrustDomain()); b != nil {
		opts.Roots = b.Pool
		_, err := cs.PeerCertificates[0].Verify(opts)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("control plane: certificate for %s: %w", name, errors.Join(errs...))
}

// makeCSR asks for a certificate whose only name is the SPIFFE ID.
func makeCSR(id spiffe.ID, key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}
