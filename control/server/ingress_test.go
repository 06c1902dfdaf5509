package server_test

import (
	"strings"
	"testing"

	"weft.mesh/weft/api/admin/client"
	"weft.mesh/weft/model"
)

const ingressText = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: weft
  tls: [{hosts: [web.example], secretName: cert}]
  defaultBackend: {service: {name: web, port: {name: http}}}
`

// An Ingress is an object as any other: it is checked, stored, shown with its address, and what is wrong with it is a problem and a line in the log.
func TestAnIngressIsServedWithoutKubernetes(t *testing.T) {
	p := start(t, stateDir(t))
	r, err := p.Apply(t.Context(), files(ingressText))
	if got := outcome(r, err); !strings.Contains(got, "unknown-host") {
		t.Errorf("a Service that is missing: %s", got)
	}
	if r, err := p.Apply(t.Context(), files(app+"---"+ingressText)); err != nil || len(r.Results) != 3 {
		t.Fatalf("%+v %v", r, err)
	}
	until(t, "the Ingress has its address", func() bool {
		list, err := p.Find(t.Context(), client.Find{Kind: "Ingress", Namespace: "default", Name: "web"})
		return err == nil && len(list) == 1 && strings.Contains(string(list[0].Raw), `"status":{"loadBalancer":{"ingress":[{"hostname":"localhost"}]}}`)
	})
	until(t, "what is missing is in the log", func() bool {
		return strings.Contains(p.log.String(), "there is no Secret default/cert") && strings.Contains(p.log.String(), "Ingress default/web")
	})
	st, err := p.Status(t.Context())
	found := false
	for _, d := range st.Problems {
		found = found || d.Code == "unknown-secret" && d.Object == "Ingress default/web"
	}
	if err != nil || !found {
		t.Errorf("problems %+v, %v", st.Problems, err)
	}
}

// The settings of a mesh are followed: an Ingress of another class is served when the class is ours.
func TestIngressSettingsAreFollowed(t *testing.T) {
	p := start(t, stateDir(t))
	text := strings.NewReplacer("  ingressClassName: weft\n", "", "{name: web}\nspec", "{name: web, annotations: {kubernetes.io/ingress.class: edge}}\nspec").Replace(ingressText)
	if r, err := p.Apply(t.Context(), files(app+"---"+text)); err != nil || len(r.Results) != 3 {
		t.Fatalf("%+v %v", r, err)
	}
	if got := p.server.Ingresses(); len(got) != 0 {
		t.Errorf("served: %v", got)
	}
	if err := p.server.SetMesh(model.Mesh{Ingress: model.IngressSettings{Class: "edge"}}); err != nil {
		t.Fatal(err)
	}
	if got := p.server.Ingresses(); len(got) != 1 || got[0].Name != "web" {
		t.Errorf("served: %v", got)
	}
}
