package convert_test

import (
	"os"
	"path/filepath"
	"testing"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

func TestTheSamplesAreAccepted(t *testing.T) {
	files, err := filepath.Glob("../../samples/bookinfo/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples found: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		objs, diags := convert.Decode(admin.File{Name: f, Content: string(text)}, convert.Options{})
		if len(objs) == 0 {
			t.Errorf("%s: no objects", f)
		}
		for i := range objs {
			ms, more := convert.ToModel(&objs[i], model.Mesh{})
			if len(ms) == 0 && !objs[i].Key.Kind.IsGatewayAPI() { // these mean something together only
				t.Errorf("%s: %s makes nothing", f, objs[i].Key)
			}
			diags = append(diags, more...)
		}
		for _, d := range diags {
			t.Errorf("%+v", d)
		}
	}
}

// Istio takes the host among the headers that a route sets as its authority.
func TestSettingTheHostIsARewrite(t *testing.T) {
	for name, tt := range map[string]struct{ route, want string }{
		"of a route":              {`headers: {request: {set: {Host: a.test, x: "1"}}}, route: [{destination: {host: web}}]`, "a.test"},
		"of the only destination": {`route: [{destination: {host: web}, headers: {request: {set: {":authority": "b.test:80"}}}}]`, "b.test:80"},
		"the route before it":     {`headers: {request: {set: {host: a.test}}}, route: [{destination: {host: web}, headers: {request: {set: {host: b.test}}}}]`, "a.test"},
		"the rewrite before both": {`rewrite: {authority: r.test}, headers: {request: {set: {host: a.test}}}, route: [{destination: {host: web}}]`, "r.test"},
		"beside a rewritten path": {`rewrite: {uri: /x}, headers: {request: {set: {host: a.test}}}, route: [{destination: {host: web}}]`, "a.test"},
	} {
		objs, ds := convert.Decode(admin.File{Name: "in.yaml", Content: "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\nspec: {hosts: [web], http: [{" + tt.route + "}]}\n"}, convert.Options{})
		if len(objs) != 1 {
			t.Fatalf("%s: %+v", name, ds)
		}
		ms, ds := convert.ToModel(&objs[0], model.Mesh{})
		if len(ms) != 1 {
			t.Fatalf("%s: %+v", name, ds)
		}
		r := ms[0].(*model.RouteSet).HTTP[0]
		if r.Rewrite == nil || r.Rewrite.Authority != tt.want {
			t.Errorf("%s: rewrite %+v, want %s", name, r.Rewrite, tt.want)
		}
		for _, h := range []model.Headers{r.Headers, r.Forward[0].Headers} {
			for k := range h.Request.Set {
				if k != "x" {
					t.Errorf("%s: header %s is set too", name, k)
				}
			}
		}
	}
}
