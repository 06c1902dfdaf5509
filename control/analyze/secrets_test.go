package analyze_test

import (
	"strings"
	"testing"

	"weft.mesh/weft/control/analyze"
)

const gatewayPods = `
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge, namespace: edge}
spec:
  selector: {matchLabels: {app: edge}}
  template:
    metadata: {labels: {app: edge}}
    spec: {containers: [{name: app, command: [x]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec:
  selector: {app: edge}
  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example.com], tls: `

func TestSecretsOfServersAreLookedFor(t *testing.T) {
	empty := "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: edge}\nstringData: {other: x}\n"
	elsewhere := "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: other}\nstringData: {other: x}\n"
	for text, lines := range map[string][]string{
		"{mode: SIMPLE, credentialName: a}}]":                          {"warning unknown-secret Gateway default/g spec.servers[0].tls.credentialName"},
		"{mode: SIMPLE, credentialName: a}}]" + elsewhere:              {"warning unknown-secret Gateway default/g spec.servers[0].tls.credentialName"},
		"{mode: SIMPLE, credentialName: a}}]" + empty:                  {"warning unknown-secret Gateway default/g spec.servers[0].tls.credentialName"},
		"{mode: SIMPLE, credentialNames: [a, b]}}]":                    {"warning unknown-secret Gateway default/g spec.servers[0].tls.credentialNames[0]", "warning unknown-secret Gateway default/g spec.servers[0].tls.credentialNames[1]"},
		"{mode: MUTUAL, credentialName: a, caCertCredentialName: c}}]": {"warning unknown-secret Gateway default/g spec.servers[0].tls.credentialName", "warning unknown-secret Gateway default/g spec.servers[0].tls.caCertCredentialName"},
		"{mode: SIMPLE, serverCertificate: /c, privateKey: /k}}]":      nil,
	} {
		var got []string
		for _, l := range brief(analyze.Check(nil, decode(t, gatewayPods+text), nil, analyze.Options{})) {
			if strings.Contains(l, "unknown-secret") || strings.HasPrefix(l, "error") {
				got = append(got, l)
			}
		}
		if len(got) != len(lines) {
			t.Errorf("%s: %q, want %q", text, got, lines)
			continue
		}
		for i := range got {
			if got[i] != lines[i] {
				t.Errorf("%s: %q, want %q", text, got[i], lines[i])
			}
		}
	}
}
