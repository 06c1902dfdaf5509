package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	rounds := func(allocs float64, cpu ...int) (out []round) {
		for _, c := range cpu {
			out = append(out, round{CPU: time.Duration(c), Allocs: allocs})
		}
		return out
	}
	tests := []struct {
		name        string
		base, now   []round
		cpu, allocs bool // worse
	}{
		{"the same", rounds(3, 100, 110, 120), rounds(3, 101, 108, 121), false, false},
		{"a tenth more is not worse yet", rounds(0, 100, 100, 100), rounds(0, 110, 110, 110), false, false},
		{"more than a tenth", rounds(0, 100, 100, 100), rounds(0, 111, 111, 111), true, false},
		{"a busy machine: much more, much less", rounds(0, 100, 100, 100, 100, 100), rounds(0, 80, 90, 120, 130, 140), false, false},
		{"one bad round does not count", rounds(0, 100, 100, 100), rounds(0, 100, 100, 300), false, false},
		{"a machine that slows down slows both", rounds(0, 100, 200, 400), rounds(0, 104, 208, 416), false, false},
		{"one allocation where there was none", rounds(0, 100), rounds(1, 100), false, true},
		{"noise of a collection", rounds(0, 100), rounds(0.04, 100), false, false},
		{"five of a hundred more", rounds(3, 100), rounds(3.19, 100), false, false},
		{"more than five of a hundred", rounds(3, 100), rounds(3.21, 100), false, true},
		{"an unknown count is not none", rounds(3, 100), rounds(-1, 100), false, true},
		{"fewer of both", rounds(3, 100), rounds(0, 50), false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := judge(&result{Workload: "w", Rounds: map[string][]round{"base": tt.base, weftName: tt.now}})
			if g.cpuWorse != tt.cpu || g.allocsWorse != tt.allocs {
				t.Errorf("worse: cpu %v, allocations %v; want %v, %v (%+v)", g.cpuWorse, g.allocsWorse, tt.cpu, tt.allocs, g)
			}
			if got := strings.Contains(gateTable([]gated{g}), "worse"); got != (tt.cpu || tt.allocs) {
				t.Errorf("the table says worse: %v", got)
			}
		})
	}
}

func TestGateBase(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		out, err := git(dir, append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	commit := func(text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		run("add", "f")
		run("commit", "-q", "-m", text)
		return run("rev-parse", "HEAD")
	}
	want := func(ref, commit, why string) {
		t.Helper()
		got, because, err := gateBase(dir, ref)
		if err != nil || got != commit || because != why {
			t.Errorf("%s: %s (%s), %v; want %s (%s)", ref, got, because, err, commit, why)
		}
	}
	run("init", "-q", "-b", "main")
	one, two := commit("one"), commit("two")
	want(gateAuto, one, "the commit before HEAD")
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	want(gateAuto, two, "HEAD: the tree has changes")
	run("checkout", "-q", "-b", "feature")
	commit("three")
	commit("four")
	want(gateAuto, two, "merge base with main")
	want(one, one, "merge base with "+one)
	if _, _, err := gateBase(dir, "nowhere"); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a commit that is not there: %v, want an error that names it", err)
	}
}

func TestBudgetsAreJudged(t *testing.T) {
	o := &output{
		Results: []result{
			{ID: "h1.saturated", Rounds: map[string][]round{
				weftName: {{CPU: 40, Allocs: 0.01}, {CPU: 50, Allocs: 0.01}}, base: {{CPU: 50}, {CPU: 50}}, envoyName: {{CPU: 100}, {CPU: 100}},
			}},
			{ID: "h1.rate", Rounds: map[string][]round{
				directName: {{sample: sample{P50: 100, P99: 500}}}, weftName: {{CPU: 1, sample: sample{P50: 150, P99: 900}}}, envoyName: {{CPU: 1, sample: sample{P50: 200, P99: 900}}},
			}},
		},
		Idle: []idleResult{{Peer: weftName, Kind: kindH1, Start: 21e6, Ready: []time.Duration{150e6, 250e6, 180e6}}, {Peer: weftName, Kind: kindTLS, Idle: 25e3}},
	}
	want := map[string]verdict{
		"HTTP/1.1 CPU, saturated, to HAProxy":                 {Limit: 0.95, Unit: times, Seen: 1, Least: 0.8, Most: 1, Met: "no"},
		"HTTP/1.1 CPU, saturated, to Envoy":                   {Limit: 0.4, Unit: times, Seen: 0.5, Least: 0.4, Most: 0.5, Met: "no"},
		"HTTP/1.1 at 1,000/s, added median latency, to Envoy": {Limit: 0.6, Unit: times, Seen: 0.5, Least: 0.5, Most: 0.5, Met: "yes"},
		"HTTP/1.1 at 1,000/s, added p99 latency, to Envoy":    {Limit: 0.8, Unit: times, Seen: 1, Least: 1, Most: 1, Met: "no"},
		"idle sidecar's RSS with 100 services known":          {Limit: 20, Unit: "MB", Seen: 21, Least: 21, Most: 21, Met: "no"},
		"an idle connection, mTLS":                            {Limit: 26, Unit: "KB", Seen: 25, Least: 25, Most: 25, Met: "yes"},
		"an idle connection, plain":                           {Limit: 6, Unit: "KB", Met: "not measured"},
		"sidecar's start to its first answer":                 {Limit: 200, Unit: "ms", Seen: 180, Least: 150, Most: 250, Met: "yes"},
		"allocations for an HTTP/1.1 request":                 {Limit: 0.1, Seen: 0.01, Least: 0.01, Most: 0.01, Met: "yes"},
	}
	for _, v := range o.verdicts() {
		w, ok := want[v.What]
		if !ok {
			continue
		}
		delete(want, v.What)
		if w.What = v.What; v != w {
			t.Errorf("got %+v\nwant %+v", v, w)
		}
	}
	for name := range want {
		t.Errorf("no budget %q", name)
	}
	if text := o.budgetTable(); !strings.Contains(text, "| HTTP/1.1 CPU, saturated, to HAProxy | 0.95× | 1× [0.80–1] | **no** |") {
		t.Errorf("table:\n%s", text)
	}
}
