// Command summary reads `go test -json` on standard input and prints what a
// person wants to know: packages as they finish, the output of what failed,
// the names of what was skipped and why, and one closing line. It exits 1 if
// anything failed, or, with CI=true in the environment, was skipped.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	ImportPath                    string
	Elapsed                       float64
	Code                          int // of action "exit", which test/run adds after each go test
}

type summary struct {
	passed, failed, skipped int
	told                    int // of failed, those of the go tests before the one that runs
	output                  map[string][]string
	skips                   []string
}

func main() {
	s := &summary{output: map[string][]string{}}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 64<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text())
			continue
		}
		s.add(e)
	}
	if err := in.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "read test output:", err)
		os.Exit(1)
	}
	os.Exit(s.end(os.Getenv("CI") == "true"))
}

func (s *summary) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		if e.Package == "" {
			key = strings.Fields(e.ImportPath + " ")[0] + " "
		}
		s.output[key] = append(s.output[key], e.Output)
	case "exit":
		s.exit(e)
	case "pass", "fail", "skip":
		s.result(e, key)
		delete(s.output, key)
	}
}

func (s *summary) result(e event, key string) {
	if e.Test == "" {
		s.pkg(e, key)
		return
	}
	switch e.Action {
	case "pass":
		s.passed++
	case "skip":
		if why := reason(s.output[key]); strings.Contains(why, "race detector") {
			return // runs again without it, see test/run
		}
		s.skipped++
		s.skips = append(s.skips, e.Package+" "+e.Test+": "+reason(s.output[key]))
	case "fail":
		s.failed++
		fmt.Printf("--- FAIL %s %s\n%s\n", e.Package, e.Test, strings.Join(s.output[key], ""))
	}
}

// exit counts a go test that failed without a test that did: it could not begin.
func (s *summary) exit(e event) {
	if e.Code != 0 && s.failed == s.told {
		s.failed++
		fmt.Printf("FAIL  %s: exit code %d, and no test failed: what it printed is above\n", e.Package, e.Code)
	}
	s.told = s.failed
}

func (s *summary) pkg(e event, key string) {
	switch e.Action {
	case "pass":
		fmt.Printf("ok    %6.1fs  %s\n", e.Elapsed, e.Package)
	case "fail":
		s.failed++
		fmt.Printf("FAIL  %6.1fs  %s\n%s%s\n", e.Elapsed, e.Package, s.unfinished(e.Package), strings.Join(s.output[key], ""))
	}
}

// unfinished is what those tests of a package have printed that never ended: one of them ended the process.
func (s *summary) unfinished(pkg string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(s.output)) {
		if test, ok := strings.CutPrefix(key, pkg+" "); ok && test != "" {
			b.WriteString(strings.Join(s.output[key], ""))
			delete(s.output, key)
		}
	}
	return b.String()
}

func reason(lines []string) string {
	for _, l := range lines {
		if t := strings.TrimSpace(l); !strings.HasPrefix(t, "===") && !strings.HasPrefix(t, "---") && t != "" {
			return t
		}
	}
	return "no reason given"
}

func (s *summary) end(ci bool) int {
	for k, out := range s.output {
		if strings.Contains(strings.Join(out, ""), "[build failed]") {
			fmt.Println(k, strings.Join(out, ""))
		}
	}
	for _, k := range s.skips {
		fmt.Println("SKIPPED", k)
	}
	fmt.Printf("\n%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	if s.failed > 0 || ci && s.skipped > 0 {
		return 1
	}
	return 0
}
