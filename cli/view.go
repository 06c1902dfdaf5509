package cli

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"golang.org/x/term"

	"weft.mesh/weft/api/admin"
)

// view is the demo's live picture: one row for each service, from the metrics
// of the sidecars in front of it.
type view struct {
	app     *app
	mesh    *meshClient
	load    *load
	page    string
	console string
}

// Refresh of a terminal, and the period of lines elsewhere.
const (
	viewPeriod = time.Second
	linePeriod = 10 * time.Second
	viewWindow = 10 // samples that rates are worked out over
)

// run shows until ctx ends.
func (v *view) run(ctx context.Context) error {
	if term.IsTerminal(int(v.app.env.Stdout.Fd())) {
		return v.screen(ctx)
	}
	v.app.printf("load: %d requests/s on %s; Ctrl-C ends\n", v.load.rate, v.page)
	for sleepFor(ctx, linePeriod) {
		s := v.load.stats()
		v.app.printf("load: %d loads, %d failed, p50 %s, p99 %s\n", s.total, s.failed, round(s.p50), round(s.p99))
	}
	return nil
}

func sleepFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// screen draws on the terminal's other buffer, so that nothing of what was
// there before is lost.
func (v *view) screen(ctx context.Context) error {
	v.app.printf("\x1b[?1049h\x1b[?25l")
	defer v.app.printf("\x1b[?25h\x1b[?1049l")
	var history []sample
	for {
		s, err := v.sample(ctx)
		if err == nil {
			history = append(history, s)
			if len(history) > viewWindow {
				history = history[1:]
			}
			v.draw(history)
		}
		if !sleepFor(ctx, viewPeriod) {
			return nil
		}
	}
}

// sample is all counters at one moment.
type sample struct {
	at       time.Time
	services map[string]*svcCount
	pods     []admin.Pod
	proxies  []admin.ProxyStatus
}

// svcCount adds up one service's metrics over its sidecars.
type svcCount struct {
	total, failed, mtls float64
	versions            map[string]float64
	buckets             map[float64]float64 // cumulative count by upper bound in ms
}

func (v *view) sample(ctx context.Context) (sample, error) {
	pods, err := v.mesh.pods(ctx)
	if err != nil {
		return sample{}, err
	}
	s := sample{at: time.Now(), services: map[string]*svcCount{}, pods: pods}
	for _, p := range pods {
		if !p.Sidecar || !p.Ready {
			continue
		}
		m, err := v.mesh.scrape(ctx, p)
		if err != nil {
			continue // it is just starting or ending; the next look will tell
		}
		s.add(m["istio_requests_total"], m["istio_request_duration_milliseconds"])
	}
	if st, err := v.app.mesh().Status(ctx); err == nil {
		s.proxies = st.Proxies
	}
	return s, nil
}

func labels(m *dto.Metric) map[string]string {
	out := make(map[string]string, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		out[l.GetName()] = l.GetValue()
	}
	return out
}

func (s *sample) service(l map[string]string) *svcCount {
	name := l["destination_canonical_service"]
	c, ok := s.services[name]
	if !ok {
		c = &svcCount{versions: map[string]float64{}, buckets: map[float64]float64{}}
		s.services[name] = c
	}
	return c
}

func (s *sample) add(requests, durations *dto.MetricFamily) {
	for _, m := range requests.GetMetric() {
		l := labels(m)
		if l["reporter"] != "destination" {
			continue
		}
		c, n := s.service(l), m.GetCounter().GetValue()
		c.total += n
		if strings.HasPrefix(l["response_code"], "5") || l["response_code"] == "0" {
			c.failed += n
		}
		if l["connection_security_policy"] == "mutual_tls" {
			c.mtls += n
		}
		c.versions[l["destination_version"]] += n
	}
	for _, m := range durations.GetMetric() {
		l := labels(m)
		if l["reporter"] != "destination" {
			continue
		}
		c := s.service(l)
		for _, b := range m.GetHistogram().GetBucket() {
			c.buckets[b.GetUpperBound()] += float64(b.GetCumulativeCount())
		}
	}
}

// minus is what happened since an earlier sample.
func (c *svcCount) minus(o *svcCount) *svcCount {
	if o == nil || o.total > c.total {
		return c // new, or its pods were replaced
	}
	d := &svcCount{total: c.total - o.total, failed: c.failed - o.failed, mtls: c.mtls - o.mtls, versions: map[string]float64{}, buckets: map[float64]float64{}}
	for k, n := range c.versions {
		d.versions[k] = max(0, n-o.versions[k])
	}
	for k, n := range c.buckets {
		d.buckets[k] = max(0, n-o.buckets[k])
	}
	return d
}

// quantile in milliseconds, by linear interpolation as PromQL does it.
func (c *svcCount) quantile(q float64) float64 {
	bounds := slices.Sorted(maps.Keys(c.buckets))
	if len(bounds) == 0 {
		return math.NaN()
	}
	total := c.buckets[bounds[len(bounds)-1]]
	if total == 0 {
		return math.NaN()
	}
	rank, low, below := q*total, 0.0, 0.0
	for _, b := range bounds {
		n := c.buckets[b]
		if n >= rank {
			if math.IsInf(b, 1) || n == below {
				return low
			}
			return low + (b-low)*(rank-below)/(n-below)
		}
		low, below = b, n
	}
	return low
}

func millis(ms float64) string {
	if math.IsNaN(ms) {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", ms)
}

func (v *view) draw(h []sample) {
	c := colors{on: !v.app.noColor}
	now, first := h[len(h)-1], h[0]
	span := now.at.Sub(first.at).Seconds()
	var b strings.Builder
	b.WriteString("\x1b[H\x1b[J")
	fmt.Fprintf(&b, "%s  %s   %s\n", c.bold("Weft"), v.page, c.dim("Ctrl-C ends; try weft demo --tour, weft status, weft ps"))
	fmt.Fprintf(&b, "      %s   %s\n\n", v.console, c.dim("console"))
	s := v.load.stats()
	fmt.Fprintf(&b, "Load     %d requests/s, %d loads, %s, p50 %s, p99 %s\n", v.load.rate, s.total, failures(c, s), round(s.p50), round(s.p99))
	b.WriteString(meshLine(c, now) + "\n\n")
	t := newTable("SERVICE", "REQUESTS/S", "SUCCESS", "P50", "P99", "VERSIONS REACHED", "MTLS")
	for _, name := range slices.Sorted(maps.Keys(now.services)) {
		t.add(serviceRow(c, name, now.services[name].minus(first.services[name]), span)...)
	}
	_ = t.write(&b, c) // a strings.Builder does not fail
	text := b.String()
	if w, h, err := term.GetSize(int(v.app.env.Stdout.Fd())); err == nil {
		text = fit(text, w, h)
	}
	fmt.Fprint(v.app.out(), strings.ReplaceAll(text, "\n", "\x1b[K\r\n"))
}

func failures(c colors, s loadStats) string {
	if s.failed == 0 {
		return c.green("none failed")
	}
	return c.red(fmt.Sprintf("%d failed (last: %s)", s.failed, s.lastErr))
}

func meshLine(c colors, s sample) string {
	ready, synced, connected := 0, 0, 0
	for _, p := range s.pods {
		if p.Ready {
			ready++
		}
	}
	for _, p := range s.proxies {
		if p.Lost != nil {
			continue
		}
		connected++
		ok := true
		for _, t := range p.Types {
			ok = ok && (t.State == admin.SyncSynced || t.State == admin.SyncNotSent)
		}
		if ok {
			synced++
		}
	}
	return fmt.Sprintf("Mesh     %d of %d pods ready, %d of %d proxies in sync", ready, len(s.pods), synced, connected)
}

func serviceRow(c colors, name string, d *svcCount, span float64) []string {
	if d.total == 0 || span == 0 {
		return []string{name, c.dim("0"), "-", "-", "-", "-", "-"}
	}
	success := 100 * (d.total - d.failed) / d.total
	paint := c.green
	if success < 99 {
		paint = c.red
	}
	mtls := 100 * d.mtls / d.total
	return []string{
		name, fmt.Sprintf("%.1f", d.total/span), paint(fmt.Sprintf("%.1f %%", success)),
		millis(d.quantile(0.5)), millis(d.quantile(0.99)), shares(d), fmt.Sprintf("%.0f %%", mtls),
	}
}

func shares(d *svcCount) string {
	var parts []string
	for _, v := range slices.Sorted(maps.Keys(d.versions)) {
		if n := d.versions[v]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %.0f %%", v, 100*n/d.total))
		}
	}
	return strings.Join(parts, ", ")
}
