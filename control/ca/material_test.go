package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	securityapi "istio.io/api/security/v1alpha1"

	"weft.mesh/weft/spiffe"
)

// plugged is an intermediate with an RSA key in PKCS#1, as Istio's cacerts have it.
func plugged(t *testing.T, root Material, notAfter time.Time) Material {
	t.Helper()
	rs, err := root.parse(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "intermediate"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, rs.cert, key.Public(), rs.key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return Material{Key: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), Cert: cert, Chain: append(cert, root.Cert...), Roots: root.Cert}
}

func generated(t *testing.T) Material {
	t.Helper()
	m, err := Generate("cluster.local", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAPluggedInIntermediateSignsAndItsChainGoesAlong(t *testing.T) {
	root := generated(t)
	c, err := New("cluster.local", plugged(t, root, time.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	id := mustID(t, "spiffe://cluster.local/ns/default/sa/a")
	chain, err := c.SignCSR(csr(t, ecKey(t, elliptic.P256()), nil), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) != 3 || chain[2] != string(root.Cert) || string(c.Roots()) != string(root.Cert) {
		t.Fatalf("chain of %d, want leaf, intermediate and root", len(chain))
	}
	leaf, err := parseCerts("leaf", []byte(chain[0]))
	if err != nil {
		t.Fatal(err)
	}
	if leaf[0].NotAfter.After(time.Now().Add(time.Hour)) {
		t.Error("the certificate outlives its CA")
	}
	s, err := NewServing(c, nil, "weft-canary.weft-system.svc")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := s.certificate()
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.Leaf.VerifyHostname("weft-canary.weft-system.svc"); err != nil || len(cert.Certificate) != 3 {
		t.Errorf("%v, chain of %d", err, len(cert.Certificate))
	}
}

func TestAnAuthorityThatExpiresWhileItRunsSignsNoMore(t *testing.T) {
	c, err := New("cluster.local", plugged(t, generated(t), time.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	id := mustID(t, "spiffe://cluster.local/ns/default/sa/a")
	request := csr(t, ecKey(t, elliptic.P256()), nil)
	if _, err := c.SignCSR(request, id, 0); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	if _, err := c.SignCSR(request, id, 0); err == nil || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("error %v, want that the CA has expired", err)
	}
}

func TestMaterialThatCannotSignIsRefusedAndTheLastGoodServes(t *testing.T) {
	good, other := generated(t), generated(t)
	c, err := New("cluster.local", good)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		m    Material
		want string
	}{
		"another's certificate": {Material{Key: good.Key, Cert: other.Cert}, "does not belong to the key"},
		"no key":                {Material{Cert: good.Cert}, "holds no PEM block"},
		"garbage for a key":     {Material{Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), Cert: good.Cert}, "none of PKCS#8"},
		"no certificate":        {Material{Key: good.Key}, "holds no PEM block CERTIFICATE"},
		"another root":          {func() Material { m := plugged(t, good, time.Now().Add(time.Hour)); m.Roots = other.Cert; return m }(), "does not lead to the root"},
		"expired":               {plugged(t, good, time.Now().Add(-time.Minute)), "expired at"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := c.Replace(tt.m); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want it to say %q", err, tt.want)
			}
			if string(c.Roots()) != string(good.Cert) {
				t.Fatal("the good root is gone")
			}
		})
	}
}

func TestReplacedRootsAreTheRootsOfNewConnections(t *testing.T) {
	a, b := generated(t), generated(t)
	c, err := New("cluster.local", a)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServing(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	conf := s.TLSConfig()
	first, _ := conf.GetConfigForClient(nil)
	if again, _ := conf.GetConfigForClient(nil); again != first {
		t.Error("a new configuration for each connection: no session is ever resumed")
	}
	before, _ := s.certificate()
	if err := c.Replace(b); err != nil {
		t.Fatal(err)
	}
	after, err := s.certificate()
	if err != nil || after == before {
		t.Errorf("the serving certificate is still the old root's: %v", err)
	}
	second, _ := conf.GetConfigForClient(nil)
	if second == first || second.ClientCAs.Equal(first.ClientCAs) || second.ClientAuth != tls.VerifyClientCertIfGiven || second.MinVersion != tls.VersionTLS13 {
		t.Error("clients are held to the old roots")
	}
}

func TestATokenIsAttested(t *testing.T) {
	c, err := New("cluster.local", generated(t))
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := OpenTokens("")
	if err != nil {
		t.Fatal(err)
	}
	id := mustID(t, "spiffe://cluster.local/ns/shop/sa/web")
	svc := &Service{CA: c, Tokens: tokens, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Attest: func(_ context.Context, token string) (spiffe.ID, error) {
		switch token {
		case "good.jwt.x":
			return id, nil
		case "foreign.jwt.x":
			return spiffe.Parse("spiffe://elsewhere/ns/shop/sa/web")
		}
		return spiffe.ID{}, errors.New("token: not authenticated")
	}}
	call := func(token string) error {
		ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("authorization", "Bearer "+token))
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		_, err = svc.CreateCertificate(ctx, &securityapi.IstioCertificateRequest{Csr: string(csr(t, key, nil))})
		return err
	}
	if err := call("good.jwt.x"); err != nil {
		t.Error(err)
	}
	for token, want := range map[string]string{"bad.jwt.x": "not authenticated", "foreign.jwt.x": "trust domain", "jointoken": "join token is unknown"} {
		if err := call(token); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", token, err, want)
		}
	}
}
