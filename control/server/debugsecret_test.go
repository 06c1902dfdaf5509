package server

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/xds"
)

func TestADumpShowsNoKey(t *testing.T) {
	text := func(s string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
	}
	body, err := proto.Marshal(&tlsv3.Secret{Name: "kubernetes://web", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: text("the chain"), PrivateKey: text("the key")}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := section(xds.SecretType, "1", []*xds.Resource{xds.NewResource(xds.SecretType, "kubernetes://web", body)})
	if err != nil {
		t.Fatal(err)
	}
	got := protojson.Format(m)
	if strings.Contains(got, "the key") || !strings.Contains(got, "the chain") || !strings.Contains(got, "kubernetes://web") {
		t.Error(got)
	}
}
