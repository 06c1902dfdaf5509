package install

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/deploy/render"
)

func plan(t *testing.T, profile string, sets ...string) *Plan {
	t.Helper()
	v := render.Values{}
	for _, s := range sets {
		var err error
		if v, err = render.ParseSet(v, s); err != nil {
			t.Fatal(err)
		}
	}
	p, err := NewPlan(Config{Profile: profile, Values: v, Version: "v0.1"})
	if err != nil {
		t.Fatal(err)
	}
	// Schemas do not matter here, and are two megabytes.
	p.CRDs, p.Gateway = withoutSchemas(p.CRDs), withoutSchemas(p.Gateway)
	return p
}

func withoutSchemas(in []*unstructured.Unstructured) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, o := range in {
		slim := &unstructured.Unstructured{Object: map[string]any{"apiVersion": o.GetAPIVersion(), "kind": o.GetKind()}}
		slim.SetName(o.GetName())
		slim.SetAnnotations(o.GetAnnotations())
		var versions []any
		all, _, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "versions")
		for _, v := range all.([]any) {
			m := v.(map[string]any)
			versions = append(versions, map[string]any{"name": m["name"], "served": m["served"]})
		}
		slim.Object["spec"] = map[string]any{"versions": versions}
		out = append(out, slim)
	}
	return out
}

func place(writes []string, part string) int {
	return slices.IndexFunc(writes, func(w string) bool { return strings.Contains(w, part) })
}

func last(writes []string, part string) int {
	n := -1
	for i, w := range writes {
		if strings.Contains(w, part) {
			n = i
		}
	}
	return n
}

func TestInstallIsOrderedAndDoneOnce(t *testing.T) {
	f, in, _ := newFake(t)
	if err := in.Install(t.Context(), plan(t, "demo")); err != nil {
		t.Fatal(err)
	}
	w := f.taken()
	steps := []int{
		last(w, "/customresourcedefinitions/"), place(w, "/api/v1/namespaces/weft-system"), place(w, "/serviceaccounts/weft"),
		place(w, "/clusterroles/weft-control-plane"), place(w, "/deployments/weft"), place(w, "webhookconfigurations/"),
	}
	if !slices.IsSorted(steps) || slices.Contains(steps, -1) {
		t.Errorf("order %v of\n%s", steps, strings.Join(w, "\n"))
	}
	if err := in.Install(t.Context(), plan(t, "demo")); err != nil {
		t.Fatal(err)
	}
	if w := f.taken(); len(w) != 0 {
		t.Errorf("a second time writes\n%s", strings.Join(w, "\n"))
	}
}

func TestWebhooksWaitForTheControlPlane(t *testing.T) {
	f, in, _ := newFake(t)
	f.noReady = true
	in.Timeout = time.Second
	err := in.Install(t.Context(), plan(t, ""))
	if err == nil || !strings.Contains(err.Error(), "deployment/weft: not ready after 1s: 0 of 1 pods are of the new version") {
		t.Errorf("error: %v", err)
	}
	if i := place(f.taken(), "webhookconfigurations"); i >= 0 {
		t.Error("webhooks were made although nobody answers them")
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	f, in, lines := newFake(t)
	in.DryRun = true
	if err := in.Install(t.Context(), plan(t, "ha")); err != nil {
		t.Fatal(err)
	}
	if w := f.taken(); len(w) != 0 {
		t.Errorf("wrote %v", w)
	}
	if !slices.Contains(*lines, "deployment/weft would be created") {
		t.Errorf("lines %q", *lines)
	}
}

func TestWhatAFormerVersionHadIsPruned(t *testing.T) {
	f, in, _ := newFake(t)
	if err := in.Install(t.Context(), plan(t, "demo", "controlPlane.replicas=2")); err != nil {
		t.Fatal(err)
	}
	f.put("/apis/policy/v1/namespaces/weft-system/poddisruptionbudgets/mine", "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: mine, namespace: weft-system}}")
	f.taken()
	if err := in.Install(t.Context(), plan(t, "minimal")); err != nil {
		t.Fatal(err)
	}
	w := f.taken()
	for _, gone := range []string{"DELETE /apis/policy/v1/namespaces/weft-system/poddisruptionbudgets/weft"} {
		if !slices.Contains(w, gone) {
			t.Errorf("no %s in\n%s", gone, strings.Join(w, "\n"))
		}
	}
	if place(w, "DELETE /apis/policy/v1/namespaces/weft-system/poddisruptionbudgets/mine") >= 0 {
		t.Error("somebody else's object was deleted")
	}
}

func TestRevisionsLiveSideBySide(t *testing.T) {
	f, in, _ := newFake(t)
	for _, p := range []*Plan{plan(t, ""), plan(t, "", "revision=canary")} {
		if err := in.Install(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	f.taken()
	if err := in.Uninstall(t.Context(), Removal{}); err != nil {
		t.Fatal(err)
	}
	w := f.taken()
	if place(w, "/gatewayclasses/") >= 0 || place(w, "DELETE /api/v1/namespaces/weft-system") >= 0 && slices.Contains(w, "DELETE /api/v1/namespaces/weft-system") {
		t.Errorf("what the other revision needs was deleted:\n%s", strings.Join(w, "\n"))
	}
	if place(w, "canary") >= 0 {
		t.Errorf("the other revision was touched:\n%s", strings.Join(w, "\n"))
	}
	if hook, dep := place(w, "webhookconfigurations"), place(w, "deployments/weft"); hook < 0 || dep < hook {
		t.Errorf("webhooks must go first:\n%s", strings.Join(w, "\n"))
	}
	if err := in.Uninstall(t.Context(), Removal{Revision: "canary", Purge: true}); err != nil {
		t.Fatal(err)
	}
	for k := range f.objects {
		t.Errorf("left: %s", k)
	}
}

// With a revision go its tags: whoever names either would be outside of the mesh from the next pod on.
func TestARevisionThatNamespacesUseStays(t *testing.T) {
	f, in, _ := newFake(t)
	for _, p := range []*Plan{plan(t, ""), plan(t, "", "revision=canary", "revisionTags={prod}")} {
		if err := in.Install(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	f.put("/api/v1/namespaces/shop", "{metadata: {name: shop, labels: {istio.io/rev: prod}}}")
	f.put("/api/v1/namespaces/old", "{metadata: {name: old, labels: {istio-injection: enabled}}}")
	f.taken()
	for revision, want := range map[string]string{"canary": "revision canary injects into namespaces shop (istio.io/rev=prod)", "default": "revision default injects into namespaces old"} {
		if err := in.Uninstall(t.Context(), Removal{Revision: revision}); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "weft tag set") {
			t.Errorf("%v, want %q with a fix", err, want)
		}
	}
	if w := f.taken(); len(w) > 0 {
		t.Errorf("wrote %v", w)
	}
	if err := in.Uninstall(t.Context(), Removal{Revision: "canary", Force: true}); err != nil {
		t.Error(err)
	}
	if err := in.Uninstall(t.Context(), Removal{Revision: "default"}); err != nil {
		t.Errorf("the last revision: %v", err)
	}
}

func TestUninstallKeepsDefinitions(t *testing.T) {
	f, in, lines := newFake(t)
	if err := in.Install(t.Context(), plan(t, "demo")); err != nil {
		t.Fatal(err)
	}
	// What the control plane made elsewhere.
	f.put("/api/v1/namespaces/shop/configmaps/istio-ca-root-cert", "{metadata: {name: istio-ca-root-cert, namespace: shop, labels: {app.kubernetes.io/managed-by: weft, istio.io/config: \"true\"}}}")
	f.put("/api/v1/namespaces/other/configmaps/istio-ca-root-cert", "{metadata: {name: istio-ca-root-cert, namespace: other, labels: {istio.io/config: \"true\"}}}")
	f.put("/api/v1/namespaces/shop/pods/web", "{metadata: {name: web, namespace: shop, labels: {security.istio.io/tlsMode: istio}}}")
	if err := in.Uninstall(t.Context(), Removal{}); err != nil {
		t.Fatal(err)
	}
	if place(*lines, "1 pods with a sidecar go on with what they have") < 0 {
		t.Errorf("nothing is said of pods in %q", *lines)
	}
	for _, k := range []string{"/api/v1/namespaces/other/configmaps/istio-ca-root-cert", "/api/v1/namespaces/shop/pods/web"} {
		if f.objects[k] == nil {
			t.Errorf("%s was deleted", k)
		}
		delete(f.objects, k)
	}
	for k := range f.objects {
		if !strings.Contains(k, "customresourcedefinitions") {
			t.Errorf("left: %s", k)
		}
	}
	if l := (*lines)[len(*lines)-1]; !strings.Contains(l, "kept 17 definitions") {
		t.Errorf("last line %q", l)
	}
	if err := in.Uninstall(t.Context(), Removal{}); err == nil || !strings.Contains(err.Error(), "revision default is not installed in weft-system") {
		t.Errorf("a second time: %v", err)
	}
}

const istioWebhook = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-sidecar-injector}
webhooks:
- name: namespace.sidecar-injector.istio.io
  clientConfig: {service: {name: istiod, namespace: istio-system}}
  namespaceSelector: {matchExpressions: [{key: istio-injection, operator: In, values: [enabled]}]}
`

func TestBadClustersAreRefusedBeforeTheFirstWrite(t *testing.T) {
	const crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/virtualservices.networking.istio.io"
	for name, c := range map[string]struct {
		set   string
		setup func(f *fakeAPI)
		want  string
	}{
		"an Istio that injects into the same namespaces": {"", func(f *fakeAPI) {
			f.put("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector", istioWebhook)
		}, "mutatingwebhookconfiguration/istio-sidecar-injector injects into namespaces with the label istio-injection=enabled too"},
		"older definitions of others": {"", func(f *fakeAPI) {
			f.put(crd, "{metadata: {name: virtualservices.networking.istio.io}, spec: {versions: [{name: v1alpha3, served: true}, {name: v1beta1, served: true}]}}")
		}, "definition virtualservices.networking.istio.io is older and not Weft's: it does not serve v1"},
		"a trust bundle that is not served": {"global.clusterTrustBundle=true", func(f *fakeAPI) {
			f.answer = func(r *http.Request) (int, any) {
				if strings.Contains(r.URL.Path, "clustertrustbundles") {
					return 404, status(404, "NotFound", "the server could not find the requested resource")
				}
				return 0, nil
			}
		}, "global.clusterTrustBundle: the API server serves no clustertrustbundles"},
		"definitions that nobody brings": {"crds.mode=none", func(*fakeAPI) {}, "is missing, and crds.mode is none"},
		"a namespace that ends": {"", func(f *fakeAPI) {
			f.put("/api/v1/namespaces/weft-system", `{metadata: {name: weft-system, deletionTimestamp: "2026-01-01T00:00:00Z"}}`)
		}, "namespace weft-system is being deleted"},
		"a user without rights": {"", func(f *fakeAPI) {
			f.deny = func(verb, resource string) bool { return resource == "clusterroles" && verb == "patch" }
		}, `the user of context "test" may not patch clusterroles.rbac.authorization.k8s.io`},
		"Helm's": {"", func(f *fakeAPI) {
			f.put("/apis/apps/v1/namespaces/weft-system/deployments/weft", "{metadata: {name: weft, labels: {app.kubernetes.io/managed-by: Helm}}}")
		}, `deployment/weft in weft-system is managed by "Helm"`},
		"a certificate authority that has expired": {"", func(f *fakeAPI) {
			m, err := ca.Generate("cluster.local", time.Now().AddDate(-30, 0, 0))
			if err != nil {
				t.Fatal(err)
			}
			encode := base64.StdEncoding.EncodeToString
			f.put("/api/v1/namespaces/weft-system/secrets/cacerts", fmt.Sprintf("{metadata: {name: cacerts, namespace: weft-system}, data: {ca-key.pem: %s, ca-cert.pem: %s, root-cert.pem: %s}}", encode(m.Key), encode(m.Cert), encode(m.Cert)))
		}, "certificate authority: secret weft-system/cacerts cannot be used: ca: the certificate"},
		"a certificate authority without a key": {"", func(f *fakeAPI) {
			f.put("/api/v1/namespaces/weft-system/secrets/weft-ca-secret", "{metadata: {name: weft-ca-secret, namespace: weft-system}, data: {ca-cert.pem: eA==}}")
		}, "certificate authority: secret weft-system/weft-ca-secret cannot be used"},
		"an old Kubernetes": {"", func(f *fakeAPI) {
			f.answer = func(r *http.Request) (int, any) {
				if r.URL.Path == "/version" {
					return 200, map[string]string{"gitVersion": "v1.27.3", "major": "1", "minor": "27+"}
				}
				return 0, nil
			}
		}, "Kubernetes v1.27.3 is too old"},
	} {
		t.Run(name, func(t *testing.T) {
			f, in, _ := newFake(t)
			c.setup(f)
			var sets []string
			if c.set != "" {
				sets = append(sets, c.set)
			}
			err := in.Install(t.Context(), plan(t, "", sets...))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "fix: ") {
				t.Errorf("error %v, want %q with a fix", err, c.want)
			}
			if w := f.taken(); len(w) > 0 {
				t.Errorf("wrote %v", w)
			}
		})
	}
}

func TestWhatAContainerSaidLastIsWhyItDoesNotRun(t *testing.T) {
	pod := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"containerStatuses": []any{map[string]any{
		"name":      "discovery",
		"state":     map[string]any{"waiting": map[string]any{"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}},
		"lastState": map[string]any{"terminated": map[string]any{"message": "level=INFO msg=starting\nweft: secret weft-system/cacerts cannot be used: expired\n"}},
	}}}}}
	if got, want := podTrouble(pod), "container discovery: CrashLoopBackOff weft: secret weft-system/cacerts cannot be used: expired"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestARevisionBesideIstioIsTaken(t *testing.T) {
	f, in, _ := newFake(t)
	f.put("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector", istioWebhook)
	f.put(secretOf("istio-system", "istio-ca-secret"), caSecret("ca-cert.pem", "one"))
	f.put(secretOf("weft-system", "cacerts"), caSecret("root-cert.pem", "new", "one"))
	if err := in.Install(t.Context(), plan(t, "", "revision=weft")); err != nil {
		t.Fatal(err)
	}
}

func secretOf(ns, name string) string { return "/api/v1/namespaces/" + ns + "/secrets/" + name }

// authority is a certificate authority by name: the same for the same name.
var authority = func() func(name string) ca.Material {
	made := map[string]ca.Material{}
	return func(name string) ca.Material {
		if _, ok := made[name]; !ok {
			m, err := ca.Generate("cluster.local", time.Now())
			if err != nil {
				panic(err)
			}
			made[name] = m
		}
		return made[name]
	}
}()

// pemBundle is the certificates of authorities.
func pemBundle(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		b.Write(authority(n).Cert)
	}
	return b.String()
}

// caSecret has the key of the last authority, and the certificates of all under a key.
func caSecret(key string, names ...string) string {
	m := authority(names[len(names)-1])
	data := map[string][]byte{"ca-key.pem": m.Key, "ca-cert.pem": m.Cert}
	data[key] = []byte(pemBundle(names...))
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"name": "x"}, "data": data})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// Istio and Weft write the same ConfigMap: with two roots each would cut off the other's sidecars.
func TestAnIstioWithAnotherRootIsInTheWay(t *testing.T) {
	for name, c := range map[string]struct {
		setup    func(f *fakeAPI)
		severity string
		want     string
	}{
		"Weft would make one of its own": {func(f *fakeAPI) {
			f.put(secretOf("istio-system", "istio-ca-secret"), caSecret("ca-cert.pem", "istio"))
		}, SeverityError, "the Istio in istio-system has a root of trust, and weft-system has none yet"},
		"it is another": {func(f *fakeAPI) {
			f.put(secretOf("istio-system", "cacerts"), caSecret("root-cert.pem", "istio"))
			f.put(secretOf("weft-system", "weft-ca-secret"), caSecret("root-cert.pem", "weft"))
		}, SeverityError, "the Istio in istio-system and Weft in weft-system have different roots of trust"},
		"only what Istio published is to be seen": {func(f *fakeAPI) {
			m, _ := json.Marshal(map[string]any{"metadata": map[string]any{"name": "istio-ca-root-cert"}, "data": map[string]any{"root-cert.pem": pemBundle("istio")}})
			f.put("/api/v1/namespaces/istio-system/configmaps/istio-ca-root-cert", string(m))
			f.put(secretOf("weft-system", "cacerts"), caSecret("root-cert.pem", "weft"))
		}, SeverityError, "have different roots of trust"},
		"nothing is to be seen of it": {func(f *fakeAPI) {
			f.put(secretOf("weft-system", "cacerts"), caSecret("root-cert.pem", "weft"))
		}, SeverityWarning, "the root certificate of the Istio in istio-system is not to be found"},
	} {
		t.Run(name, func(t *testing.T) {
			f, in, _ := newFake(t)
			f.put("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector", istioWebhook)
			c.setup(f)
			fs := in.Precheck(t.Context(), plan(t, "", "revision=weft"))
			if len(fs) != 1 || fs[0].Severity != c.severity || !strings.Contains(fs[0].Message, c.want) || !strings.Contains(fs[0].Fix, "migrate-from-istio.md") {
				t.Errorf("findings %v, want %q", fs, c.want)
			}
		})
	}
}

func TestDefinitionsOfOthersStay(t *testing.T) {
	f, in, _ := newFake(t)
	p := plan(t, "")
	for _, o := range p.CRDs {
		b, _ := o.MarshalJSON()
		f.put("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+o.GetName(), string(b))
	}
	f.put("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.gateway.networking.k8s.io",
		`{metadata: {name: gateways.gateway.networking.k8s.io, annotations: {gateway.networking.k8s.io/bundle-version: v1.2.0}}, spec: {versions: [{name: v1, served: true}]}}`)
	var warned []string
	in.Progress = func(l string) { warned = append(warned, l) }
	if err := in.Install(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if i := place(f.taken(), "customresourcedefinitions"); i >= 0 {
		t.Error("definitions of others were changed")
	}
	if i := place(warned, "warning: the Gateway API here is of others (v1.2.0) and lacks"); i < 0 {
		t.Errorf("no warning in %q", warned)
	}
}

func TestConflictsNameTheFieldAndItsOwner(t *testing.T) {
	f, in, _ := newFake(t)
	f.answer = func(r *http.Request) (int, any) {
		if r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/deployments/weft") && r.URL.Query().Get("force") != "true" {
			s := status(409, "Conflict", "Apply failed with 1 conflict")
			s["details"] = map[string]any{"causes": []any{map[string]any{"reason": "FieldManagerConflict", "field": ".spec.replicas", "message": `conflict with "kubectl-scale"`}}}
			return 409, s
		}
		return 0, nil
	}
	err := in.Install(t.Context(), plan(t, ""))
	if err == nil || err.Error() != `apply deployment/weft: somebody else set fields of it: .spec.replicas ("kubectl-scale")` {
		t.Errorf("error: %v", err)
	}
	in.Force = true
	if err := in.Install(t.Context(), plan(t, "")); err != nil {
		t.Errorf("with force: %v", err)
	}
}

func TestForbiddenNamesUserVerbAndResource(t *testing.T) {
	f, in, _ := newFake(t)
	const says = `serviceaccounts "weft" is forbidden: User "eve" cannot patch resource "serviceaccounts" in API group "" in the namespace "weft-system"`
	f.answer = func(r *http.Request) (int, any) {
		if r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/serviceaccounts/") {
			return 403, status(403, "Forbidden", says)
		}
		return 0, nil
	}
	err := in.Install(t.Context(), plan(t, ""))
	if err == nil || !strings.Contains(err.Error(), `apply serviceaccount/weft: not allowed: User "eve" cannot patch resource "serviceaccounts"`) {
		t.Errorf("error: %v", err)
	}
}

func TestVerifySaysWhatIsMissing(t *testing.T) {
	f, in, _ := newFake(t)
	p := plan(t, "demo")
	if err := in.Install(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	bad := func() (out []string) {
		checks, err := in.Verify(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			if !c.OK {
				out = append(out, c.What+": "+c.Note)
			}
		}
		return out
	}
	if b := bad(); len(b) > 0 {
		t.Errorf("a fresh install: %v", b)
	}
	f.mu.Lock()
	delete(f.objects, "/api/v1/namespaces/weft-system/services/weft")
	delete(f.objects, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gateways.networking.istio.io")
	f.mu.Unlock()
	want := []string{"definition gateways.networking.istio.io: missing", "service/weft: missing"}
	if b := bad(); !slices.Equal(b, want) {
		t.Errorf("%v, want %v", b, want)
	}
}

func TestWhatWasAskedIsRecorded(t *testing.T) {
	_, in, _ := newFake(t)
	if err := in.Install(t.Context(), plan(t, "ha", "meshConfig.accessLogFile=/dev/stdout,revision=v1")); err != nil {
		t.Fatal(err)
	}
	r, err := in.Recorded(t.Context(), "", "v1")
	if err != nil || r == nil || r.Profile != "ha" || r.Version != "v0.1" || r.Values["meshConfig"].(map[string]any)["accessLogFile"] != "/dev/stdout" {
		t.Errorf("recorded %+v, %v", r, err)
	}
	if r, err := in.Recorded(t.Context(), "", ""); r != nil || err != nil {
		t.Errorf("revision default: %+v, %v", r, err)
	}
}

func TestTagsMoveOnlyWhenAsked(t *testing.T) {
	f, in, _ := newFake(t)
	for _, p := range []*Plan{plan(t, ""), plan(t, "", "revision=v2")} {
		if err := in.Install(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	set := func(tag, rev string, overwrite bool) error {
		return in.SetTag(t.Context(), Config{Version: "v0.1"}, tag, rev, overwrite)
	}
	if err := set("prod", "v3", false); err == nil || !strings.Contains(err.Error(), "revision v3 is not installed") {
		t.Errorf("a revision that is not there: %v", err)
	}
	if err := set("prod", "default", false); err != nil {
		t.Fatal(err)
	}
	if err := set("prod", "v2", false); err == nil || !strings.Contains(err.Error(), "tag prod stands for revision default") {
		t.Errorf("moved without being asked: %v", err)
	}
	if err := set("prod", "v2", true); err != nil {
		t.Fatal(err)
	}
	f.put("/api/v1/namespaces/shop", "{metadata: {name: shop, labels: {istio.io/rev: prod}}}")
	tags, err := in.Tags(t.Context())
	if err != nil || len(tags) != 1 || tags[0].Revision != "v2" || !slices.Equal(tags[0].Namespaces, []string{"shop"}) {
		t.Errorf("tags %+v, %v", tags, err)
	}
	if err := in.Install(t.Context(), plan(t, "", "revision=v2")); err != nil {
		t.Fatal(err)
	}
	if tags, _ := in.Tags(t.Context()); len(tags) != 1 {
		t.Error("an install pruned a tag")
	}
	if err := in.RemoveTag(t.Context(), Namespace, "prod", false); err == nil || !strings.Contains(err.Error(), "used by namespaces shop") {
		t.Errorf("removed although it is used: %v", err)
	}
	if err := in.RemoveTag(t.Context(), Namespace, "prod", true); err != nil {
		t.Fatal(err)
	}
	if tags, _ := in.Tags(t.Context()); len(tags) != 0 {
		t.Errorf("left: %v", tags)
	}
}

// The tag default takes istio-injection=enabled from the revision of that name.
func TestTheTagDefaultTakesOver(t *testing.T) {
	f, in, _ := newFake(t)
	for _, p := range []*Plan{plan(t, ""), plan(t, "", "revision=v2")} {
		if err := in.Install(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.SetTag(t.Context(), Config{Version: "v0.1"}, "default", "v2", false); err != nil {
		t.Fatal(err)
	}
	hooks := func(name string) (out []string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		o := f.objects["/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/"+name]
		for _, h := range o["webhooks"].([]any) {
			out = append(out, strings.TrimSuffix(h.(map[string]any)["name"].(string), ".sidecar-injector.weft.mesh"))
		}
		return out
	}
	if got := hooks("weft-revision-tag-default"); !slices.Equal(got, []string{"rev.namespace", "rev.object", "namespace", "object", "default.early.validation.weft.mesh"}) {
		t.Errorf("the tag's webhooks: %v", got)
	}
	// Objects without a revision have one validator at any time, that of the tag.
	validators := func(name string) (out []string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		o := f.objects["/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/"+name]
		hooks, _ := o["webhooks"].([]any)
		for _, h := range hooks {
			m := h.(map[string]any)
			service := m["clientConfig"].(map[string]any)["service"].(map[string]any)["name"].(string)
			out = append(out, strings.TrimSuffix(m["name"].(string), ".validation.weft.mesh")+" "+service+" "+m["failurePolicy"].(string))
		}
		return out
	}
	if got := validators("weft-revision-tag-default"); !slices.Equal(got, []string{"default weft-v2 Fail", "default.ingress weft-v2 Ignore"}) {
		t.Errorf("the tag's validators: %v", got)
	}
	if got := validators("weft-validator"); !slices.Equal(got, []string{"rev weft Fail", "rev.ingress weft Ignore"}) {
		t.Errorf("the revision's validators: %v", got)
	}
	if got := hooks("weft-sidecar-injector"); !slices.Equal(got, []string{"rev.namespace", "rev.object"}) {
		t.Errorf("the revision's webhooks: %v", got)
	}
	if rev, err := in.DefaultElsewhere(t.Context()); rev != "v2" || err != nil {
		t.Errorf("default is at %q, %v", rev, err)
	}
	if err := in.RemoveTag(t.Context(), Namespace, "default", true); err != nil {
		t.Fatal(err)
	}
	if got := validators("weft-revision-tag-default"); got != nil {
		t.Errorf("a tag that is removed leaves %v", got)
	}
}

// A tag's webhooks are as its revision was installed.
func TestATagIsAsItsRevision(t *testing.T) {
	for set, want := range map[string]string{"validation.failurePolicy=Ignore": "Ignore", "validation.enabled=false": "none"} {
		f, in, _ := newFake(t)
		if err := in.Install(t.Context(), plan(t, "", "revision=v2,injection.failurePolicy=Ignore,"+set)); err != nil {
			t.Fatal(err)
		}
		if err := in.SetTag(t.Context(), Config{Version: "v0.1"}, "default", "v2", false); err != nil {
			t.Fatal(err)
		}
		policy := func(kind string) string {
			f.mu.Lock()
			defer f.mu.Unlock()
			hooks, _ := f.objects["/apis/admissionregistration.k8s.io/v1/"+kind+"/weft-revision-tag-default"]["webhooks"].([]any)
			if len(hooks) == 0 {
				return "none"
			}
			return hooks[0].(map[string]any)["failurePolicy"].(string)
		}
		if got := policy("validatingwebhookconfigurations"); got != want {
			t.Errorf("%s: the tag's validator has %s, want %s", set, got, want)
		}
		if got := policy("mutatingwebhookconfigurations"); got != "Ignore" {
			t.Errorf("%s: the tag's injection has %s", set, got)
		}
	}
}

// The node agent is in a namespace of its own, is shared by the revisions, and goes with the last of them.
func TestTheNodeAgentComesAndGoes(t *testing.T) {
	const agent = "/apis/apps/v1/namespaces/kube-system/daemonsets/weft-cni-node"
	f, in, lines := newFake(t)
	f.put("/api/v1/namespaces/kube-system", "{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}")
	there := func(want bool, when string) {
		t.Helper()
		for _, k := range []string{agent, "/api/v1/namespaces/kube-system/serviceaccounts/weft-cni", "/apis/rbac.authorization.k8s.io/v1/clusterroles/weft-cni"} {
			if f.objects[k] != nil != want {
				t.Errorf("%s: %s there: %t", when, k, !want)
			}
		}
	}
	install := func(sets ...string) {
		t.Helper()
		p := plan(t, "minimal", sets...)
		p.CRDs, p.Gateway = p.CRDs[:1], nil // they do not matter here
		if err := in.Install(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	install("cni.enabled=true")
	there(true, "installed")
	install("revision=canary")
	there(true, "another revision without it")
	if place(*lines, "kept the node agent: revision default is installed with it") < 0 {
		t.Errorf("nothing is said of it in %q", *lines)
	}
	if err := in.Uninstall(t.Context(), Removal{Revision: "canary"}); err != nil {
		t.Fatal(err)
	}
	there(true, "the other revision is gone")
	install()
	there(false, "switched off")
	install("cni.enabled=true,revision=canary")
	there(true, "by another revision")
	if err := in.Uninstall(t.Context(), Removal{Revision: "canary"}); err != nil {
		t.Fatal(err)
	}
	there(false, "the only revision that has it is gone")
	install("cni.enabled=true")
	f.taken()
	if err := in.Uninstall(t.Context(), Removal{}); err != nil {
		t.Fatal(err)
	}
	there(false, "uninstalled")
	w := f.taken()
	if set, account := place(w, "DELETE "+agent), place(w, "serviceaccounts/weft-cni"); set < 0 || account < set {
		t.Errorf("the account goes before its DaemonSet: %q", w)
	}
}

func TestIstiosNodeAgentIsInTheWay(t *testing.T) {
	f, in, _ := newFake(t)
	f.put("/apis/apps/v1/namespaces/istio-system/daemonsets/istio-cni-node", "{metadata: {name: istio-cni-node, namespace: istio-system, labels: {k8s-app: istio-cni-node}}}")
	if err := in.Install(t.Context(), plan(t, "minimal", "cni.enabled=true")); err == nil || !strings.Contains(err.Error(), "daemonset/istio-cni-node in istio-system is Istio's node agent") {
		t.Errorf("error %v", err)
	}
	if err := in.Install(t.Context(), plan(t, "minimal")); err != nil {
		t.Errorf("without a node agent: %v", err)
	}
}

func TestANamespaceThatCannotHaveTheNodeAgent(t *testing.T) {
	f, in, _ := newFake(t)
	f.put("/api/v1/namespaces/kube-system", "{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}")
	f.put("/api/v1/namespaces/tight", "{apiVersion: v1, kind: Namespace, metadata: {name: tight, labels: {pod-security.kubernetes.io/enforce: baseline}}}")
	p := plan(t, "minimal", "cni.enabled=true")
	for ns, want := range map[string]string{"kube-system": "", "tight": "enforces the Pod Security standard baseline", "weft-system": "enforces the Pod Security standard restricted", "nowhere": "is not there"} {
		p.Values["cni"].(map[string]any)["namespace"] = ns
		found, err := in.checkAgent(t.Context(), p)
		if err != nil || len(found) > 0 != (want != "") || want != "" && !strings.Contains(found[0].Error(), want) {
			t.Errorf("%s: %v, %v, want %q", ns, found, err, want)
		}
	}
}
