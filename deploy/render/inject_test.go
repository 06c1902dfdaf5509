package render_test

import (
	"testing"

	"weft.mesh/weft/control/inject"
)

// What the chart writes for injection is what injection reads.
func TestInjectionReadsTheConfigMap(t *testing.T) {
	for _, o := range objects(t, rendered(t, "demo", "injection.proxy.image=mine,injection.templates.x=y")) {
		if o["kind"] != "ConfigMap" {
			continue
		}
		data := o["data"].(map[string]any)
		v, err := inject.ParseValues(data["values"].(string))
		if err != nil {
			t.Fatal(err)
		}
		if v.Global.Hub != "weft" || v.Proxy.Image != "mine" || v.Templates["x"] != "y" || !v.Proxy.NativeSidecars || v.Proxy.StatusPort != 15020 {
			t.Errorf("values %+v", v)
		}
		return
	}
	t.Error("no ConfigMap")
}
