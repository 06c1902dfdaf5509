package render_test

import (
	"encoding/json"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// hook is what of a webhook decides whether the API server asks it about a pod.
type hook struct{ NamespaceSelector, ObjectSelector *metav1.LabelSelector }

// injectors are the webhooks of injection of an installation, tags included.
func injectors(t *testing.T, sets ...string) (out []hook) {
	t.Helper()
	for _, o := range objects(t, rendered(t, "minimal", sets...)) {
		if o["kind"] != "MutatingWebhookConfiguration" {
			continue
		}
		b, err := json.Marshal(o["webhooks"])
		if err != nil {
			t.Fatal(err)
		}
		var hooks []hook
		if err := json.Unmarshal(b, &hooks); err != nil {
			t.Fatal(err)
		}
		out = append(out, hooks...)
	}
	return out
}

// asked counts the webhooks that are asked about a pod with these labels in a namespace with these.
func asked(t *testing.T, hooks []hook, ns, pod map[string]string) (n int) {
	t.Helper()
	matches := func(s *metav1.LabelSelector, l map[string]string) bool {
		sel, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return sel.Matches(labels.Set(l))
	}
	for _, h := range hooks {
		if matches(h.NamespaceSelector, ns) && matches(h.ObjectSelector, pod) {
			n++
		}
	}
	return n
}

// Istio's order: istio-injection of the namespace, its istio.io/rev, that of the pod, the pod's sidecar.istio.io/inject. Nobody is asked twice.
func TestWebhooksChooseByLabels(t *testing.T) {
	def := injectors(t, "revisionTags={stable}")
	canary := injectors(t, "revision=canary")
	auto := injectors(t, "injection.enableNamespacesByDefault=true")
	taken := injectors(t, "revision=canary,revisionTags={default}") // istio-injection=enabled is the canary's
	for _, tt := range []struct {
		ns, pod                  string
		def, canary, auto, taken int
	}{
		{"", "", 0, 0, 1, 0},
		{"istio-injection=enabled", "", 1, 0, 1, 1},
		{"istio-injection=disabled", "", 0, 0, 0, 0},
		{"istio-injection=disabled", "sidecar.istio.io/inject=true", 0, 0, 0, 0},
		{"istio-injection=enabled", "sidecar.istio.io/inject=false", 0, 0, 0, 0},
		{"istio.io/rev=canary", "", 0, 1, 0, 1},
		{"istio.io/rev=stable", "", 1, 0, 0, 0},
		{"istio.io/rev=default", "", 1, 0, 1, 1},
		{"istio.io/rev=canary istio-injection=enabled", "", 1, 0, 1, 1},
		{"istio.io/rev=canary", "istio.io/rev=default", 0, 1, 0, 1},
		{"", "istio.io/rev=canary", 0, 1, 0, 1},
		{"", "sidecar.istio.io/inject=true", 1, 0, 1, 1},
		{"", "sidecar.istio.io/inject=true istio.io/rev=canary", 0, 1, 0, 1},
		{"", "sidecar.istio.io/inject=false istio.io/rev=canary", 0, 0, 0, 0},
		{"istio-injection=enabled kubernetes.io/metadata.name=kube-system", "", 0, 0, 0, 0},
	} {
		ns, pod := pairs(tt.ns), pairs(tt.pod)
		got := [4]int{asked(t, def, ns, pod), asked(t, canary, ns, pod), asked(t, auto, ns, pod), asked(t, taken, ns, pod)}
		if want := [4]int{tt.def, tt.canary, tt.auto, tt.taken}; got != want {
			t.Errorf("namespace %q, pod %q: default, canary, auto, canary with the tag default: %v, want %v", tt.ns, tt.pod, got, want)
		}
	}
}

func pairs(s string) map[string]string {
	out := map[string]string{}
	for _, kv := range strings.Fields(s) {
		k, v, _ := strings.Cut(kv, "=")
		out[k] = v
	}
	return out
}
