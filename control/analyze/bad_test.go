package analyze_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/analyze"
	"weft.mesh/weft/control/convert"
)

var update = flag.Bool("update", false, "rewrite golden files")

const samples = "../../samples/bookinfo/"

// bookinfo is the mesh that inputs are judged in: the sample application with its gateway and subsets.
func bookinfo(t testing.TB) []convert.Object {
	t.Helper()
	var out []convert.Object
	for _, f := range []string{"platform/bookinfo.yaml", "platform/ingress.yaml", "platform/sleep.yaml", "networking/bookinfo-gateway.yaml", "networking/destination-rule-all.yaml"} {
		objs, diags := decodeFile(t, samples+f)
		if convert.HasErrors(diags) {
			t.Fatalf("%s: %+v", f, diags)
		}
		out = append(out, objs...)
	}
	return out
}

func decodeFile(t testing.TB, path string) ([]convert.Object, []admin.Diagnostic) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return convert.Decode(admin.File{Name: filepath.Base(path), Content: string(text)}, convert.Options{})
}

// judge is what weft apply does with one file.
func judge(t testing.TB, path string, existing []convert.Object) []admin.Diagnostic {
	t.Helper()
	objs, diags := decodeFile(t, path)
	return convert.Sort(append(diags, analyze.Check(existing, objs, nil, analyze.Options{})...))
}

// TestBadInputsAreRefused: every file of testdata/bad is refused. Its first
// line says with which code, field and value, so that a golden file that is
// rewritten carelessly does not hide a loss.
func TestBadInputsAreRefused(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d bad inputs (%v), want at least 50", len(files), err)
	}
	mesh := bookinfo(t)
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		t.Run(name, func(t *testing.T) {
			diags := judge(t, f, mesh)
			checkWant(t, f, diags)
			for _, d := range diags {
				if d.Severity != admin.SeverityError {
					continue
				}
				if d.Line == 0 || d.Column == 0 || d.File == "" || d.Message == "" || d.Hint == "" || d.Code == "" {
					t.Errorf("the diagnostic lacks a file, line, column, code, message or hint: %+v", d)
				}
			}
			golden(t, filepath.Join("testdata/bad", name+".golden"), render(diags))
		})
	}
}

func checkWant(t *testing.T, file string, diags []admin.Diagnostic) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	want, ok := strings.CutPrefix(string(first), "# want: ")
	parts := strings.Split(want, " | ")
	if !ok || len(parts) != 3 {
		t.Fatalf("the first line must be '# want: code | field | value', it is %q", first)
	}
	for i := range parts {
		if parts[i] == "-" {
			parts[i] = ""
		}
	}
	for _, d := range diags {
		if d.Severity == admin.SeverityError && d.Code == parts[0] && d.Field == parts[1] && d.Value == parts[2] {
			return
		}
	}
	t.Errorf("no error with code %q, field %q and value %q; got:\n%s", parts[0], parts[1], parts[2], render(diags))
}

func render(diags []admin.Diagnostic) string {
	var b strings.Builder
	for _, d := range diags {
		fmt.Fprintf(&b, "%s %s\n  at: %s:%d:%d\n  object: %s\n  field: %s\n  value: %q\n  message: %s\n  hint: %s\n", d.Severity, d.Code, d.File, d.Line, d.Column, d.Object, d.Field, d.Value, d.Message, d.Hint)
	}
	return b.String()
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; write it with -update", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("diagnostics differ (-want +got):\n%s", d)
	}
}

func TestTheSampleMeshHasNothingToSay(t *testing.T) {
	for _, d := range analyze.CheckAll(bookinfo(t), analyze.Options{}) {
		t.Errorf("%+v", d)
	}
}

func TestEverySampleIsAcceptedIntoTheMesh(t *testing.T) {
	mesh := bookinfo(t)
	files, _ := filepath.Glob(samples + "networking/*.yaml")
	more, _ := filepath.Glob(samples + "platform/*.yaml")
	for _, f := range append(files, more...) {
		for _, d := range judge(t, f, mesh) {
			if d.Severity == admin.SeverityError {
				t.Errorf("%+v", d)
			} else {
				t.Logf("%s %s: %s", d.Code, d.File, d.Message)
			}
		}
	}
}
