package conformance

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// judge compares the outcomes of a case: equal, or different for a reason that
// the table of differences gives.
func (p *proxies) judge(t *testing.T, suite, name string, run func() (ours, theirs string)) {
	t.Helper()
	p.patiently(t, func() string {
		ours, theirs := run()
		return p.difference(suite, name, ours, theirs)
	})
}

// patiently does a comparison, and again with more time for everything if it fails: on a machine that is busy with something
// else a proxy, or the test, may be late. What is really different stays so.
func (p *proxies) patiently(t *testing.T, compare func() (wrong string)) {
	t.Helper()
	defer func() { p.slower = 1 }()
	var wrong string
	for _, p.slower = range []time.Duration{1, 4, 12} {
		if p.slower > 1 {
			t.Logf("once more with %d times the time, because of\n%s", p.slower, wrong)
			time.Sleep(100 * time.Millisecond * p.slower) // what the last attempt has sent may still be on its way
		}
		if wrong = compare(); wrong == "" {
			return
		}
	}
	t.Error(wrong)
}

// difference says what is wrong, "" if nothing is.
func (p *proxies) difference(suite, name, ours, theirs string) string {
	bad := strings.HasPrefix(name, "bad: ")
	a, b := withoutTrace(lines(ours, bad), lines(theirs, bad)), lines(theirs, bad)
	if p.self != "" {
		for i, l := range b {
			if strings.HasPrefix(l, "x-forwarded-for: ") {
				b[i] = strings.ReplaceAll(l, p.self, "127.0.0.1")
			}
		}
	}
	if strings.Count(ours, "upstream ") == 1 { // the first try met a pooled connection that the last case had ended
		if i := slices.Index(a, "x-envoy-attempt-count: 2"); i >= 0 {
			a[i] = "x-envoy-attempt-count: 1"
		}
	}
	diff := cmp.Diff(b, a)
	known, ok := knownDifferences[name]
	if known.suite != "" && known.suite != suite {
		ok = false
	}
	switch {
	case !ok && diff != "":
		return "-envoy +weft\n" + diff
	case ok && diff == "" && known.why == staleRetry:
		// It shows only if a pooled connection is there to be stale, which is the last case's doing.
	case ok && diff == "":
		return "the difference is gone: take the case out of the table (" + known.why + ")"
	case ok && !strings.Contains(strings.Join(a, "\n"), known.ours):
		return fmt.Sprintf("ours differs as it should, but lacks %q:\n%s", known.ours, ours)
	}
	return ""
}

// lines splits an outcome. A refusal by the codec is one line: what its body
// says is nobody's contract, and for bytes that are no HTTP the status is not
// either, nor whether the head was on its way to the upstream when they came.
func lines(outcome string, bad bool) []string {
	var status int
	_, err := fmt.Sscanf(outcome, "HTTP/1.1 %d", &status)
	closes := strings.Contains(outcome, "connection: close")
	switch {
	case bad && closes && err == nil && status >= 400:
	case err != nil || status < 400 || !closes || strings.Contains(outcome, "upstream ") || strings.Count(outcome, "HTTP/1.1 ") > 1:
		return strings.Split(outcome, "\n")
	}
	if bad {
		return []string{"refused"}
	}
	return []string{fmt.Sprint("refused ", status)}
}

var traceField = regexp.MustCompile(`^(traceparent: T|x-b3-(traceid|spanid): B|x-b3-sampled: [01])$`)

// withoutTrace leaves out the trace context that weft-proxy makes and Envoy makes with a tracer only.
func withoutTrace(ours, theirs []string) []string {
	return slices.DeleteFunc(ours, func(l string) bool { return traceField.MatchString(l) && !slices.Contains(theirs, l) })
}

// learnSelf finds the address that Envoy writes for clients on loopback into x-forwarded-for: its host's own.
func (p *proxies) learnSelf() {
	for l := range strings.SplitSeq(p.outcome(envoyAddress, diffCase{raw: get("echo.test", "/")}), "\n") {
		if v, ok := strings.CutPrefix(l, "x-forwarded-for: "); ok {
			p.self = v
		}
	}
}
