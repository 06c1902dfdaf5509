package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	securityapi "istio.io/api/security/v1alpha1"

	"weft.mesh/weft/spiffe"
)

func mustID(t *testing.T, s string) spiffe.ID {
	t.Helper()
	id, err := spiffe.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func csr(t *testing.T, key any, mutate func(*x509.CertificateRequest)) []byte {
	t.Helper()
	r := &x509.CertificateRequest{}
	if mutate != nil {
		mutate(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func ecKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTheRootIsMadeOnceAndKeptPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	a, err := Open(dir, "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir, "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	if string(a.Roots()) != string(b.Roots()) {
		t.Error("a second start made another root")
	}
	for _, f := range []string{fileKey, fileCert} {
		st, err := os.Stat(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o, want 0600", f, st.Mode().Perm())
		}
	}
	if err := os.Chmod(filepath.Join(dir, fileKey), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, "cluster.local"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: err = %v, want advice to chmod", err)
	}
}

func TestASignedCertificateIsAnSVID(t *testing.T) {
	c, err := Open(t.TempDir(), "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	id := mustID(t, "spiffe://cluster.local/ns/default/sa/reviews")
	key := ecKey(t, elliptic.P256())
	chain, err := c.SignCSR(csr(t, key, func(r *x509.CertificateRequest) { r.URIs = []*url.URL{id.URL()} }), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) != 2 || chain[1] != string(c.Roots()) {
		t.Fatalf("chain of %d, want leaf and root", len(chain))
	}
	b, _ := pem.Decode([]byte(chain[0]))
	leaf, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := spiffe.FromCertificate(leaf); err != nil || got != id {
		t.Errorf("identity = %v, %v", got, err)
	}
	if len(leaf.Subject.Names) != 0 {
		t.Errorf("subject %v, want none", leaf.Subject)
	}
	critical := false
	for _, e := range leaf.Extensions {
		if e.Id.String() == "2.5.29.17" {
			critical = e.Critical
		}
	}
	if !critical {
		t.Error("the URI name must be critical when the subject is empty")
	}
	if d := leaf.NotAfter.Sub(leaf.NotBefore); d != WorkloadTTL+backdate {
		t.Errorf("lifetime %s, want %s", d, WorkloadTTL+backdate)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c.Root())
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if leaf.IsCA {
		t.Error("a workload got a CA certificate")
	}
}

func TestBadCSRsAreRefused(t *testing.T) {
	c, err := Open(t.TempDir(), "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	id := mustID(t, "spiffe://cluster.local/ns/default/sa/reviews")
	ec := ecKey(t, elliptic.P256())
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skipf("cannot make a weak key here: %v", err)
	}
	broken := csr(t, ec, nil)
	pb, _ := pem.Decode(broken)
	pb.Bytes[len(pb.Bytes)-3] ^= 0xff
	tests := map[string]struct {
		csr  []byte
		want string
	}{
		"no PEM": {[]byte("hello"), "no PEM"},
		"another identity": {csr(t, ec, func(r *x509.CertificateRequest) {
			r.URIs = []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/x/sa/y"}}
		}), "the caller proved"},
		"a DNS name":                     {csr(t, ec, func(r *x509.CertificateRequest) { r.DNSNames = []string{"weft.weft-system.svc"} }), "only one URI"},
		"a weak RSA key":                 {csr(t, weak, nil), "1024 bits"},
		"an unusual curve":               {csr(t, ecKey(t, elliptic.P521()), nil), "P-521"},
		"a signature that does not hold": {pem.EncodeToMemory(pb), "csr"},
		"two documents":                  {append(csr(t, ec, nil), csr(t, ec, nil)...), "after the PEM block"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := c.SignCSR(tt.csr, id, 0); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestAJoinTokenWorksOnceAndExpires(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens.json")
	tk, err := OpenTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	tk.now = func() time.Time { return now }
	id := mustID(t, "spiffe://cluster.local/ns/default/sa/a")
	s, _, err := tk.Issue(id, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(file); strings.Contains(string(b), s) {
		t.Error("the token itself is on disk")
	}
	again, err := OpenTokens(file) // a restart
	if err != nil {
		t.Fatal(err)
	}
	again.now = tk.now
	mine, other := []byte("the key of the pod"), []byte("the key of a thief")
	if got, err := again.Redeem(s, mine); err != nil || got != id {
		t.Fatalf("redeem = %v, %v", got, err)
	}
	if again, err = OpenTokens(file); err != nil { // another restart, which the answer did not outlive
		t.Fatal(err)
	}
	again.now = tk.now
	if _, err := again.Redeem(s, other); !errors.Is(err, ErrToken) {
		t.Errorf("use by another key: err = %v, want ErrToken", err)
	}
	if got, err := again.Redeem(s, mine); err != nil || got != id {
		t.Errorf("the same key, whose answer was lost: %v, %v", got, err)
	}
	late, _, _ := again.Issue(id, time.Minute)
	now = now.Add(time.Minute + 1)
	for _, expired := range []string{late, s} {
		if _, err := again.Redeem(expired, mine); !errors.Is(err, ErrToken) {
			t.Errorf("after expiry: err = %v, want ErrToken", err)
		}
	}
	if _, _, err := again.Issue(id, 48*time.Hour); err == nil {
		t.Error("a token of two days was issued")
	}
}

func TestTheServingCertificateIsRenewedAtHalfLife(t *testing.T) {
	c, err := Open(t.TempDir(), "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	s, err := NewServing(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.certificate()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := s.certificate(); again != first {
		t.Error("renewed without need")
	}
	if err := first.Leaf.VerifyHostname(ServerNames[0]); err != nil {
		t.Error(err)
	}
	now = now.Add(4 * 24 * time.Hour)
	if later, _ := s.certificate(); later == first {
		t.Error("not renewed after half its life")
	}
}

func TestABadRequestDoesNotUseATokenUp(t *testing.T) {
	c, err := Open(t.TempDir(), "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	tk, err := OpenTokens("")
	if err != nil {
		t.Fatal(err)
	}
	id := mustID(t, "spiffe://cluster.local/ns/default/sa/a")
	tok, _, err := tk.Issue(id, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{CA: c, Tokens: tk, Log: slog.New(slog.DiscardHandler)}
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+tok))
	if _, err := s.CreateCertificate(ctx, &securityapi.IstioCertificateRequest{Csr: "nonsense"}); status.Code(err) != codes.InvalidArgument {
		t.Fatalf("err = %v, want InvalidArgument", err)
	}
	good := string(csr(t, ecKey(t, elliptic.P256()), nil))
	if _, err := s.CreateCertificate(ctx, &securityapi.IstioCertificateRequest{Csr: good}); err != nil {
		t.Fatalf("the token was used up by a bad request: %v", err)
	}
	if _, err := s.CreateCertificate(ctx, &securityapi.IstioCertificateRequest{Csr: good}); err != nil {
		t.Errorf("the same key once more: %v", err)
	}
	other := string(csr(t, ecKey(t, elliptic.P256()), nil))
	if _, err := s.CreateCertificate(ctx, &securityapi.IstioCertificateRequest{Csr: other}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("use by another key: %v, want Unauthenticated", err)
	}
}
