package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// output is everything that a run found; the JSON file.
type output struct {
	Date     string            `json:"date"`
	Machine  string            `json:"machine"`
	Command  string            `json:"command"`
	Load     string            `json:"load_average"` // at start and end
	Took     string            `json:"took"`
	Versions map[string]string `json:"versions"`
	Commands map[string]string `json:"commands"` // how each peer was started first
	Absent   []string          `json:"not_installed,omitempty"`
	Results  []result          `json:"results"`
	Idle     []idleResult      `json:"idle,omitempty"`
	Budgets  []verdict         `json:"budgets"`
}

func (o *output) json() ([]byte, error) {
	o.Budgets = o.verdicts()
	return json.MarshalIndent(o, "", "  ")
}

func mega(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
func kilo(n int64) string {
	if n == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f KB", float64(n)/1e3)
}
func milli(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d)/1e6) }
func micro(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/1e3) }

// row is one peer's line of a workload.
type row struct {
	peer, cpu, ratio, rate, p50, p99, rss, allocs string
}

const dash = "–"

func (r *result) row(peer string) row {
	rs := r.Rounds[peer]
	cpu := pick(rs, func(x round) time.Duration { return x.CPU })
	lo, hi := slices.Min(cpu), slices.Max(cpu)
	o := row{peer: peer, allocs: dash, p50: dash, p99: dash, ratio: dash, rss: dash}
	o.cpu = fmt.Sprintf("%s [%s–%s]", micro(median(cpu)), micro(lo), micro(hi))
	o.rate = fmt.Sprintf("%.0f", median(pick(rs, func(x round) float64 { return float64(x.Requests) / x.Elapsed.Seconds() })))
	switch {
	case r.Bulk:
		o.cpu = fmt.Sprintf("%.3f s/GB [%.3f–%.3f]", median(cpu).Seconds(), lo.Seconds(), hi.Seconds())
		o.rate = fmt.Sprintf("%.2f GB", median(pick(rs, func(x round) float64 { return float64(x.Bytes) / 1e9 / x.Elapsed.Seconds() })))
	case r.Handshakes:
		o.cpu += fmt.Sprintf(", %.0f for a CPU second", 1/median(cpu).Seconds())
	}
	if !r.Bulk {
		o.p50 = micro(median(pick(rs, func(x round) time.Duration { return x.P50 })))
		o.p99 = micro(median(pick(rs, func(x round) time.Duration { return x.P99 })))
	}
	if hi == 0 {
		o.cpu = dash // no proxy
		return o
	}
	if v := r.ratio(peer, func(x round) float64 { return float64(x.CPU) }); v > 0 {
		o.ratio = fmt.Sprintf("%.2f", v)
	}
	last := rs[len(rs)-1]
	o.rss = fmt.Sprintf("%.1f / %.1f", float64(last.RSS)/1e6, float64(last.Peak)/1e6)
	if a := median(pick(rs, func(x round) float64 { return x.Allocs })); a >= 0 && rs[0].Allocs >= 0 {
		o.allocs = fmt.Sprintf("%.2f", a)
	}
	return o
}

// progress is one line for a finished workload.
func progress(r *result) string {
	var parts []string
	for _, p := range r.Order {
		x := r.row(p)
		s := fmt.Sprintf("%s %s", p, x.cpu)
		if p == directName {
			s = fmt.Sprintf("%s p50 %s p99 %s", p, x.p50, x.p99)
		}
		if x.ratio != dash && p != base {
			s += " ×" + x.ratio
		}
		if x.allocs != dash {
			s += " " + x.allocs + " allocs"
		}
		parts = append(parts, s)
	}
	for _, p := range slices.Sorted(maps.Keys(r.Missing)) {
		parts = append(parts, p+" – ("+r.Missing[p]+")")
	}
	return r.Workload + ": " + strings.Join(parts, "; ")
}

// markdown is the generated part of docs/benchmarks.md.
func (o *output) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, load average %s, %s.\n\n```\n%s\n```\n\n", o.Date, o.Machine, o.Load, o.Took, o.Command)
	for _, p := range slices.Sorted(maps.Keys(o.Versions)) {
		fmt.Fprintf(&b, "- %s: %s\n", p, o.Versions[p])
	}
	for _, p := range o.Absent {
		fmt.Fprintf(&b, "- %s: not installed, not measured\n", p)
	}
	b.WriteString("\nHow each was started first (DIR is the run's temporary directory):\n\n```\n")
	for _, p := range slices.Sorted(maps.Keys(o.Commands)) {
		fmt.Fprintf(&b, "%s: %s\n", p, o.Commands[p])
	}
	b.WriteString("```\n\n### Budgets\n\n")
	b.WriteString(o.budgetTable())
	if len(o.Results) > 0 {
		b.WriteString("\n### All cases\n\n")
		o.caseTable(&b)
	}
	if len(o.Idle) > 0 {
		b.WriteString("\n### Memory and starts\n\n")
		o.idleTable(&b)
	}
	return b.String()
}

func (o *output) caseTable(b *strings.Builder) {
	b.WriteString("| case | proxy | CPU µs/request [least–most] | ratio to HAProxy | rate/s | p50 µs | p99 µs | RSS MB at the end / peak | allocs/request |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for i := range o.Results {
		r := &o.Results[i]
		name := r.Workload
		for _, p := range r.Order {
			x := r.row(p)
			fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", name, x.peer, x.cpu, x.ratio, x.rate, x.p50, x.p99, x.rss, x.allocs)
			name = ""
		}
		for _, p := range slices.Sorted(maps.Keys(r.Missing)) {
			fmt.Fprintf(b, "| %s | %s | – (%s) | – | – | – | – | – | – |\n", name, p, r.Missing[p])
			name = ""
		}
	}
}

var idleNames = map[string]string{kindH1: "plain HTTP", kindPair: "mTLS pair", kindTLS: "mTLS, server's end alone"}

func (o *output) idleTable(b *strings.Builder) {
	b.WriteString("| without load | proxy | RSS some seconds after start | start to first answer | idle connections | each of them | 10 s after all were busy at once |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range o.Idle {
		start, ready, conns, each, burst := mega(r.Start), dash, dash, dash, dash
		if len(r.Ready) > 0 {
			ready = milli(median(r.Ready))
		}
		if r.Conns > 0 {
			conns, each, burst = fmt.Sprint(r.Conns), kilo(r.Idle), kilo(r.Burst)
		}
		if r.Why != "" {
			start, each, burst = dash+" ("+r.Why+")", dash, dash
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s |\n", idleNames[r.Kind], r.Peer, start, ready, conns, each, burst)
	}
}

// machine names the processor and the kernel, without the host.
func machine() string {
	cpu := runtime.GOARCH
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
				cpu = strings.TrimSpace(v)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	major, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	return fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), cpu, major, runtime.Version())
}

// loadAverage of the last minute.
func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

// Markers of the generated part of the document.
const (
	markBegin = "<!-- bench:begin (written by test/bench; edits here are lost) -->"
	markEnd   = "<!-- bench:end -->"
)

// writeBetween replaces what is between the markers of a file.
func writeBetween(file, text string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), markBegin)
	_, after, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s: no lines %q and %q to write between", file, markBegin, markEnd)
	}
	return os.WriteFile(file, []byte(before+markBegin+"\n"+text+markEnd+after), 0o644)
}
