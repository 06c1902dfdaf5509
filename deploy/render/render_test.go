package render_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/deploy"
	"weft.mesh/weft/deploy/render"
)

var update = flag.Bool("update", false, "rewrite the expected objects")

func load(t *testing.T) *render.Chart {
	t.Helper()
	c, err := render.Load(deploy.Chart())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rendered is all objects of a profile with --set values, in one text.
func rendered(t *testing.T, profile string, sets ...string) string {
	t.Helper()
	c := load(t)
	v := render.Values{}
	for _, s := range sets {
		var err error
		if v, err = render.ParseSet(v, s); err != nil {
			t.Fatal(err)
		}
	}
	all, err := c.Values(profile, v)
	if err != nil {
		t.Fatal(err)
	}
	files, err := c.Render(render.Release{}, all)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range files {
		b.WriteString("# " + f.Name + "\n" + strings.TrimSpace(f.Text) + "\n---\n")
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	for name, c := range map[string]struct {
		profile string
		sets    []string
	}{
		"default": {"", nil},
		"minimal": {"minimal", nil},
		"demo":    {"demo", nil},
		"ha":      {"ha", nil},
		"canary":  {"minimal", []string{"revision=canary,revisionTags={prod,default},sharedObjects=false"}},
		"cni":     {"minimal", []string{"cni.enabled=true,cni.taint.enabled=true,cni.podLabels.team=a,cni.cniConfFileName=10-a.conflist"}},
		"full":    {"demo", []string{"istioCompatible=true,controlPlane.plaintextXDS=true,injection.enableNamespacesByDefault=true,global.imagePullSecrets={a,b},gateways.ingress.autoscaling.enabled=true"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := rendered(t, c.profile, c.sets...)
			file := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("objects (-want +got):\n%s", d)
			}
		})
	}
}

func TestWrongValuesAreRefusedByName(t *testing.T) {
	for set, want := range map[string]string{
		"controlPlane.replica=3":               "value controlPlane.replica: not known; here are: affinity,",
		"controlPlane.replicas=many":           `value controlPlane.replicas: "many": want a whole number`,
		"controlPlane.replicas=101":            "value controlPlane.replicas: 101: out of range",
		"injection.failurePolicy=Maybe":        `value injection.failurePolicy: "Maybe": want one of Fail, Ignore`,
		"revision=Canary_1":                    `value revision: "Canary_1": want text that matches`,
		"revisionTags=prod":                    `value revisionTags: "prod": want a list`,
		"gateways.ingress.ports[0].port=70000": "value gateways.ingress.ports[0].port: 70000: out of range",
		"cni.cniBinDir=opt":                    `value cni.cniBinDir: "opt": want text that matches`,
		"istioCompatible=1":                    "value istioCompatible: 1: want true or false",
	} {
		v, err := render.ParseSet(nil, set)
		if err != nil {
			t.Fatal(err)
		}
		_, err = load(t).Values("", v)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
	}
	if _, err := load(t).Values("big"); err == nil || err.Error() != `profile "big": want one of default, demo, ha, minimal` {
		t.Errorf("unknown profile: %v", err)
	}
}

// A budget that no drain can keep is refused when it is rendered.
func TestABudgetThatBlocksEveryDrainIsRefused(t *testing.T) {
	c := load(t)
	set, _ := render.ParseSet(nil, "controlPlane.replicas=2,controlPlane.podDisruptionBudget.minAvailable=2")
	v, err := c.Values("", set)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Render(render.Release{}, v); err == nil || !strings.Contains(err.Error(), "use at most 1") {
		t.Errorf("minAvailable 2 of 2: %v", err)
	}
}

func TestSetReadsWhatHelmReads(t *testing.T) {
	for text, want := range map[string]string{
		"a=1":                    "a: 1",
		"a.b=true,a.c=x":         "a: {b: true, c: x}",
		"a={x,z}":                "a: [x, z]",
		"a={}":                   "a: []",
		"a[1].b=x":               "a: [null, {b: x}]",
		`a=x\,y`:                 `a: "x,y"`,
		`a\.b=x`:                 `{"a.b": x}`,
		"a=007":                  `a: "007"`,
		"a=":                     `a: ""`,
		"a=null,b=1":             "{a: null, b: 1}",
		`m.kubernetes\.io/os=lx`: `m: {"kubernetes.io/os": lx}`,
	} {
		got, err := render.ParseSet(nil, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var w map[string]any
		if err := yaml.Unmarshal([]byte(want), &w); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(w, map[string]any(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", text, d)
		}
	}
	for _, bad := range []string{"a", "=1", "a[x]=1", "a[1=2", "a[300]=1", "a..b=1", "a[0]b=1", "a=1,"} {
		if v, err := render.ParseSet(nil, bad); err == nil {
			t.Errorf("%q gives %v", bad, v)
		}
	}
	if _, err := render.ParseSet(render.Values{"a": "x"}, "a[0]=1"); err == nil {
		t.Error("an index into text is taken")
	}
}

func FuzzParseSet(f *testing.F) {
	f.Add("a.b[1]={x,y},c=1")
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = render.ParseSet(nil, s)
	})
}

func TestMergeLaysOverAndTakesAway(t *testing.T) {
	under := render.Values{"a": map[string]any{"b": 1.0, "c": []any{1.0}}, "d": "x"}
	got := render.Merge(under, render.Values{"a": map[string]any{"c": []any{2.0}}, "d": nil})
	if d := cmp.Diff(render.Values{"a": map[string]any{"b": 1.0, "c": []any{2.0}}}, got); d != "" {
		t.Error(d)
	}
	if under["d"] != "x" {
		t.Error("what lies under was changed")
	}
}

func objects(t *testing.T, text string) (out []map[string]any) {
	t.Helper()
	for _, d := range strings.Split(text, "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(d), &o); err != nil {
			t.Fatal(err)
		}
		if len(o) > 0 {
			out = append(out, o)
		}
	}
	return out
}

// Every pod of the chart keeps the restricted Pod Security standard.
func TestPodsAreRestricted(t *testing.T) {
	n := 0
	for _, o := range objects(t, rendered(t, "demo")) {
		if o["kind"] != "Deployment" {
			continue
		}
		var d appsv1.Deployment
		b, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(b, &d); err != nil {
			t.Fatalf("%v: %v", o["metadata"], err)
		}
		n++
		s := d.Spec.Template.Spec
		if s.HostNetwork || s.HostPID || s.HostIPC {
			t.Errorf("%s: shares the host's namespaces", d.Name)
		}
		for _, v := range s.Volumes {
			if v.HostPath != nil {
				t.Errorf("%s: volume %s is of the host", d.Name, v.Name)
			}
		}
		for _, c := range s.Containers {
			x := c.SecurityContext
			if x == nil || *x.AllowPrivilegeEscalation || !*x.RunAsNonRoot || !*x.ReadOnlyRootFilesystem || x.SeccompProfile.Type != "RuntimeDefault" || len(x.Capabilities.Add) > 0 || x.Capabilities.Drop[0] != "ALL" {
				t.Errorf("%s: container %s: %+v", d.Name, c.Name, x)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d Deployments, want the control plane and the gateway", n)
	}
}
