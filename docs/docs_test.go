// Package docs_test keeps the documentation true: the tests that it names exist, its
// links lead somewhere, and no field, metric, command or flag is left out.
package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

const root = ".."

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// goFiles parses the Go files of a folder whose names end so.
func goFiles(t *testing.T, dir, suffix string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	var out []*ast.File
	for _, n := range names {
		f, err := parser.ParseFile(token.NewFileSet(), n, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

func hasTest(files []*ast.File, name string) bool {
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == name {
				return true
			}
		}
	}
	return false
}

// testName is a folder, a test's function, and perhaps one of its cases.
var testName = regexp.MustCompile("`([a-z0-9_/-]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/([^`]+))?`")

// TestEveryTestNamedInFeaturesExists, so that the table of features cannot rot.
func TestEveryTestNamedInFeaturesExists(t *testing.T) {
	files := map[string][]*ast.File{}
	named := testName.FindAllStringSubmatch(read(t, "features.md"), -1)
	for _, m := range named {
		dir := filepath.Join(root, m[1])
		if files[m[1]] == nil {
			files[m[1]] = goFiles(t, dir, "_test.go")
		}
		if !hasTest(files[m[1]], m[2]) {
			t.Errorf("%s has no %s", m[1], m[2])
		}
		if m[3] == "" {
			continue
		}
		if st, err := os.Stat(filepath.Join(dir, "testdata", m[3])); err != nil || !st.IsDir() {
			t.Errorf("%s.%s has no case testdata/%s", m[1], m[2], m[3])
		}
	}
	if len(named) < 150 {
		t.Errorf("only %d tests are named: was the form of the names changed?", len(named))
	}
}

// TestWhatIsSupportedNamesATest: who says yes must show it.
func TestWhatIsSupportedNamesATest(t *testing.T) {
	rows := 0
	for i, line := range strings.Split(read(t, "features.md"), "\n") {
		cells := strings.Split(strings.ReplaceAll(line, `\|`, ""), "|")
		if len(cells) != 5 {
			continue
		}
		state := strings.TrimSpace(cells[2])
		if !strings.HasPrefix(state, "yes") && !strings.HasPrefix(state, "partly") {
			continue
		}
		rows++
		if !testName.MatchString(cells[3]) {
			t.Errorf("features.md:%d: %q is %q and names no test", i+1, strings.TrimSpace(cells[1]), state)
		}
	}
	if rows < 100 {
		t.Errorf("only %d rows are supported: was the form of the tables changed?", rows)
	}
}

// supportTables are the functions of control/convert with the allow-lists of Istio's messages.
var supportTables = []string{"virtualServiceSupport", "destinationRuleSupport", "gatewaySupport", "entrySupport", "securitySupport"}

// TestEveryFieldIsInFeatures: each field that is taken, refused with a hint, or deprecated.
func TestEveryFieldIsInFeatures(t *testing.T) {
	features := read(t, "features.md")
	fields := map[string]bool{}
	for _, f := range goFiles(t, filepath.Join(root, "control/convert"), "support.go") {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && slices.Contains(supportTables, fn.Name.Name) {
				collectFields(fn, fields)
			}
		}
	}
	if len(fields) < 150 {
		t.Fatalf("only %d fields were found in control/convert/support.go", len(fields))
	}
	for name := range fields {
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).MatchString(features) {
			t.Errorf("features.md does not mention the field %s", name)
		}
	}
}

// collectFields reads allow("a b"), hint("c", "why") and deprecated("d", "instead").
func collectFields(fn *ast.FuncDecl, fields map[string]bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		name := ""
		switch f := call.Fun.(type) {
		case *ast.Ident:
			name = f.Name
		case *ast.SelectorExpr:
			name = f.Sel.Name
		}
		for i, a := range call.Args {
			lit, ok := a.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				continue
			}
			s, _ := strconv.Unquote(lit.Value)
			switch {
			case name == "allow":
				for field := range strings.FieldsSeq(s) {
					fields[field] = true
				}
			case (name == "hint" || name == "deprecated") && i%2 == 0:
				fields[s] = true
			}
		}
		return true
	})
}

// TestEveryMetricIsInTheReference reads the names from where they are made.
func TestEveryMetricIsInTheReference(t *testing.T) {
	reference := read(t, "reference/metrics.md")
	name := regexp.MustCompile(`^(envoy|weft_proxy|istio|istiod|pilot|citadel|galley|process|go)(_[a-z0-9]+)+$`)
	found := map[string]bool{}
	for _, dir := range []string{"proxy/server", "proxy/telemetry", "control/server"} {
		for _, f := range goFiles(t, filepath.Join(root, dir), ".go") {
			if strings.HasSuffix(f.Name.Name, "_test") {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if s, _ := strconv.Unquote(lit.Value); name.MatchString(s) {
						found[s] = true
					}
				}
				return true
			})
		}
	}
	if len(found) < 60 {
		t.Fatalf("only %d metrics were found", len(found))
	}
	for m := range found {
		if !regexp.MustCompile("`" + m + "[`{]").MatchString(reference) {
			t.Errorf("reference/metrics.md does not mention %s", m)
		}
	}
}

// TestEveryCommandAndFlagIsInTheReference reads them from where cobra is told of them.
func TestEveryCommandAndFlagIsInTheReference(t *testing.T) {
	reference := read(t, "reference/cli.md")
	want := map[string]bool{}
	for _, dir := range []string{"cli", "cmd/weft-proxy"} {
		for _, f := range goFiles(t, filepath.Join(root, dir), ".go") {
			ast.Inspect(f, func(n ast.Node) bool {
				collectCommand(n, want)
				return true
			})
		}
	}
	if len(want) < 50 {
		t.Fatalf("only %d commands and flags were found", len(want))
	}
	for w := range want {
		if !regexp.MustCompile(`(^|[^a-z-])` + w + `([^a-z-]|$)`).MatchString(reference) {
			t.Errorf("reference/cli.md does not mention %s", w)
		}
	}
}

// collectCommand reads Use: "name ARGS" and f.StringVar(&v, "name", …).
func collectCommand(n ast.Node, want map[string]bool) {
	switch n := n.(type) {
	case *ast.KeyValueExpr:
		if k, ok := n.Key.(*ast.Ident); !ok || k.Name != "Use" {
			return
		}
		if lit, ok := n.Value.(*ast.BasicLit); ok {
			s, _ := strconv.Unquote(lit.Value)
			name, _, _ := strings.Cut(s, " ")
			want[name] = true
		}
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		if !ok || !strings.HasSuffix(f.Sel.Name, "Var") && !strings.HasSuffix(f.Sel.Name, "VarP") || len(n.Args) < 4 {
			return
		}
		if lit, ok := n.Args[1].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			s, _ := strconv.Unquote(lit.Value)
			want["--"+s] = true
		}
	}
}

var (
	fenced  = regexp.MustCompile("(?ms)^```.*?^```")
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
)

// slug is the anchor that a heading gets (GitHub's rule).
func slug(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	return b.String()
}

func anchors(text string) []string {
	var out []string
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		out = append(out, slug(strings.ReplaceAll(m[1], "`", "")))
	}
	return out
}

// markdown lists the repository's Markdown files.
func markdown(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != root):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".md"):
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLinksLeadSomewhere checks relative links of all Markdown files, and their anchors.
func TestLinksLeadSomewhere(t *testing.T) {
	links := 0
	for _, file := range markdown(t) {
		text := read(t, file)
		prose := code.ReplaceAllString(fenced.ReplaceAllString(text, ""), "")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			links++
			path, anchor, _ := strings.Cut(m[1], "#")
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link to %s: %v", file, m[1], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s: link to %s: no such heading", file, m[1])
			}
		}
	}
	if links < 50 {
		t.Errorf("only %d relative links were found", links)
	}
}
