package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// output is everything that a run found; the JSON file.
type output struct {
	Date    string    `json:"date"`
	Machine string    `json:"machine"`
	Command string    `json:"command"`
	Load    string    `json:"load_average"` // at start and end
	Took    string    `json:"took"`
	Results []*result `json:"results"`
	began   time.Time
}

// newOutput begins a run's output, with that of an earlier one if there is one.
func newOutput(o *options) (*output, error) {
	out := &output{Date: time.Now().UTC().Format(time.DateOnly), Machine: machine(), Command: o.command, Load: load(), began: time.Now()}
	if o.after == "" {
		return out, nil
	}
	var earlier output
	b, err := os.ReadFile(o.after)
	if err == nil {
		err = json.Unmarshal(b, &earlier)
	}
	if err != nil {
		return nil, fmt.Errorf("-after: %w", err)
	}
	out.Results, out.Command, out.Load = earlier.Results, earlier.Command+"\n"+out.Command, earlier.Load+"; "+out.Load
	return out, nil
}

func (o *output) finish() {
	o.Load += " at start, " + load() + " at end"
	o.Took = time.Since(o.began).Round(time.Second).String()
}

// load is the load average of the last minute.
func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(b), " ")
	return first
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
	return fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), cpu, strings.TrimSpace(string(kernel)), runtime.Version())
}

func milli(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// bytesText is a size for people.
func bytesText(n int64) string {
	if n < 1e6 {
		return fmt.Sprintf("%.1f KB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// row is one figure: its name, and how it is read off a result.
type row struct {
	name, bar string
	of        func(*result) string
}

func rows() []row {
	last := func(c changes) time.Duration { return c.Last[len(c.Last)-1] }
	each := func(c changes) string {
		return fmt.Sprintf("%d, %d, %s", c.Responses, c.Resources, bytesText(c.Bytes))
	}
	churn := func(f func(*churning) string) func(*result) string {
		return func(r *result) string {
			if r.Churn == nil {
				return "–"
			}
			return f(r.Churn)
		}
	}
	return []row{
		{"one VirtualService changes: CPU", "150 ms", func(r *result) string { return milli(r.Route.CPU) }},
		{"responses, resources, bytes sent", "", func(r *result) string { return each(r.Route) }},
		{"acknowledged, p50, p99 of all proxies", "", func(r *result) string { return milli(r.Route.P50) + ", " + milli(r.Route.P99) }},
		{"last acknowledgement, at most", "500 ms", func(r *result) string { return milli(last(r.Route)) }},
		{"one endpoint changes: CPU", "30 ms", func(r *result) string { return milli(r.Endpoint.CPU) }},
		{"responses, resources, bytes sent", "", func(r *result) string { return each(r.Endpoint) }},
		{"acknowledged, p50, p99 of all proxies", "", func(r *result) string { return milli(r.Endpoint.P50) + ", " + milli(r.Endpoint.P99) }},
		{"last acknowledgement, at most", "200 ms", func(r *result) string { return milli(last(r.Endpoint)) }},
		{"resident with all connected", "300 MB", func(r *result) string { return bytesText(r.RSS) }},
		{"resident at most (VmHWM), after the restart", "300 MB", func(r *result) string { return bytesText(r.Peak) }},
		{"idle", "", func(r *result) string { return fmt.Sprintf("%.3f processors", r.Idle) }},
		{"all connect at once: until all have everything", "", func(r *result) string { return seconds(r.Connect.Took) }},
		{"CPU, bytes sent", "", func(r *result) string { return seconds(r.Connect.CPU) + ", " + bytesText(r.Connect.Bytes) }},
		{"killed and started again: until it serves", "", func(r *result) string { return seconds(r.Restart.Ready) }},
		{"until all proxies are back", "10 s", func(r *result) string { return seconds(r.Restart.Took) }},
		{"CPU, bytes sent, streams refused", "0 refused", func(r *result) string {
			return fmt.Sprintf("%s, %s, %d", seconds(r.Restart.CPU), bytesText(r.Restart.Bytes), r.Restart.Refused)
		}},
		{"endpoints change all the time: changes, time", "", churn(func(c *churning) string { return fmt.Sprintf("%d, %s", c.Done, seconds(c.Took)) })},
		{"CPU", "0.5 processors", churn(func(c *churning) string { return fmt.Sprintf("%.2f processors", c.CPU) })},
		{"bytes sent for each change", "", churn(func(c *churning) string { return bytesText(c.Bytes / int64(max(1, c.Done))) })},
	}
}

// markdown is the generated part of docs/benchmarks.md.
func (o *output) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, load average %s, took %s.\n\n```\n%s\n```\n\n", o.Date, o.Machine, o.Load, o.Took, o.Command)
	b.WriteString("| services × endpoints × proxies | bar |")
	for _, r := range o.Results {
		fmt.Fprintf(&b, " %d × %d × %d |", r.Services, r.Endpoints, r.Proxies)
	}
	b.WriteString("\n| --- | --- |" + strings.Repeat(" --- |", len(o.Results)) + "\n")
	for _, x := range rows() {
		fmt.Fprintf(&b, "| %s | %s |", x.name, x.bar)
		for _, r := range o.Results {
			fmt.Fprintf(&b, " %s |", x.of(r))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// marks are the lines around a section that this program writes; test/bench has its own.
func marks(section string) (begin, end string) {
	return "<!-- " + section + ":begin (written by test/scale; edits here are lost) -->\n", "<!-- " + section + ":end -->"
}

// rewrite replaces a section of a file.
func rewrite(file, section, text string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := marks(section)
	before, rest, ok := bytes.Cut(b, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s: no section between %q and %q", file, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(file, bytes.Join([][]byte{before, []byte(begin), []byte(text), []byte(end), after}, nil), 0o644)
}
