package ingress_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"maps"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/ingress"
	"weft.mesh/weft/model"
)

var update = flag.Bool("update", false, "rewrite golden files")

// certificate is one for all cases, as base64 of PEM.
var certificate = sync.OnceValue(func() *strings.Replacer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	text := func(typ string, b []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: b}))
	}
	return strings.NewReplacer("$CERT", text("CERTIFICATE", der), "$KEY", text("PRIVATE KEY", keyDER))
})

type object struct {
	key    model.Key
	models []model.Object
}

// read decodes a case: its file and what all cases share. Objects are a second younger the later they are written.
func read(t testing.TB, path string) []object {
	t.Helper()
	var out []object
	for _, f := range []string{"testdata/common.yaml", path} {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		objs, ds := convert.Decode(admin.File{Name: f, Content: certificate().Replace(string(text))}, convert.Options{})
		if convert.HasErrors(ds) {
			t.Fatalf("%s: %+v", f, ds)
		}
		for i := range objs {
			objs[i].Meta.Created = time.Date(2026, 1, 1, 0, 0, len(out), 0, time.UTC)
			models, ds := convert.ToModel(&objs[i], model.Mesh{})
			if convert.HasErrors(ds) {
				t.Fatalf("%s: %+v", f, ds)
			}
			out = append(out, object{objs[i].Key, models})
		}
	}
	return out
}

func settingsOf(path string) ingress.Settings {
	return ingress.SettingsOf(model.Mesh{EndpointSlices: strings.Contains(path, "kubernetes")})
}

func fill(path string, objs []object, order []int) *ingress.Computer {
	c := ingress.NewComputer(settingsOf(path))
	for _, i := range order {
		c.Put(objs[i].key, objs[i].models)
	}
	return c
}

func inOrder(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func cases(t *testing.T) []string {
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d cases (%v), want at least 10", len(files), err)
	}
	return files
}

// TestGolden: each file of testdata is one rule. Its first lines say which, and lines "# want:" and "# never:" what must
// and must not be in the result, so that a golden file that is rewritten carelessly does not hide a loss.
func TestGolden(t *testing.T) {
	for _, f := range cases(t) {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".yaml"), func(t *testing.T) {
			objs := read(t, f)
			c := fill(f, objs, inOrder(len(objs)))
			c.Update()
			got := render(t, c.Output())
			wants(t, f, got)
			valid(t, c.Output())
			golden := strings.TrimSuffix(f, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v; write it with -update", err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func wants(t *testing.T, path, got string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	flat := strings.Join(strings.Fields(got), " ")
	for line := range strings.Lines(string(text)) {
		if want, ok := strings.CutPrefix(strings.TrimSpace(line), "# want: "); ok {
			if n++; !strings.Contains(flat, want) {
				t.Errorf("the result lacks %q:\n%s", want, got)
			}
		}
		if never, ok := strings.CutPrefix(strings.TrimSpace(line), "# never: "); ok {
			if n++; strings.Contains(flat, never) {
				t.Errorf("the result has %q:\n%s", never, got)
			}
		}
	}
	if n == 0 {
		t.Errorf("%s says nothing that it wants", path)
	}
}

// valid checks what holds for every result: routes name gateways that are there and have one answer each.
func valid(t *testing.T, out *ingress.Output) {
	t.Helper()
	gateways := map[string]bool{}
	for _, objs := range out.Objects {
		if g, ok := objs[0].(*model.Gateway); ok {
			gateways[g.Namespace+"/"+g.Name] = true
		}
	}
	for k, objs := range out.Objects {
		if len(objs) != 1 || objs[0].ObjectMeta().Key != k {
			t.Errorf("%s is kept as %v", k, objs)
		}
		rs, ok := objs[0].(*model.RouteSet)
		if !ok {
			continue
		}
		if len(rs.Gateways) != 1 || !gateways[rs.Gateways[0]] {
			t.Errorf("%s names gateways %v", k, rs.Gateways)
		}
		for _, r := range rs.HTTP {
			if (len(r.Forward) > 0) == (r.Direct != nil) || len(r.Matches) > 1 {
				t.Errorf("%s: route %+v", k, r)
			}
		}
	}
}

func render(t testing.TB, out *ingress.Output) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "served %v\n", out.Served)
	for _, f := range out.Findings {
		severity := "warning"
		if f.Error {
			severity = "error"
		}
		fmt.Fprintf(&b, "%s: %s %s %s %q\n    %s\n    %s\n", f.Key, severity, f.Code, f.Field, f.Value, f.Message, f.Hint)
	}
	for _, k := range slices.SortedFunc(maps.Keys(out.Objects), func(a, b model.Key) int { return strings.Compare(a.String(), b.String()) }) {
		for _, o := range out.Objects[k] {
			raw, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if err := json.Unmarshal(raw, &v); err != nil {
				t.Fatal(err)
			}
			text, err := yaml.Marshal(prune(v))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "--- %s\n%s", k, text)
		}
	}
	return b.String()
}

// prune drops what is empty, and times.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if p := prune(x); p == nil || k == "Created" {
				delete(v, k)
			} else {
				v[k] = p
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	case nil, string, bool, float64:
		if v == nil || v == "" || v == false || v == 0.0 {
			return nil
		}
	}
	return v
}

// TestTheOrderOfEventsDoesNotMatter puts the objects of each case in random orders, with deletions between; the changes
// that are told add up to the result.
func TestTheOrderOfEventsDoesNotMatter(t *testing.T) {
	rnd := mathrand.New(mathrand.NewPCG(1, 2))
	for _, f := range cases(t) {
		objs := read(t, f)
		ref := fill(f, objs, inOrder(len(objs)))
		ref.Update()
		want := render(t, ref.Output())
		for range 3 {
			c := fill(f, objs, rnd.Perm(len(objs)))
			known := map[model.Key][]model.Object{}
			apply(t, known, c.Update())
			for _, i := range rnd.Perm(len(objs))[:len(objs)/2] {
				c.Delete(objs[i].key)
				apply(t, known, c.Update())
			}
			for _, o := range objs {
				c.Put(o.key, o.models)
			}
			apply(t, known, c.Update())
			if got := render(t, c.Output()); got != want {
				t.Fatalf("%s: another order gives another result:\n%s", f, cmp.Diff(want, got))
			}
			if !reflect.DeepEqual(known, c.Output().Objects) {
				t.Fatalf("%s: the changes do not add up to the result", f)
			}
			for _, o := range objs {
				c.Delete(o.key)
			}
			apply(t, known, c.Update())
			if len(known) != 0 {
				t.Fatalf("%s: something is left of nothing: %v", f, slices.Collect(maps.Keys(known)))
			}
		}
	}
}

func apply(t *testing.T, known map[model.Key][]model.Object, changes []ingress.Change) {
	t.Helper()
	for _, ch := range changes {
		if ch.Objects == nil {
			if _, ok := known[ch.Key]; !ok {
				t.Errorf("%s is removed and was not there", ch.Key)
			}
			delete(known, ch.Key)
			continue
		}
		known[ch.Key] = ch.Objects
	}
}

// What did not change keeps its pointers, so that the World and the proxies see no change.
func TestUnchangedValuesKeepTheirPointers(t *testing.T) {
	objs := read(t, "testdata/cases/tls.yaml")
	c := fill("", objs, inOrder(len(objs)))
	if len(c.Update()) == 0 {
		t.Fatal("the first result has no changes")
	}
	before := maps.Clone(c.Output().Objects)
	if ch := c.Update(); ch != nil {
		t.Errorf("nothing changed and there are changes: %v", ch)
	}
	for _, o := range read(t, "testdata/cases/older-wins.yaml") {
		o.models[0].ObjectMeta().Created = time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
		c.Put(o.key, o.models)
	}
	changes := c.Update()
	if len(changes) == 0 {
		t.Fatal("two more Ingresses change nothing")
	}
	for _, ch := range changes {
		if _, was := before[ch.Key]; was {
			t.Errorf("%s changed with another host's Ingress", ch.Key)
		}
	}
}

// MeshConfig's fields choose what is served, and by whom.
func TestMeshConfigChooses(t *testing.T) {
	objs := read(t, "testdata/cases/classes-kubernetes.yaml")
	for name, c := range map[string]struct {
		settings model.IngressSettings
		want     []string
	}{
		"STRICT":       {model.IngressSettings{}, []string{"annotated", "ours"}},
		"OFF":          {model.IngressSettings{Off: true}, nil},
		"DEFAULT":      {model.IngressSettings{Unclassed: true}, []string{"annotated", "foreign-none", "ours"}},
		"Istio's too":  {model.IngressSettings{Istio: true}, []string{"annotated", "foreign-istio", "ours"}},
		"ingressClass": {model.IngressSettings{Class: "nginx"}, []string{"foreign-annotation", "ours"}},
	} {
		settings := ingress.SettingsOf(model.Mesh{EndpointSlices: true, Ingress: c.settings})
		computer := ingress.NewComputer(settings)
		for _, o := range objs {
			computer.Put(o.key, o.models)
		}
		computer.Update()
		var got []string
		for _, k := range computer.Output().Served {
			got = append(got, k.Name)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: (-want +got):\n%s", name, d)
		}
	}
	for mesh, want := range map[model.IngressSettings]string{
		{}:                                   "istio=ingressgateway in weft-system, addresses of weft-system/istio-ingressgateway",
		{Selector: "edge"}:                   "istio=edge in weft-system, addresses of weft-system/istio-ingressgateway",
		{Service: "edge/gw"}:                 "istio=ingressgateway in edge, addresses of edge/gw",
		{Service: "gw", Selector: "ingress"}: "istio=ingress in weft-system, addresses of weft-system/gw",
	} {
		m := model.Mesh{EndpointSlices: true, RootNamespace: "weft-system", Ingress: mesh}
		s := ingress.SettingsOf(m)
		ns, name := ingress.ServiceOf(m)
		if got := fmt.Sprintf("istio=%s in %s, addresses of %s/%s", s.Selector["istio"], s.WorkloadNamespace, ns, name); got != want {
			t.Errorf("%+v: %s, want %s", mesh, got, want)
		}
	}
}
