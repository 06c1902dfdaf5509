package translate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

const istioGateway = `---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: own, namespace: edge}
spec:
  selector: {gateway.networking.k8s.io/gateway-name: gw}
  servers: [{port: {number: 9443, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: www}}]
`

// A gateway whose account may not read Secrets gets none by the credentialName of Istio's objects; what a Gateway of the Gateway API refers
// to was granted.
func TestCredentialNamesNeedTheRightToReadSecrets(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "case")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string]string{"in.yaml": istioGateway, "pods.yaml": ""} {
		text, err := os.ReadFile(filepath.Join("testdata/gatewayapi", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), append(text, more...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := translatetest.Load(t, filepath.Dir(dir))[0]
	seen := map[bool]int{}
	for _, n := range c.Nodes {
		if n.Type != xds.Router {
			continue
		}
		s := translate.New(c.World, c.Mesh)
		all := get(t, s, n.Node, xds.SecretType)
		n.ReadsSecrets = false
		got := map[string]bool{}
		for _, r := range get(t, s, n.Node, xds.SecretType) {
			got[r.Name] = true
		}
		for _, r := range all {
			own := strings.HasPrefix(r.Name, model.OwnCredentialPrefix)
			seen[own]++
			if got[r.Name] == own {
				t.Errorf("%s is given without the right to read it: %t", r.Name, got[r.Name])
			}
		}
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("Secrets of Istio's Gateway %d, of the Gateway API's %d", seen[true], seen[false])
	}
}
