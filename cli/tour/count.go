package tour

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Metrics are a proxy's metric families by name.
type Metrics map[string]*dto.MetricFamily

// ParseMetrics reads Prometheus' text format.
func ParseMetrics(r io.Reader) (Metrics, error) {
	p := expfmt.NewTextParser(model.LegacyValidation)
	m, err := p.TextToMetricFamilies(r)
	return Metrics(m), err
}

// Merge adds the series of another proxy.
func (m Metrics) Merge(o Metrics) {
	for name, f := range o {
		if have, ok := m[name]; ok {
			have.Metric = append(have.Metric, f.Metric...)
			continue
		}
		m[name] = f
	}
}

// Sum adds up the series of a family whose labels hold all of want.
func (m Metrics) Sum(family string, want map[string]string) float64 {
	f, ok := m[family]
	if !ok {
		return 0
	}
	total := 0.0
	for _, s := range f.GetMetric() {
		if !fits(s, want) {
			continue
		}
		switch {
		case s.Counter != nil:
			total += s.GetCounter().GetValue()
		case s.Gauge != nil:
			total += s.GetGauge().GetValue()
		case s.Untyped != nil:
			total += s.GetUntyped().GetValue()
		}
	}
	return total
}

func fits(s *dto.Metric, want map[string]string) bool {
	have := 0
	for _, l := range s.GetLabel() {
		v, ok := want[l.GetName()]
		if !ok {
			continue
		}
		if v != l.GetValue() {
			return false
		}
		have++
	}
	return have == len(want)
}

// counts says how often each thing was seen.
type counts map[string]int

func (c counts) String() string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(c)) {
		name := k
		if name == "" {
			name = "none"
		}
		parts = append(parts, fmt.Sprintf("%s ×%d", name, c[k]))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

func (c counts) total() int {
	n := 0
	for _, v := range c {
		n += v
	}
	return n
}

// share of one key in percent.
func (c counts) share(key string) float64 {
	if c.total() == 0 {
		return 0
	}
	return 100 * float64(c[key]) / float64(c.total())
}

// versions loads the page n times and counts which reviews answered.
func (r *Run) versions(ctx context.Context, user string, n int) (counts, error) {
	c := counts{}
	r.bad = ""
	for i := range n {
		p, err := r.Mesh.Load(ctx, user)
		if err != nil {
			return nil, err
		}
		if p.Status != 200 {
			r.seen(i, p.Status, p.Body)
			c[fmt.Sprintf("status %d", p.Status)]++
			continue
		}
		c[p.Reviews]++
	}
	return c, nil
}

// seen keeps the first bad answer, for a comparison that does not hold.
func (r *Run) seen(i, status int, body string) {
	if r.bad == "" && status >= 400 {
		r.bad = fmt.Sprintf("call %d: %d %.120q", i+1, status, strings.TrimSpace(body))
	}
}

// calls has the sleep pod call a URL and counts the answers by status; no
// answer counts as the client's cause.
func (r *Run) calls(ctx context.Context, namespace, url string, args ...string) (counts, error) {
	cmd := append([]string{"bookinfo", "client", "-o", "json"}, args...)
	out, err := r.Mesh.Exec(ctx, namespace, "sleep", append(cmd, url)...)
	if err != nil {
		return nil, err
	}
	var sum struct {
		Statuses map[string]int `json:"statuses"`
		Errors   map[string]int `json:"errors"`
		Results  []struct {
			Status int    `json:"status"`
			Body   string `json:"body"`
		} `json:"results"`
	}
	if err := json.Unmarshal([]byte(out.Stdout), &sum); err != nil {
		return nil, fmt.Errorf("client in sleep.%s: exit code %d: %s", namespace, out.Code, strings.TrimSpace(out.Stderr))
	}
	r.bad = ""
	for i, a := range sum.Results {
		r.seen(i, a.Status, a.Body)
	}
	c := counts{}
	for s, n := range sum.Statuses {
		c[s] += n
	}
	for e, n := range sum.Errors {
		c["no answer: "+e] += n
	}
	return c, nil
}
