package hcm

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/spiffe"
)

func TestClientCertElement(t *testing.T) {
	local, err := spiffe.New("cluster.local", "foo", "httpbin")
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse("spiffe://cluster.local/ns/foo/sa/sleep")
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{Raw: []byte("certificate"), URIs: []*url.URL{uri}, DNSNames: []string{"a", "b"}, Subject: pkix.Name{CommonName: `x"y`}}
	sum := sha256.Sum256(leaf.Raw)
	hash := hex.EncodeToString(sum[:])
	info := &stream.ConnInfo{LocalID: local}
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
	for name, c := range map[string]struct {
		mode  config.ForwardClientCert
		set   config.ClientCertDetails
		state *tls.ConnectionState
		want  string
	}{
		"as Istio's sidecars": {config.XFCCAppendForward, config.ClientCertDetails{Subject: true, URI: true, DNS: true}, state, "By=" + local.String() + ";Hash=" + hash + `;Subject="CN=x\\\"y";URI=` + uri.String() + ";DNS=a;DNS=b"},
		"only what must be":   {config.XFCCSanitizeSet, config.ClientCertDetails{}, state, "By=" + local.String() + ";Hash=" + hash},
		"no certificate":      {config.XFCCAppendForward, config.ClientCertDetails{URI: true}, &tls.ConnectionState{}, ""},
		"not when sanitizing": {config.XFCCSanitize, config.ClientCertDetails{URI: true}, state, ""},
		"not when passing on": {config.XFCCAlwaysForwardOnly, config.ClientCertDetails{URI: true}, state, ""},
		"the certificate":     {config.XFCCSanitizeSet, config.ClientCertDetails{Cert: true}, state, `Cert="-----BEGIN+CERTIFICATE-----%0A`},
	} {
		t.Run(name, func(t *testing.T) {
			got := string(clientCertElement(&config.HTTPManager{ForwardClientCert: c.mode, SetClientCert: c.set}, info, c.state))
			if got != c.want && !(c.set.Cert && strings.Contains(got, c.want)) {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			if strings.ContainsAny(got, "\r\n") {
				t.Error("a line break got into a header")
			}
		})
	}
}
