package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/identity"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/spiffe"
)

// DefaultHandshakeTimeout bounds a server's handshake (Envoy's transport_socket_connect_timeout in Istio is 15 s).
const DefaultHandshakeTimeout = 15 * time.Second

// ServerSettings of a [Server].
type ServerSettings struct {
	// Identity is needed for chains that serve the workload's SVID; may be nil.
	Identity *identity.Source
	// Secret looks up a certificate that was delivered by name; may be nil.
	Secret func(name string) *config.Secret
}

// Server terminates TLS.
type Server struct {
	set   ServerSettings
	cache tlsCache
}

// NewServer makes a server.
func NewServer(set ServerSettings) *Server { return &Server{set: set} }

// ServerConfig returns the tls.Config for a chain's settings. What it serves is decided when
// a client comes: the current SVID, bundle or secret, so that renewals need no new listener.
func (s *Server) ServerConfig(down *config.DownstreamTLS) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			cfg, err := s.current(down)
			if err != nil || cfg.GetConfigForClient == nil {
				return cfg, err
			}
			if other, err := cfg.GetConfigForClient(h); other != nil || err != nil {
				return other, err
			}
			return cfg, nil
		},
		// Asked only if GetConfigForClient did not decide, which it always does.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return nil, errors.New("no certificate")
		},
	}
}

// Handshake terminates TLS on c and fills in info. timeout zero: [DefaultHandshakeTimeout].
func (s *Server) Handshake(ctx context.Context, c *netio.Conn, down *config.DownstreamTLS, timeout time.Duration, info *stream.ConnInfo) error {
	if timeout <= 0 {
		timeout = DefaultHandshakeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cfg, err := s.current(down)
	if err != nil {
		return s.fail("tls", err)
	}
	if err := c.StartTLSServer(ctx, cfg); err != nil {
		return s.fail("handshake", err)
	}
	cs := c.TLSState()
	info.TLS, info.SNI, info.ALPN = true, cs.ServerName, cs.NegotiatedProtocol
	if len(cs.PeerCertificates) > 0 && down.AcceptUntrusted {
		info.PeerUntrusted = verifyClient(cs.PeerCertificates, false, nil, down.ClientCAs) != nil
	}
	if len(cs.PeerCertificates) > 0 && !info.PeerUntrusted {
		if id, err := spiffe.FromCertificate(cs.PeerCertificates[0]); err == nil {
			info.PeerID, info.Met = id, new(stream.Meeting)
		}
	}
	if down.Workload && s.set.Identity != nil {
		info.LocalID = s.set.Identity.ID()
	}
	return nil
}

func (s *Server) fail(op string, err error) error {
	return &stream.Error{Side: stream.Downstream, Op: op, Flag: stream.FlagDownstreamTermination, Timeout: netio.IsTimeout(err), Reset: netio.IsReset(err), Err: err}
}

// secretKey makes a secret part of the cache's key.
type secretKey struct {
	down   *config.DownstreamTLS
	secret *config.Secret
}

// current returns the tls.Config of this moment.
func (s *Server) current(down *config.DownstreamTLS) (*tls.Config, error) {
	key := secretKey{down: down}
	if down.Secret != "" && !down.Workload {
		if s.set.Secret != nil {
			key.secret = s.set.Secret(down.Secret)
		}
		if key.secret == nil || key.secret.Certificate == nil {
			return nil, fmt.Errorf("secret %q: no certificate was delivered", down.Secret)
		}
	}
	var gen uint64
	if down.Workload {
		if s.set.Identity == nil {
			return nil, errors.New("this proxy has no workload identity")
		}
		gen = s.set.Identity.Generation()
		if _, err := s.set.Identity.Current(); err != nil {
			return nil, err
		}
	}
	if cfg := s.cache.get(key, gen); cfg != nil {
		return cfg, nil
	}
	cfg, err := s.build(down, key.secret)
	if err != nil {
		return nil, err
	}
	s.cache.put(key, gen, cfg)
	return cfg, nil
}

func (s *Server) build(down *config.DownstreamTLS, secret *config.Secret) (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion: down.MinVersion, MaxVersion: down.MaxVersion, CipherSuites: down.CipherSuites,
		NextProtos:                  slices.Clone(down.ALPN),
		DynamicRecordSizingDisabled: true,
	}
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS12
		if down.Workload {
			cfg.MinVersion = tls.VersionTLS13
		}
	}
	var bundles map[string]*identity.Bundle
	switch {
	case down.Workload:
		svid, err := s.set.Identity.Current()
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{svid.TLS}
		bundles = s.set.Identity.Bundles()
	case secret != nil:
		cfg.Certificates = []tls.Certificate{*secret.Certificate}
	default:
		cfg.Certificates = down.Certificates
	}
	if len(cfg.Certificates) == 0 {
		return nil, errors.New("downstream tls: no certificate is configured")
	}
	if err := s.verifyClients(cfg, down, secret, bundles); err != nil {
		return nil, err
	}
	tolerateALPN(cfg)
	return cfg, nil
}

// tolerateALPN lets clients in that offer only protocols which the chain does not
// name; nothing is negotiated then. crypto/tls alone would end the handshake
// (RFC 7301 section 3.2), Envoy does not, and configurations rely on it: Istio's
// clients offer "istio" to servers that never name it.
func tolerateALPN(cfg *tls.Config) {
	if len(cfg.NextProtos) == 0 {
		return
	}
	known, without := cfg.NextProtos, cfg.Clone()
	without.NextProtos = nil
	cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(h.SupportedProtos) == 0 || slices.ContainsFunc(h.SupportedProtos, func(p string) bool { return slices.Contains(known, p) }) {
			return nil, nil // as it is
		}
		return without, nil
	}
}

// verifyClients sets how client certificates are asked for and checked. crypto/tls
// itself only asks: the check needs the trust domain of the certificate.
func (s *Server) verifyClients(cfg *tls.Config, down *config.DownstreamTLS, secret *config.Secret, bundles map[string]*identity.Bundle) error {
	cas := down.ClientCAs
	if cas == nil && secret != nil {
		cas = secret.Roots
	}
	switch {
	case down.RequireClient:
		cfg.ClientAuth = tls.RequireAnyClientCert
	case cas != nil:
		cfg.ClientAuth = tls.RequestClientCert
	default:
		return nil // nobody is asked
	}
	if cas == nil && !down.Workload {
		return errors.New("downstream tls: client certificates are required but there are no roots to verify them with")
	}
	cfg.SessionTicketsDisabled = true
	if down.AcceptUntrusted { // judged after the handshake, see Handshake
		return nil
	}
	sans, require, workload := down.SANs, down.RequireClient, down.Workload && down.ClientCAs == nil
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			if require {
				return errors.New("verify client: no certificate")
			}
			return nil
		}
		if err := verifyClient(cs.PeerCertificates, workload, bundles, cas); err != nil {
			return fmt.Errorf("verify client: %w", err)
		}
		if err := matchSANs(cs.PeerCertificates[0], sans); err != nil {
			return fmt.Errorf("verify client: %w", err)
		}
		return nil
	}
	return nil
}

func verifyClient(chain []*x509.Certificate, workload bool, bundles map[string]*identity.Bundle, cas *x509.CertPool) error {
	if workload {
		_, err := verifySVID(chain, bundles, x509.ExtKeyUsageClientAuth)
		return err
	}
	return verifyChain(chain, cas, "", x509.ExtKeyUsageClientAuth)
}
