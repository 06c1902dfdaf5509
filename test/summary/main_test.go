package main

import (
	"strings"
	"testing"
)

func TestWhatCountsAsFailed(t *testing.T) {
	pass := event{Action: "pass", Package: "p", Test: "T"}
	fail := event{Action: "fail", Package: "p", Test: "T"}
	skip := event{Action: "skip", Package: "p", Test: "T"}
	exit := func(code int) event { return event{Action: "exit", Package: "go test", Code: code} }
	for name, tt := range map[string]struct {
		events []event
		ci     bool
		want   int
	}{
		"all pass":                               {[]event{pass, exit(0)}, true, 0},
		"a test fails":                           {[]event{fail, exit(1)}, false, 1},
		"a go test does not begin":               {[]event{exit(2), pass, exit(0)}, false, 1},
		"a go test does not begin after failure": {[]event{fail, exit(1), exit(2)}, false, 1},
		"a skip":                                 {[]event{skip, exit(0)}, false, 0},
		"a skip in CI":                           {[]event{skip, exit(0)}, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := &summary{output: map[string][]string{}}
			for _, e := range tt.events {
				s.add(e)
			}
			if got := s.end(tt.ci); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
		})
	}
}

func TestWhoEndsTheProcessIsHeard(t *testing.T) {
	s := &summary{output: map[string][]string{}}
	s.add(event{Action: "output", Package: "p", Test: "T", Output: "=== RUN   T\n"})
	s.add(event{Action: "pass", Package: "p", Test: "T"})
	s.add(event{Action: "output", Package: "p", Test: "U/sub", Output: "panic: boo\n"})
	s.add(event{Action: "output", Package: "pq", Test: "V", Output: "another package\n"})
	s.add(event{Action: "output", Package: "p", Output: "FAIL\tp\n"})
	if got := s.unfinished("p"); got != "panic: boo\n" {
		t.Errorf("%q", got)
	}
	if got := strings.Join(s.output["p "], ""); got != "FAIL\tp\n" {
		t.Errorf("of the package: %q", got)
	}
}
