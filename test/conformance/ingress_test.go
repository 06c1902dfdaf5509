package conformance

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/ingress"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/proxytest"
)

// ingresses are read as a user wrote them. Each Service answers with its name.
const ingresses = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: first, namespace: default, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  ingressClassName: weft
  tls:
  - {hosts: [shop.example.com, other.example.com], secretName: cert}
  - {hosts: ["*.example.com"], secretName: wild}
  rules:
  - host: shop.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}
      - {path: /cart, pathType: Prefix, backend: {service: {name: two, port: {name: http}}}}
      - {path: /cart/exact, pathType: Exact, backend: {service: {name: one, port: {number: 80}}}}
      - {path: /missing, pathType: Prefix, backend: {service: {name: nobody, port: {number: 80}}}}
      - {path: "/text.*", pathType: ImplementationSpecific, backend: {service: {name: two, port: {number: 80}}}}
  - host: "*.example.com"
    http: {paths: [{path: /wild, pathType: Prefix, backend: {service: {name: two, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: second, namespace: default, creationTimestamp: "2026-01-02T00:00:00Z"}
spec:
  ingressClassName: weft
  defaultBackend: {service: {name: one, port: {number: 80}}}
  rules:
  - host: shop.example.com
    http:
      paths:
      - {path: /cart/, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}
      - {path: /cart/deep/, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: foreign, namespace: default}
spec:
  ingressClassName: nginx
  rules:
  - host: shop.example.com
    http: {paths: [{path: /foreign, pathType: Exact, backend: {service: {name: two, port: {number: 80}}}}]}
`

// ingressEdge is a gateway that serves them: its plain port, or the one with TLS, since an edge has one.
func ingressEdge(t *testing.T, mesh *proxytest.Mesh, plain bool, objects ...model.Object) *edge {
	t.Helper()
	written, diags := convert.Decode(admin.File{Name: "in.yaml", Content: ingresses + services("one", "two")}, convert.Options{})
	if convert.HasErrors(diags) {
		t.Fatalf("%+v", diags)
	}
	settings := ingress.SettingsOf(snapshot.Defaults(model.Mesh{}))
	settings.Selector = map[string]string{"app": "edge"}
	for _, c := range translatetest.ComputeIngress(written, settings, snapshot.Defaults(model.Mesh{})) {
		if g, ok := c.Objects[0].(*model.Gateway); ok && (g.Servers[0].Port == 80) != plain {
			continue
		}
		objects = append(objects, c.Objects...)
	}
	return newEdge(t, mesh, objects...)
}

func services(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: default}\nspec: {selector: {app: %s}, ports: [{name: http, port: 80}]}\n", n, n)
	}
	return b.String()
}

// TestIngressesLeadToTheirBackends: requests through the gateway, in the clear and by TLS, and what answers them.
func TestIngressesLeadToTheirBackends(t *testing.T) {
	mesh, public := proxytest.NewMesh(t), identitytest.NewCA(t, "public")
	objects := []model.Object{secretOf(t, public, "default", "cert", "shop.example.com", "other.example.com"), secretOf(t, public, "default", "wild", "*.example.com")}
	for _, name := range []string{"one", "two"} {
		app := proxytest.StartApp(t, name)
		app.Handle(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
		objects = append(objects, appService(name+".default.svc.cluster.local", app.Port))
	}
	cases := []struct{ host, path, want string }{
		{"shop.example.com", "/", "200 one"}, {"shop.example.com", "/carton", "200 one"}, {"shop.example.com", "/cart", "200 two"}, {"shop.example.com", "/cart/", "200 two"},
		{"shop.example.com", "/cart/more", "200 two"}, {"shop.example.com", "/cart/exact", "200 one"}, {"shop.example.com", "/cart/exact/not", "200 two"},
		{"shop.example.com", "/cart/deep", "200 one"}, {"shop.example.com", "/cart/deep/er", "200 one"}, {"shop.example.com", "/cart/deeper", "200 two"},
		{"shop.example.com", "/missing", "503"}, {"shop.example.com", "/text-and-more", "200 two"}, {"shop.example.com", "/foreign", "200 one"}, {"SHOP.example.com", "/cart", "200 two"},
		{"any.example.com", "/wild/x", "200 two"}, {"any.example.com", "/", "404"},
	}
	t.Run("plain", func(t *testing.T) {
		e := ingressEdge(t, mesh, true, objects...)
		for address := range e.ads {
			proxytest.Until(t, address+" to serve", func() bool { return strings.HasPrefix(e.plain(address, "shop.example.com", "/"), "200") })
			for _, c := range append(cases, []struct{ host, path, want string }{
				{"nobody.test", "/wild", "200 one"},                                                                                             // the default backend
				{"deep.below.example.com", "/wild", "200 one"}, {"deep.below.example.com", "/", "200 one"}, {"example.com", "/wild", "200 one"}, // a wildcard is one label
			}...) {
				if got := e.plain(address, c.host, c.path); !strings.HasPrefix(got, c.want) {
					t.Errorf("%s: http://%s%s: %q, want %q", address, c.host, c.path, got, c.want)
				}
			}
		}
	})
	t.Run("TLS", func(t *testing.T) {
		e := ingressEdge(t, mesh, false, objects...)
		for address := range e.ads {
			proxytest.Until(t, address+" to serve", func() bool {
				return e.outcome(address, "shop.example.com", "shop.example.com", "/", nil) != "refused"
			})
			for _, c := range cases {
				cert := "*.example.com: "
				if strings.EqualFold(c.host, "shop.example.com") {
					cert = "shop.example.com,other.example.com: "
				}
				if got := e.outcome(address, strings.ToLower(c.host), c.host, c.path, nil); !strings.HasPrefix(got, cert+c.want) {
					t.Errorf("%s: https://%s%s: %q, want %q", address, c.host, c.path, got, cert+c.want)
				}
			}
			for _, c := range []struct{ serverName, host, path, want string }{
				{"other.example.com", "other.example.com", "/wild", "200 two"}, // a host with a certificate has the nearest rule
				{"other.example.com", "shop.example.com", "/cart", "200 two"},  // the same certificate: the same connection will do
				{"any.example.com", "shop.example.com", "/cart", "421"},        // it has another
				{"shop.example.com", "any.example.com", "/wild", "421"},
				{"shop.example.com", "nobody.test", "/", "421"},
			} {
				if got := e.outcome(address, c.serverName, c.host, c.path, nil); !strings.Contains(got, ": "+c.want) {
					t.Errorf("%s: server name %s, https://%s%s: %q, want %q", address, c.serverName, c.host, c.path, got, c.want)
				}
			}
			if got := e.outcome(address, "nobody.test", "nobody.test", "/", nil); got != "refused" {
				t.Errorf("%s: a host without a certificate: %q", address, got)
			}
		}
	})
}

// plain sends a request without TLS.
func (e *edge) plain(address, host, path string) string {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", address, e.port), 10*time.Second)
	if err != nil {
		return "refused"
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body := make([]byte, 100)
	n, _ := resp.Body.Read(body)
	return fmt.Sprintf("%d %s", resp.StatusCode, body[:n])
}
