package install

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// released is a release as Helm keeps it in a Secret's data, as the API server shows that.
func released(t *testing.T, json string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(json)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString(b.Bytes())))
}

func TestWhatHelmInstalledIsVerified(t *testing.T) {
	f, in, _ := newFake(t)
	if err := in.Install(t.Context(), plan(t, "", "meshConfig.accessLogFile=/dev/stdout")); err != nil {
		t.Fatal(err)
	}
	// Helm leaves the same objects, a label and annotations, and its own note instead of ours.
	f.mu.Lock()
	delete(f.objects, "/api/v1/namespaces/weft-system/configmaps/weft-install")
	meta := f.objects["/apis/apps/v1/namespaces/weft-system/deployments/weft"]["metadata"].(map[string]any)
	meta["labels"].(map[string]any)[labelManagedBy] = "Helm"
	meta["annotations"] = map[string]any{"meta.helm.sh/release-name": "mesh"}
	f.mu.Unlock()
	if _, err := in.Installed(t.Context(), "", ""); err == nil || !strings.Contains(err.Error(), "the Helm release mesh, of which there is no Secret in weft-system") {
		t.Errorf("without Helm's Secret: %v", err)
	}
	for i, log := range []string{"/dev/stderr", "/dev/stdout"} { // the second version is the newest
		f.put(fmt.Sprintf("/api/v1/namespaces/weft-system/secrets/sh.helm.release.v1.mesh.v%d", i+9),
			fmt.Sprintf("{metadata: {name: sh.helm.release.v1.mesh.v%d, labels: {owner: helm, status: deployed, name: mesh, version: '%d'}}, data: {release: %s}}", i+9, i+9,
				released(t, `{"name": "mesh", "config": {"meshConfig": {"accessLogFile": "`+log+`"}}, "chart": {"metadata": {"appVersion": "v0.1"}}}`)))
	}
	r, err := in.Installed(t.Context(), "", "")
	if err != nil || r == nil || r.Helm != "mesh" || r.Version != "v0.1" || r.Values["meshConfig"].(map[string]any)["accessLogFile"] != "/dev/stdout" {
		t.Fatalf("%+v, %v", r, err)
	}
	p, err := NewPlan(Config{Values: r.Values, Version: "v0.1"})
	if err != nil {
		t.Fatal(err)
	}
	checks, err := in.Verify(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		if !c.OK {
			t.Errorf("%s: %s", c.What, c.Note)
		}
	}
	if r, err := in.Installed(t.Context(), "", "other"); r != nil || err != nil {
		t.Errorf("another revision: %+v, %v", r, err)
	}
}

func TestAReleaseThatCannotBeReadIsSaid(t *testing.T) {
	for _, text := range []string{"", "%", "aGVsbG8=", released(t, "{"), released(t, "[]")} {
		if r, err := readRelease(text); err == nil {
			t.Errorf("%q is read as %+v", text, r)
		}
	}
}
