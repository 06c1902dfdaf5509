package grpcstats

import (
	"testing"

	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

// body is messages of the given sizes.
func body(sizes ...int) []byte {
	var b []byte
	for _, n := range sizes {
		b = append(b, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		b = append(b, make([]byte, n)...)
	}
	return b
}

func TestCounterDoesNotDependOnPieces(t *testing.T) {
	b := body(0, 1, 300, 70000, 5, 0)
	for _, size := range []int{1, 2, 3, 4, 5, 7, 64, 4096, len(b)} {
		var c Counter
		for p := b; len(p) > 0; {
			n := min(size, len(p))
			c.Count(p[:n])
			p = p[n:]
		}
		if c.Messages != 6 {
			t.Errorf("pieces of %d bytes: %d messages, want 6", size, c.Messages)
		}
	}
}

func TestAnIncompletePrefixIsNoMessage(t *testing.T) {
	var c Counter
	c.Count(body(3)[:4])
	if c.Messages != 0 {
		t.Errorf("%d messages, want 0", c.Messages)
	}
}

func TestOnlyGRPCIsWatched(t *testing.T) {
	f, err := New(&grpcstatsv3.FilterConfig{EmitFilterState: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &filter.Stream{Info: &stream.Info{}}
	if f.Watch(s) != nil {
		t.Error("a plain request is watched")
	}
	s.Info.GRPC = true
	w := f.Watch(s)
	w.RequestBody(body(1, 2))
	w.ResponseBody(body(3))
	w.Done(s)
	if s.Info.ReqMsgs != 2 || s.Info.RespMsgs != 1 {
		t.Errorf("%d and %d messages, want 2 and 1", s.Info.ReqMsgs, s.Info.RespMsgs)
	}
}

func TestStatisticsByMethodAreRefused(t *testing.T) {
	if _, err := New(&grpcstatsv3.FilterConfig{PerMethodStatSpecifier: &grpcstatsv3.FilterConfig_StatsForAllMethods{StatsForAllMethods: wrapperspb.Bool(true)}}); err == nil {
		t.Error("accepted")
	}
}
