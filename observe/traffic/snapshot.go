package traffic

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// EdgeTraffic is one edge's traffic.
type EdgeTraffic struct {
	Edge
	Counts // over the window
}

// Snapshot is the traffic of a window that ends now.
type Snapshot struct {
	At        time.Time
	Window    time.Duration // that was asked for
	Seconds   float64       // of it that were looked at; 0: nothing is known yet
	Edges     []EdgeTraffic // sorted; those that were silent in the window but not in Span have zero counts
	Truncated bool          // a bound was reached: there is more than this
	// History has one point for each Step of Span, oldest first, by service;
	// "" is all together. NaN where nobody looked.
	History map[string][]Point
}

// Point is one Step.
type Point struct {
	Rate   float64 // requests per second
	Failed float64 // failed requests per second
}

// Points is the number of points of a history.
const Points = int(Span / Step)

// HistoryKey is the key of a service in Snapshot.History.
func HistoryKey(s Service) string { return s.Namespace + "/" + s.Name }

// Rate is n per second.
func (s *Snapshot) Rate(n float64) float64 {
	if s.Seconds == 0 {
		return 0
	}
	return n / s.Seconds
}

// Last is the time of the newest tick that tells something; zero if none does.
func (s *Store) Last() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ring) == 0 {
		return time.Time{}
	}
	return s.ring[len(s.ring)-1].at
}

// Snapshot sums the ticks of a window. Each edge's caller or called side counts
// for the whole window, never a mixture.
func (s *Store) Snapshot(window time.Duration) *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &Snapshot{Window: window, Truncated: s.truncated, History: map[string][]Point{}}
	if len(s.ring) == 0 {
		return out
	}
	out.At = s.ring[len(s.ring)-1].at
	total := map[*edge]*sums{}
	h := newHistory(out.At)
	for i := range s.ring {
		t := &s.ring[i]
		inside := out.At.Sub(t.at) < window
		if inside {
			out.Seconds += t.elapsed
		}
		h.tick(t)
		for j := range t.edges {
			e := t.edges[j].edge
			m := total[e]
			if m == nil {
				m = &sums{}
				total[e] = m
			}
			if inside {
				m.add(&t.edges[j].delta, i == len(s.ring)-1)
			}
			h.edge(t, &t.edges[j])
		}
	}
	for e, m := range total {
		out.Edges = append(out.Edges, EdgeTraffic{Edge: e.Edge, Counts: m.counts()})
	}
	slices.SortFunc(out.Edges, func(a, b EdgeTraffic) int { return compareEdges(&a.Edge, &b.Edge) })
	out.History = h.points()
	return out
}

func compareEdges(a, b *Edge) int {
	return cmp.Or(compareWorkloads(&a.Source, &b.Source), cmp.Compare(a.Service.Namespace, b.Service.Namespace), cmp.Compare(a.Service.Name, b.Service.Name),
		cmp.Compare(a.Service.Host, b.Service.Host), compareWorkloads(&a.Dest, &b.Dest), cmp.Compare(a.Protocol, b.Protocol))
}

func compareWorkloads(a, b *Workload) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.App, b.App), cmp.Compare(a.Version, b.Version))
}

// history gathers rates by service and Step.
type history struct {
	end     time.Time
	elapsed [Points]float64
	rows    map[string]*[Points]map[*edge]*halves
}

// halves is both sides' requests of one edge in one Step.
type halves struct{ caller, callerFailed, called, calledFailed float64 }

func newHistory(end time.Time) *history {
	return &history{end: end, rows: map[string]*[Points]map[*edge]*halves{}}
}

// index of the Step that holds a tick; false if it is too old. Steps are cut at
// multiples of Step, so that points keep their values as time goes on.
func (h *history) index(at time.Time) (int, bool) {
	i := Points - 1 - int(h.end.UnixNano()/int64(Step)-at.UnixNano()/int64(Step))
	return i, i >= 0 && i < Points
}

func (h *history) tick(t *tick) {
	if i, ok := h.index(t.at); ok {
		h.elapsed[i] += t.elapsed
	}
}

func (h *history) edge(t *tick, d *edgeDelta) {
	i, ok := h.index(t.at)
	if !ok || d.caller.requests == 0 && d.called.requests == 0 {
		return
	}
	key := HistoryKey(d.edge.Service)
	row := h.rows[key]
	if row == nil {
		row = &[Points]map[*edge]*halves{}
		h.rows[key] = row
	}
	if row[i] == nil {
		row[i] = map[*edge]*halves{}
	}
	n := row[i][d.edge]
	if n == nil {
		n = &halves{}
		row[i][d.edge] = n
	}
	n.caller += float64(d.caller.requests)
	n.callerFailed += float64(d.caller.failed)
	n.called += float64(d.called.requests)
	n.calledFailed += float64(d.called.failed)
}

func (h *history) points() map[string][]Point {
	out := map[string][]Point{}
	all := make([]Point, Points)
	for key, row := range h.rows {
		points := make([]Point, Points)
		for i := range points {
			points[i] = h.point(row[i], i)
			if h.elapsed[i] > 0 {
				all[i].Rate += points[i].Rate
				all[i].Failed += points[i].Failed
			}
		}
		out[key] = points
	}
	for i := range all {
		if h.elapsed[i] == 0 {
			all[i] = Point{math.NaN(), math.NaN()}
		}
	}
	out[""] = all
	return out
}

func (h *history) point(edges map[*edge]*halves, i int) Point {
	if h.elapsed[i] == 0 {
		return Point{math.NaN(), math.NaN()}
	}
	var p Point
	for _, n := range edges {
		if n.caller > 0 {
			p.Rate += n.caller
			p.Failed += n.callerFailed
		} else {
			p.Rate += n.called
			p.Failed += n.calledFailed
		}
	}
	p.Rate /= h.elapsed[i]
	p.Failed /= h.elapsed[i]
	return p
}
