// Package lb picks one of several endpoints.
//
// A [Picker] is made for a fixed list of available endpoints and answers with
// an index into it; a new list needs a new picker. It knows weights, hash keys
// and (through [Loads]) how busy each endpoint is, and nothing else: no health,
// no priorities, no connections. Pickers are safe for concurrent use and pick
// without allocation. Ring hash and Maglev build the tables that Envoy builds,
// so that the same key goes to the same endpoint behind either proxy.
package lb

import (
	"math/rand/v2"
	"sort"
	"sync"
	"sync/atomic"

	"weft.mesh/weft/proxy/config"
)

// Endpoint is what a picker knows of one endpoint.
type Endpoint struct {
	Key    string // what is hashed: "10.0.0.1:80", or the host name
	Weight uint32 // at least 1; 0 counts as 1
}

// Loads tells how many requests (or connections) are running on endpoint i.
type Loads interface{ Load(i int) int64 }

// Query is one pick. Random must be fresh for each pick.
type Query struct {
	Hash    uint64
	Hashed  bool
	Random  uint64
	Attempt uint64 // 0, or the number of picks that were turned down (hash policies move on)
}

// Picker answers with an index into the list it was made for.
type Picker interface{ Pick(q Query) int }

// New makes the picker of a policy for at least one endpoint.
func New(c config.LB, eps []Endpoint, loads Loads) Picker {
	if len(eps) == 1 {
		return single{}
	}
	switch c.Policy {
	case config.RoundRobin:
		if equalWeights(eps) {
			return newRoundRobin(len(eps))
		}
		return newEDF(eps, nil)
	case config.Random, config.ClusterProvided:
		return newRandom(eps)
	case config.RingHash:
		return newRing(eps, c.MinRing, c.MaxRing)
	case config.Maglev:
		return newMaglev(eps, c.MaglevTable)
	default:
		if equalWeights(eps) {
			return &leastRequest{n: uint64(len(eps)), choices: max(c.Choices, 2), loads: loads}
		}
		return newEDF(eps, loads)
	}
}

func equalWeights(eps []Endpoint) bool {
	for i := range eps {
		if weight(eps[i]) != weight(eps[0]) {
			return false
		}
	}
	return true
}

func weight(e Endpoint) uint32 { return max(e.Weight, 1) }

type single struct{}

func (single) Pick(Query) int { return 0 }

// leastRequest takes the least busy of a few chosen at random (power of two choices).
type leastRequest struct {
	n       uint64
	choices uint32
	loads   Loads
}

func (l *leastRequest) Pick(q Query) int {
	r := q.Random
	best := int(r % l.n)
	load := l.loads.Load(best)
	for range l.choices - 1 {
		r = next(r)
		if i := int(r % l.n); i != best {
			if x := l.loads.Load(i); x < load {
				best, load = i, x
			}
		}
	}
	return best
}

// next derives another random number (splitmix64).
func next(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

type roundRobin struct {
	n  uint64
	at atomic.Uint64
}

// newRoundRobin begins anywhere, so that many proxies do not all begin with the same endpoint.
func newRoundRobin(n int) *roundRobin {
	r := &roundRobin{n: uint64(n)}
	r.at.Store(rand.Uint64N(uint64(n)))
	return r
}

func (r *roundRobin) Pick(Query) int { return int(r.at.Add(1) % r.n) }

// random picks by weight.
type random struct{ sums []uint64 }

func newRandom(eps []Endpoint) *random {
	r := &random{sums: make([]uint64, len(eps))}
	var sum uint64
	for i, e := range eps {
		sum += uint64(weight(e))
		r.sums[i] = sum
	}
	return r
}

func (r *random) Pick(q Query) int {
	x := q.Random % r.sums[len(r.sums)-1]
	return sort.Search(len(r.sums), func(i int) bool { return r.sums[i] > x })
}

// edf is an earliest-deadline-first schedule: each endpoint comes up in
// proportion to its weight, and with loads in inverse proportion to how busy it
// was when it was last picked (Envoy's weighted least request with bias 1).
type edf struct {
	loads   Loads
	weights []uint32 // set at creation

	mu sync.Mutex
	// mu protects the following.
	heap []turn
	now  float64
	seq  uint64
}

type turn struct {
	at   float64
	seq  uint64 // first in, first out among equals
	host int
}

func newEDF(eps []Endpoint, loads Loads) *edf {
	e := &edf{loads: loads, weights: make([]uint32, len(eps)), heap: make([]turn, 0, len(eps))}
	for i := range eps {
		e.weights[i] = weight(eps[i])
		e.push(i)
	}
	for range rand.IntN(len(eps)) { // do not all begin with the same endpoint
		e.take()
	}
	return e
}

func (e *edf) Pick(Query) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.take()
}

func (e *edf) take() int {
	t := e.heap[0]
	e.now = t.at
	e.heap[0] = e.turn(t.host)
	e.down(0)
	return t.host
}

func (e *edf) turn(i int) turn {
	w := float64(e.weights[i])
	if e.loads != nil {
		w /= float64(e.loads.Load(i) + 1)
	}
	e.seq++
	return turn{e.now + 1/w, e.seq, i}
}

func (e *edf) push(i int) {
	e.heap = append(e.heap, e.turn(i))
	for j := len(e.heap) - 1; j > 0; {
		p := (j - 1) / 2
		if !e.less(j, p) {
			return
		}
		e.heap[j], e.heap[p] = e.heap[p], e.heap[j]
		j = p
	}
}

func (e *edf) down(j int) {
	for {
		c := 2*j + 1
		if c >= len(e.heap) {
			return
		}
		if c+1 < len(e.heap) && e.less(c+1, c) {
			c++
		}
		if !e.less(c, j) {
			return
		}
		e.heap[j], e.heap[c] = e.heap[c], e.heap[j]
		j = c
	}
}

func (e *edf) less(a, b int) bool {
	x, y := &e.heap[a], &e.heap[b]
	return x.at < y.at || x.at == y.at && x.seq < y.seq
}
