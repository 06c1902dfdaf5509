package corpus

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/differential.golden")

const goldenFile = "testdata/differential.golden"

// golden is the outcomes of the peers by case and peer, and the versions they are of.
type golden struct {
	versions map[string]string
	outcomes map[string]map[string]string
}

func readGolden(t *testing.T) *golden {
	t.Helper()
	g := &golden{map[string]string{}, map[string]map[string]string{}}
	b, err := os.ReadFile(goldenFile)
	if err != nil {
		if *update {
			return g
		}
		t.Fatal(err)
	}
	var name string
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "# version "):
			f := strings.Fields(line)
			g.versions[f[2]] = f[3]
		case strings.HasPrefix(line, "== "):
			name = line[3:]
			g.outcomes[name] = map[string]string{}
		case strings.HasPrefix(line, "  "):
			p, out, _ := strings.Cut(strings.TrimSpace(line), " ")
			g.outcomes[name][p] = strings.TrimSpace(out)
		}
	}
	return g
}

func (g *golden) write(t *testing.T, cases []*testCase) {
	t.Helper()
	var b strings.Builder
	b.WriteString("# What other proxies make of the cases: written by go test -update, compared and judged by the tests.\n")
	for _, p := range peers {
		fmt.Fprintf(&b, "# version %s %s\n", p.name, g.versions[p.name])
	}
	for _, c := range cases {
		fmt.Fprintf(&b, "\n== %s\n", c.name)
		for _, p := range peers {
			fmt.Fprintf(&b, "  %-8s%s\n", p.name, g.outcomes[c.name][p.name])
		}
	}
	if err := os.WriteFile(goldenFile, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func compared(t *testing.T) []*testCase {
	return slices.DeleteFunc(load(t), func(c *testCase) bool { return !c.compared() })
}

// TestPeers runs the requests of the corpus against other proxies. With the versions of the golden file the outcomes
// must be the file's; with other versions a difference is only reported.
func TestPeers(t *testing.T) {
	cases, g := compared(t), readGolden(t)
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			if p.program() == "" {
				t.Skipf("SKIPPED: %s is not installed (make deps), so nothing compares our strictness with it", p.name)
			}
			version := p.versionOf(t)
			got := p.outcomes(t, cases, g)
			if *update {
				g.versions[p.name] = version
				for name, out := range got {
					if g.outcomes[name] == nil {
						g.outcomes[name] = map[string]string{}
					}
					g.outcomes[name][p.name] = out
				}
				return
			}
			for _, c := range cases {
				want := g.outcomes[c.name][p.name]
				switch {
				case same(c, got[c.name], want):
				case version == g.versions[p.name]:
					t.Errorf("%s: %s, want %s (go test -update writes the file anew)", c.name, got[c.name], want)
				default:
					t.Logf("DIFFERENT: %s %s: %s; version %s did: %s", p.name, version, got[c.name], g.versions[p.name], want)
				}
			}
		})
	}
	if *update {
		g.write(t, cases)
	}
}

// outcomes runs all cases against a peer. A case whose outcome is not the file's
// is tried again with more time, as a loaded machine may be late.
func (p *peer) outcomes(t *testing.T, cases []*testCase, g *golden) map[string]string {
	t.Helper()
	got := map[string]string{}
	var mu sync.Mutex
	each(cases, p.start(t), func(c *testCase, l *lane) {
		want := g.outcomes[c.name][p.name]
		out := outcome(c, l, 60*time.Millisecond)
		if !same(c, out, want) {
			out = outcome(c, l, 300*time.Millisecond)
		}
		if !same(c, out, want) {
			out = outcome(c, l, 1300*time.Millisecond) // beyond the peers' time-outs
		}
		mu.Lock()
		defer mu.Unlock()
		got[c.name] = out
	})
	return got
}

// outcome words what a peer did with a case: what reached the upstream, and what the client was told.
func outcome(c *testCase, l *lane, wait time.Duration) string {
	l.backend.begin(c)
	s := talk(l.ports["plain"], c, 1<<20, wait)
	whole, rest := arrived(l.backend.end())
	out := "refused"
	switch {
	case len(whole) > 0:
		out = "forwarded " + strings.Join(whole, " + ")
		if rest != "" {
			out += " + "
		}
	case rest != "":
		out = "forwarded "
	}
	if rest, _, _ = strings.Cut(rest, ":"); rest != "" {
		out += "something " + rest
	}
	// Time-outs are the configuration's, not the parser's: whether they are seen depends on how long we look.
	s.statuses = slices.DeleteFunc(s.statuses, func(s string) bool { return s == "408" || s == "504" })
	return out + " (" + strings.Join(s.statuses, " ") + ")"
}

// same compares two outcomes. How much of a request leaves before its body turns out to be
// bad is a race; only that it was not whole counts then.
func same(c *testCase, a, b string) bool {
	if slices.Contains(c.upstream, "incomplete") {
		return strings.Contains(a, `"`) == strings.Contains(b, `"`)
	}
	return a == b
}

// passed is how many requests an outcome let through, whole or unclear.
func passed(outcome string) int {
	what, ok := strings.CutPrefix(outcome, "forwarded ")
	if !ok {
		return 0
	}
	n := strings.Count(what, `" + `) + 1
	if strings.Contains(what, "something incomplete") {
		n--
	}
	return n
}

// TestEveryLaxityIsExplained: where we let more requests through than the strictest peer, the case says why.
func TestEveryLaxityIsExplained(t *testing.T) {
	g := readGolden(t)
	laxer := 0
	for _, c := range compared(t) {
		ours := len(slices.DeleteFunc(slices.Clone(c.upstream), func(s string) bool { return s == "nothing" || s == "incomplete" }))
		strictest, who := ours, []string(nil)
		for _, p := range peers {
			out, ok := g.outcomes[c.name][p.name]
			if !ok || out == "" {
				t.Errorf("%s: %s has no outcome of %s: run go test -update where it is installed", c.file, c.name, p.name)
				continue
			}
			n := passed(out)
			if n < ours {
				who = append(who, p.name+": "+out)
			}
			strictest = min(strictest, n)
		}
		switch {
		case strictest < ours && c.laxer == "":
			t.Errorf("%s: %s: we pass %d, the strictest %d, and no line says why:\n\t%s", c.file, c.name, ours, strictest, strings.Join(who, "\n\t"))
		case strictest < ours:
			laxer++
		case c.laxer != "":
			t.Errorf("%s: %s explains a laxity that there is not", c.file, c.name)
		}
	}
	t.Logf("%d cases in which a peer is stricter, each explained", laxer)
}
