package hcm

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"strings"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// clientCertElement is the element for x-forwarded-client-cert that describes
// the client's certificate, made once for each connection; nil if there is nothing to say.
func clientCertElement(cfg *config.HTTPManager, info *stream.ConnInfo, state *tls.ConnectionState) []byte {
	if len(state.PeerCertificates) == 0 || info.PeerUntrusted || cfg.ForwardClientCert == config.XFCCSanitize || cfg.ForwardClientCert == config.XFCCAlwaysForwardOnly {
		return nil
	}
	leaf := state.PeerCertificates[0]
	var parts []string
	if !info.LocalID.IsZero() {
		parts = append(parts, "By="+info.LocalID.String())
	}
	sum := sha256.Sum256(leaf.Raw)
	parts = append(parts, "Hash="+hex.EncodeToString(sum[:]))
	set := cfg.SetClientCert
	if set.Cert {
		parts = append(parts, `Cert="`+url.QueryEscape(pemOf(leaf))+`"`)
	}
	if set.Chain {
		var b strings.Builder
		for _, c := range state.PeerCertificates {
			b.WriteString(pemOf(c))
		}
		parts = append(parts, `Chain="`+url.QueryEscape(b.String())+`"`)
	}
	if set.Subject {
		parts = append(parts, `Subject="`+quoteEscape(leaf.Subject.String())+`"`)
	}
	if set.URI {
		for _, u := range leaf.URIs {
			parts = append(parts, "URI="+u.String())
		}
	}
	if set.DNS {
		for _, d := range leaf.DNSNames {
			parts = append(parts, "DNS="+d)
		}
	}
	return []byte(strings.Join(parts, ";"))
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// quoteEscape makes s safe inside double quotes and inside a header.
func quoteEscape(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"`, `\"`))
}
