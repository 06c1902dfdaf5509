package compile

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/xds"
)

const (
	typeRawBuffer     = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
	typeUpstreamTLS   = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
	typeDownstreamTLS = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
)

// maxCertSecrets bounds the certificates of one server: a handshake looks at each.
const maxCertSecrets = 256

// tlsCommon is what both directions share, with the names of secrets that still have to come.
type tlsCommon struct {
	workloadCert bool
	workloadRoot bool
	certSecrets  []string // SDS names other than "default"
	rootSecret   string   // SDS name other than "ROOTCA"
	certs        []tls.Certificate
	roots        *x509.CertPool
	systemRoots  bool
	validate     bool // there is a validation context with something to verify against
	unverified   bool // ACCEPT_UNTRUSTED
	sans         []config.SANMatch
	alpn         []string
	min, max     uint16
	suites       []uint16
}

// names lists the SDS secrets that must be there before the context can be used.
func (t *tlsCommon) names() []string {
	n := slices.Clone(t.certSecrets)
	if t.rootSecret != "" {
		n = append(n, t.rootSecret)
	}
	return n
}

func (c *Compiler) tlsCommon(x *tlsv3.CommonTlsContext) (*tlsCommon, error) {
	t := &tlsCommon{alpn: x.GetAlpnProtocols()}
	var err error
	if t.min, err = tlsVersion("tls_params.tls_minimum_protocol_version", x.GetTlsParams().GetTlsMinimumProtocolVersion()); err != nil {
		return nil, err
	}
	if t.max, err = tlsVersion("tls_params.tls_maximum_protocol_version", x.GetTlsParams().GetTlsMaximumProtocolVersion()); err != nil {
		return nil, err
	}
	if t.min != 0 && t.max != 0 && t.min > t.max {
		return nil, bad("tls_params", tls.VersionName(t.min)+" > "+tls.VersionName(t.max), "the minimum is above the maximum")
	}
	if t.suites, err = cipherSuites(x.GetTlsParams().GetCipherSuites()); err != nil {
		return nil, at("tls_params.cipher_suites", err)
	}
	if err := c.ownCerts(t, x); err != nil {
		return nil, err
	}
	return t, c.validation(t, x)
}

func tlsVersion(path string, p tlsv3.TlsParameters_TlsProtocol) (uint16, error) {
	switch p {
	case tlsv3.TlsParameters_TLS_AUTO:
		return 0, nil
	case tlsv3.TlsParameters_TLSv1_2:
		return tls.VersionTLS12, nil
	case tlsv3.TlsParameters_TLSv1_3:
		return tls.VersionTLS13, nil
	}
	return 0, bad(path, p, "want TLSv1_2 or TLSv1_3")
}

func (c *Compiler) ownCerts(t *tlsCommon, x *tlsv3.CommonTlsContext) error {
	sds := x.GetTlsCertificateSdsSecretConfigs()
	if len(sds) > 0 && len(x.GetTlsCertificates()) > 0 {
		return bad("tls_certificate_sds_secret_configs", len(sds), "certificates come from secrets or are inline, not both")
	}
	if len(sds) > maxCertSecrets {
		return bad("tls_certificate_sds_secret_configs", len(sds), "at most %d", maxCertSecrets)
	}
	for i, s := range sds {
		path := fmt.Sprintf("tls_certificate_sds_secret_configs[%d]", i)
		if s.GetName() == xds.SecretWorkload {
			if len(sds) > 1 {
				return bad(path+".name", s.GetName(), "the workload's certificate stands alone")
			}
			t.workloadCert = true
			continue
		}
		if s.GetName() == "" {
			return missing(path+".name", "want the name of a secret")
		}
		if err := overADS(path+".sds_config", s.GetSdsConfig()); err != nil {
			return err
		}
		t.certSecrets = append(t.certSecrets, s.GetName())
	}
	for i, cert := range x.GetTlsCertificates() {
		k, err := c.keyPair(cert)
		if err != nil {
			return index("tls_certificates", i, err)
		}
		t.certs = append(t.certs, *k)
	}
	return nil
}

func (c *Compiler) keyPair(x *tlsv3.TlsCertificate) (*tls.Certificate, error) {
	chain, err := c.dataSource("certificate_chain", x.GetCertificateChain())
	if err != nil {
		return nil, err
	}
	key, err := c.dataSource("private_key", x.GetPrivateKey())
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil { // the text of X509KeyPair's errors holds no key material
		return nil, at("certificate_chain", fmt.Errorf("certificate and key: %w", err))
	}
	return &pair, nil
}

func (c *Compiler) validation(t *tlsCommon, x *tlsv3.CommonTlsContext) error {
	switch v := x.GetValidationContextType().(type) {
	case nil:
		return nil
	case *tlsv3.CommonTlsContext_ValidationContext:
		return at("validation_context", c.validationContext(t, v.ValidationContext))
	case *tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig:
		return at("validation_context_sds_secret_config", rootSecret(t, v.ValidationContextSdsSecretConfig))
	case *tlsv3.CommonTlsContext_CombinedValidationContext:
		d := v.CombinedValidationContext
		if err := c.validationContext(t, d.GetDefaultValidationContext()); err != nil {
			return at("combined_validation_context.default_validation_context", err)
		}
		if t.roots != nil || t.systemRoots {
			return bad("combined_validation_context.default_validation_context.trusted_ca", "set", "roots come from the secret; remove it")
		}
		return at("combined_validation_context.validation_context_sds_secret_config", rootSecret(t, d.GetValidationContextSdsSecretConfig()))
	}
	return bad("validation_context_type", fmt.Sprintf("%T", x.GetValidationContextType()), "not supported")
}

func rootSecret(t *tlsCommon, s *tlsv3.SdsSecretConfig) error {
	t.validate = true
	if s.GetName() == xds.SecretRoot {
		t.workloadRoot = true
		return nil
	}
	if s.GetName() == "" {
		return missing("name", "want the name of a secret")
	}
	t.rootSecret = s.GetName()
	return overADS("sds_config", s.GetSdsConfig())
}

func (c *Compiler) validationContext(t *tlsCommon, v *tlsv3.CertificateValidationContext) error {
	switch v.GetTrustChainVerification() {
	case tlsv3.CertificateValidationContext_VERIFY_TRUST_CHAIN:
	case tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED:
		t.unverified = true
	default:
		return bad("trust_chain_verification", v.GetTrustChainVerification(), "unknown")
	}
	if v.GetTrustedCa() != nil {
		pool, err := c.rootPool("trusted_ca", v.GetTrustedCa())
		if err != nil {
			return err
		}
		t.roots, t.validate = pool, true
	}
	if v.GetSystemRootCerts() != nil {
		t.systemRoots, t.validate = true, true
	}
	for i, m := range v.GetMatchTypedSubjectAltNames() {
		s, err := sanMatch(m)
		if err != nil {
			return index("match_typed_subject_alt_names", i, err)
		}
		t.sans = append(t.sans, s)
	}
	return nil
}

func (c *Compiler) rootPool(path string, d *corev3.DataSource) (*x509.CertPool, error) {
	pem, err := c.dataSource(path, d)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, at(path, fmt.Errorf("no certificate in %d bytes of PEM", len(pem)))
	}
	return pool, nil
}

func sanMatch(m *tlsv3.SubjectAltNameMatcher) (config.SANMatch, error) {
	var s config.SANMatch
	switch m.GetSanType() {
	case tlsv3.SubjectAltNameMatcher_URI:
		s.Kind = config.SANURI
	case tlsv3.SubjectAltNameMatcher_DNS:
		s.Kind = config.SANDNS
	default:
		return s, bad("san_type", m.GetSanType(), "want URI or DNS")
	}
	var err error
	s.Match, err = stringMatch("matcher", m.GetMatcher())
	return s, err
}

// upstreamTLS reads a cluster's transport socket; nil without error is plaintext.
func (c *Compiler) upstreamTLS(s *corev3.TransportSocket) (*pendingUpstreamTLS, error) {
	if s == nil {
		return nil, nil
	}
	switch s.GetTypedConfig().MessageName() {
	case typeRawBuffer:
		return nil, unpack(s.GetTypedConfig(), new(rawv3.RawBuffer))
	case typeUpstreamTLS:
	default:
		return nil, bad("typed_config.type_url", s.GetTypedConfig().GetTypeUrl(), "transport socket not supported; want UpstreamTlsContext or RawBuffer")
	}
	var x tlsv3.UpstreamTlsContext
	if err := unpack(s.GetTypedConfig(), &x); err != nil {
		return nil, err
	}
	t, err := c.tlsCommon(x.GetCommonTlsContext())
	if err != nil {
		return nil, at("typed_config.common_tls_context", err)
	}
	if t.workloadCert != t.workloadRoot {
		return nil, bad("typed_config.common_tls_context", "default without ROOTCA or the reverse",
			"the workload's identity (SDS %q) and the mesh's roots (SDS %q) go together", xds.SecretWorkload, xds.SecretRoot)
	}
	u := &config.UpstreamTLS{
		Workload: t.workloadCert, SNI: x.GetSni(), ALPN: t.alpn, SANs: t.sans, RootCAs: t.roots, Certificates: t.certs,
		MinVersion: t.min, MaxVersion: t.max, CipherSuites: t.suites, AutoSNI: x.GetAutoHostSni(),
		// Envoy verifies nothing without a validation context.
		Insecure: !t.validate || t.unverified,
	}
	if u.Workload && t.unverified {
		return nil, bad("typed_config.common_tls_context", "ACCEPT_UNTRUSTED", "peers of the mesh are always verified")
	}
	if u.Insecure && len(u.SANs) > 0 {
		return nil, bad("typed_config.common_tls_context.validation_context.match_typed_subject_alt_names", len(u.SANs),
			"names of an unverified certificate prove nothing; set trusted_ca")
	}
	if len(t.certSecrets) > 1 {
		return nil, bad("typed_config.common_tls_context.tls_certificate_sds_secret_configs", len(t.certSecrets), "a client presents one certificate")
	}
	return &pendingUpstreamTLS{tls: u, certs: t.certSecrets, root: t.rootSecret}, nil
}

// pendingUpstreamTLS is a TLS context whose secrets may still have to come.
type pendingUpstreamTLS struct {
	tls   *config.UpstreamTLS
	certs []string
	root  string
}

func (p *pendingUpstreamTLS) names() []string {
	if p == nil {
		return nil
	}
	return (&tlsCommon{certSecrets: p.certs, rootSecret: p.root}).names()
}

// resolve fills in secrets.
func (p *pendingUpstreamTLS) resolve(secrets map[string]*config.Secret) *config.UpstreamTLS {
	if p == nil {
		return nil
	}
	if len(p.certs) == 0 && p.root == "" {
		return p.tls
	}
	t := *p.tls
	if len(p.certs) > 0 {
		t.Certificates = certificates(p.certs, secrets)
	}
	if s := secrets[p.root]; s != nil {
		t.RootCAs = s.Roots
	}
	if p.root != "" && t.RootCAs == nil {
		t.RootCAs = x509.NewCertPool() // fail closed: nobody is trusted, not the system's roots
	}
	return &t
}

// pendingDownstreamTLS is a server context whose secrets may still have to come.
type pendingDownstreamTLS struct {
	tls   *config.DownstreamTLS
	certs []string
	root  string
}

func (p *pendingDownstreamTLS) names() []string {
	if p == nil {
		return nil
	}
	return (&tlsCommon{certSecrets: p.certs, rootSecret: p.root}).names()
}

// certificates are those of the secrets that are there, in order.
func certificates(names []string, secrets map[string]*config.Secret) []tls.Certificate {
	var out []tls.Certificate
	for _, n := range names {
		if s := secrets[n]; s != nil && s.Certificate != nil {
			out = append(out, *s.Certificate)
		}
	}
	return out
}

func (p *pendingDownstreamTLS) resolve(secrets map[string]*config.Secret) *config.DownstreamTLS {
	if p == nil {
		return nil
	}
	if len(p.certs) == 0 && p.root == "" {
		return p.tls
	}
	t := *p.tls
	if len(p.certs) > 0 {
		t.Certificates = certificates(p.certs, secrets)
	}
	if p.root != "" {
		t.ClientCAs = x509.NewCertPool() // fail closed without the secret
		if s := secrets[p.root]; s != nil && s.Roots != nil {
			t.ClientCAs = s.Roots
		}
	}
	return &t
}

// downstreamTLS reads a filter chain's transport socket; nil without error is plaintext.
func (c *Compiler) downstreamTLS(s *corev3.TransportSocket) (*pendingDownstreamTLS, error) {
	if s == nil {
		return nil, nil
	}
	switch s.GetTypedConfig().MessageName() {
	case typeRawBuffer:
		return nil, unpack(s.GetTypedConfig(), new(rawv3.RawBuffer))
	case typeDownstreamTLS:
	default:
		return nil, bad("typed_config.type_url", s.GetTypedConfig().GetTypeUrl(), "transport socket not supported; want DownstreamTlsContext or RawBuffer")
	}
	var x tlsv3.DownstreamTlsContext
	if err := unpack(s.GetTypedConfig(), &x); err != nil {
		return nil, err
	}
	t, err := c.tlsCommon(x.GetCommonTlsContext())
	if err != nil {
		return nil, at("typed_config.common_tls_context", err)
	}
	d := &config.DownstreamTLS{
		Workload: t.workloadCert, Certificates: t.certs, ClientCAs: t.roots, AcceptUntrusted: t.unverified,
		RequireClient: x.GetRequireClientCertificate().GetValue(), ALPN: t.alpn, MinVersion: t.min, MaxVersion: t.max,
		CipherSuites: t.suites, SANs: t.sans,
	}
	if err := checkDownstream(t, d); err != nil {
		return nil, at("typed_config.common_tls_context", err)
	}
	if len(t.certSecrets) == 1 { // looked up when a client comes
		d.Secret = t.certSecrets[0]
	}
	return &pendingDownstreamTLS{tls: d, certs: t.certSecrets, root: t.rootSecret}, nil
}

// checkDownstream refuses combinations that would authenticate less than they say.
func checkDownstream(t *tlsCommon, d *config.DownstreamTLS) error {
	switch {
	case !d.Workload && len(t.certSecrets) == 0 && len(d.Certificates) == 0:
		return missing("tls_certificates", "a server needs a certificate")
	case t.workloadRoot && !d.Workload:
		return bad("validation_context_sds_secret_config", xds.SecretRoot, "the mesh's roots are only supported together with the workload's certificate (SDS %q)", xds.SecretWorkload)
	case d.Workload && d.RequireClient && !t.workloadRoot && t.roots == nil && t.rootSecret == "":
		return missing("validation_context", "require_client_certificate needs roots to verify clients with")
	case d.RequireClient && !t.validate:
		return missing("validation_context", "require_client_certificate needs roots to verify clients with")
	case t.systemRoots:
		return bad("validation_context.system_root_certs", "set", "clients are not verified with the system's roots; set trusted_ca")
	case t.unverified && (d.RequireClient || d.Workload || t.workloadRoot || !t.validate || len(d.SANs) > 0):
		return bad("validation_context.trust_chain_verification", "ACCEPT_UNTRUSTED", "clients that need no good certificate are supported with roots of their own,"+
			" without require_client_certificate and without names to match")
	case !d.RequireClient && t.workloadRoot:
		return bad("validation_context_sds_secret_config", xds.SecretRoot, "identities of the mesh are not optional; set require_client_certificate: true or remove the roots")
	case len(d.SANs) > 0 && !t.validate:
		return bad("validation_context.match_typed_subject_alt_names", len(d.SANs), "needs roots to verify clients with")
	}
	return nil
}

// secret compiles one SDS resource.
func (c *Compiler) secret(body []byte) (*config.Secret, error) {
	var x tlsv3.Secret
	if err := decode(body, &x); err != nil {
		return nil, err
	}
	s := &config.Secret{Name: x.GetName()}
	switch v := x.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		k, err := c.keyPair(v.TlsCertificate)
		if err != nil {
			return nil, at("tls_certificate", err)
		}
		s.Certificate = k
	case *tlsv3.Secret_ValidationContext:
		var t tlsCommon
		if err := c.validationContext(&t, v.ValidationContext); err != nil {
			return nil, at("validation_context", err)
		}
		if t.roots == nil || t.unverified || len(t.sans) > 0 {
			return nil, at("validation_context", fmt.Errorf("want trusted_ca and nothing else"))
		}
		s.Roots = t.roots
	default:
		return nil, missing("type", "want tls_certificate or validation_context")
	}
	return s, nil
}
