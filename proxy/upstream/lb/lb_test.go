package lb

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/proxy/config"
)

// loads is a fixed load of each endpoint.
type loads []int64

func (l loads) Load(i int) int64 { return l[i] }

// hosts are 127.0.0.1:90 and up, with weights.
func hosts(weights ...uint32) []Endpoint {
	var eps []Endpoint
	for i, w := range weights {
		eps = append(eps, Endpoint{Key: fmt.Sprintf("127.0.0.1:%d", 90+i), Weight: w})
	}
	return eps
}

// The ring of Envoy's own test: ports 90 to 95, at least 12 points.
func TestRingIsEnvoys(t *testing.T) {
	r := newRing(hosts(1, 1, 1, 1, 1, 1), 12, 0)
	var got []string
	for _, p := range r.points {
		got = append(got, fmt.Sprintf(":%d %d", 90+p.host, p.hash))
	}
	want := []string{
		":94 833437586790550860", ":92 928266305478181108", ":90 1033482794131418490", ":95 3551244743356806947",
		":93 3851675632748031481", ":91 5583722120771150861", ":91 6311230543546372928", ":93 7700377290971790572",
		":95 13144177310400110813", ":92 13444792449719432967", ":94 15516499411664133160", ":90 16117243373044804889",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRingPicks(t *testing.T) {
	p := New(config.LB{Policy: config.RingHash, MinRing: 12}, hosts(1, 1, 1, 1, 1, 1), nil)
	for name, c := range map[string]struct {
		q    Query
		want int
	}{
		"before the first point":         {Query{Hashed: true, Hash: 0}, 4},
		"behind the last point":          {Query{Hashed: true, Hash: math.MaxUint64}, 4},
		"on a point":                     {Query{Hashed: true, Hash: 3551244743356806947}, 5},
		"just behind a point":            {Query{Hashed: true, Hash: 3551244743356806948}, 3},
		"without a hash, by chance":      {Query{Random: 16117243373044804880, Hash: 0}, 0},
		"the next one for a second pick": {Query{Hashed: true, Hash: 0, Attempt: 1}, 2},
	} {
		if got := p.Pick(c.q); got != c.want {
			t.Errorf("%s: host %d, want %d", name, got, c.want)
		}
	}
}

func TestRingFollowsWeightsAndBounds(t *testing.T) {
	count := func(r *ring) []int {
		n := make([]int, 3)
		for _, p := range r.points {
			n[p.host]++
		}
		return n
	}
	if diff := cmp.Diff([]int{256, 256, 512}, count(newRing(hosts(1, 1, 2), 1024, 0))); diff != "" {
		t.Error(diff)
	}
	if n := len(newRing(hosts(1, 1, 1000), 2048, 2048).points); n < 2048 || n > 2049 { // one more by rounding, as in Envoy
		t.Errorf("ring of %d points, want the bound of 2048", n)
	}
}

// The tables of Envoy's own test: ports 90 to 95 in 7 slots.
func TestMaglevIsEnvoys(t *testing.T) {
	m := newMaglev(hosts(1, 1, 1, 1, 1, 1), 7)
	if diff := cmp.Diff([]int32{2, 4, 0, 1, 5, 0, 3}, m.table); diff != "" {
		t.Error(diff)
	}
}

func TestMaglevDoesNotDependOnOrder(t *testing.T) {
	a := hosts(1, 2, 3)
	b := []Endpoint{a[2], a[0], a[1]}
	ma, mb := newMaglev(a, 65537), newMaglev(b, 65537)
	for i := range ma.table {
		if a[ma.table[i]].Key != b[mb.table[i]].Key {
			t.Fatalf("slot %d: %s in one order, %s in another", i, a[ma.table[i]].Key, b[mb.table[i]].Key)
		}
	}
}

func TestMaglevMovesFewWhenOneLeaves(t *testing.T) {
	five, four := newMaglev(hosts(1, 1, 1, 1, 1), 0), newMaglev(hosts(1, 1, 1, 1), 0)
	moved := 0
	for i, h := range five.table {
		if h != 4 && four.table[i] != h {
			moved++
		}
	}
	if share := float64(moved) / float64(len(five.table)); share > 0.1 {
		t.Errorf("%.0f %% of the slots of those who stayed moved, want at most 10 %%", share*100)
	}
}

func TestMaglevTablesAreOfPrimeSize(t *testing.T) {
	for in, want := range map[uint64]int{1: 2, 2: 2, 8: 11, 100: 101, 65537: 65537} {
		if got := len(newMaglev(hosts(1, 1), in).table); got != want {
			t.Errorf("size %d became %d, want %d", in, got, want)
		}
	}
}

func TestPicksFollowWeights(t *testing.T) {
	eps := hosts(1, 2, 5)
	for name, c := range map[string]struct {
		lb   config.LB
		want []int
		tol  int
	}{
		"round robin is exact":       {config.LB{Policy: config.RoundRobin}, []int{1000, 2000, 5000}, 3},
		"least request without load": {config.LB{Policy: config.LeastRequest}, []int{1000, 2000, 5000}, 3},
		"random":                     {config.LB{Policy: config.Random}, []int{1000, 2000, 5000}, 300},
		"maglev":                     {config.LB{Policy: config.Maglev}, []int{1000, 2000, 5000}, 300},
		"ring hash":                  {config.LB{Policy: config.RingHash, MinRing: 65536}, []int{1000, 2000, 5000}, 300},
	} {
		t.Run(name, func(t *testing.T) {
			p := New(c.lb, eps, loads{0, 0, 0})
			got := make([]int, 3)
			r := uint64(1)
			for range 8000 {
				r = next(r)
				got[p.Pick(Query{Random: r})]++
			}
			for i := range got {
				if d := got[i] - c.want[i]; d < -c.tol || d > c.tol {
					t.Errorf("picks %v, want %v ± %d", got, c.want, c.tol)
					break
				}
			}
		})
	}
}

func TestLeastRequestAvoidsTheBusy(t *testing.T) {
	p := New(config.LB{Policy: config.LeastRequest}, hosts(1, 1, 1), loads{100, 0, 0})
	busy, r := 0, uint64(7)
	for range 9000 {
		r = next(r)
		if p.Pick(Query{Random: r}) == 0 {
			busy++
		}
	}
	// Both choices fall on it in one of nine picks.
	if busy < 700 || busy > 1300 {
		t.Errorf("the busy endpoint got %d of 9000, want about 1000", busy)
	}
}

func TestWeightedLeastRequestDividesByLoad(t *testing.T) {
	p := New(config.LB{Policy: config.LeastRequest}, hosts(1, 2), loads{0, 3})
	n := make([]int, 2)
	for range 3000 {
		n[p.Pick(Query{})]++
	}
	if n[0] < 1900 || n[0] > 2100 { // weights 1 and 2/4
		t.Errorf("picks %v, want two to one", n)
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	for _, pol := range []config.LBPolicy{config.LeastRequest, config.RoundRobin, config.Random, config.RingHash, config.Maglev} {
		for _, eps := range [][]Endpoint{hosts(1, 1, 1), hosts(1, 2, 3)} {
			p := New(config.LB{Policy: pol}, eps, loads{1, 2, 3})
			if n := testing.AllocsPerRun(100, func() { p.Pick(Query{Random: 5, Hash: 9, Hashed: true}) }); n != 0 {
				t.Errorf("policy %d: allocs per pick = %v, want 0", pol, n)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	eps := hosts(make([]uint32, 50)...)
	p := New(config.LB{}, eps, loads(make([]int64, 50)))
	r := uint64(1)
	for b.Loop() {
		r = next(r)
		p.Pick(Query{Random: r})
	}
}
