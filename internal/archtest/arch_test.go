package archtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// moduleRoot returns the directory of go.mod above the working directory, and the module's path.
func moduleRoot(t *testing.T) (dir, module string) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil {
			for line := range strings.Lines(string(data)) {
				if name, ok := strings.CutPrefix(line, "module "); ok {
					return dir, strings.TrimSpace(name)
				}
			}
			t.Fatalf("%s/go.mod has no module line", dir)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = parent
	}
}

// TestImportsFollowTheTable is the point of the package.
func TestImportsFollowTheTable(t *testing.T) {
	dir, module := moduleRoot(t)
	tr, err := read(os.DirFS(dir), module)
	if err != nil {
		t.Fatal(err)
	}
	if len(tr) < 10 {
		t.Fatalf("only %d packages below %s: the walk is broken", len(tr), dir)
	}
	for _, p := range append(check(tr, rules), checkReach(tr, reaches)...) {
		t.Error(p)
	}
}

func TestTheTableIsWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules {
		key := strings.TrimSuffix(r.pkg, "/...")
		if seen[key] {
			t.Errorf("two lines for %q", key)
		}
		seen[key] = true
		for _, o := range strings.Fields(r.ours) {
			if o != "*" && lineFor(rules, strings.TrimSuffix(o, "/...")) == nil && !strings.HasSuffix(o, "/...") {
				t.Errorf("line of %q allows %q, which has no line of its own", r.pkg, o)
			}
		}
		if strings.HasPrefix(r.pkg, "proxy/") && strings.Contains(r.ours, "control/") || strings.HasPrefix(r.pkg, "control/") && strings.Contains(r.ours, "proxy/") {
			t.Errorf("line of %q lets it import the other plane", r.pkg)
		}
	}
}

// module builds a tree from path → imports, separated by spaces.
func module(t *testing.T, files map[string]string) tree {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, content := range files {
		if strings.HasSuffix(name, ".go") {
			var b strings.Builder
			b.WriteString("//go:build never\n\npackage x\n")
			for _, i := range strings.Fields(content) {
				b.WriteString("import _ \"" + i + "\"\n")
			}
			content = b.String()
		}
		fsys[name] = &fstest.MapFile{Data: []byte(content)}
	}
	tr, err := read(fsys, "example.org/m")
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestCheck(t *testing.T) {
	table := []rule{
		{"a", "b", "golang.org/x/sys"},
		{"b", "", ""},
		{"b/deep", "", ""},
		{"filters/...", "b", ""},
		{"filters/special", "", ""},
		{"proxy/p", "*", "*"},
		{"control/c", "*", "*"},
		{"top", "*", "*"},
		{"x/xtest", "", ""},
		{"internal/memnet", "", ""},
		{"cli", "*", "*"},
		{"cmd/one", "*", "*"},
		{"test/...", "*", "*"},
	}
	const m = "example.org/m/"
	tests := []struct {
		name  string
		files map[string]string
		want  []string // start of each problem
	}{
		{"what the line allows", map[string]string{"a/a.go": "fmt net/http " + m + "b golang.org/x/sys/unix"}, nil},
		{"a package of ours that it does not allow", map[string]string{"b/b.go": m + "a"}, []string{`b/b.go imports a, which is not in the line of "b". Remove the import, or with a decision record add "a" to that line`}},
		{"a module that it does not allow", map[string]string{"a/a.go": "golang.org/x/net"}, []string{`a/a.go imports golang.org/x/net, which is not in the line of "a"`}},
		{"a module whose name only starts alike", map[string]string{"a/a.go": "golang.org/x/sysinfo"}, []string{`a/a.go imports golang.org/x/sysinfo`}},
		{"below is not the same", map[string]string{"a/a.go": m + "b/deep"}, []string{`a/a.go imports b/deep`}},
		{"a package without a line", map[string]string{"new/n.go": m + "b golang.org/x/net/http2 " + m + "a os"}, []string{`new has no line in internal/archtest/rules.go. If these imports are right, add: {"new", "a b", "golang.org/x/net/http2"},`}},
		{"a line is for its package only", map[string]string{"a/sub/s.go": ""}, []string{`a/sub has no line`}},
		{"a family's members import each other", map[string]string{"filters/one/f.go": m + "filters/two " + m + "b"}, nil},
		{"the longest line holds", map[string]string{"filters/special/f.go": m + "b", "filters/one/f.go": m + "filters/special"}, []string{`filters/one/f.go imports filters/special`, `filters/special/f.go imports b`}},
		{"tests may import more", map[string]string{"b/b_test.go": m + "a github.com/google/go-cmp/cmp " + m + "x/xtest"}, nil},
		{"an external test imports its package", map[string]string{"b/b_test.go": m + "b"}, nil},
		{"planes do not import each other", map[string]string{"proxy/p/p.go": m + "control/c"}, []string{`proxy/p/p.go imports control/c: the planes meet only on the wire. Remove the import`}},
		{"nor do their tests", map[string]string{"control/c/c_test.go": m + "proxy/p"}, []string{`control/c/c_test.go imports proxy/p: the planes meet only on the wire`}},
		{"helpers are for tests", map[string]string{"top/t.go": m + "x/xtest " + m + "internal/memnet"}, []string{`top/t.go imports x/xtest: it is a test helper`, `top/t.go imports internal/memnet: it is a test helper`}},
		{"a helper may use a helper", map[string]string{"x/xtest/x.go": "", "test/e2e/e.go": m + "x/xtest"}, nil},
		{"nothing imports cli", map[string]string{"top/t.go": m + "cli"}, []string{`top/t.go imports cli: nothing imports cli but cmd`}},
		{"but cmd", map[string]string{"cmd/one/m.go": m + "cli"}, nil},
		{"build tags do not hide", map[string]string{"b/b_plan9.go": m + "a"}, []string{`b/b_plan9.go imports a`}},
		{"what is no package of ours is left out", map[string]string{
			"b/testdata/x.go": m + "a", ".git/x.go": m + "a", "_old/x.go": m + "a", "console/node_modules/x/x.go": m + "a",
			"nested/go.mod": "module other", "nested/n.go": m + "a", "nested/deep/n.go": m + "a"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := check(module(t, tt.files), table)
			if len(got) != len(tt.want) {
				t.Fatalf("problems %q, want %q", got, tt.want)
			}
			for i, w := range tt.want {
				if !strings.HasPrefix(got[i], w) {
					t.Errorf("problem %q\nwant     %q", got[i], w)
				}
			}
		})
	}
}

func TestReach(t *testing.T) {
	const m = "example.org/m/"
	tr := module(t, map[string]string{
		"cmd/p/main.go":   m + "one " + m + "clean",
		"one/one.go":      m + "two",
		"one/one_test.go": m + "far k8s.io/api", // tests are not linked
		"two/two.go":      m + "bad k8s.io/api/core/v1",
		"two/more.go":     m + "one", // a cycle does no harm
		"bad/bad.go":      m + "far",
		"clean/clean.go":  "fmt",
	})
	got := checkReach(tr, []reach{{"cmd/p", "bad/... far", "k8s.io", "lean"}})
	want := []string{
		"lean: cmd/p reaches cmd/p → one → two → bad. Remove the import from two/two.go",
		"lean: cmd/p reaches k8s.io/api/core/v1 through cmd/p → one → two. Remove the import from two/two.go",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("problems (-want +got):\n%s", d)
	}
}

func TestUnreadableFilesAreAnError(t *testing.T) {
	_, err := read(fstest.MapFS{"a/a.go": {Data: []byte("package a\nimport fmt\n")}}, "example.org/m")
	if err == nil || !strings.Contains(err.Error(), "a/a.go") {
		t.Errorf("error %v, want one that names the file", err)
	}
}
