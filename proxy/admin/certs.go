package admin

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"weft.mesh/weft/proxy/identity"
	"weft.mesh/weft/xds"
)

// certs prints Envoy's /certs: our own certificate and the roots.
func (s *Server) certs(w http.ResponseWriter, _ *http.Request) {
	out := []any{}
	if id := s.set.Identity; id != nil {
		if svid, err := id.Current(); err == nil {
			entry := map[string]any{"cert_chain": certDetails(svid.Chain, xds.SecretWorkload), "ca_cert": certDetails(roots(id), xds.SecretRoot)}
			out = append(out, entry)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.set.View().Secrets)) {
		c := s.set.View().Secrets[name]
		if c == nil || c.Certificate == nil {
			continue
		}
		var chain []*x509.Certificate
		for _, der := range c.Certificate.Certificate {
			if x, err := x509.ParseCertificate(der); err == nil {
				chain = append(chain, x)
			}
		}
		out = append(out, map[string]any{"cert_chain": certDetails(chain, name), "ca_cert": []any{}})
	}
	writeJSON(w, map[string]any{"certificates": out})
}

func roots(id *identity.Source) []*x509.Certificate {
	var out []*x509.Certificate
	bundles := id.Bundles()
	for _, td := range slices.Sorted(maps.Keys(bundles)) {
		out = append(out, bundles[td].Roots...)
	}
	return out
}

func certDetails(cs []*x509.Certificate, path string) []any {
	out := []any{}
	for _, c := range cs {
		var sans []any
		for _, u := range c.URIs {
			sans = append(sans, map[string]string{"uri": u.String()})
		}
		for _, d := range c.DNSNames {
			sans = append(sans, map[string]string{"dns": d})
		}
		out = append(out, map[string]any{
			"path": path, "serial_number": fmt.Sprintf("%x", c.SerialNumber), "subject_alt_names": sans,
			"days_until_expiration": fmt.Sprint(max(int64(time.Until(c.NotAfter)/(24*time.Hour)), 0)),
			"valid_from":            c.NotBefore.UTC().Format(time.RFC3339), "expiration_time": c.NotAfter.UTC().Format(time.RFC3339),
		})
	}
	return out
}

// redacted is what stands for a private key, as in Envoy.
var redacted = base64.StdEncoding.EncodeToString([]byte("[redacted]"))

// ownSecrets are the workload's identity in the form of SDS secrets, as Istio's proxies show it.
func (s *Server) ownSecrets() []any {
	id := s.set.Identity
	if id == nil {
		return nil
	}
	svid, err := id.Current()
	if err != nil {
		return nil
	}
	source := func(cs []*x509.Certificate) map[string]string {
		var b []byte
		for _, c := range cs {
			b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		return map[string]string{"inline_bytes": base64.StdEncoding.EncodeToString(b)}
	}
	entry := func(name string, secret map[string]any) any {
		secret["@type"], secret["name"] = xds.SecretType, name
		return map[string]any{"name": name, "version_info": fmt.Sprint(id.Generation()), "last_updated": stamp(svid.Leaf().NotBefore), "secret": secret}
	}
	return []any{
		entry(xds.SecretWorkload, map[string]any{"tls_certificate": map[string]any{
			"certificate_chain": source(svid.Chain), "private_key": map[string]string{"inline_bytes": redacted}}}),
		entry(xds.SecretRoot, map[string]any{"validation_context": map[string]any{"trusted_ca": source(roots(id))}}),
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
