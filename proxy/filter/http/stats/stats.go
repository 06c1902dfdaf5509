// Package stats is the HTTP filter that feeds Istio's standard metrics. It
// changes nothing and refuses nothing; it only sees exchanges that have ended.
package stats

import (
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

// Name of the filter in Envoy's configuration, as Istio writes it.
const Name = "istio.stats"

// Recorder takes finished exchanges; *telemetry.Istio is one.
type Recorder interface {
	HTTP(i *stream.Info)
}

// Filter records every exchange of its chain. Immutable.
type Filter struct{ to Recorder }

var (
	_ filter.HTTP  = (*Filter)(nil)
	_ filter.Ender = (*Filter)(nil)
)

// New makes the filter.
func New(to Recorder) *Filter { return &Filter{to} }

// Name implements [filter.HTTP].
func (f *Filter) Name() string { return Name }

// Request implements [filter.HTTP].
func (f *Filter) Request(*filter.Stream) filter.Verdict { return filter.Continue }

// Response implements [filter.HTTP].
func (f *Filter) Response(*filter.Stream) {}

// End implements [filter.Ender].
func (f *Filter) End(s *filter.Stream) { f.to.HTTP(s.Info) }
