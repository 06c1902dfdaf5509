package hcm

import (
	"testing"
	"testing/synctest"

	"weft.mesh/weft/proxy/filter"
)

// gate admits so many requests at once.
type gate struct{ room, now, worst int }

func (g *gate) Begin() bool {
	if g.now >= g.room {
		return false
	}
	g.now++
	g.worst = max(g.worst, g.now)
	return true
}
func (g *gate) End() { g.now-- }

func TestAnOverloadedProxyTurnsRequestsAway(t *testing.T) {
	for _, tc := range []struct {
		name string
		s    *fakeServer
		want outcomeOf
		head map[string]string
	}{
		{"a request", newServer("GET", "/"), outcomeOf{503, "envoy overloaded", "OM", "overload", 0}, map[string]string{"x-envoy-overloaded": "true", "x-envoy-local-overloaded": "true", "content-type": "text/plain"}},
		{"a request that would be refused anyway", newServer("GET", "/a%00"), outcomeOf{503, "envoy overloaded", "OM", "overload", 0}, nil},
		{"a request with a body", newServer("POST", "/").withBody("abc"), outcomeOf{503, "envoy overloaded", "OM", "overload", 0}, nil},
		{"HEAD", newServer("HEAD", "/"), outcomeOf{503, "", "OM", "overload", 0}, nil},
		{"gRPC", newServer("POST", "/p.S/M", "content-type", "application/grpc"), outcomeOf{200, "", "OM", "overload", 0},
			map[string]string{"grpc-status": "14", "grpc-message": "envoy overloaded", "x-envoy-overloaded": "true"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, ok)
				asked := 0
				h.cfg.Filters = []filter.HTTP{&filterFunc{request: func(*filter.Stream) filter.Verdict { asked++; return filter.Verdict{} }}}
				tc.s.abortC = make(chan struct{})
				h.start(t.Context())
				g := &gate{}
				h.m.deps.Admission = g
				i := h.serve(tc.s)
				if got := summary(tc.s, i); got != tc.want {
					t.Errorf("got %+v, want %+v", got, tc.want)
				}
				for k, v := range tc.head {
					if tc.s.head[k] != v {
						t.Errorf("header %s = %q, want %q", k, tc.s.head[k], v)
					}
				}
				if asked != 0 || len(h.backend.requests) != 0 {
					t.Errorf("filters were asked %d times, the upstream %d times", asked, len(h.backend.requests))
				}
				g.room = 1
				again := newServer("GET", "/")
				if i := h.serve(again); i.Status != 200 || g.now != 0 || g.worst != 1 {
					t.Errorf("afterwards: status %d, %d running, at most %d", i.Status, g.now, g.worst)
				}
			})
		})
	}
}
