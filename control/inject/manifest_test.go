package inject

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func TestManifestKeepsTheRest(t *testing.T) {
	conf := &Config{Values: DefaultValues(), DiscoveryAddress: "weft.weft-system.svc:15012"}
	in, err := os.ReadFile("testdata/manifest/in.yaml")
	check(t, err)
	out, all, err := conf.Manifest(in, "shop")
	check(t, err)
	if *update {
		check(t, os.WriteFile("testdata/manifest/out.yaml", out, 0o644))
	}
	want, err := os.ReadFile("testdata/manifest/out.yaml")
	check(t, err)
	if d := cmp.Diff(string(want), string(out)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	var got []string
	for _, o := range all {
		got = append(got, strings.Join([]string{o.Kind, o.Namespace, o.Name, o.Why}, " "))
	}
	if d := cmp.Diff([]string{"Deployment shop web namespace or revision", "CronJob batch nightly namespace or revision",
		"DaemonSet shop agent label sidecar.istio.io/inject=false", "Pod shop one namespace or revision"}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	first, _, _ := bytes.Cut(in, []byte("---"))
	if !bytes.HasPrefix(out, first) {
		t.Error("a document without a workload changed")
	}
	for _, keep := range []string{"# the shop", "# the only one", "# nothing but this", "kubernetes://apis/apps/v1/namespaces/shop/deployments/web", "value: \"on\""} {
		if !bytes.Contains(out, []byte(keep)) {
			t.Errorf("%q is lost", keep)
		}
	}
	again, _, err := conf.Manifest(out, "shop")
	check(t, err)
	if !bytes.Equal(again, out) {
		t.Error("a second time changed something")
	}
}

// The YAML that comes out is the pod that the webhook would make.
func TestManifestIsThePod(t *testing.T) {
	for i, c := range cases(t) {
		if c.Error != "" || strings.HasPrefix(c.Name, "fields") {
			continue
		}
		conf := c.config(t)
		r, err := conf.Inject(c.Pod, "shop")
		check(t, err)
		y, err := yaml.JSONToYAML(c.Pod)
		check(t, err)
		text := "kind: Pod\napiVersion: v1\n" + string(y)
		if i%2 == 0 {
			text = `{"kind":"Pod","apiVersion":"v1",` + string(c.Pod[1:])
		}
		out, all, err := conf.Manifest([]byte(text), "shop")
		check(t, err)
		if len(all) != 1 {
			t.Fatalf("%s: %d workloads", c.Name, len(all))
		}
		var want, got corev1.Pod
		check(t, yaml.Unmarshal(r.Pod, &want))
		check(t, yaml.UnmarshalStrict(out, &got))
		want.Kind, want.APIVersion = "Pod", "v1"
		if ownerOf(&want).Kind != "Pod" { // by its controller; in a file the pod is its own
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -webhook +file:\n%s", c.Name, d)
		}
	}
}

func TestManifestRefuses(t *testing.T) {
	conf := &Config{Values: DefaultValues()}
	for text, want := range map[string]string{
		"kind: Service\n---\nkind: [":                                                                          "document at line 2",
		"kind: Deployment\nmetadata: {name: a}\nspec: {}":                                                      "Deployment a: there is no spec.template",
		"kind: Pod\nspec: {containers: 5}\nmetadata: {name: web}":                                              "Pod shop/web: pod:",
		"kind: Pod\nmetadata: {name: web, annotations: {sidecar.istio.io/interceptionMode: TPROXY}}\nspec: {}": "Pod shop/web: annotation",
	} {
		if _, _, err := conf.Manifest([]byte(text), "shop"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzManifest(f *testing.F) {
	in, err := os.ReadFile("testdata/manifest/in.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(in)
	f.Add([]byte("kind: Pod\nspec: &a\n  containers: [*a]\n"))
	f.Add([]byte("a: &a [*a]"))
	conf := &Config{Values: DefaultValues()}
	f.Fuzz(func(t *testing.T, text []byte) {
		out, all, err := conf.Manifest(text, "shop")
		if err != nil || len(all) > 0 {
			return
		}
		if !bytes.Equal(out, text) {
			t.Errorf("no workload, and %q became %q", text, out)
		}
	})
}
