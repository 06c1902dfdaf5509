package ingress_test

import (
	"encoding/json"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/derive/derivetest"
	"weft.mesh/weft/control/ingress"
	"weft.mesh/weft/model"
)

type object struct {
	key    model.Key
	models []model.Object
}

// read decodes a case: its file and what all cases share. Objects are a second younger the later they are written.
func read(t testing.TB, path string) []object {
	t.Helper()
	var out []object
	for _, f := range []string{"testdata/common.yaml", path} {
		objs, ds := convert.Decode(admin.File{Name: f, Content: derivetest.Text(t, f)}, convert.Options{})
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

// TestGolden: each file of testdata is one rule; its first lines say which.
func TestGolden(t *testing.T) {
	for _, f := range derivetest.Cases(t, 10) {
		t.Run(derivetest.Name(f), func(t *testing.T) {
			objs := read(t, f)
			c := fill(f, objs, derivetest.InOrder(len(objs)))
			c.Update()
			derivetest.Check(t, f, render(t, c.Output()))
			valid(t, c.Output())
		})
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
	for _, f := range derivetest.Cases(t, 10) {
		objs := read(t, f)
		ref := fill(f, objs, derivetest.InOrder(len(objs)))
		ref.Update()
		want := render(t, ref.Output())
		for range 3 {
			c := fill(f, objs, rnd.Perm(len(objs)))
			known := derivetest.World{}
			known.Apply(t, c.Update())
			for _, i := range rnd.Perm(len(objs))[:len(objs)/2] {
				c.Delete(objs[i].key)
				known.Apply(t, c.Update())
			}
			for _, o := range objs {
				c.Put(o.key, o.models)
			}
			known.Apply(t, c.Update())
			if got := render(t, c.Output()); got != want {
				t.Fatalf("%s: another order gives another result:\n%s", f, cmp.Diff(want, got))
			}
			if !reflect.DeepEqual(map[model.Key][]model.Object(known), c.Output().Objects) {
				t.Fatalf("%s: the changes do not add up to the result", f)
			}
			for _, o := range objs {
				c.Delete(o.key)
			}
			known.Apply(t, c.Update())
			if len(known) != 0 {
				t.Fatalf("%s: something is left of nothing: %v", f, slices.Collect(maps.Keys(known)))
			}
		}
	}
}

// What did not change keeps its pointers, so that the World and the proxies see no change.
func TestUnchangedValuesKeepTheirPointers(t *testing.T) {
	objs := read(t, "testdata/cases/tls.yaml")
	c := fill("", objs, derivetest.InOrder(len(objs)))
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
