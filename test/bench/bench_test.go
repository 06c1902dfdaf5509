package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain is also the worker process that a run starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerArg {
		if err := work(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestQuickRun keeps the program working: one short round of everything,
// with weft-proxy built from the tree, next to HAProxy if it is there.
func TestQuickRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs proxies")
	}
	o, err := parse([]string{"-quick", "-peers", "haproxy,direct,weft@1"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := run(ctx, o, &progress)
	t.Log(progress.String())
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Results) != len(workloads) {
		t.Fatalf("%d results, want one for each of %d workloads", len(out.Results), len(workloads))
	}
	for _, r := range out.Results {
		for _, p := range r.Order {
			rs := r.Rounds[p]
			if p == directName {
				if len(rs) != 1 || rs[0].P99 <= 0 {
					t.Errorf("%s: implausible rounds without a proxy: %+v", r.Workload, rs)
				}
				continue
			}
			if len(rs) != 1 || rs[0].CPU <= 0 || rs[0].RSS <= 0 || !r.Bulk && (rs[0].Requests == 0 || rs[0].P99 < rs[0].P50) {
				t.Errorf("%s: %s: implausible rounds %+v", r.Workload, p, rs)
			}
			if !strings.Contains(out.markdown(), "| "+p+" |") {
				t.Errorf("%s is not in the table", p)
			}
		}
		if r.Order[0] != "weft" {
			t.Errorf("%s: first peer is %s, want weft", r.Workload, r.Order[0])
		}
	}
	for _, r := range out.Idle {
		if r.Why == "" && (r.Start <= 0 || len(r.Ready) == 0 && r.Conns == 0) {
			t.Errorf("idle: implausible result %+v", r)
		}
	}
	for _, v := range out.verdicts() {
		if v.Met == notJudged && !strings.Contains(v.What, "Envoy") {
			t.Errorf("budget %q was not measured", v.What)
		}
	}
}

func TestRatiosAreMediansOfTheSameRound(t *testing.T) {
	rounds := func(cpu ...int) (out []round) {
		for _, c := range cpu {
			out = append(out, round{CPU: time.Duration(c)})
		}
		return out
	}
	r := result{Rounds: map[string][]round{base: rounds(100, 200, 50), "weft": rounds(80, 200, 45)}}
	cpu := func(x round) float64 { return float64(x.CPU) }
	if got := r.ratio("weft", cpu); got != 0.9 {
		t.Errorf("ratio = %v, want 0.9 (of 0.8, 1 and 0.9)", got)
	}
	r.Rounds[base] = nil
	if got := r.ratio("weft", cpu); got != 0 {
		t.Errorf("ratio without %s = %v, want 0", base, got)
	}
}

func TestRoundsOverOtherProcessesAreRoundsOfTheSameWorkload(t *testing.T) {
	rs := func(a, b, c time.Duration) []result {
		return []result{{ID: "a", Rounds: map[string][]round{"weft": {{CPU: a}}, base: {{CPU: b}}}}, {ID: "b", Rounds: map[string][]round{"weft": {{CPU: c}}}}}
	}
	got := join(join(nil, rs(1, 2, 3)), rs(4, 5, 6))
	want := []result{
		{ID: "a", Rounds: map[string][]round{"weft": {{CPU: 1}, {CPU: 4}}, base: {{CPU: 2}, {CPU: 5}}}},
		{ID: "b", Rounds: map[string][]round{"weft": {{CPU: 3}, {CPU: 6}}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFlagsAreChecked(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string // in the error
	}{
		{"unknown case", []string{"-cases", "h1,h9"}, `-cases: unknown "h9"; want h1, mtls, h2, grpc, h1h2, tcp, body, tls, idle`},
		{"unknown peer", []string{"-peers", "squid"}, `-peers: unknown "squid"; want weft, haproxy, relay, nginx, envoy, caddy, direct, or all; with @2 on two workers`},
		{"no workers", []string{"-peers", "haproxy@0"}, `-peers: "haproxy@0": want a number of workers from 1 to 64 after the @`},
		{"no rounds", []string{"-rounds", "0"}, "usage: "},
		{"rounds that do not end", []string{"-seconds", "3600"}, "usage: "},
		{"a stray word", []string{"h1"}, "usage: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(tt.args, &bytes.Buffer{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestTablesAreWrittenBetweenTheMarkers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n" + markBegin + "\nold\n" + markEnd + "\nafter\n")
	for range 2 { // also what it wrote itself
		if err := writeBetween(file, "new\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("before\n"+markBegin+"\nnew\n"+markEnd+"\nafter\n", string(got)); diff != "" {
		t.Errorf("document (-want +got):\n%s", diff)
	}
	write("no markers")
	if err := writeBetween(file, "new\n"); err == nil {
		t.Error("a document without markers was accepted")
	}
}

func TestAWrongAnswerIsAnError(t *testing.T) {
	b, err := startBackend()
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	l, err := openH1Closed(2)(target{addr: "127.0.0.1:" + strconv.Itoa(b.h1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if s, err := l.run(t.Context(), 300*time.Millisecond); err != nil || s.Requests == 0 {
		t.Fatalf("against the backend itself: %+v, %v", s, err)
	}
	l.(*h1Closed).conns[0].want = fill(bodySize / 2)
	if _, err := l.run(t.Context(), 300*time.Millisecond); err == nil || !strings.Contains(err.Error(), "wrong response") {
		t.Errorf("a body of the wrong length: %v, want an error", err)
	}
	// A backend alone adds no header fields, as a proxy that passes everything on unchanged.
	if err := verify(kindH1, target{addr: "127.0.0.1:" + strconv.Itoa(b.h1)}); err == nil || !strings.Contains(err.Error(), "did not add x-request-id") {
		t.Errorf("verify without a proxy: %v, want an error about x-request-id", err)
	}
}

func TestLatencyCountsFromWhenARequestWasDue(t *testing.T) {
	p := newPacer[*slowConn](1000, 1)
	c := &slowConn{p: p}
	p.free <- c
	s, err := p.run(t.Context(), 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	// One connection that takes 3 ms for each of 20 requests, due every millisecond: the last waits.
	if s.Requests != 20 || s.P99 < 20*time.Millisecond {
		t.Errorf("requests %d, p99 %v; want 20 requests and a p99 that holds the time in line", s.Requests, s.P99)
	}
}

// slowConn answers after 3 ms on the wall clock, which is what the pacer is about.
type slowConn struct{ p *pacer[*slowConn] }

func (c *slowConn) send(due time.Time) error {
	time.AfterFunc(3*time.Millisecond, func() { c.p.answered(c, due) })
	return nil
}
