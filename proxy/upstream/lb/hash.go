package lb

import (
	"math"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// Sizes of the tables where the configuration does not say (Envoy's defaults).
const (
	defaultMinRing = 1024
	defaultMaxRing = 8 << 20
	defaultMaglev  = 65537
	maxMaglev      = 5000011 // Envoy's bound
)

// ring is Envoy's ring hash (ketama with xxHash64): every endpoint has points
// in proportion to its weight, point i of endpoint E at xxh64("E_i").
type ring struct{ points []point }

type point struct {
	hash uint64
	host int
}

func newRing(eps []Endpoint, minSize, maxSize uint64) *ring {
	if minSize == 0 {
		minSize = defaultMinRing
	}
	if maxSize == 0 {
		maxSize = defaultMaxRing
	}
	weights, least, _ := normalize(eps)
	// The endpoint with the least weight gets a whole number of points, if the bound allows.
	scale := math.Min(math.Ceil(least*float64(min(minSize, maxSize)))/least, float64(maxSize))
	r := &ring{points: make([]point, 0, uint64(math.Ceil(scale)))}
	var have, want float64
	var key []byte
	for i, e := range eps {
		key = append(append(key[:0], e.Key...), '_')
		base := len(key)
		want += scale * weights[i]
		for n := uint64(0); have < want; n++ {
			key = strconv.AppendUint(key[:base], n, 10)
			r.points = append(r.points, point{xxhash.Sum64(key), i})
			have++
		}
	}
	sort.SliceStable(r.points, func(i, j int) bool { return r.points[i].hash < r.points[j].hash })
	return r
}

func (r *ring) Pick(q Query) int {
	h := q.Random
	if q.Hashed {
		h = q.Hash
	}
	n := len(r.points)
	i := sort.Search(n, func(i int) bool { return r.points[i].hash >= h })
	if i == n {
		i = 0
	}
	return r.points[(uint64(i)+q.Attempt)%uint64(n)].host
}

// maglev is Envoy's Maglev table.
type maglev struct{ table []int32 }

func newMaglev(eps []Endpoint, size uint64) *maglev {
	if size == 0 {
		size = defaultMaglev
	}
	size = prime(min(size, maxMaglev))
	weights, _, most := normalize(eps)
	order := make([]int, len(eps))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return eps[order[a]].Key < eps[order[b]].Key })
	rows := make([]row, len(eps))
	for n, i := range order {
		rows[n] = newRow(eps[i].Key, i, weights[i], size)
	}
	m := &maglev{table: make([]int32, size)}
	for i := range m.table {
		m.table[i] = -1
	}
	m.fill(rows, most)
	return m
}

// prime is the least prime that is at least n. Only in a table of prime size every walk comes by
// every slot; in another one filling might not end.
func prime(n uint64) uint64 {
	for n = max(n, 2); ; n++ {
		d := uint64(2)
		for d*d <= n && n%d != 0 {
			d++
		}
		if d*d > n {
			return n
		}
	}
}

// row is one endpoint's walk through the table.
type row struct {
	host           int32
	offset, skip   uint64
	weight, target float64
	next           uint64
}

func newRow(key string, host int, weight float64, size uint64) row {
	d := xxhash.NewWithSeed(1)
	_, _ = d.WriteString(key)
	return row{host: int32(host), offset: xxhash.Sum64String(key) % size, skip: d.Sum64()%(size-1) + 1, weight: weight}
}

// fill lets the endpoints take slots in turn; one with less than the greatest weight sits out some turns.
func (m *maglev) fill(rows []row, most float64) {
	size := uint64(len(m.table))
	filled := uint64(0)
	for turn := 1; filled < size; turn++ {
		for i := 0; i < len(rows) && filled < size; i++ {
			r := &rows[i]
			if float64(turn)*r.weight < r.target {
				continue
			}
			r.target += most
			at := (r.offset + r.skip*r.next) % size
			for m.table[at] >= 0 {
				r.next++
				at = (r.offset + r.skip*r.next) % size
			}
			m.table[at] = r.host
			r.next++
			filled++
		}
	}
}

func (m *maglev) Pick(q Query) int {
	h := q.Random
	if q.Hashed {
		h = q.Hash
	}
	if q.Attempt > 0 {
		h ^= ^uint64(0) - q.Attempt + 1
	}
	return int(m.table[h%uint64(len(m.table))])
}

// normalize makes the weights sum to 1.
func normalize(eps []Endpoint) (weights []float64, least, most float64) {
	var sum uint64
	for _, e := range eps {
		sum += uint64(weight(e))
	}
	weights = make([]float64, len(eps))
	least = 1
	for i, e := range eps {
		weights[i] = float64(weight(e)) / float64(sum)
		least, most = math.Min(least, weights[i]), math.Max(most, weights[i])
	}
	return weights, least, most
}
