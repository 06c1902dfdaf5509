package analyze_test

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/control/analyze"
)

const reference = "../../docs/reference/diagnostics.md"

const referenceHead = `# Diagnostics

What ` + "`weft apply`, `weft up`, `weft analyze`" + ` and watched files say about configuration. Every diagnostic has a severity, a code, the file, line and
column, the object, the path of the field, the value that was found, what is wrong, and a hint about what would be right.
An **error** blocks the change: nothing of it is stored, and a watched file keeps the objects that it had when it was last good. A **warning** does not.
A change that only deletes is never blocked: what it leaves without a target is a warning.
Codes are stable.

| code | meaning | fix |
| --- | --- | --- |
`

// TestTheReferenceListsEveryCode keeps the document and the code list the same; -update writes the document.
func TestTheReferenceListsEveryCode(t *testing.T) {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, c := range analyze.Codes() {
		b.WriteString("| `" + c.Code + "` | " + strings.ReplaceAll(c.Meaning, "|", "\\|") + " | " + strings.ReplaceAll(c.Fix, "|", "\\|") + " |\n")
	}
	golden(t, reference, b.String())
}

// TestEveryConstantIsListed finds codes that were added without documentation.
func TestEveryConstantIsListed(t *testing.T) {
	listed := map[string]bool{}
	kebab := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	for _, c := range analyze.Codes() {
		if listed[c.Code] {
			t.Errorf("code %q is listed twice", c.Code)
		}
		if !kebab.MatchString(c.Code) || c.Meaning == "" || c.Fix == "" {
			t.Errorf("code %+v is not kebab-case or lacks a meaning or fix", c)
		}
		listed[c.Code] = true
	}
	var found []string
	for _, f := range []string{"codes.go", "../convert/codes.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok {
				for i, name := range v.Names {
					if lit, ok := v.Values[i].(*ast.BasicLit); ok && strings.HasPrefix(name.Name, "Code") {
						s, _ := strconv.Unquote(lit.Value)
						found = append(found, s)
					}
				}
			}
			return true
		})
	}
	if len(found) < 50 {
		t.Fatalf("only %d constants found", len(found))
	}
	for _, c := range found {
		if !listed[c] {
			t.Errorf("code %q is not listed in Codes", c)
		}
		delete(listed, c)
	}
	if d := cmp.Diff(map[string]bool{}, listed); d != "" {
		t.Errorf("listed without a constant:\n%s", d)
	}
}

func TestTheReferenceIsATable(t *testing.T) {
	f, err := os.Open(reference)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), "| `") {
			rows++
			if n := strings.Count(strings.ReplaceAll(s.Text(), `\|`, ""), "|"); n != 4 {
				t.Errorf("a row with %d bars: %s", n, s.Text())
			}
		}
	}
	if rows != len(analyze.Codes()) {
		t.Errorf("%d rows, want %d", rows, len(analyze.Codes()))
	}
}
