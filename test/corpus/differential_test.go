package corpus

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
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
			if !p.takes(c) {
				continue
			}
			fmt.Fprintf(&b, "  %-8s%s\n", p.name, g.outcomes[c.name][p.name])
		}
	}
	if err := os.WriteFile(goldenFile, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestPeers runs the corpus against other proxies. With the versions of the golden file the outcomes
// must be the file's; with other versions a difference is only reported.
func TestPeers(t *testing.T) {
	cases, g := load(t), readGolden(t)
	var mu sync.Mutex
	t.Run("peers", func(t *testing.T) {
		for _, p := range peers {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel() // they wait more than they work
				if p.program() == "" {
					t.Skipf("SKIPPED: %s is not installed (make deps), so nothing compares our strictness with it", p.name)
				}
				version := p.versionOf(t)
				got := p.outcomes(t, cases, g, version)
				mu.Lock()
				defer mu.Unlock()
				if *update {
					g.note(t, p, version, cases, got)
				} else {
					g.compare(t, p, version, cases, got)
				}
			})
		}
	})
	if *update {
		g.write(t, cases)
	}
}

// note takes over what a peer did.
func (g *golden) note(t *testing.T, p *peer, version string, cases []*testCase, got map[string]string) {
	t.Helper()
	g.versions[p.name] = version
	for _, c := range cases {
		if g.outcomes[c.name] == nil {
			g.outcomes[c.name] = map[string]string{}
		}
		if p.takes(c) && !same(c, got[c.name], g.outcomes[c.name][p.name]) {
			if strings.HasSuffix(got[c.name], "("+gone+")") {
				t.Errorf("%s: %s has ended before it was asked: that is no outcome", c.name, p.name)
				continue
			}
			g.outcomes[c.name][p.name] = got[c.name]
		}
	}
}

// compare complains of what a peer did differently.
func (g *golden) compare(t *testing.T, p *peer, version string, cases []*testCase, got map[string]string) {
	t.Helper()
	for _, c := range cases {
		want := g.outcomes[c.name][p.name]
		switch {
		case !p.takes(c):
		case same(c, got[c.name], want):
		case version == g.versions[p.name]:
			t.Errorf("%s: %s, want %s (go test -update writes the file anew)", c.name, got[c.name], want)
		default:
			t.Logf("DIFFERENT: %s %s: %s; version %s did: %s", p.name, version, got[c.name], g.versions[p.name], want)
		}
	}
}

// outcomes runs all cases against a peer. A case whose outcome is not the file's
// is tried again with more time, as a loaded machine may be late; more often where the version is the file's, so
// that no other outcome is expected.
func (p *peer) outcomes(t *testing.T, cases []*testCase, g *golden, version string) map[string]string {
	t.Helper()
	const long = 2500 * time.Millisecond // beyond the peers' time-outs
	waits := []time.Duration{300 * time.Millisecond, long}
	if version == g.versions[p.name] {
		waits = append(waits, long, long)
	}
	got := map[string]string{}
	var mu sync.Mutex
	each(cases, p.start(t), func(c *testCase, l *lane) {
		if !p.takes(c) {
			return
		}
		want := g.outcomes[c.name][p.name]
		l.backend.patient(1)
		out := outcome(c, l, 60*time.Millisecond)
		for i, wait := range waits {
			if same(c, out, want) {
				break
			}
			time.Sleep(wait) // what the last attempt has sent may still be on its way
			l.backend.end()
			l.backend.patient(time.Duration(1 + 4*i))
			out = outcome(c, l, wait)
		}
		mu.Lock()
		defer mu.Unlock()
		got[c.name] = out
	})
	return got
}

// outcome words what a peer did with a case: what reached the upstream, and what the client was told. With a
// response of the case's own only the latter counts.
func outcome(c *testCase, l *lane, wait time.Duration) string {
	l.backend.begin(c)
	var s seen
	if c.http2() {
		s = talk2(l.ports["h2"], c, wait)
	} else {
		s = talk(l.ports[c.on], c, 1<<20, wait)
	}
	if c.responds() {
		if s.err != nil {
			time.Sleep(l.backend.wait(aftermath)) // the next request may still be on its way
		}
		l.backend.end()
		return "answered (" + strings.Join(told(c, s), " ") + ")"
	}
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
	return out + " (" + strings.Join(told(c, s), " ") + ")"
}

// gone is what a client saw of a peer that does not listen any more.
const gone = "gone"

// told words what a client of a peer saw. Time-outs are the configuration's, not the parser's: whether they are seen
// depends on how long we look.
func told(c *testCase, s seen) []string {
	words := slices.DeleteFunc(slices.Clone(s.statuses), func(s string) bool { return s == "408" || s == "504" })
	if op, ok := errors.AsType[*net.OpError](s.err); ok && op.Op == "dial" {
		return []string{gone}
	}
	ne, ok := errors.AsType[net.Error](s.err)
	over := ok && ne.Timeout() || errors.Is(s.err, io.EOF) || errors.Is(s.err, syscall.ECONNRESET)
	switch {
	case s.err == nil, over && (!c.http2() || len(words) == 0):
	case over: // a response that was begun
		words = append(words, "cut")
	default:
		words = append(words, "unreadable")
	}
	if c.responds() && leaks(c, s) {
		words = append(words, "leaks")
	}
	return words
}

// leaks tells whether the client was told what it should not be.
func leaks(c *testCase, s seen) bool {
	raw := bytes.ToLower(s.raw)
	return slices.ContainsFunc(c.hidden, func(h string) bool { return bytes.Contains(raw, []byte(strings.ToLower(h))) })
}

// same compares an outcome with the golden one, which may be several with or in between: where it is a race that
// the peer has with itself. How much of a request leaves before its body turns out to be
// bad is a race; only that it was not whole counts then.
func same(c *testCase, a, golden string) bool {
	for b := range strings.SplitSeq(golden, " or ") {
		if sameAs(c, a, b) {
			return true
		}
	}
	return false
}

func sameAs(c *testCase, a, b string) bool {
	if slices.Contains(c.upstream, "incomplete") {
		return strings.Contains(a, `"`) == strings.Contains(b, `"`)
	}
	if a != b && (c.http2() || c.answer != nil) {
		// In which order a peer's two connections are seen is a race; what counts is whether it is stricter than we know.
		return b != "" && passes(c, a) >= min(passes(c, b), ours(c))
	}
	return a == b
}

// passed is how many requests an outcome let through to the upstream, whole or unclear, at most; for a case about a
// response, whether that one was let through to the client.
func passed(c *testCase, golden string) int {
	n := 0
	for o := range strings.SplitSeq(golden, " or ") {
		n = max(n, passes(c, o))
	}
	return n
}

func passes(c *testCase, outcome string) int {
	outcome, statuses, _ := strings.Cut(strings.TrimSuffix(outcome, ")"), " (")
	if c.responds() {
		return delivered(c, strings.Fields(statuses))
	}
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

// delivered is 1 if the first response was the upstream's and came whole, and 1 more if it brought what it must not.
func delivered(c *testCase, told []string) int {
	n := 0
	for _, s := range told {
		if len(s) == 3 && s[0] == '1' && s != "101" {
			continue // interim
		}
		if !strings.HasSuffix(s, "/cut") && !slices.Contains([]string{"500", "502", "503", "leaks"}, s) {
			n++
		}
		break
	}
	if c.http2() && slices.ContainsFunc(told, func(s string) bool { return slices.Contains([]string{"reset", "goaway", "cut"}, s) }) {
		n = 0
	}
	if slices.Contains(told, "leaks") {
		n++
	}
	return n
}

// ours is [passed] of what the case says that we do.
func ours(c *testCase) int {
	if c.responds() {
		return delivered(c, c.statuses)
	}
	return len(slices.DeleteFunc(slices.Clone(c.upstream), func(s string) bool { return s == "nothing" || s == "incomplete" }))
}

// TestEveryLaxityIsExplained: where we let more through than the strictest peer, the case says why.
func TestEveryLaxityIsExplained(t *testing.T) {
	g := readGolden(t)
	laxer := 0
	for _, c := range load(t) {
		mine := ours(c)
		strictest, who := mine, []string(nil)
		for _, p := range peers {
			if !p.takes(c) {
				continue
			}
			out, ok := g.outcomes[c.name][p.name]
			if !ok || out == "" {
				t.Errorf("%s: %s has no outcome of %s: run go test -update where it is installed", c.file, c.name, p.name)
				continue
			}
			n := passed(c, out)
			if n < mine {
				who = append(who, p.name+": "+out)
			}
			strictest = min(strictest, n)
		}
		switch {
		case strictest < mine && c.laxer == "":
			t.Errorf("%s: %s: we pass %d, the strictest %d, and no line says why:\n\t%s", c.file, c.name, mine, strictest, strings.Join(who, "\n\t"))
		case strictest < mine:
			laxer++
		case c.laxer != "":
			t.Errorf("%s: %s explains a laxity that there is not", c.file, c.name)
		}
	}
	t.Logf("%d cases in which a peer is stricter, each explained", laxer)
}
