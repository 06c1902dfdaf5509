package telemetry

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Kind of a metric family.
type Kind string

// Kinds of the Prometheus text format.
const (
	KindCounter   Kind = "counter"
	KindGauge     Kind = "gauge"
	KindHistogram Kind = "histogram"
)

// Label is a name and a value.
type Label struct{ Name, Value string }

// Registry holds metrics and writes them in the Prometheus text format. Make it with [NewRegistry].
type Registry struct {
	mu       sync.Mutex
	families map[string]*family
	collect  []func(*Encoder)
}

type family struct {
	name, help string
	kind       Kind
	series     []*fixed
}

// fixed is a series that was registered one by one.
type fixed struct {
	labels []Label
	value  func() float64
	owner  any // *Counter or *Gauge, given again for the same labels
}

// NewRegistry makes an empty registry.
func NewRegistry() *Registry { return &Registry{families: map[string]*family{}} }

// Counter returns the counter of that name and those labels, made if new. It
// panics if the name is taken by another kind: that is a mistake in the program.
func (r *Registry) Counter(name, help string, labels ...Label) *Counter {
	return register(r, name, help, KindCounter, labels, func() (*Counter, func() float64) {
		c := newCounter()
		return c, func() float64 { return float64(c.Value()) }
	})
}

// Gauge returns the gauge of that name and those labels, made if new.
func (r *Registry) Gauge(name, help string, labels ...Label) *Gauge {
	return register(r, name, help, KindGauge, labels, func() (*Gauge, func() float64) {
		g := &Gauge{}
		return g, func() float64 { return float64(g.Value()) }
	})
}

// GaugeFunc adds a gauge that is asked when metrics are written.
func (r *Registry) GaugeFunc(name, help string, f func() float64, labels ...Label) {
	register(r, name, help, KindGauge, labels, func() (any, func() float64) { return nil, f })
}

// CounterFunc adds a counter that is asked when metrics are written.
func (r *Registry) CounterFunc(name, help string, f func() float64, labels ...Label) {
	register(r, name, help, KindCounter, labels, func() (any, func() float64) { return nil, f })
}

// Collect adds a function that writes families of its own (clusters, listeners:
// sets that change). Families it writes must have names nobody else uses.
func (r *Registry) Collect(f func(*Encoder)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.collect = append(r.collect, f)
}

func register[T any](r *Registry, name, help string, kind Kind, labels []Label, mk func() (T, func() float64)) T {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.families[name]
	if f == nil {
		f = &family{name: name, help: help, kind: kind}
		r.families[name] = f
	}
	if f.kind != kind {
		panic(fmt.Sprintf("telemetry: metric %s is a %s and cannot be a %s", name, f.kind, kind))
	}
	for _, s := range f.series {
		if slices.Equal(s.labels, labels) {
			if v, ok := s.owner.(T); ok {
				return v
			}
			panic(fmt.Sprintf("telemetry: metric %s%v is registered twice", name, labels))
		}
	}
	v, value := mk()
	f.series = append(f.series, &fixed{labels: slices.Clone(labels), value: value, owner: v})
	return v
}

// WriteText writes all metrics in the Prometheus text format 0.0.4, sorted by name within each source.
func (r *Registry) WriteText(w io.Writer) error {
	r.mu.Lock()
	fams := make([]family, 0, len(r.families))
	for _, f := range r.families {
		c := *f
		c.series = slices.Clone(f.series)
		fams = append(fams, c)
	}
	collect := slices.Clone(r.collect)
	r.mu.Unlock()
	slices.SortFunc(fams, func(a, b family) int { return cmp.Compare(a.name, b.name) })
	bw := bufio.NewWriterSize(w, 64<<10)
	e := &Encoder{w: bw}
	for i := range fams {
		e.Family(fams[i].name, fams[i].help, fams[i].kind)
		for _, s := range fams[i].series {
			e.Sample("", s.value(), s.labels...)
		}
	}
	for _, f := range collect {
		f(e)
	}
	return bw.Flush()
}

// ContentType of WriteText.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// ServeHTTP serves WriteText: /stats/prometheus.
func (r *Registry) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", ContentType)
	_ = r.WriteText(w) // the reader went away
}

// Encoder writes the text format. Write errors are kept by the writer below and come out at the end.
type Encoder struct {
	w    *bufio.Writer
	name string
	num  [32]byte
}

// Family begins a family; its samples follow.
func (e *Encoder) Family(name, help string, kind Kind) {
	e.name = name
	_, _ = fmt.Fprintf(e.w, "# HELP %s %s\n# TYPE %s %s\n", name, helpEscaper.Replace(help), name, kind)
}

var (
	helpEscaper  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// Sample writes one line. suffix is "" or, for histograms, "_bucket", "_sum" or "_count".
func (e *Encoder) Sample(suffix string, v float64, labels ...Label) {
	_, _ = e.w.WriteString(e.name)
	_, _ = e.w.WriteString(suffix)
	if len(labels) > 0 {
		_ = e.w.WriteByte('{')
		_, _ = e.w.WriteString(labelText(labels))
		_ = e.w.WriteByte('}')
	}
	e.end(v)
}

// line writes a sample whose labels are text already; le is added if not empty.
func (e *Encoder) line(suffix, labels, le string, v float64) {
	_, _ = e.w.WriteString(e.name)
	_, _ = e.w.WriteString(suffix)
	_ = e.w.WriteByte('{')
	_, _ = e.w.WriteString(labels)
	if le != "" {
		_, _ = e.w.WriteString(`,le="`)
		_, _ = e.w.WriteString(le)
		_ = e.w.WriteByte('"')
	}
	_ = e.w.WriteByte('}')
	e.end(v)
}

func (e *Encoder) end(v float64) {
	_ = e.w.WriteByte(' ')
	_, _ = e.w.Write(appendValue(e.num[:0], v))
	_ = e.w.WriteByte('\n')
}

// labelText is a label set as the text format has it between braces.
func labelText(labels []Label) string {
	var b strings.Builder
	for i, l := range labels {
		if i > 0 {
			_ = b.WriteByte(',')
		}
		_, _ = b.WriteString(l.Name)
		_, _ = b.WriteString(`="`)
		_, _ = labelEscaper.WriteString(&b, strings.ToValidUTF8(l.Value, "\uFFFD"))
		_ = b.WriteByte('"')
	}
	return b.String()
}

func appendValue(b []byte, v float64) []byte {
	switch {
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case math.IsInf(v, -1):
		return append(b, "-Inf"...)
	case v == math.Trunc(v) && math.Abs(v) < 1<<53:
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}
