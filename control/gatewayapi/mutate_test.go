package gatewayapi_test

import (
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/model"
)

// An API server with older CRDs, or none of their rules, delivers anything: whatever is missing, the result is well formed.
func TestObjectsThatLackAnythingAreSurvived(t *testing.T) {
	files, _ := filepath.Glob("testdata/cases/*.yaml")
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, f := range files {
		objs := read(t, f)
		for range 6 {
			c := gatewayapi.NewComputer(settingsOf(f))
			for i := range objs {
				o := &objs[i]
				var models []model.Object
				value := o.Value
				if o.Key.Kind.IsGatewayAPI() {
					value = o.Value.(runtime.Object).DeepCopyObject()
					wipe(reflect.ValueOf(value).Elem().FieldByName("Spec"), rnd)
				} else {
					models, _ = convert.ToModel(o, model.Mesh{})
				}
				c.Put(o.Key, gatewayapi.Stamped(value, 7, metav1.Time{}), models)
			}
			c.Update()
			valid(t, c.Output())
			if t.Failed() {
				t.Fatal(f)
			}
		}
	}
}

// wipe empties one field of twelve, anywhere.
func wipe(v reflect.Value, rnd *rand.Rand) {
	if v.CanSet() && rnd.IntN(12) == 0 {
		v.SetZero()
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			wipe(v.Elem(), rnd)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			wipe(v.Field(i), rnd)
		}
	case reflect.Slice:
		for i := range v.Len() {
			wipe(v.Index(i), rnd)
		}
	}
}

func BenchmarkCompute(b *testing.B) {
	objs := read(b, "testdata/cases/http-precedence.yaml")
	c := gatewayapi.NewComputer(gatewayapi.Settings{})
	for i := range objs {
		o := &objs[i]
		models, _ := convert.ToModel(o, model.Mesh{})
		c.Put(o.Key, gatewayapi.Stamped(o.Value, 1, metav1.Time{}), models)
		if o.Key.Kind == model.KindHTTPRoute {
			for n := range 500 { // 501 routes with 10 rules each
				k := o.Key
				k.Name += string(rune('a'+n/26)) + string(rune('a'+n%26))
				r := gatewayapi.Stamped(o.Value, 1, metav1.Time{})
				r.(metav1.Object).SetName(k.Name)
				c.Put(k, r, nil)
			}
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.SetInfrastructure(map[model.Key]gatewayapi.Infrastructure{{Name: "x"}: {Ready: i%2 == 0}})
		c.Update()
	}
}

// The API wants the features of a class in order, each once, and not more than 64.
func TestFeaturesAreInOrder(t *testing.T) {
	fs := gatewayapi.Features()
	if len(fs) == 0 || len(fs) > 64 {
		t.Fatalf("%d features", len(fs))
	}
	for i := 1; i < len(fs); i++ {
		if fs[i-1].Name >= fs[i].Name {
			t.Errorf("%s before %s", fs[i-1].Name, fs[i].Name)
		}
	}
}
