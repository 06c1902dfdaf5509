package gatewayapi_test

import (
	"bytes"
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gw "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/derive/derivetest"
	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/model"
)

// read decodes a case: its file and the services that all cases share. Objects of a case are a second younger the later they are written,
// unless they say when they were made.
func read(t testing.TB, path string) []convert.Object {
	t.Helper()
	var out []convert.Object
	for _, f := range []string{"testdata/common.yaml", path} {
		objs, ds := convert.Decode(admin.File{Name: f, Content: derivetest.Text(t, f)}, convert.Options{Namespace: "infra"})
		if convert.HasErrors(ds) {
			t.Fatalf("%s: %+v", f, ds)
		}
		out = append(out, objs...)
	}
	return out
}

// fill puts objects into a computer in the given order.
func fill(t testing.TB, settings gatewayapi.Settings, objs []convert.Object, order []int) *gatewayapi.Computer {
	t.Helper()
	c := gatewayapi.NewComputer(settings)
	epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, i := range order {
		o := &objs[i]
		var models []model.Object
		if !o.Key.Kind.IsGatewayAPI() {
			models, _ = convert.ToModel(o, model.Mesh{})
		}
		c.Put(o.Key, gatewayapi.Stamped(o.Value, 7, metav1.NewTime(epoch.Add(time.Duration(i)*time.Second))), models)
	}
	if deployed(objs) {
		infra := map[model.Key]gatewayapi.Infrastructure{}
		for i := range objs {
			if objs[i].Key.Kind == model.KindK8sGateway {
				x := gatewayapi.Infrastructure{Addresses: []string{"10.0.0.1"}, Ready: true}
				if strings.Contains(objs[i].File, "not-assigned") {
					x.Addresses = nil
				}
				infra[objs[i].Key] = x
			}
		}
		c.SetInfrastructure(infra)
	}
	return c
}

// deployed tells whether the gateways of a case are running: all but those of the case about that.
func deployed(objs []convert.Object) bool {
	return !slices.ContainsFunc(objs, func(o convert.Object) bool { return strings.Contains(o.File, "not-deployed") })
}

func settingsOf(path string) gatewayapi.Settings {
	if strings.Contains(path, "local-") {
		return gatewayapi.Settings{Classes: []string{"weft", "istio"}, Selector: map[string]string{"istio": "ingressgateway"}, Addresses: []string{"127.0.0.1"}}
	}
	return gatewayapi.Settings{}
}

// TestGolden: each file of testdata is one rule of the Gateway API; its first lines say which.
func TestGolden(t *testing.T) {
	for _, f := range derivetest.Cases(t, 60) {
		t.Run(derivetest.Name(f), func(t *testing.T) {
			objs := read(t, f)
			c := fill(t, settingsOf(f), objs, derivetest.InOrder(len(objs)))
			c.Update()
			derivetest.Check(t, f, render(t, c.Output()))
			valid(t, c.Output())
		})
	}
}

// render writes statuses a line for each condition, then what is deployed, then the model's values as YAML without what is empty.
func render(t testing.TB, out *gatewayapi.Output) string {
	t.Helper()
	var b strings.Builder
	for _, k := range sortedKeys(out.Statuses) {
		renderStatus(&b, k, out.Statuses[k])
	}
	for _, d := range out.Deployments {
		fmt.Fprintf(&b, "deploy %s/%s class %s ports %v labels %v annotations %v addresses %q parameters %q hold %t\n", d.Namespace, d.Name, d.Class, d.Ports, d.Labels, d.Annotations, d.Addresses, d.Parameters, d.Hold)
	}
	for _, k := range sortedKeys(out.Objects) {
		for _, o := range out.Objects[k] {
			fmt.Fprintf(&b, "--- %s\n%s", k, plainYAML(t, o))
		}
	}
	return b.String()
}

func sortedKeys[V any](m map[model.Key]V) []model.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b model.Key) int { return strings.Compare(a.String(), b.String()) })
}

func renderStatus(b *strings.Builder, k model.Key, st *gatewayapi.Status) {
	line := func(part string, cs []metav1.Condition) {
		for _, c := range cs {
			fmt.Fprintf(b, "%s%s: %s=%s/%s %s\n", k, part, c.Type, c.Status, c.Reason, c.Message)
		}
	}
	switch {
	case st.Class != nil:
		line("", st.Class.Conditions)
	case st.Gateway != nil:
		line("", st.Gateway.Conditions)
		for _, a := range st.Gateway.Addresses {
			fmt.Fprintf(b, "%s: address %s %s\n", k, *a.Type, a.Value)
		}
		fmt.Fprintf(b, "%s: listener sets %d\n", k, *st.Gateway.AttachedListenerSets)
		for _, l := range st.Gateway.Listeners {
			fmt.Fprintf(b, "%s listener %s: routes %d kinds %s\n", k, l.Name, l.AttachedRoutes, kindNames(l.SupportedKinds))
			line(" listener "+string(l.Name), l.Conditions)
		}
	case st.ListenerSet != nil:
		line("", st.ListenerSet.Conditions)
		for _, l := range st.ListenerSet.Listeners {
			fmt.Fprintf(b, "%s listener %s: routes %d kinds %s\n", k, l.Name, l.AttachedRoutes, kindNames(l.SupportedKinds))
			line(" listener "+string(l.Name), l.Conditions)
		}
	case st.Route != nil:
		for _, p := range st.Route.Parents {
			line(" at "+parentName(&p.ParentRef), p.Conditions)
		}
	case st.Policy != nil:
		for _, a := range st.Policy.Ancestors {
			line(" at "+parentName(&a.AncestorRef), a.Conditions)
		}
	}
}

func parentName(p *gw.ParentReference) string {
	out := string(p.Name)
	if p.SectionName != nil {
		out += "#" + string(*p.SectionName)
	}
	if p.Port != nil {
		out += fmt.Sprint(":", *p.Port)
	}
	return out
}

func kindNames(ks []gw.RouteGroupKind) string {
	out := []string{}
	for _, k := range ks {
		out = append(out, string(k.Kind))
	}
	return "[" + strings.Join(out, " ") + "]"
}

func plainYAML(t testing.TB, o model.Object) string {
	t.Helper()
	raw, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := yaml.Marshal(prune("", v))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// prune drops what is empty, and writes bytes as their number. An empty ReplacePrefix has a meaning.
func prune(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if p := prune(k, x); p == nil {
				delete(v, k)
			} else {
				v[k] = p
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		if len(v) == 0 {
			return nil
		}
		for i := range v {
			if v[i] = prune("", v[i]); v[i] == nil {
				v[i] = map[string]any{}
			}
		}
	case string:
		if v == "" && key != "ReplacePrefix" || key == "Created" {
			return nil
		}
		if key == "CABundle" {
			return "(some certificates)"
		}
	case json.Number:
		if v == "0" {
			return nil
		}
		return v
	case bool:
		if !v {
			return nil
		}
	case nil:
		return nil
	}
	return v
}

// valid checks what holds for every result: routes name gateways that are there, conditions are well formed.
func valid(t *testing.T, out *gatewayapi.Output) {
	t.Helper()
	gateways := map[string]bool{"mesh": true}
	for _, objs := range out.Objects {
		for _, o := range objs {
			if g, ok := o.(*model.Gateway); ok {
				gateways[g.Namespace+"/"+g.Name] = true
			}
		}
	}
	for k, objs := range out.Objects {
		for _, o := range objs {
			if o.ObjectMeta().Key != k {
				t.Errorf("%s is kept as %s", o.ObjectMeta().Key, k)
			}
			rs, ok := o.(*model.RouteSet)
			if !ok {
				continue
			}
			for _, g := range rs.Gateways {
				if !gateways[g] {
					t.Errorf("%s names gateway %s, which does not exist", k, g)
				}
			}
			for i, r := range rs.HTTP {
				answers := 0
				for _, has := range []bool{len(r.Forward) > 0, r.Direct != nil, r.Redirect != nil} {
					if has {
						answers++
					}
				}
				if answers != 1 || len(r.Matches) > 1 {
					t.Errorf("%s: route %d has %d answers and %d matches", k, i, answers, len(r.Matches))
				}
			}
		}
	}
	for k, st := range out.Statuses {
		raw, err := json.Marshal(st.Value())
		if err != nil {
			t.Fatal(err)
		}
		var found int
		var visit func(v any)
		visit = func(v any) {
			switch v := v.(type) {
			case map[string]any:
				if v["type"] != nil && v["reason"] != nil {
					found++
					if v["message"] == nil || v["observedGeneration"] != float64(7) || len(fmt.Sprint(v["message"])) > 32768 {
						t.Errorf("%s: condition %v", k, v)
					}
				}
				for _, x := range v {
					visit(x)
				}
			case []any:
				for _, x := range v {
					visit(x)
				}
			}
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		visit(v)
		if found == 0 && st.Route == nil && st.Policy == nil {
			t.Errorf("%s has no conditions", k)
		}
	}
}

// TestTheOrderOfEventsDoesNotMatter puts the objects of each case in random orders, with deletions between.
func TestTheOrderOfEventsDoesNotMatter(t *testing.T) {
	rnd := mathrand.New(mathrand.NewPCG(1, 2))
	for _, f := range derivetest.Cases(t, 60) {
		objs := read(t, f)
		ref := fill(t, settingsOf(f), objs, derivetest.InOrder(len(objs)))
		ref.Update()
		want := render(t, ref.Output())
		for range 3 {
			c := fill(t, settingsOf(f), objs, rnd.Perm(len(objs)))
			// Some go away and come back, with what they were between.
			known := derivetest.World{}
			known.Apply(t, c.Update())
			for _, i := range rnd.Perm(len(objs))[:len(objs)/2] {
				c.Delete(objs[i].Key)
				known.Apply(t, c.Update())
			}
			again := fill(t, settingsOf(f), objs, derivetest.InOrder(len(objs)))
			for i := range objs {
				o := &objs[i]
				var models []model.Object
				if !o.Key.Kind.IsGatewayAPI() {
					models, _ = convert.ToModel(o, model.Mesh{})
				}
				c.Put(o.Key, again.Has(o.Key), models)
			}
			known.Apply(t, c.Update())
			if got := render(t, c.Output()); got != want {
				t.Fatalf("%s: another order gives another result:\n%s", f, cmp.Diff(want, got))
			}
			if !reflect.DeepEqual(map[model.Key][]model.Object(known), c.Output().Objects) {
				t.Fatalf("%s: the changes do not add up to the result", f)
			}
		}
	}
}

// What did not change keeps its pointers, so that the World and the proxies see no change.
func TestUnchangedValuesKeepTheirPointers(t *testing.T) {
	objs := read(t, "testdata/cases/http-two-routes-one-host.yaml")
	c := fill(t, gatewayapi.Settings{}, objs, derivetest.InOrder(len(objs)))
	if len(c.Update()) == 0 {
		t.Fatal("the first result has no changes")
	}
	before := maps.Clone(c.Output().Objects)
	if ch := c.Update(); ch != nil {
		t.Errorf("nothing changed and there are changes: %v", ch)
	}
	other := read(t, "testdata/cases/gateway-second.yaml")
	for i := range other {
		if other[i].Key.Kind == model.KindK8sGateway && other[i].Key.Name == "second" {
			c.Put(other[i].Key, gatewayapi.Stamped(other[i].Value, 7, metav1.Now()), nil)
		}
	}
	for _, ch := range c.Update() {
		if _, was := before[ch.Key]; was {
			t.Errorf("%s changed with another Gateway", ch.Key)
		}
	}
	for k, objs := range before {
		if now := c.Output().Objects[k]; len(now) == 0 || now[0] != objs[0] {
			t.Errorf("%s has a new pointer", k)
		}
	}
}
