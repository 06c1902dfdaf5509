// Package install_test runs weft's installer against a real API server: what its
// fake cannot show is whether the server takes every object, and whether a
// second time really changes nothing.
package install_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"weft.mesh/weft/cli/install"
	"weft.mesh/weft/cli/kube"
	"weft.mesh/weft/deploy/render"
	"weft.mesh/weft/test/kubernetes/apiserver"
)

// start starts an API server without any definitions.
func start(t *testing.T) *kube.Cluster {
	t.Helper()
	s := apiserver.Bare(t)
	c, err := kube.Open(kube.Options{File: s.Kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func plan(t *testing.T, profile string, sets ...string) *install.Plan {
	t.Helper()
	v := render.Values{}
	for _, s := range sets {
		var err error
		if v, err = render.ParseSet(v, s); err != nil {
			t.Fatal(err)
		}
	}
	p, err := install.NewPlan(install.Config{Profile: profile, Values: v, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run does f and returns what was said to have changed.
func run(t *testing.T, in *install.Installer, f func(context.Context) error) []string {
	t.Helper()
	var lines []string
	in.Progress = func(l string) { lines = append(lines, l) }
	if err := f(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(lines, "\n"))
	}
	return lines
}

func TestAnAPIServerTakesEverything(t *testing.T) {
	c := start(t)
	in := &install.Installer{Cluster: c} // it has no controllers: there is nothing to wait for
	do := func(p *install.Plan) []string {
		return run(t, in, func(ctx context.Context) error { return in.Install(ctx, p) })
	}
	in.DryRun = true
	if lines := do(plan(t, "demo")); !slices.Contains(lines, "clusterrole/weft-control-plane would be created") {
		t.Errorf("dry run: %q", lines)
	}
	in.DryRun = false
	lines := do(plan(t, "demo"))
	t.Logf("%d objects made", len(lines))
	if again := do(plan(t, "demo")); len(again) > 0 {
		t.Errorf("a second time changes %q", again)
	}
	for _, profile := range []string{"ha", "minimal"} {
		if again := do(plan(t, profile, "gateways.ingress.enabled=true")); len(again) == 0 {
			t.Errorf("profile %s changes nothing", profile)
		}
	}
	if lines := do(plan(t, "minimal")); !slices.Contains(lines, "deployment/istio-ingressgateway deleted") || slices.Contains(lines, "deployment/weft deleted") {
		t.Errorf("prune: %q", lines)
	}
	in.Timeout = time.Second // there is nothing to come for what is not there
	checks, err := in.Verify(t.Context(), plan(t, "minimal"))
	in.Timeout = 0
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range checks {
		// No controllers run here, and no control plane that fills in the certificate authority.
		if !k.OK && !strings.HasPrefix(k.What, "deployment/") && !strings.Contains(k.What, "webhookconfiguration/") {
			t.Errorf("%s: %s", k.What, k.Note)
		}
	}
	do(plan(t, "", "revision=canary,revisionTags={prod}"))
	run(t, in, func(ctx context.Context) error {
		return in.SetTag(ctx, install.Config{Version: "test"}, "default", "canary", false)
	})
	tags, err := in.Tags(t.Context())
	if err != nil || len(tags) != 2 {
		t.Errorf("tags %v, %v", tags, err)
	}
	validators := schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
	if _, err := in.Cluster.Dynamic.Resource(validators).Get(t.Context(), "weft-revision-tag-default", metav1.GetOptions{}); err != nil {
		t.Errorf("the validator of the tag default: %v", err)
	}
	run(t, in, func(ctx context.Context) error { return in.Uninstall(ctx, install.Removal{All: true, Purge: true}) })
	for _, gvr := range []schema.GroupVersionResource{
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"},
		validators,
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
		{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
	} {
		list, err := c.Dynamic.Resource(gvr).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Items {
			if strings.HasPrefix(o.GetName(), "weft") || strings.Contains(o.GetName(), "istio.io") && o.GetDeletionTimestamp() == nil {
				t.Errorf("left: %s %s", gvr.Resource, o.GetName())
			}
		}
	}
}

// Definitions that somebody else brought, of a version before v1, are not taken over unless it is asked for.
func TestOlderDefinitionsOfOthersAreRefusedOrReplaced(t *testing.T) {
	c := start(t)
	crds := c.Dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	const name = "virtualservices.networking.istio.io"
	p := plan(t, "minimal")
	i := slices.IndexFunc(p.CRDs, func(o *unstructured.Unstructured) bool { return o.GetName() == name })
	if i < 0 {
		t.Fatal("the plan has no " + name)
	}
	old := p.CRDs[i].DeepCopy()
	all, _, _ := unstructured.NestedSlice(old.Object, "spec", "versions")
	all = slices.DeleteFunc(all, func(v any) bool { return v.(map[string]any)["name"] == "v1" })
	for _, v := range all {
		v.(map[string]any)["storage"] = v.(map[string]any)["name"] == "v1beta1"
	}
	if err := unstructured.SetNestedSlice(old.Object, all, "spec", "versions"); err != nil {
		t.Fatal(err)
	}
	if _, err := crds.Create(t.Context(), old, metav1.CreateOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	in := &install.Installer{Cluster: c, Progress: func(string) {}}
	if err := in.Install(t.Context(), plan(t, "minimal")); err == nil || !strings.Contains(err.Error(), "definition "+name+" is older and not Weft's: it does not serve v1") {
		t.Fatalf("error %v, want that the definition is older", err)
	}
	run(t, in, func(ctx context.Context) error { return in.Install(ctx, plan(t, "minimal", "crds.mode=replace")) })
	now, err := crds.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	versions, _, _ := unstructured.NestedSlice(now.Object, "spec", "versions")
	if !slices.ContainsFunc(versions, func(v any) bool { return v.(map[string]any)["name"] == "v1" }) {
		t.Errorf("versions after replacing: %v", versions)
	}
}

// A container beside a sidecar that runs as the sidecar's user would not be captured.
func TestTheSidecarsUserIsReserved(t *testing.T) {
	c := start(t)
	in := &install.Installer{Cluster: c}
	run(t, in, func(ctx context.Context) error {
		return in.Install(ctx, plan(t, "minimal", "injection.failurePolicy=Ignore"))
	})
	account := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "default"}}}
	if _, err := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}).Namespace("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace("default")
	create := func(name string, user int64) error {
		o := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"automountServiceAccountToken": false, "containers": []any{
				map[string]any{"name": "app", "image": "app", "securityContext": map[string]any{"runAsUser": user}},
				map[string]any{"name": "istio-proxy", "image": "proxy", "securityContext": map[string]any{"runAsUser": int64(1337)}},
			}},
		}}
		_, err := pods.Create(t.Context(), o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	deadline := time.Now().Add(time.Minute) // the policy is in force a moment after it is stored
	for {
		err := create("bad", 1337)
		if err != nil && strings.Contains(err.Error(), "user 1337 is the sidecar's") {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("a pod whose application runs as 1337: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := create("good", 1000); err != nil {
		t.Errorf("user 1000: %v", err)
	}
}
