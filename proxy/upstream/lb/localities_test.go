package lb

import (
	"testing"

	"weft.mesh/weft/proxy/config"
)

func places() []Locality {
	return []Locality{
		{Weight: 80, Endpoints: hosts(1, 1), Loads: loads{0, 0}},
		{Weight: 20, Endpoints: []Endpoint{{Key: "10.0.0.1:1", Weight: 3}, {Key: "10.0.0.2:1", Weight: 1}}, Loads: loads{0, 0}},
	}
}

func TestLocalitiesShareByWeight(t *testing.T) {
	want := []int{4000, 4000, 1500, 500} // of 10000
	for name, c := range map[string]config.LB{
		"round robin": {Policy: config.RoundRobin}, "least request": {Policy: config.LeastRequest}, "random": {Policy: config.Random},
		"ring hash": {Policy: config.RingHash, MinRing: 65536}, "maglev": {Policy: config.Maglev},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewLocalities(c, places())
			got := make([]int, 4)
			r := uint64(3)
			for range 10000 {
				r = next(r)
				got[p.Pick(Query{Random: r})]++
			}
			for i := range got {
				if d := got[i] - want[i]; d < -300 || d > 300 {
					t.Errorf("picks %v, want %v ± 300", got, want)
					break
				}
			}
		})
	}
}

func TestAKeyStaysWithItsEndpointWhateverIsRandom(t *testing.T) {
	for _, pol := range []config.LBPolicy{config.RingHash, config.Maglev} {
		p := NewLocalities(config.LB{Policy: pol}, places())
		first := p.Pick(Query{Hash: 42, Hashed: true, Random: 1})
		for r := range uint64(100) {
			if got := p.Pick(Query{Hash: 42, Hashed: true, Random: next(r)}); got != first {
				t.Fatalf("policy %d: endpoint %d, then %d", pol, first, got)
			}
		}
	}
}

func TestNoLocalityAndOne(t *testing.T) {
	if p := NewLocalities(config.LB{}, nil); p != nil {
		t.Errorf("picker %v of nothing", p)
	}
	p := NewLocalities(config.LB{Policy: config.RoundRobin}, places()[1:])
	if i := p.Pick(Query{}); i > 1 {
		t.Errorf("endpoint %d of two", i)
	}
}

func TestPickingAmongLocalitiesDoesNotAllocate(t *testing.T) {
	for _, pol := range []config.LBPolicy{config.LeastRequest, config.RoundRobin, config.Random, config.RingHash, config.Maglev} {
		p := NewLocalities(config.LB{Policy: pol}, places())
		if n := testing.AllocsPerRun(100, func() { p.Pick(Query{Random: 5, Hash: 9, Hashed: true}) }); n != 0 {
			t.Errorf("policy %d: allocs per pick = %v, want 0", pol, n)
		}
	}
}
