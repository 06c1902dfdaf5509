package stats_test

import (
	"testing"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/filter/http/stats"
	"weft.mesh/weft/proxy/stream"
)

type recorder []*stream.Info

func (r *recorder) HTTP(i *stream.Info) { *r = append(*r, i) }

func TestOnlyTheEndIsRecorded(t *testing.T) {
	var r recorder
	f := stats.New(&r)
	s := &filter.Stream{Info: &stream.Info{Status: 503}}
	if v := f.Request(s); v != filter.Continue {
		t.Errorf("verdict %+v, want to continue", v)
	}
	f.Response(s)
	if len(r) != 0 {
		t.Fatal("recorded before the end")
	}
	f.End(s)
	if len(r) != 1 || r[0] != s.Info {
		t.Errorf("recorded %v", r)
	}
	if f.Name() != "istio.stats" {
		t.Errorf("name %q", f.Name())
	}
}
