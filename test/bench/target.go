package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"weft.mesh/weft/spiffe"
)

const dialTimeout = 5 * time.Second

// target is where a load goes, and how.
type target struct {
	addr string
	tls  *tls.Config // nil: plaintext
}

// dial connects and, where TLS is asked for, shakes hands.
func (t target) dial() (net.Conn, error) {
	c, err := net.DialTimeout("tcp", t.addr, dialTimeout)
	if err != nil || t.tls == nil {
		return c, err
	}
	s := tls.Client(c, t.tls)
	s.SetDeadline(time.Now().Add(answerTimeout))
	if err := s.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	s.SetDeadline(time.Time{})
	return s, nil
}

// clientTLS is what an mTLS client of a kind offers to a peer's server end: TLS 1.3, P-256 for
// key exchange and signatures, and no session to resume.
func (e *env) clientTLS(p *peer, account, kind string) (*tls.Config, error) {
	cert, key, roots := e.clientFiles(p, account)
	return tlsClient(cert, key, roots, kind)
}

// clientFiles are the certificate and key of an account, and the roots, as a peer trusts them.
func (e *env) clientFiles(p *peer, account string) (cert, key, roots string) {
	prefix, roots := "", filepath.Join(e.dir, "root.crt")
	if p.weft {
		prefix, roots = "mesh-", e.mesh.roots
	}
	base := filepath.Join(e.dir, prefix+account)
	return base + ".crt", base + ".key", roots
}

func tlsClient(cert, key, roots, kind string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(roots)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	c := &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.CurveP256},
		NextProtos: []string{"istio-http/1.1", "http/1.1"}, ServerName: serverAccount, SessionTicketsDisabled: true,
		InsecureSkipVerify: true, // the name is a SPIFFE ID: VerifyConnection checks it
	}
	if downH2(kind) {
		c.NextProtos = []string{"istio-h2", "h2"}
	}
	c.VerifyConnection = func(s tls.ConnectionState) error { return verifyServer(s, pool) }
	return c, nil
}

// verifyServer checks the server's chain and identity, and that all peers speak the same TLS.
func verifyServer(s tls.ConnectionState, roots *x509.CertPool) error {
	leaf := s.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return err
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != spiffeID(serverAccount) {
		return fmt.Errorf("the server is %v, want %s", leaf.URIs, spiffeID(serverAccount))
	}
	if k, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return fmt.Errorf("the server's key is a %T, want ECDSA P-256", leaf.PublicKey)
	}
	if s.Version != tls.VersionTLS13 || s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 || s.DidResume {
		return fmt.Errorf("%s with %s (resumed: %v), want a full handshake of TLS 1.3 with AES-128-GCM",
			tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.DidResume)
	}
	return nil
}

// writeClient issues an account's certificate from the mesh's authority, as files like writeLeaf's.
func (m *mesh) writeClient(dir, account string) error {
	id, err := spiffe.Parse(spiffeID(account))
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	chain, err := m.authority.SignCSR(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), id, time.Hour)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	base := filepath.Join(dir, "mesh-"+account)
	if err := os.WriteFile(base+".crt", []byte(chain[0]), 0o600); err != nil {
		return err
	}
	return writePEM(base+".key", &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// withCurves offers these key exchanges.
func (t target) withCurves(curves ...tls.CurveID) target {
	c := t.tls.Clone()
	c.CurvePreferences = slices.Clone(curves)
	t.tls = c
	return t
}
