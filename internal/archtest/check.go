package archtest

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// file is one Go file's imports.
type file struct {
	path    string
	test    bool
	ours    []string // paths within the module
	outside []string // import paths of other modules
}

// tree is the module: its packages and their files.
type tree map[string][]file

// skipped says which directories hold no packages of the module.
func skipped(name string) bool {
	switch name {
	case "testdata", "node_modules", "vendor", "bin":
		return true
	}
	return name != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_"))
}

// read parses the imports of every Go file below root of fsys. Nested modules are left out.
func read(fsys fs.FS, module string) (tree, error) {
	t := tree{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipped(d.Name()) {
				return fs.SkipDir
			}
			if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil && name != "." {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(d.Name(), "_") || strings.HasPrefix(d.Name(), ".") {
			return nil
		}
		f, err := readFile(fsys, module, name)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		t[dir] = append(t[dir], f)
		return nil
	})
	return t, err
}

func readFile(fsys fs.FS, module, name string) (file, error) {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return file{}, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
	if err != nil {
		return file{}, fmt.Errorf("parse imports: %w", err)
	}
	f := file{path: name, test: strings.HasSuffix(name, "_test.go")}
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return file{}, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		first, _, _ := strings.Cut(imported, "/")
		if rest, ok := strings.CutPrefix(imported, module+"/"); ok {
			f.ours = append(f.ours, rest)
		} else if imported == module {
			f.ours = append(f.ours, ".")
		} else if strings.Contains(first, ".") { // else the standard library
			f.outside = append(f.outside, imported)
		}
	}
	return f, nil
}

// matches reports whether a pattern, x or x/..., covers a package. Not for "*".
func matches(pattern, pkg string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pkg == pattern
}

// anyMatches reports whether one of the patterns in list covers the package.
func anyMatches(list, pkg string) bool {
	return slices.ContainsFunc(strings.Fields(list), func(p string) bool { return p == "*" || matches(p, pkg) })
}

// anyModule reports whether one of the modules in list has the import path.
func anyModule(list, imported string) bool {
	return slices.ContainsFunc(strings.Fields(list), func(m string) bool {
		return m == "*" || imported == m || strings.HasPrefix(imported, m+"/")
	})
}

// lineFor returns the rule that holds for a package: the longest one that matches.
func lineFor(table []rule, pkg string) *rule {
	var best *rule
	for i := range table {
		r := &table[i]
		if matches(r.pkg, pkg) && (best == nil || len(strings.TrimSuffix(r.pkg, "/...")) > len(strings.TrimSuffix(best.pkg, "/..."))) {
			best = r
		}
	}
	return best
}

// isHelper reports whether a package is a test helper.
func isHelper(pkg string) bool {
	return slices.Contains(testHelpers, pkg) || strings.HasSuffix(path.Base(pkg), "test") && pkg != "test"
}

// check compares the tree with the table and returns what is wrong, sorted.
func check(t tree, table []rule) []string {
	var problems []string
	for _, pkg := range slices.Sorted(maps.Keys(t)) {
		line := lineFor(table, pkg)
		if line == nil {
			problems = append(problems, missingLine(t, pkg))
			continue
		}
		for _, f := range t[pkg] {
			problems = append(problems, checkFile(pkg, f, line, table)...)
		}
	}
	return problems
}

// checkFile returns what is wrong with one file's imports.
func checkFile(pkg string, f file, line *rule, table []rule) (problems []string) {
	for _, imported := range f.ours {
		if imported == pkg { // an external test of its own package
			continue
		}
		if why := refused(pkg, f, imported); why != "" {
			problems = append(problems, fmt.Sprintf("%s imports %s: %s. Remove the import", f.path, imported, why))
			continue
		}
		if !f.test && lineFor(table, imported) != line && !anyMatches(line.ours, imported) {
			problems = append(problems, fmt.Sprintf("%s imports %s, which is not in the line of %q. Remove the import, or with a decision record add %q to that line's packages in internal/archtest/rules.go",
				f.path, imported, line.pkg, imported))
		}
	}
	for _, imported := range f.outside {
		if !f.test && !anyModule(line.outside, imported) {
			problems = append(problems, fmt.Sprintf("%s imports %s, which is not in the line of %q. Remove the import, or with a decision record add the module to that line in internal/archtest/rules.go",
				f.path, imported, line.pkg))
		}
	}
	return problems
}

// refused returns why no line can allow an import; empty if one can.
func refused(pkg string, f file, imported string) string {
	for _, c := range closed {
		if matches(c.pkg, imported) && !matches(c.pkg, pkg) && !anyMatches(c.by, pkg) {
			return c.why
		}
	}
	if matches("control/...", pkg) && matches("proxy/...", imported) || matches("proxy/...", pkg) && matches("control/...", imported) {
		return "the planes meet only on the wire"
	}
	if isHelper(imported) && !f.test && !isHelper(pkg) && !matches("test/...", pkg) {
		return "it is a test helper, and this is no test"
	}
	return ""
}

// missingLine says which line a package without one would need as it is.
func missingLine(t tree, pkg string) string {
	ours, outside := map[string]bool{}, map[string]bool{}
	for _, f := range t[pkg] {
		if f.test {
			continue
		}
		for _, i := range f.ours {
			ours[i] = true
		}
		for _, i := range f.outside {
			outside[i] = true
		}
	}
	list := func(m map[string]bool) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }
	return fmt.Sprintf("%s has no line in internal/archtest/rules.go. If these imports are right, add: {%q, %q, %q},", pkg, pkg, list(ours), list(outside))
}

// checkReach follows imports of non-test files from each package that a rule names.
func checkReach(t tree, rules []reach) []string {
	var problems []string
	for _, r := range rules {
		for _, start := range slices.Sorted(maps.Keys(t)) {
			if matches(r.from, start) {
				problems = append(problems, r.follow(t, start)...)
			}
		}
	}
	slices.Sort(problems)
	return slices.Compact(problems)
}

// follow returns what start reaches and must not, with the way there.
func (r *reach) follow(t tree, start string) (problems []string) {
	from := map[string]string{start: ""} // package → the one that imports it
	queue := []string{start}
	for len(queue) > 0 {
		pkg := queue[0]
		queue = queue[1:]
		for _, f := range t[pkg] {
			if f.test {
				continue
			}
			for _, imported := range f.outside {
				if anyModule(r.outside, imported) {
					problems = append(problems, fmt.Sprintf("%s: %s reaches %s through %s. Remove the import from %s", r.why, start, imported, way(from, pkg), f.path))
				}
			}
			for _, imported := range f.ours {
				if _, seen := from[imported]; seen {
					continue
				}
				from[imported] = pkg
				if anyMatches(r.ours, imported) {
					problems = append(problems, fmt.Sprintf("%s: %s reaches %s. Remove the import from %s", r.why, start, way(from, imported), f.path))
					continue
				}
				queue = append(queue, imported)
			}
		}
	}
	return problems
}

// way writes how a package is reached.
func way(from map[string]string, pkg string) string {
	out := pkg
	for p := from[pkg]; p != ""; p = from[p] {
		out = p + " → " + out
	}
	return out
}
