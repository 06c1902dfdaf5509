package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	securityapi "istio.io/api/security/v1alpha1"

	"weft.mesh/weft/spiffe"
)

// maxCSR bounds a certificate request in bytes.
const maxCSR = 16 << 10

// Counters of the service; nil functions are skipped.
type Counters struct {
	CSR    func()              // citadel_server_csr_count
	Issued func()              // citadel_server_success_cert_issuance_count
	Failed func(reason string) // authentication, csr, signing
}

// Service is istio.v1.auth.IstioCertificateService.
type Service struct {
	securityapi.UnimplementedIstioCertificateServiceServer
	CA     *CA
	Tokens *Tokens
	// Attest, if set, finds out who has a bearer token that is no join token:
	// on Kubernetes a service account's. It bounds its own cost.
	Attest   func(ctx context.Context, token string) (spiffe.ID, error)
	Counters Counters
	Log      *slog.Logger
}

// Register adds the service to a gRPC server that requires TLS.
func (s *Service) Register(g *grpc.Server) {
	securityapi.RegisterIstioCertificateServiceServer(g, s)
}

// CreateCertificate signs a CSR for the identity that the caller proves by a
// join token (authorization: Bearer …) or by its current certificate.
func (s *Service) CreateCertificate(ctx context.Context, r *securityapi.IstioCertificateRequest) (*securityapi.IstioCertificateResponse, error) {
	count(s.Counters.CSR)
	if len(r.GetCsr()) > maxCSR {
		return nil, s.refuse("csr", codes.InvalidArgument, fmt.Errorf("csr: %d bytes, at most %d", len(r.GetCsr()), maxCSR))
	}
	if len(r.GetMetadata().GetFields()) > 0 {
		return nil, s.refuse("csr", codes.InvalidArgument, errors.New("request metadata (ImpersonatedIdentity) is not supported"))
	}
	if r.GetValidityDuration() < 0 || r.GetValidityDuration() > int64(MaxTTL/time.Second) {
		return nil, s.refuse("csr", codes.InvalidArgument, fmt.Errorf("validity of %d s: want 0 (default) to %d", r.GetValidityDuration(), int64(MaxTTL/time.Second)))
	}
	// A request that can never be signed must not use a join token up.
	csr, err := parseCSR([]byte(r.GetCsr()))
	if err != nil {
		return nil, s.refuse("csr", codes.InvalidArgument, err)
	}
	id, err := s.caller(ctx, csr.RawSubjectPublicKeyInfo)
	if err != nil {
		return nil, s.refuse("authentication", codes.Unauthenticated, err)
	}
	chain, err := s.CA.SignCSR([]byte(r.GetCsr()), id, time.Duration(r.GetValidityDuration())*time.Second)
	if err != nil {
		return nil, s.refuse("signing", codes.InvalidArgument, err)
	}
	count(s.Counters.Issued)
	s.Log.Info("ca: signed", "identity", id.String())
	return &securityapi.IstioCertificateResponse{CertChain: chain}, nil
}

func (s *Service) refuse(reason string, c codes.Code, err error) error {
	if s.Counters.Failed != nil {
		s.Counters.Failed(reason)
	}
	s.Log.Warn("ca: request refused", "reason", reason, "error", err)
	return status.Error(c, err.Error())
}

func (s *Service) caller(ctx context.Context, publicKey []byte) (spiffe.ID, error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get("authorization"); len(v) > 0 {
			tok, isBearer := strings.CutPrefix(v[0], "Bearer ")
			if len(v) != 1 || !isBearer {
				return spiffe.ID{}, errors.New("authorization: want one value of the form Bearer <token>")
			}
			if s.Attest != nil && strings.Count(tok, ".") == 2 { // a JWT; join tokens have no dot
				return s.attest(ctx, tok)
			}
			return s.Tokens.Redeem(tok, publicKey)
		}
	}
	id, err := PeerID(ctx, s.CA.trustDomain)
	if err == nil && id.IsZero() {
		return id, errors.New("no token and no client certificate")
	}
	return id, err
}

// attest asks who has a token, and takes no identity of another trust domain.
func (s *Service) attest(ctx context.Context, token string) (spiffe.ID, error) {
	id, err := s.Attest(ctx, token)
	if err == nil && id.TrustDomain() != s.CA.trustDomain {
		err = fmt.Errorf("token of trust domain %q, want %q", id.TrustDomain(), s.CA.trustDomain)
	}
	return id, err
}

// PeerID is the SPIFFE ID of a gRPC call's verified client certificate, zero
// without one. An identity of another trust domain is an error.
func PeerID(ctx context.Context, trustDomain string) (spiffe.ID, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return spiffe.ID{}, errors.New("no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return spiffe.ID{}, nil
	}
	return peerID(info.State.VerifiedChains[0][0], trustDomain)
}

func peerID(leaf *x509.Certificate, trustDomain string) (spiffe.ID, error) {
	id, err := spiffe.FromCertificate(leaf)
	if err != nil {
		return spiffe.ID{}, err
	}
	if td := id.TrustDomain(); td != trustDomain {
		return spiffe.ID{}, fmt.Errorf("client certificate of trust domain %q, want %q", td, trustDomain)
	}
	return id, nil
}

func count(f func()) {
	if f != nil {
		f()
	}
}
