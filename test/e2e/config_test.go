package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// wantLine is the first line of a bad input: # want: code | field | value.
var wantLine = regexp.MustCompile(`^# want: ([a-z0-9-]+) \| (.*) \| (.*)`)

func TestBadInputsAreRefusedAndChangeNothing(t *testing.T) {
	e := newEnv(t)
	requireNamespaces(t, e)
	m := e.start("demo", "--no-load", "--ingress", e.ingress, "--console", e.console)
	m.ready("productpage-v1", "reviews-v1", "reviews-v2", "reviews-v3", "details-v1", "ratings-v1", "sleep")
	m.must("apply", "--wait", "-f", m.sample("networking/destination-rule-all.yaml"))
	before := m.must("get", "all", "-o", "json")
	files, err := filepath.Glob("../../control/analyze/testdata/bad/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d bad inputs, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".yaml"), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			path := m.file(filepath.Base(f), string(b))
			r := m.weft("apply", "-f", path)
			if r.code != 1 || !strings.Contains(r.stderr, "nothing was stored") {
				t.Fatalf("accepted, or not refused as a whole: %s", describe(r))
			}
			if !regexp.MustCompile(regexp.QuoteMeta(path) + `:\d+:\d+: error: `).MatchString(r.stderr) {
				t.Errorf("no file and line: %s", r.stderr)
			}
			if w := wantLine.FindStringSubmatch(string(b)); w != nil && !strings.Contains(r.stderr, "["+w[1]+"]") {
				t.Errorf("not refused for %s: %s", w[1], r.stderr)
			}
			if !strings.Contains(r.stderr, "    fix  ") {
				t.Errorf("no fix: %s", r.stderr)
			}
		})
	}
	if after := m.must("get", "all", "-o", "json"); after != before {
		t.Error("a refused input changed the configuration")
	}
	if code, _, err := m.get("/productpage"); code != 200 {
		t.Errorf("the page after it: %d, %v", code, err)
	}
}

// sample writes a manifest of Bookinfo where the environment's user can read it.
func (e *env) sample(name string) string {
	e.t.Helper()
	b, err := os.ReadFile(filepath.Join("../../samples/bookinfo", name))
	if err != nil {
		e.t.Fatal(err)
	}
	return e.file(filepath.Base(name), string(b))
}

func TestAWatchedFileTakesEffectAndABadOneDoesNot(t *testing.T) {
	e := newEnv(t)
	requireNamespaces(t, e)
	dir := filepath.Dir(e.file("app.yaml", deployment("web", 8000, "http", "python3", "-m", "http.server", "8000")+deployment("client", 0, "", "bookinfo", "sleep")))
	m := e.up("--no-ingress", dir)
	requireProgram(t, "python3")
	m.ready("web", "client")
	route := func(status string) {
		t.Helper()
		y := fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http: [{directResponse: {status: %s, body: {string: thread}}}]
`, status)
		if err := os.WriteFile(filepath.Join(dir, "route.yaml"), []byte(y), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	status := func() string {
		return strings.TrimSpace(m.exec("client", "bookinfo", "client", "-o", "status", "http://web:8000/").stdout)
	}
	route("418")
	m.eventually(patience, "the new route answers", func() (string, bool) { s := status(); return s, s == "418" })
	route("notanumber")
	m.eventually(patience, "weft status tells of the bad file", func() (string, bool) {
		r := m.weft("status")
		return r.stdout, strings.Contains(r.stdout, "route.yaml:6:") && strings.Contains(r.stdout, "wrong-type")
	})
	if s := status(); s != "418" {
		t.Errorf("with the bad file: status %s, want the last good version's 418", s)
	}
	route("204")
	m.eventually(patience, "the mended route answers", func() (string, bool) { s := status(); return s, s == "204" })
	if err := os.Remove(filepath.Join(dir, "route.yaml")); err != nil {
		t.Fatal(err)
	}
	m.eventually(patience, "without the route the application answers", func() (string, bool) { s := status(); return s, s == "200" })
}
