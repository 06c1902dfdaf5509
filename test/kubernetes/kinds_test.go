package kubernetes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// kinds are those that deploy/crds defines, with the line that kubectl get prints of the objects
// of testdata/kinds.yaml: header and values without the age.
var kinds = []struct{ resource, header, values string }{
	{"gateways.networking.istio.io", "NAME HOSTS ACCEPTED AGE", `edge ["kinds.example"] True`},
	{"virtualservices.networking.istio.io", "NAME GATEWAYS HOSTS ACCEPTED AGE", `web ["edge"] ["kinds.example"] True`},
	{"destinationrules.networking.istio.io", "NAME HOST ACCEPTED AGE", "web web True"},
	{"serviceentries.networking.istio.io", "NAME HOSTS LOCATION RESOLUTION ACCEPTED AGE", `outside ["outside.kinds.example"] MESH_EXTERNAL STATIC True`},
	{"workloadentries.networking.istio.io", "NAME ADDRESS ACCEPTED AGE", "machine 192.0.2.7 True"},
	{"peerauthentications.security.istio.io", "NAME MODE ACCEPTED AGE", "default STRICT True"},
	{"authorizationpolicies.security.istio.io", "NAME ACTION ACCEPTED AGE", "web ALLOW True"},
	{"gatewayclasses.gateway.networking.k8s.io", "NAME CONTROLLER ACCEPTED AGE", "weft weft.mesh/gateway-controller True"},
	{"gateways.gateway.networking.k8s.io", "NAME CLASS ADDRESS PROGRAMMED AGE", `door weft 10\.97\.0\.[0-9]+ True`},
	{"listenersets.gateway.networking.k8s.io", "NAME ACCEPTED PROGRAMMED AGE", "more True True"},
	{"httproutes.gateway.networking.k8s.io", "NAME HOSTNAMES AGE", `web ["web.kinds.example"]`},
	{"grpcroutes.gateway.networking.k8s.io", "NAME HOSTNAMES AGE", `calls ["calls.kinds.example"]`},
	{"tcproutes.gateway.networking.k8s.io", "NAME AGE", "raw"},
	{"tlsroutes.gateway.networking.k8s.io", "NAME AGE", "tls"},
	{"udproutes.gateway.networking.k8s.io", "NAME AGE", "datagrams"},
	{"referencegrants.gateway.networking.k8s.io", "NAME AGE", "others"},
	{"backendtlspolicies.gateway.networking.k8s.io", "NAME AGE", "web"},
}

// What a person does with kubectl: apply, wait, get, apply again.
func TestObjectsOfEveryKindWithKubectl(t *testing.T) {
	m := kubetest.Install(t)
	ns := m.Namespace(t, "kinds")
	everyKind(t, m)
	manifests, err := os.ReadFile(filepath.Join(m.Bed.Module, "test/kubernetes/testdata/kinds.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	apply := func(t *testing.T, manifests string) {
		t.Helper()
		if out, err := m.Try(t.Context(), manifests, "-n", ns, "apply", "--server-side", "-f", "-"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	apply(t, string(manifests))
	for resource, condition := range map[string]string{
		"gateways.gateway.networking.k8s.io/door": "Programmed", "listenersets.gateway.networking.k8s.io/more": "Programmed",
		"virtualservices.networking.istio.io/web": "Reconciled", "gatewayclasses.gateway.networking.k8s.io/weft": "Accepted",
	} {
		m.Kubectl(t, "-n", ns, "wait", "--for=condition="+condition, resource, "--timeout=90s")
	}
	for _, k := range kinds {
		m.Eventually(t, 30*time.Second, "columns", func(ctx context.Context) error { return columns(ctx, m, ns, k.resource, k.header, k.values) })
	}

	// By now everything has a status, which is not the business of who applies.
	before := settled(t, m, ns)
	for name, again := range map[string]string{
		"the manifests again":       string(manifests),
		"what the server has of it": m.Kubectl(t, append([]string{"-n", ns, "get", "-o", "yaml"}, allKinds()...)...),
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := m.Try(t.Context(), again, "-n", ns, "diff", "--server-side", "-f", "-"); err != nil {
				t.Errorf("kubectl diff: %v\n%s", err, out)
			}
			apply(t, again)
			after := settled(t, m, ns)
			for object, was := range before {
				if is := after[object]; is.generation != was.generation || is.status != was.status {
					t.Errorf("%s: generation %d, then %d; status\n%s\nthen\n%s", object, was.generation, is.generation, was.status, is.status)
				}
			}
		})
	}
}

// everyKind fails for a definition that [kinds] does not have.
func everyKind(t *testing.T, m *kubetest.Mesh) {
	t.Helper()
	for _, name := range strings.Fields(m.Field(t, "", "customresourcedefinitions", "{.items[*].metadata.name}")) {
		if strings.HasSuffix(name, ".istio.io") || strings.HasSuffix(name, ".gateway.networking.k8s.io") {
			if !slices.Contains(allResources(), name) {
				t.Errorf("%s: no object of this kind is tried", name)
			}
		}
	}
}

func allResources() []string {
	var out []string
	for _, k := range kinds {
		out = append(out, k.resource)
	}
	return out
}

// allKinds is the argument of kubectl get for all kinds that have a namespace.
func allKinds() []string {
	return []string{strings.Join(slices.DeleteFunc(allResources(), func(r string) bool { return strings.HasPrefix(r, "gatewayclasses.") }), ",")}
}

var spaces = regexp.MustCompile(` {2,}`)

// columns compares what kubectl get prints.
func columns(ctx context.Context, m *kubetest.Mesh, ns, resource, header, values string) error {
	out, err := m.Try(ctx, "", "-n", ns, "get", resource)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if got := strings.Join(strings.Fields(lines[0]), " "); got != header {
		return fmt.Errorf("%s: columns %s, want %s", resource, got, header)
	}
	want := regexp.MustCompile("^" + strings.NewReplacer("[\"", `\["`, "\"]", `"\]`).Replace(values) + " [0-9]+[0-9a-z]*$")
	if !slices.ContainsFunc(lines[1:], func(l string) bool { return want.MatchString(strings.TrimSpace(spaces.ReplaceAllString(l, " "))) }) {
		return fmt.Errorf("%s: no line %s in\n%s", resource, want, out)
	}
	return nil
}

// state is what may not change by applying the same again.
type state struct {
	generation int64
	status     string
}

func settled(t *testing.T, m *kubetest.Mesh, ns string) map[string]state {
	t.Helper()
	var list struct {
		Items []struct {
			Kind, APIVersion string
			Metadata         struct {
				Name       string
				Generation int64
			}
			Status json.RawMessage
		}
	}
	out := m.Kubectl(t, append([]string{"-n", ns, "get", "-o", "json"}, allKinds()...)...)
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) < len(kinds)-1 {
		t.Fatal(errors.New("objects are missing: " + out))
	}
	all := map[string]state{}
	for _, o := range list.Items {
		all[o.APIVersion+" "+o.Kind+" "+o.Metadata.Name] = state{o.Metadata.Generation, string(o.Status)}
	}
	return all
}
