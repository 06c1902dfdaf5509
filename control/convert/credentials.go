package convert

import (
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"weft.mesh/weft/model"
)

// credentials reads the Secrets of a server. They are in the namespace of the workload that
// the Gateway selects, as in Istio; roots for client certificates are in the Secret's -cacert, or beside its certificate.
func (c *conv) credentials(p string, t *networking.ServerTLSSettings, out *model.ServerTLS) {
	names := t.CredentialNames
	path := p + ".credentialNames"
	if t.CredentialName != "" {
		if len(names) > 0 {
			c.fail(CodeExclusive, path, strings.Join(names, ", "), "credentialName and credentialNames say the same", "keep one of them")
		}
		names, path = []string{t.CredentialName}, p+".credentialName"
	}
	for i, n := range names {
		if t.CredentialName == "" {
			path = idx(p+".credentialNames", i)
		}
		if c.secretName(path, n) {
			out.Credentials = append(out.Credentials, model.OwnCredential(n))
		}
	}
	ca, caPath := t.CaCertCredentialName, p+".caCertCredentialName"
	if ca != "" {
		c.secretName(caPath, ca)
	}
	switch t.Mode {
	case networking.ServerTLSSettings_MUTUAL, networking.ServerTLSSettings_OPTIONAL_MUTUAL:
		if ca == "" && len(names) > 0 && t.CaCertificates == "" {
			ca = names[0]
		}
		if ca != "" {
			out.CACredential = model.OwnCredential(strings.TrimSuffix(ca, model.CredentialCASuffix))
		}
	case networking.ServerTLSSettings_SIMPLE:
		if ca != "" {
			c.fail(CodeExclusive, caPath, ca, "mode SIMPLE asks clients for no certificate", "use mode MUTUAL")
		}
	default:
		if len(names) > 0 {
			c.fail(CodeExclusive, path, strings.Join(names, ", "), "mode "+out.Mode+" takes no Secret", "use mode SIMPLE or MUTUAL")
		}
		if ca != "" {
			c.fail(CodeExclusive, caPath, ca, "mode "+out.Mode+" takes no Secret", "use mode MUTUAL")
		}
	}
}

// clientCredential reads the Secret of TLS to servers, which gateways alone have.
func (c *conv) clientCredential(path string, t *networking.ClientTLSSettings, out *model.ClientTLS) {
	switch {
	case t.CredentialName == "":
	case out.Mode == model.TLSDisable || out.Mode == model.TLSIstioMutual:
		c.fail(CodeExclusive, path, t.CredentialName, "mode "+out.Mode+" takes no Secret", "remove it, or use mode SIMPLE or MUTUAL")
	case c.secretName(path, t.CredentialName):
		out.Credential = model.OwnCredential(t.CredentialName)
		c.warn(CodeGatewaySecret, path, t.CredentialName, "gateways alone get Secrets: sidecars make no connection to this host (503)", "send the traffic through a gateway, or use files (clientCertificate, privateKey, caCertificates) for sidecars")
	}
}

// secretName takes the plain name of a Secret: other namespaces, ConfigMaps and other providers are refused.
func (c *conv) secretName(path, name string) bool {
	switch {
	case strings.Contains(name, "://"):
		c.fail(CodeUnsupportedField, path, name, "only Secrets in the namespace of the gateway's workload are supported", "write the Secret's name alone")
	case !isSubdomain(name):
		c.fail(CodeInvalidName, path, name, "this is not the name of a Secret", "use lower-case letters, digits, '-' and '.'")
	default:
		return true
	}
	return false
}
