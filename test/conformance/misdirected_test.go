package conformance

import (
	"fmt"
	"strings"
	"testing"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/proxytest"
)

// httpsListeners is the Gateway of the Gateway API's own test HTTPRouteHTTPSListenerDetectMisdirectedRequests.
const httpsListeners = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  gatewayClassName: weft
  listeners:
  - {name: any, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
  - {name: second, port: 443, protocol: HTTPS, hostname: second-example.org, tls: {certificateRefs: [{name: cert}]}}
  - {name: wild, port: 443, protocol: HTTPS, hostname: "*.wildcard.org", tls: {certificateRefs: [{name: cert}]}}
  - {name: fourth, port: 443, protocol: HTTPS, hostname: fourth-example.wildcard.org, tls: {certificateRefs: [{name: cert}]}}
`

const httpsRoute = `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: default}
spec:
  parentRefs: [{name: gw, sectionName: %s}]
  %s
  rules: [{matches: [{path: {value: /here}}], backendRefs: [{name: app, port: 80}], filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: %s}]}}]}]
`

func TestMisdirectedRequestsAreTold(t *testing.T) {
	mesh, public := proxytest.NewMesh(t), identitytest.NewCA(t, "public")
	app := proxytest.StartApp(t, "app")
	cert := secretOf(t, public, "default", "cert", "example.org")
	indent := func(b []byte) string {
		return "    " + strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "\n    ") + "\n"
	}
	yaml := httpsListeners
	for name, hosts := range map[string]string{"any": "hostnames: [example.org]", "second": "", "wild": "", "fourth": ""} {
		yaml += fmt.Sprintf(httpsRoute, name, name, hosts, name)
	}
	yaml += "---\napiVersion: v1\nkind: Service\nmetadata: {name: app, namespace: default}\nspec: {selector: {app: app}, ports: [{name: http, port: 80}]}\n" +
		"---\napiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: default}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n" + indent(cert.Cert) + "  tls.key: |\n" + indent(cert.Key)
	objects, diags := convert.Decode(admin.File{Name: "in.yaml", Content: yaml}, convert.Options{})
	if convert.HasErrors(diags) {
		t.Fatalf("%+v", diags)
	}
	settings := gatewayapi.Settings{Classes: []string{gatewayapi.ClassWeft}, Selector: map[string]string{"app": "edge"}}
	values := []model.Object{cert, appService("app.default.svc.cluster.local", app.Port)}
	for _, c := range translatetest.Compute(objects, settings, snapshot.Defaults(model.Mesh{})) {
		values = append(values, c.Objects...)
	}
	e := newEdge(t, mesh, values...)
	for address := range e.ads {
		proxytest.Until(t, address+" to serve", func() bool { return e.outcome(address, "example.org", "example.org", "/here", nil) != "refused" })
		for _, c := range []struct {
			serverName, host string
			want             string
		}{
			{"example.org", "example.org", "200"}, {"example.org", "second-example.org", "421"}, {"example.org", "unknown-example.org", "404"},
			{"second-example.org", "second-example.org", "200"}, {"second-example.org", "example.org", "421"}, {"second-example.org", "unknown-example.org", "421"},
			{"third-example.wildcard.org", "third-example.wildcard.org", "200"}, {"third-example.wildcard.org", "fith-example.wildcard.org", "200"},
			{"third-example.wildcard.org", "fourth-example.wildcard.org", "421"}, {"third-example.wildcard.org", "second-example.org", "421"}, {"third-example.wildcard.org", "unknown-example.org", "421"},
			{"fourth-example.wildcard.org", "fourth-example.wildcard.org", "200"}, {"fourth-example.wildcard.org", "fith-example.wildcard.org", "421"},
			{"unknown-example.org", "example.org", "200"}, {"unknown-example.org", "unknown-example.org", "404"},
		} {
			if got := e.outcome(address, c.serverName, c.host, "/here", nil); !strings.HasPrefix(got, "example.org: "+c.want) {
				t.Errorf("%s: server name %s, Host %s: %q, want %s", address, c.serverName, c.host, got, c.want)
			}
		}
	}
}
