package compile

import (
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/xds"
)

// secretText is an SDS secret with a fresh certificate.
func secretText(t *testing.T, name string) string {
	t.Helper()
	c := identitytest.NewCA(t, "test").Certificate(t, "", identitytest.DNS("shop.example"))
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	indent := func(kind string, der []byte) string {
		return strings.ReplaceAll(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))), "\n", "\n      ")
	}
	return `
'@type': ` + xds.SecretType + `
name: ` + name + `
tls_certificate:
  certificate_chain:
    inline_string: |
      ` + indent("CERTIFICATE", c.Certificate[0]) + `
  private_key:
    inline_string: |
      ` + indent("PRIVATE KEY", key) + "\n"
}

const gatewayTLS = `common_tls_context: {tls_certificate_sds_secret_configs: [{name: shop, sds_config: {ads: {}}}]}`

func TestAGatewaysListenerWaitsForItsCertificateAndFollowsItsRotation(t *testing.T) {
	c := New(Settings{Gateway: true})
	l := one(t, tlsText(gatewayTLS))
	if v := apply(t, c, xds.ListenerType, l); v.Listeners["l"] != nil {
		t.Fatal("serves TLS without a certificate")
	}
	if got := c.Wanted(xds.SecretType); !slices.Equal(got, []string{"shop"}) {
		t.Errorf("wanted secrets = %q", got)
	}
	v := apply(t, c, xds.SecretType, one(t, secretText(t, "shop")))
	first := v.Listeners["l"]
	if first == nil || len(first.Chains[0].TLS.Certificates) != 1 || first.Chains[0].TLS.Secret != "shop" || v.Secrets["shop"].Certificate == nil {
		t.Fatalf("listener = %+v", first)
	}
	v = apply(t, c, xds.SecretType, one(t, secretText(t, "shop")))
	if v.Listeners["l"] == first {
		t.Error("the renewed certificate is not served")
	}
	again := apply(t, c, xds.ClusterType, one(t, clusterText("")))
	if again.Listeners["l"] != v.Listeners["l"] {
		t.Error("an unrelated push built the listener anew")
	}
}

func TestAnUpstreamWithoutItsRootsTrustsNobody(t *testing.T) {
	c := New(Settings{})
	k := one(t, clusterText(`, transport_socket: {name: tls, typed_config: {'@type': `+tp+typeUpstreamTLS+`, sni: x, common_tls_context: {validation_context_sds_secret_config: {name: roots, sds_config: {ads: {}}}}}}`))
	v := apply(t, c, xds.ClusterType, k)
	tls := v.Clusters["c"].TLS
	if tls.Insecure || tls.RootCAs == nil || !tls.RootCAs.Equal(x509.NewCertPool()) {
		t.Errorf("TLS = %+v, want an empty set of roots: nil would be the system's", tls)
	}
}

func TestASecretWithAKeyOfAnotherCertificateIsRefused(t *testing.T) {
	one1, two := secretText(t, "s"), secretText(t, "s")
	mixed := one1[:strings.Index(one1, "  private_key:")] + two[strings.Index(two, "  private_key:"):]
	_, refused := New(Settings{}).Apply(Update{TypeURL: xds.SecretType, Set: []*xds.Resource{one(t, mixed)}}, t0)
	if len(refused) != 1 || !strings.Contains(refused[0].Reason, "private key does not match public key") {
		t.Errorf("refused = %v", refused)
	}
	for _, r := range refused {
		if strings.Contains(r.Reason, "PRIVATE KEY") {
			t.Error("the reason holds key material")
		}
	}
}
