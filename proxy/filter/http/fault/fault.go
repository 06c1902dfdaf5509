// Package fault injects delays and aborts into a share of the requests
// (Envoy's fault filter). A route's configuration replaces the filter's.
//
// A delay comes first and is not bounded by the route's time-out; an abort
// answers in place of the upstream, so it is neither retried nor mirrored.
// Faults that request headers ask for, rate limits and runtime keys are refused.
package fault

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// Name of the filter in Envoy's configuration.
const Name = "envoy.filters.http.fault"

// Filter is one compiled configuration. Immutable but for its count of active faults.
type Filter struct {
	delay      time.Duration
	delayShare route.Fraction
	abortShare route.Fraction
	reply      *filter.Reply // nil: no abort
	headers    []route.HeaderMatch
	limit      int64 // of active faults; 0: none
	active     *atomic.Int64
}

var _ filter.HTTP = (*Filter)(nil)

// Name implements [filter.HTTP].
func (f *Filter) Name() string { return Name }

// Request implements [filter.HTTP].
func (f *Filter) Request(s *filter.Stream) filter.Verdict {
	c := f
	if r, ok := s.PerRoute[Name].(*Filter); ok {
		c = r
	}
	if c.delay == 0 && c.reply == nil || !c.concerns(s.Req) {
		return filter.Continue
	}
	if c.delay > 0 && c.delayShare.Hit(rand.Uint64()) && c.enter() {
		s.Info.Flags |= stream.FlagDelayInjected
		ok := s.Sleep(c.delay)
		c.active.Add(-1)
		if !ok {
			return filter.Continue // the exchange has ended
		}
	}
	if c.reply != nil && c.abortShare.Hit(rand.Uint64()) && c.enter() {
		c.active.Add(-1)
		return filter.End(c.reply)
	}
	return filter.Continue
}

func (f *Filter) concerns(req *stream.Request) bool {
	for i := range f.headers {
		if !f.headers[i].Matches(req) {
			return false
		}
	}
	return true
}

// enter counts one more active fault, unless there are too many.
func (f *Filter) enter() bool {
	if f.active.Add(1) > f.limit && f.limit > 0 {
		f.active.Add(-1)
		return false
	}
	return true
}

// Response implements [filter.HTTP].
func (f *Filter) Response(*filter.Stream) {}
