package route

import (
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"strings"
)

// Build checks a table and makes its indices. A table must be built once, and
// is immutable and safe for concurrent use from then on. It refuses duplicate
// or malformed domains, a route without exactly one action, weights that are
// all zero, header operations that may not be, and value templates with
// operators that are not supported.
func Build(t *Table) error {
	if t == nil {
		return fmt.Errorf("route table: nil")
	}
	t.index = hostIndex{exact: make(map[string]*VirtualHost)}
	if err := t.Headers.build(); err != nil {
		return fmt.Errorf("route table %q: %w", t.Name, err)
	}
	for _, v := range t.VirtualHosts {
		if err := t.buildHost(v); err != nil {
			return fmt.Errorf("route table %q: %w", t.Name, err)
		}
	}
	return nil
}

func (t *Table) buildHost(v *VirtualHost) error {
	if len(v.Domains) == 0 {
		return fmt.Errorf("virtual host %q: no domains", v.Name)
	}
	for _, d := range v.Domains {
		if err := t.index.add(d, v); err != nil {
			return err
		}
		t.noteAddress(d, v)
	}
	if err := v.Headers.build(); err != nil {
		return fmt.Errorf("virtual host %q: %w", v.Name, err)
	}
	for i, r := range v.Routes {
		r.VirtualHost = v
		r.PerFilter = inherit(r.PerFilter, v.PerFilter)
		if err := r.build(); err != nil {
			return fmt.Errorf("virtual host %q: route %d %q: %w", v.Name, i, r.Name, err)
		}
	}
	return nil
}

func (r *Route) build() error {
	n := 0
	for _, set := range []bool{r.Forward != nil, r.Redirect != nil, r.Direct != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("%d actions: exactly one of forward, redirect and direct response", n)
	}
	if err := r.Headers.build(); err != nil {
		return err
	}
	if err := r.Match.build(); err != nil {
		return err
	}
	if r.Forward != nil {
		for i := range r.Forward.Weighted {
			w := &r.Forward.Weighted[i]
			w.PerFilter = inherit(w.PerFilter, r.PerFilter)
		}
		return r.Forward.build()
	}
	return nil
}

// inherit is the settings of a level with those of the level above where it has none of its own.
func inherit(own, above map[string]any) map[string]any {
	if len(own) == 0 {
		return above
	}
	all := maps.Clone(above)
	if all == nil {
		return own
	}
	maps.Copy(all, own)
	return all
}

func (m *Match) build() error {
	if m.Path.Kind == PathRegex {
		re, err := anchored(m.Path.Regex)
		if err != nil {
			return fmt.Errorf("match: path: %w", err)
		}
		m.Path.Regex = re
	}
	for i := range m.Headers {
		if err := m.Headers[i].Match.build(); err != nil {
			return fmt.Errorf("match: header %q: %w", m.Headers[i].Name, err)
		}
	}
	for i := range m.Query {
		if err := m.Query[i].Match.build(); err != nil {
			return fmt.Errorf("match: query parameter %q: %w", m.Query[i].Name, err)
		}
	}
	return nil
}

func (s *StringMatch) build() error {
	if s.Kind != StringRegex {
		return nil
	}
	re, err := anchored(s.Regex)
	s.Regex = re
	return err
}

// anchored makes sure that re can only match a whole text: an unanchored expression would let through what it should not.
func anchored(re *regexp.Regexp) (*regexp.Regexp, error) {
	if re == nil {
		return nil, fmt.Errorf("regex: not compiled")
	}
	s := re.String()
	if strings.HasPrefix(s, `\A(?:`) && strings.HasSuffix(s, `)\z`) {
		return re, nil
	}
	return FullRegexp(s)
}

// Bounds on regular expressions: what a config push may cost in memory.
const (
	maxRegexLen  = 8 << 10 // bytes of pattern
	maxRegexProg = 10_000  // instructions; Envoy warns from 100 on
)

// FullRegexp compiles an RE2 expression that must match a whole text, as Envoy's safe_regex.
func FullRegexp(expr string) (*regexp.Regexp, error) {
	if err := checkRegexp(expr); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + expr + `)\z`)
}

// Regexp compiles an RE2 expression that may match anywhere.
func Regexp(expr string) (*regexp.Regexp, error) {
	if err := checkRegexp(expr); err != nil {
		return nil, err
	}
	return regexp.Compile(expr)
}

// checkRegexp holds an expression to RE2's syntax and our bounds.
func checkRegexp(expr string) error {
	if len(expr) > maxRegexLen {
		return fmt.Errorf("regular expression of %d bytes: at most %d", len(expr), maxRegexLen)
	}
	shown := expr
	if len(shown) > 100 {
		shown = shown[:100] + "…"
	}
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return fmt.Errorf("regular expression %q: %w", shown, err)
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return fmt.Errorf("regular expression %q: %w", shown, err)
	}
	if n := len(prog.Inst); n > maxRegexProg {
		return fmt.Errorf("regular expression %q: program of %d instructions, at most %d", shown, n, maxRegexProg)
	}
	return nil
}

func (f *Forward) build() error {
	if len(f.Weighted) == 0 {
		if f.Cluster == "" {
			return fmt.Errorf("forward: no cluster")
		}
		return nil
	}
	var total uint64
	for i := range f.Weighted {
		w := &f.Weighted[i]
		if w.Cluster == "" {
			return fmt.Errorf("weighted cluster %d: no cluster", i)
		}
		if err := w.Headers.build(); err != nil {
			return fmt.Errorf("weighted cluster %q: %w", w.Cluster, err)
		}
		total += uint64(w.Weight)
	}
	if total == 0 || total > 1<<32-1 {
		return fmt.Errorf("weighted clusters: sum of weights is %d: want 1 to 4294967295", total)
	}
	f.Total = uint32(total)
	return nil
}

// Choose picks one of the weighted clusters by a random number; nil if there is only Cluster.
func (f *Forward) Choose(random uint64) *WeightedCluster {
	if len(f.Weighted) == 0 {
		return nil
	}
	n := uint32(random % uint64(f.Total))
	for i := range f.Weighted {
		w := &f.Weighted[i]
		if n < w.Weight {
			return w
		}
		n -= w.Weight
	}
	return &f.Weighted[len(f.Weighted)-1]
}
