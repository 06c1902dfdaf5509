package lb

import (
	"math"
	"sort"

	"weft.mesh/weft/proxy/config"
)

// Locality is endpoints of one place that share requests with other places by weight.
type Locality struct {
	Weight    float64 // above 0
	Endpoints []Endpoint
	Loads     Loads
}

// NewLocalities makes the picker of a policy for endpoints in several places,
// in the order of their list: first a place is chosen by weight, then an endpoint there. For policies
// that hash there is one table in which an endpoint has its place's share (as Envoy's have),
// so that a key stays with its endpoint. It returns nil for no places.
func NewLocalities(c config.LB, places []Locality) Picker {
	switch {
	case len(places) == 0:
		return nil
	case len(places) == 1:
		return New(c, places[0].Endpoints, places[0].Loads)
	case c.Policy == config.RingHash, c.Policy == config.Maglev:
		return New(c, weighted(places), nil)
	}
	l := &localities{sums: make([]float64, len(places)), pickers: make([]Picker, len(places)), first: make([]int, len(places))}
	sum, first := 0.0, 0
	for i, p := range places {
		sum += p.Weight
		l.sums[i], l.first[i], l.pickers[i] = sum, first, New(c, p.Endpoints, p.Loads)
		first += len(p.Endpoints)
	}
	return l
}

// localities chooses a place at random by weight: many proxies together then
// spread evenly, which turns in order would not make better.
type localities struct {
	sums    []float64
	first   []int // index of each place's first endpoint in the whole list
	pickers []Picker
}

func (l *localities) Pick(q Query) int {
	// Another number than the policy uses, or the choices would hang together.
	r := next(q.Random ^ 0x6c6f63616c697479)
	x := float64(r>>11) / (1 << 53) * l.sums[len(l.sums)-1]
	i := min(sort.Search(len(l.sums), func(i int) bool { return l.sums[i] > x }), len(l.sums)-1)
	return l.first[i] + l.pickers[i].Pick(q)
}

// scale makes shares whole numbers that are fine enough.
const scale = 1 << 20

// weighted lists all endpoints with their share of all requests as weight.
func weighted(places []Locality) []Endpoint {
	total := 0.0
	for _, p := range places {
		total += p.Weight
	}
	var out []Endpoint
	for _, p := range places {
		sum := 0.0
		for _, e := range p.Endpoints {
			sum += float64(weight(e))
		}
		for _, e := range p.Endpoints {
			share := p.Weight / total * float64(weight(e)) / sum
			out = append(out, Endpoint{Key: e.Key, Weight: uint32(max(math.Round(share*scale), 1))})
		}
	}
	return out
}
