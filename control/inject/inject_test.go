package inject

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	mesh "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite golden files")

type testCase struct {
	Name   string          `json:"name"`
	Values json.RawMessage `json:"values"`
	Mesh   struct {
		NoPrometheusMerge bool            `json:"noPrometheusMerge"`
		DefaultConfig     json.RawMessage `json:"defaultConfig"`
	} `json:"mesh"`
	Pod   json.RawMessage `json:"pod"`
	Error string          `json:"error"`
}

func cases(t *testing.T) []testCase {
	t.Helper()
	f, err := os.Open("testdata/cases.yaml")
	check(t, err)
	defer f.Close()
	var out []testCase
	r := utilyaml.NewDocumentDecoder(f)
	for {
		b := make([]byte, 64<<10)
		n, err := r.Read(b)
		if err == io.EOF {
			return out
		}
		check(t, err)
		var c testCase
		if err := yaml.UnmarshalStrict(b[:n], &c); err != nil {
			t.Fatalf("%s: %v", b[:n], err)
		}
		out = append(out, c)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c testCase) config(t *testing.T) *Config {
	t.Helper()
	text := string(c.Values)
	if text == "" {
		text = "{}"
	}
	v, err := ParseValues(text)
	check(t, err)
	conf := &Config{Values: v, DiscoveryAddress: "weft.weft-system.svc:15012", NoPrometheusMerge: c.Mesh.NoPrometheusMerge}
	if c.Mesh.DefaultConfig != nil {
		conf.Defaults = &mesh.ProxyConfig{}
		check(t, protojson.Unmarshal(c.Mesh.DefaultConfig, conf.Defaults))
	}
	return conf
}

func TestGolden(t *testing.T) {
	all := cases(t)
	if len(all) < 40 {
		t.Fatalf("%d cases", len(all))
	}
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			conf := c.config(t)
			r, err := conf.Inject(c.Pod, "shop")
			if c.Error != "" {
				if err == nil || !strings.Contains(err.Error(), c.Error) {
					t.Fatalf("error = %v, want one with %q", err, c.Error)
				}
				return
			}
			check(t, err)
			if !r.Injected {
				t.Fatalf("not injected: %s", r.Why)
			}
			golden(t, c.Name, r)
			if d := cmp.Diff(tree(t, r.Pod), patched(t, c.Pod, r.Patch)); d != "" {
				t.Errorf("the patch makes another pod: -pod +patched:\n%s", d)
			}
			again, err := conf.Inject(r.Pod, "shop")
			check(t, err)
			if c.Name != "custom template only" && (again.Injected || again.Patch != nil) {
				t.Errorf("a second time: %s\n%s", again.Why, again.Patch)
			}
			same, err := conf.Inject(c.Pod, "shop")
			check(t, err)
			if !bytes.Equal(same.Patch, r.Patch) {
				t.Error("the same pod gave another patch")
			}
		})
	}
}

func golden(t *testing.T, name string, r *Result) {
	t.Helper()
	b, err := yaml.JSONToYAML(r.Pod)
	check(t, err)
	got := ""
	for _, w := range r.Warnings {
		got += "# warning: " + w + "\n"
	}
	got += string(b)
	path := filepath.Join("testdata", strings.NewReplacer(" ", "-", "'", "").Replace(name)+".yaml")
	if *update {
		check(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	check(t, err)
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s: -want +got:\n%s", path, d)
	}
}

func tree(t *testing.T, b []byte) any {
	t.Helper()
	d, err := decode(b)
	check(t, err)
	return map[string]any(d)
}

// patched applies add, remove and replace of RFC 6902 as an API server does.
func patched(t *testing.T, pod, patch []byte) any {
	t.Helper()
	root := tree(t, pod)
	var ops []struct {
		Op, Path string
		Value    any
	}
	d := json.NewDecoder(bytes.NewReader(patch))
	d.UseNumber()
	check(t, d.Decode(&ops))
	for _, op := range ops {
		var keys []string
		for _, k := range strings.Split(op.Path, "/")[1:] {
			keys = append(keys, strings.NewReplacer("~1", "/", "~0", "~").Replace(k))
		}
		root = apply(t, root, keys, op.Op, op.Value)
	}
	return root
}

func apply(t *testing.T, at any, keys []string, op string, value any) any {
	t.Helper()
	k, last := keys[0], len(keys) == 1
	switch x := at.(type) {
	case map[string]any:
		switch {
		case !last:
			x[k] = apply(t, x[k], keys[1:], op, value)
		case op == "remove":
			if _, ok := x[k]; !ok {
				t.Fatalf("remove %s: it is not there", k)
			}
			delete(x, k)
		default:
			x[k] = value
		}
		return x
	case []any:
		if k == "-" {
			return append(x, value)
		}
		i, err := strconv.Atoi(k)
		check(t, err)
		switch {
		case !last:
			x[i] = apply(t, x[i], keys[1:], op, value)
		case op == "add":
			x = append(x[:i:i], append([]any{value}, x[i:]...)...)
		case op == "replace":
			x[i] = value
		}
		return x
	}
	t.Fatalf("%s %v: there is no %s in %T", op, keys, k, at)
	return nil
}

func TestRequired(t *testing.T) {
	never := `neverInjectSelector: [{matchLabels: {job: "yes"}}]
alwaysInjectSelector: [{matchExpressions: [{key: always, operator: Exists}]}]`
	for _, tt := range []struct {
		name, values, namespace, pod string
		want                         bool
		why                          string
	}{
		{"a pod that says nothing", "", "shop", `{}`, true, "namespace or revision"},
		{"host network", "", "shop", `{spec: {hostNetwork: true}, metadata: {labels: {sidecar.istio.io/inject: "true"}}}`, false, "host network"},
		{"a system namespace", "", "kube-system", `{metadata: {labels: {sidecar.istio.io/inject: "true"}}}`, false, "kube-system"},
		{"Windows", "", "shop", `{spec: {os: {name: windows}}}`, false, "Windows"},
		{"Windows by node", "", "shop", `{spec: {nodeSelector: {kubernetes.io/os: windows}}}`, false, "Windows"},
		{"annotation no", "", "shop", `{metadata: {annotations: {sidecar.istio.io/inject: "false"}}}`, false, "annotation sidecar.istio.io/inject=false"},
		{"annotation of another kind", "", "shop", `{metadata: {annotations: {sidecar.istio.io/inject: "nope"}}}`, false, "annotation"},
		{"annotation yes", "", "shop", `{metadata: {annotations: {sidecar.istio.io/inject: "on"}}}`, true, "annotation"},
		{"label no beats annotation yes", "", "shop", `{metadata: {labels: {sidecar.istio.io/inject: "false"}, annotations: {sidecar.istio.io/inject: "true"}}}`, false, "label"},
		{"label yes beats annotation no", "", "shop", `{metadata: {labels: {sidecar.istio.io/inject: "true"}, annotations: {sidecar.istio.io/inject: "false"}}}`, true, "label"},
		{"never", never, "shop", `{metadata: {labels: {job: "yes"}}}`, false, "neverInjectSelector"},
		{"never before always", never, "shop", `{metadata: {labels: {job: "yes", always: ""}}}`, false, "neverInjectSelector"},
		{"always", never, "shop", `{metadata: {labels: {always: ""}}}`, true, "alwaysInjectSelector"},
		{"a label beats never", never, "shop", `{metadata: {labels: {job: "yes", sidecar.istio.io/inject: "true"}}}`, true, "label"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := ParseValues(tt.values)
			check(t, err)
			var p corev1.Pod
			check(t, yaml.Unmarshal([]byte(tt.pod), &p))
			got := (&Config{Values: v}).Required(&p, tt.namespace)
			if got.Inject != tt.want || !strings.Contains(got.Why, tt.why) {
				t.Errorf("%+v, want %v for %q", got, tt.want, tt.why)
			}
		})
	}
}

func TestPodsThatAreLeftAlone(t *testing.T) {
	conf := &Config{Values: DefaultValues()}
	for _, pod := range []string{`{"spec":{"hostNetwork":true}}`, `{"metadata":{"labels":{"sidecar.istio.io/inject":"false"}}}`} {
		r, err := conf.Inject([]byte(pod), "shop")
		if err != nil || r.Injected || r.Patch != nil || r.Why == "" {
			t.Errorf("%s: %+v, %v", pod, r, err)
		}
		// Who may have expected a sidecar is told.
		if want := strings.Contains(pod, "hostNetwork"); (len(r.Warnings) == 1) != want {
			t.Errorf("%s: warnings %q", pod, r.Warnings)
		}
	}
	// Only claiming to have a proxy is not having one.
	r, err := conf.Inject([]byte(`{"metadata":{"annotations":{"sidecar.istio.io/status":"{}"}},"spec":{"containers":[{"name":"a"}]}}`), "shop")
	if err != nil || !r.Injected {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestInjectRefusesWhatIsNoPod(t *testing.T) {
	conf := &Config{Values: DefaultValues()}
	for _, pod := range []string{``, `[]`, `{"spec":{"containers":{}}}`, strings.Repeat(" ", MaxPod+1)} {
		if _, err := conf.Inject([]byte(pod), "shop"); err == nil {
			t.Errorf("%.20q: no error", pod)
		}
	}
}

func TestValuesAreChecked(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"proxy: {colour: red}", "unknown field"},
		{"proxy: {statusPort: 0}", "statusPort 0"},
		{"proxy: {stopDelaySeconds: -1}", "stopDelaySeconds -1"},
		{"proxy: {logLevel: loud}", "logLevel"},
		{"neverInjectSelector: [{matchExpressions: [{key: a, operator: Is}]}]", "selector"},
		{"templates: {a: '{{ if }}'}", "templates.a"},
		{"defaultTemplates: [a]", `template "a" is not known`},
		{"[]", "injection values"},
	} {
		if _, err := ParseValues(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.text, err, tt.want)
		}
	}
}

// Whatever is injected, only istio-init may have a capability, and only if there is no node agent.
func TestOnlyInitHasPrivilege(t *testing.T) {
	for _, c := range cases(t) {
		if c.Error != "" || strings.HasPrefix(c.Name, "fields") {
			continue
		}
		conf := c.config(t)
		r, err := conf.Inject(c.Pod, "shop")
		check(t, err)
		var p corev1.Pod
		d := json.NewDecoder(bytes.NewReader(r.Pod))
		d.DisallowUnknownFields()
		check(t, d.Decode(&p))
		for _, ct := range append(p.Spec.InitContainers, p.Spec.Containers...) {
			s := ct.SecurityContext
			if ct.Name != ContainerProxy && ct.Name != ContainerInit && ct.Name != ContainerValidation || s == nil {
				continue
			}
			init := ct.Name == ContainerInit
			if fmt.Sprint(s.Capabilities.Drop) != "[ALL]" || len(s.Capabilities.Add) > 0 != init || *s.AllowPrivilegeEscalation || *s.RunAsNonRoot == init || *s.Privileged ||
				s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault || init && conf.CNI.Enabled {
				t.Errorf("%s: container %s: %+v", c.Name, ct.Name, s)
			}
		}
	}
}

func TestAnnotationsAreSorted(t *testing.T) {
	for i := 1; i < len(Annotations); i++ {
		if Annotations[i-1].Name >= Annotations[i].Name {
			t.Errorf("%s comes before %s", Annotations[i-1].Name, Annotations[i].Name)
		}
	}
	for _, a := range Annotations {
		if (a.Support == Honoured) != (a.Why == "") {
			t.Errorf("%s: a reason belongs to what is not honoured", a.Name)
		}
	}
}

// docs/kubernetes/annotations.md has a row with the right status for every annotation.
func TestAnnotationsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/kubernetes/annotations.md")
	check(t, err)
	status := map[Support]string{Honoured: "yes", Reported: "warning", Refused: "refused"}
	for _, a := range Annotations {
		row := "| `" + a.Name + "` | " + status[a.Support] + " | " + a.Why
		if !bytes.Contains(b, []byte(row)) {
			t.Errorf("no row %q", row)
		}
	}
	for _, list := range [][]string{forProxy, forOthers, withoutMeaning, reported} {
		for _, f := range list {
			if !bytes.Contains(b, []byte("`"+f)) {
				t.Errorf("ProxyConfig's %s is not documented", f)
			}
		}
	}
}

func BenchmarkInject(b *testing.B) {
	conf := &Config{Values: DefaultValues(), DiscoveryAddress: "weft.weft-system.svc:15012"}
	pod := []byte(`{"metadata":{"generateName":"web-","labels":{"app":"web"}},"spec":{"containers":[{"name":"web","image":"web","ports":[{"containerPort":8080}],"readinessProbe":{"httpGet":{"port":8080}}}]}}`)
	b.ReportAllocs()
	for b.Loop() {
		if r, err := conf.Inject(pod, "shop"); err != nil || !r.Injected {
			b.Fatal(err)
		}
	}
}
