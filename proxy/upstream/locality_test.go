package upstream

import (
	"net/netip"
	"testing"

	"weft.mesh/weft/proxy/config"
)

func TestLocalitiesShareRequestsByWeightAndHealth(t *testing.T) {
	ep := func(a, region string, weight uint32, h config.Health) *config.Endpoint {
		return &config.Endpoint{Addr: netip.MustParseAddrPort(a + ":80"), Weight: 1, Locality: config.Locality{Region: region}, LocalityWeight: weight, Health: h}
	}
	const up, down = config.Healthy, config.Unhealthy
	for name, c := range map[string]struct {
		eps   []*config.Endpoint
		panic uint32
		want  map[string]int
	}{
		"by weight, however many endpoints": {[]*config.Endpoint{ep("1.1.1.1", "a", 80, up), ep("2.2.2.2", "b", 20, up), ep("2.2.2.3", "b", 20, up)},
			0, map[string]int{"1.1.1.1": 1600, "2.2.2.2": 200, "2.2.2.3": 200}},
		"less for one that is half healthy": {[]*config.Endpoint{ep("1.1.1.1", "a", 50, up), ep("1.1.1.2", "a", 50, down), ep("2.2.2.2", "b", 50, up)},
			0, map[string]int{"1.1.1.1": 824, "2.2.2.2": 1176}}, // 50 × 0.7 to 50
		"all of it for one that is 3/4 healthy": {[]*config.Endpoint{ep("1.1.1.1", "a", 50, up), ep("1.1.1.2", "a", 50, up), ep("1.1.1.3", "a", 50, up), ep("1.1.1.4", "a", 50, down),
			ep("2.2.2.2", "b", 50, up)}, 0, map[string]int{"1.1.1.1": 333, "1.1.1.2": 333, "1.1.1.3": 333, "2.2.2.2": 1000}},
		"nothing for one that is down":      {[]*config.Endpoint{ep("1.1.1.1", "a", 80, down), ep("2.2.2.2", "b", 20, up)}, 0, map[string]int{"2.2.2.2": 2000}},
		"nothing for one without a weight":  {[]*config.Endpoint{ep("1.1.1.1", "a", 0, up), ep("2.2.2.2", "b", 20, up)}, 0, map[string]int{"2.2.2.2": 2000}},
		"nobody when only that is healthy":  {[]*config.Endpoint{ep("1.1.1.1", "a", 0, up), ep("2.2.2.2", "b", 20, down)}, 0, map[string]int{"none": 2000}},
		"in panic places count for nothing": {[]*config.Endpoint{ep("1.1.1.1", "a", 99, down), ep("2.2.2.2", "b", 1, down)}, 50, map[string]int{"1.1.1.1": 1000, "2.2.2.2": 1000}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := clusterOf()
			cfg.Endpoints, cfg.PanicThreshold, cfg.LB.LocalityWeighted = c.eps, c.panic, true
			about(t, newWorld(t, &fakeNet{}, cfg).spread(2000), c.want)
		})
	}
}
