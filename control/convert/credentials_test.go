package convert_test

import (
	"slices"
	"strings"
	"testing"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/model"
)

type diagnostic = admin.Diagnostic

const withTLS = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: a, namespace: default}
spec:
  selector: {app: a}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.test], tls: `

func TestCredentialsOfServers(t *testing.T) {
	for text, want := range map[string]model.ServerTLS{
		"{mode: SIMPLE, credentialName: a}":                                              {Credentials: []string{"kubernetes://a"}},
		"{mode: SIMPLE, credentialNames: [a, b]}":                                        {Credentials: []string{"kubernetes://a", "kubernetes://b"}},
		"{mode: MUTUAL, credentialName: a}":                                              {Credentials: []string{"kubernetes://a"}, CACredential: "kubernetes://a"},
		"{mode: OPTIONAL_MUTUAL, credentialNames: [a], caCertCredentialName: c}":         {Credentials: []string{"kubernetes://a"}, CACredential: "kubernetes://c"},
		"{mode: MUTUAL, credentialName: a, caCertCredentialName: c-cacert}":              {Credentials: []string{"kubernetes://a"}, CACredential: "kubernetes://c"},
		"{mode: MUTUAL, credentialName: a, caCertificates: /ca.pem}":                     {Credentials: []string{"kubernetes://a"}, CAFile: "/ca.pem"},
		"{mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertCredentialName: c}": {CertFile: "/c", CACredential: "kubernetes://c"},
	} {
		ms, diags := models(withTLS + text + "}\n")
		if len(diags) != 0 || len(ms) != 1 {
			t.Errorf("%s: %+v", text, diags)
			continue
		}
		got := ms[0].(*model.Gateway).Servers[0].TLS
		if !slices.Equal(got.Credentials, want.Credentials) || got.CACredential != want.CACredential || got.CAFile != want.CAFile || got.CertFile != want.CertFile {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func TestCredentialsOfClients(t *testing.T) {
	const rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: default}\nspec: {host: a.test, trafficPolicy: {tls: "
	for text, want := range map[string]string{
		"{mode: SIMPLE, credentialName: a}":                        "warning secret-for-gateways-only",
		"{mode: MUTUAL, credentialName: a, sni: b}":                "warning secret-for-gateways-only",
		"{mode: MUTUAL, credentialName: a, clientCertificate: /c}": "error exclusive-fields",
		"{mode: SIMPLE, credentialName: a, caCertificates: /c}":    "error exclusive-fields",
		"{mode: ISTIO_MUTUAL, credentialName: a}":                  "error exclusive-fields",
		"{mode: DISABLE, credentialName: a}":                       "error exclusive-fields",
		"{mode: SIMPLE, credentialName: 'configmap://a'}":          "error unsupported-field",
		"{mode: MUTUAL}": "error missing-field",
	} {
		ms, diags := models(rule + text + "}}\n")
		if !slices.ContainsFunc(diags, func(d diagnostic) bool { return string(d.Severity)+" "+d.Code == want }) {
			t.Errorf("%s: no %q in %+v", text, want, diags)
		}
		if strings.HasPrefix(want, "warning") && (len(ms) != 1 || ms[0].(*model.DestinationRule).Policy.TLS.Credential != "kubernetes://a") {
			t.Errorf("%s: %+v", text, ms)
		}
	}
}

func TestCredentialsThatCannotBeMeant(t *testing.T) {
	for text, want := range map[string]string{
		"{mode: SIMPLE}": "credentialName",
		"{mode: SIMPLE, credentialName: a, credentialNames: [b]}":                  "keep one of them",
		"{mode: SIMPLE, credentialName: a, serverCertificate: /c}":                 "keep one of them",
		"{mode: SIMPLE, credentialName: a, caCertCredentialName: b}":               "use mode MUTUAL",
		"{mode: SIMPLE, credentialName: 'configmap://a'}":                          "write the Secret's name alone",
		"{mode: SIMPLE, credentialName: 'kubernetes-gateway://kube-system/admin'}": "write the Secret's name alone",
		"{mode: SIMPLE, credentialName: 'Not a name'}":                             "not the name of a Secret",
		"{mode: PASSTHROUGH, credentialName: a}":                                   "takes no Secret",
		"{mode: ISTIO_MUTUAL, caCertCredentialName: a}":                            "takes no Secret",
		"{mode: MUTUAL, credentialName: a, caCrl: /x}":                             "caCrl",
	} {
		_, diags := models(withTLS + text + "}\n")
		if !slices.ContainsFunc(diags, func(d diagnostic) bool { return strings.Contains(d.Field+" "+d.Message+" "+d.Hint, want) }) {
			t.Errorf("%s: nothing about %q in %+v", text, want, diags)
		}
	}
}
