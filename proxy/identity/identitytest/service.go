package identitytest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	security "istio.io/api/security/v1alpha1"
)

// Service is a fake istio.v1.auth.IstioCertificateService over TLS on a listener.
type Service struct {
	security.UnimplementedIstioCertificateServiceServer
	t testing.TB

	mu sync.Mutex
	// mu protects the following.
	CA         *CA                                                  // signs
	Roots      []*CA                                                // served; empty: CA
	Token      string                                               // accepted bearer token; used up by the first success if OneTime
	Once       bool                                                 // the token works once
	Opts       []Option                                             // of issued certificates
	Answer     func(csr *x509.CertificateRequest) ([]string, error) // replaces the answer
	RefuseMTLS bool                                                 // client certificates do not count
	Down       bool                                                 // every call fails as unavailable
	Calls      []Call
}

// Call is one request as seen by the service.
type Call struct {
	Bearer  string
	Peer    string // SPIFFE ID proved by a client certificate
	Cluster string
	TTL     int64
	Err     error
}

// NewService serves on ln until the test ends, with a certificate of serving for weft.weft-system.svc.
func NewService(t testing.TB, ln net.Listener, serving, ca *CA, names ...string) *Service {
	t.Helper()
	return ServeWith(t, ln, serving, ca, nil, names...)
}

// ServeWith is NewService with further gRPC services on the same listener (ADS); register may be nil.
func ServeWith(t testing.TB, ln net.Listener, serving, ca *CA, register func(*grpc.Server), names ...string) *Service {
	t.Helper()
	if len(names) == 0 {
		names = []string{"weft.weft-system.svc", "istiod.istio-system.svc"}
	}
	s := &Service{t: t, CA: ca}
	cert := serving.Certificate(t, "spiffe://cluster.local/ns/weft-system/sa/weft", DNS(names...), Life(-time.Minute, 10*365*24*time.Hour))
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13,
	})))
	security.RegisterIstioCertificateServiceServer(g, s)
	if register != nil {
		register(g)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(ln)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return s
}

// Set changes the service under its lock.
func (s *Service) Set(f func(*Service)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// Seen returns the calls so far.
func (s *Service) Seen() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.Calls...)
}

// CreateCertificate implements the service.
func (s *Service) CreateCertificate(ctx context.Context, r *security.IstioCertificateRequest) (*security.IstioCertificateResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := Call{TTL: r.GetValidityDuration()}
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("authorization"); len(v) == 1 {
		call.Bearer = v[0]
	}
	if v := md.Get("clusterid"); len(v) == 1 {
		call.Cluster = v[0]
	}
	if p, ok := peer.FromContext(ctx); ok {
		if ti, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(ti.State.PeerCertificates) > 0 {
			call.Peer = ti.State.PeerCertificates[0].URIs[0].String()
		}
	}
	chain, err := s.answer(&call, r.GetCsr())
	call.Err = err
	s.Calls = append(s.Calls, call)
	if err != nil {
		return nil, err
	}
	return &security.IstioCertificateResponse{CertChain: chain}, nil
}

func (s *Service) answer(call *Call, csrPEM string) ([]string, error) {
	block, _ := pem.Decode([]byte(csrPEM))
	if block == nil {
		return nil, status.Error(codes.InvalidArgument, "csr is no PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	switch {
	case s.Down:
		return nil, status.Error(codes.Unavailable, "down")
	case call.Peer != "" && !s.RefuseMTLS:
	case s.Token != "" && call.Bearer == "Bearer "+s.Token:
		if s.Once {
			s.Token = ""
		}
	default:
		return nil, status.Error(codes.Unauthenticated, "bad token")
	}
	if s.Answer != nil {
		return s.Answer(csr)
	}
	if len(csr.URIs) != 1 {
		return nil, status.Error(codes.InvalidArgument, "csr has no URI name")
	}
	leaf := s.CA.Issue(s.t, csr.URIs[0].String(), csr.PublicKey, s.Opts...)
	out := []string{PEM(leaf)}
	roots := s.Roots
	if len(roots) == 0 {
		roots = []*CA{s.CA}
	}
	for _, r := range roots {
		out = append(out, PEM(r.Cert))
	}
	return out, nil
}
