package translate

import (
	"cmp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// secrets gathers the Secrets that a gateway's listeners and clusters name. What
// cannot be used is not named: whoever needs it does without the chain or the cluster.
type secrets struct {
	s         *Snapshot
	namespace string // of the workload
	made      map[string]*xds.Resource
	rooted    map[string]bool // which of made are roots: a name in SDS is one or the other, and the first counts
}

// mayHaveKeys tells whether a node gets Secrets: it is a gateway that is known in the World, and its stream
// proved the namespace and service account of that workload. What a node says of itself is not enough.
func (v *view) mayHaveKeys() bool {
	const unnamed = "default"
	return v.node.Type == xds.Router && v.node.Verified && v.known &&
		cmp.Or(v.workload.ServiceAccount, unnamed) == cmp.Or(v.node.Metadata.ServiceAccount, unnamed)
}

// needsRight tells whether a Secret is one of Istio's credentialName: no Gateway of the Gateway API refers to it, so that the
// workload's account must be one that may read it. Roots are no secret.
func (x *secrets) needsRight(r *xds.Resource) bool {
	return !x.rooted[r.Name] && strings.HasPrefix(r.Name, model.OwnCredentialPrefix)
}

// certificates names the usable ones of some credentials, in order.
func (x *secrets) certificates(names []string) []*tlsv3.SdsSecretConfig {
	var out []*tlsv3.SdsSecretConfig
	for _, n := range names {
		if x.certificate(n) {
			out = append(out, sds(n))
		}
	}
	return out
}

// certificate makes a credential's certificate and key; false if there are none that fit each other.
func (x *secrets) certificate(name string) bool {
	if x.made[name] != nil {
		return !x.rooted[name]
	}
	ns, object, ok := model.ParseCredential(name, x.namespace)
	if !ok {
		return false
	}
	s := x.s.world.Secret(ns, object)
	if s == nil || s.Problem != "" || len(s.Cert) == 0 || len(s.Key) == 0 {
		return false
	}
	x.made[name] = x.s.resource(xds.SecretType, name, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(s.Cert), PrivateKey: inline(s.Key)},
	}})
	return true
}

// roots makes the roots of a credential and returns their name; "" if there are none. They are in a Secret of
// their own, whose name ends in -cacert, else beside the certificate. A revocation list that
// nothing here looks at makes them unusable.
func (x *secrets) roots(name string) string {
	ns, object, ok := model.ParseCredential(name, x.namespace)
	if !ok {
		return ""
	}
	name += model.CredentialCASuffix
	if x.rooted[name] {
		return name
	}
	if x.made[name] != nil {
		return ""
	}
	s := x.s.world.Secret(ns, object+model.CredentialCASuffix)
	if s == nil {
		s = x.s.world.Secret(ns, object)
	}
	if s == nil || s.Problem != "" || len(s.CA) == 0 || len(s.CRL) > 0 {
		return ""
	}
	x.made[name] = x.s.resource(xds.SecretType, name, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(s.CA)},
	}})
	x.rooted[name] = true
	return name
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

// serverTLS ends TLS at a gateway's server; nil if what it needs cannot be had, so that nobody is served without it.
func (x *secrets) serverTLS(t *model.ServerTLS, http, weft bool) *corev3.TransportSocket {
	if t.Mode == model.TLSIstioMutual {
		return serverSocket(&tlsv3.DownstreamTlsContext{
			CommonTlsContext: meshContext(serverALPN(http, weft), t.SANs), RequireClientCertificate: boolean(true),
		})
	}
	common := &tlsv3.CommonTlsContext{TlsParams: &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsVersion(t.MinVersion, tlsv3.TlsParameters_TLSv1_2),
		TlsMaximumProtocolVersion: tlsVersion(t.MaxVersion, tlsv3.TlsParameters_TLS_AUTO),
		CipherSuites:              t.CipherSuites,
	}}
	if http {
		common.AlpnProtocols = []string{"h2", "http/1.1"}
	}
	if len(t.Credentials) > 0 {
		common.TlsCertificateSdsSecretConfigs = x.certificates(t.Credentials)
		if len(common.TlsCertificateSdsSecretConfigs) == 0 {
			return nil
		}
	} else {
		common.TlsCertificates = []*tlsv3.TlsCertificate{{CertificateChain: file(t.CertFile), PrivateKey: file(t.KeyFile)}}
	}
	if verifiesClients(t.Mode) && !x.verifyClients(common, t) {
		return nil
	}
	return serverSocket(&tlsv3.DownstreamTlsContext{CommonTlsContext: common, RequireClientCertificate: boolean(t.Mode == model.TLSMutual)})
}

func verifiesClients(mode string) bool {
	return mode == model.TLSMutual || mode == model.TLSOptional || mode == model.TLSInsecureFallback
}

// verifyClients sets what client certificates are verified with; false if there is nothing.
func (x *secrets) verifyClients(common *tlsv3.CommonTlsContext, t *model.ServerTLS) bool {
	v := &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: sanMatchers(t.SANs)}
	if t.Mode == model.TLSInsecureFallback {
		v.TrustChainVerification = tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
	}
	switch {
	case len(t.CABundle) > 0:
		v.TrustedCa = inline(t.CABundle)
	case t.CAFile != "":
		v.TrustedCa = file(t.CAFile)
	case t.CACredential != "":
		name := x.roots(t.CACredential)
		if name == "" {
			return false
		}
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: v, ValidationContextSdsSecretConfig: sds(name),
			},
		}
		return true
	default:
		return false
	}
	common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
	return true
}
