// Package grpcstats counts the messages of gRPC calls, by the length prefixes
// in the bodies (gRPC over HTTP/2, Length-Prefixed-Message). It changes nothing
// and costs nothing for requests that are not gRPC. Statistics by method are refused.
package grpcstats

import (
	"fmt"
	"sync"

	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/filter/matcher"
)

// Name of the filter in Envoy's configuration.
const Name = "envoy.filters.http.grpc_stats"

// Filter has no settings that matter here. Immutable.
type Filter struct{}

var (
	_ filter.HTTP        = (*Filter)(nil)
	_ filter.BodyWatcher = (*Filter)(nil)
)

// New accepts the configuration that asks for nothing but counts (emit_filter_state).
func New(c *grpcstatsv3.FilterConfig) (*Filter, error) {
	if err := matcher.Known(c); err != nil {
		return nil, fmt.Errorf("grpc_stats: %w", err)
	}
	if err := matcher.Only(c, "emit_filter_state", "stats_for_all_methods"); err != nil {
		return nil, fmt.Errorf("grpc_stats: %w", err)
	}
	if c.GetStatsForAllMethods().GetValue() {
		return nil, fmt.Errorf("grpc_stats: stats_for_all_methods: is not supported")
	}
	return &Filter{}, nil
}

// Name implements [filter.HTTP].
func (f *Filter) Name() string { return Name }

// Request implements [filter.HTTP].
func (f *Filter) Request(*filter.Stream) filter.Verdict { return filter.Continue }

// Response implements [filter.HTTP].
func (f *Filter) Response(*filter.Stream) {}

// Watch implements [filter.BodyWatcher].
func (f *Filter) Watch(s *filter.Stream) filter.BodyWatch {
	if !s.Info.GRPC {
		return nil
	}
	w := watches.Get().(*watch)
	*w = watch{}
	return w
}

var watches = sync.Pool{New: func() any { return new(watch) }}

// watch counts one call.
type watch struct{ req, resp Counter }

func (w *watch) RequestBody(p []byte)  { w.req.Count(p) }
func (w *watch) ResponseBody(p []byte) { w.resp.Count(p) }

func (w *watch) Done(s *filter.Stream) {
	s.Info.ReqMsgs, s.Info.RespMsgs = w.req.Messages, w.resp.Messages
	watches.Put(w)
}

// Counter counts messages in a body that comes in pieces. A message counts when its prefix is complete.
type Counter struct {
	Messages uint64

	skip   uint64 // bytes of the current message still to come
	prefix uint32 // length as far as it was read
	have   uint8  // bytes of the prefix: a flag and four of length
}

// Count takes the next piece.
func (c *Counter) Count(p []byte) {
	for len(p) > 0 {
		if c.skip > 0 {
			n := min(c.skip, uint64(len(p)))
			c.skip -= n
			p = p[n:]
			continue
		}
		if c.have > 0 {
			c.prefix = c.prefix<<8 | uint32(p[0])
		}
		c.have++
		p = p[1:]
		if c.have == 5 {
			c.Messages++
			c.skip, c.prefix, c.have = uint64(c.prefix), 0, 0
		}
	}
}
