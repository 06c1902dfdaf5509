package hcm

import (
	"testing"
	"testing/synctest"

	"weft.mesh/weft/proxy/filter"
)

func TestWhatAFilterEndsIsToldUnderItsDestinationsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, ok)
		h.cfg.Filters = []filter.HTTP{&filterFunc{request: func(*filter.Stream) filter.Verdict {
			return filter.End(&filter.Reply{Status: 503, Body: []byte("fault filter abort")})
		}}}
		s := newServer("GET", "/")
		i := run(t, h, s)
		if i.Status != 503 || i.Cluster != "reviews" || i.Service.Host != "reviews.default.svc.cluster.local" {
			t.Errorf("status %d, cluster %q, service %+v; want the cluster and service that the route names", i.Status, i.Cluster, i.Service)
		}
	})
}
