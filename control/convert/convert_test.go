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
			if len(ms) == 0 {
				t.Errorf("%s: %s makes nothing", f, objs[i].Key)
			}
			diags = append(diags, more...)
		}
		for _, d := range diags {
			t.Errorf("%+v", d)
		}
	}
}
