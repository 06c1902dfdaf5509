package traffic

import (
	"bufio"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"time"
)

// Store keeps the traffic of the last [Span].
type Store struct {
	seed maphash.Seed // set at creation

	mu        sync.Mutex // protects the following
	edges     map[Edge]*edge
	proxies   map[string]*proxy
	ring      []tick // oldest first
	pending   map[*edge]*delta
	began     time.Time // of the first tick without a longer pause since
	last      time.Time // of the last tick
	truncated bool
}

// tick is what happened between two looks.
type tick struct {
	at      time.Time
	elapsed float64 // seconds
	edges   []edgeDelta
}

type edgeDelta struct {
	edge *edge
	delta
}

// proxy is what is remembered of one proxy's lines.
type proxy struct {
	mu     sync.Mutex // held for a whole scrape
	series map[uint64]series
	spare  map[uint64]series // the one before, to be used again
	looked time.Time         // zero: not yet
}

// New makes an empty store.
func New() *Store {
	return &Store{seed: maphash.MakeSeed(), edges: map[Edge]*edge{}, proxies: map[string]*proxy{}, pending: map[*edge]*delta{}}
}

// ErrTooLong says that an answer was cut at [MaxScrape].
var ErrTooLong = errors.New("metrics are longer than the bound")

// Scrape reads one proxy's metrics at a moment. id names the process: a proxy
// that started anew has another. started is when it began; counters of a proxy
// that began while the store was looking count from zero, others from their
// first look. Nothing is kept of an answer that could not be read to its end.
func (s *Store) Scrape(id string, started, now time.Time, r io.Reader) error {
	p := s.proxy(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	l := look{s: s, p: p, now: now, fromZero: s.fromZero(p, started, now), next: p.spare, moved: map[*edge]*delta{}}
	if l.next == nil {
		l.next = make(map[uint64]series, len(p.series))
	}
	clear(l.next)
	lr := &io.LimitedReader{R: r, N: MaxScrape}
	br := bufio.NewReaderSize(lr, maxLine)
	for {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if err = skipLine(br); err == nil {
				continue
			}
		}
		if err == io.EOF && lr.N <= 0 {
			return fmt.Errorf("proxy %s: %w of %d bytes", id, ErrTooLong, MaxScrape)
		}
		if err == io.EOF {
			break // a last line without an end may be cut short: it is left out
		}
		if err != nil {
			return fmt.Errorf("proxy %s: read metrics: %w", id, err)
		}
		l.line(line)
	}
	p.series, p.spare, p.looked = l.next, p.series, now
	s.merge(l.moved)
	return nil
}

func skipLine(br *bufio.Reader) error {
	for {
		_, err := br.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

func (s *Store) proxy(id string) *proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.proxies[id]
	if !ok {
		p = &proxy{}
		s.proxies[id] = p
	}
	return p
}

// fromZero says whether a line that was not there before counts whole. p.mu is held.
func (s *Store) fromZero(p *proxy, started, now time.Time) bool {
	if !p.looked.IsZero() {
		if now.Sub(p.looked) <= maxGap {
			return true
		}
		p.series = nil // too long ago: begin anew
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.began.IsZero() && now.Sub(s.last) <= maxGap && started.After(s.began)
}

// look is one reading of one proxy's metrics. The proxy's mu is held.
type look struct {
	s        *Store
	p        *proxy
	now      time.Time
	fromZero bool // a line that was not there before counts whole
	next     map[uint64]series
	moved    map[*edge]*delta
}

// line counts one line.
func (l *look) line(line []byte) {
	f, labels, value, ok := split(line)
	if !ok {
		return
	}
	key := l.s.key(f, labels)
	se, known := l.p.series[key]
	if !known {
		if se, ok = l.first(f, labels, value); !ok {
			return
		}
	}
	n := value - se.value
	if n < 0 {
		n = value // the counter began anew
	}
	se.value = value
	gauge := value > 0 && (se.field == fieldOpened || se.field == fieldClosed)
	if n > 0 || gauge {
		if !l.count(&se, n, value) {
			return
		}
	}
	l.next[key] = se
}

// first reads what a line is about that was not there before.
func (l *look) first(f field, labels []byte, value float64) (series, bool) {
	if len(l.next) >= MaxLines {
		l.s.cut()
		return series{}, false
	}
	se, e, err := newSeries(f, labels)
	if err != nil || se.field == fieldNone {
		return series{}, false
	}
	if se.edge = l.s.edge(e, l.now); se.edge == nil {
		return series{}, false
	}
	if !l.fromZero {
		se.value = value
	}
	return se, true
}

// count adds to what moved; false if its edge has no place any more.
func (l *look) count(se *series, n, value float64) bool {
	if se.edge.gone.Load() {
		if se.edge = l.s.edge(se.edge.Edge, l.now); se.edge == nil {
			return false
		}
	}
	d := l.moved[se.edge]
	if d == nil {
		d = &delta{}
		l.moved[se.edge] = d
	}
	se.apply(d, float32(n))
	se.gauge(d, value)
	return true
}

// key of a line: two lines of one proxy with the same key are the same line, but for one chance in 2^64.
func (s *Store) key(f field, labels []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	h.WriteByte(byte(f))
	h.Write(labels)
	return h.Sum64()
}

func (s *Store) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.truncated = true
}

// edge finds or makes the entry of an edge; nil when there are too many.
func (s *Store) edge(e Edge, now time.Time) *edge {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.edges[e]; ok {
		return k
	}
	if len(s.edges) >= MaxEdges {
		s.forget(now)
	}
	if len(s.edges) >= MaxEdges {
		s.truncated = true
		return nil
	}
	k := &edge{Edge: e, last: now}
	s.edges[e] = k
	return k
}

// forget drops edges on which nothing happened for Span. mu is held.
func (s *Store) forget(now time.Time) {
	for key, e := range s.edges {
		if now.Sub(e.last) > Span {
			e.gone.Store(true)
			delete(s.edges, key)
		}
	}
}

func (s *Store) merge(moved map[*edge]*delta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e, d := range moved {
		p := s.pending[e]
		if p == nil {
			s.pending[e] = d
			continue
		}
		p.plus(d)
	}
}

func (d *delta) plus(o *delta) {
	d.caller.plus(&o.caller)
	d.called.plus(&o.called)
	d.secured += o.secured
	d.known += o.known
}

func (h *half) plus(o *half) {
	h.requests += o.requests
	h.failed += o.failed
	h.refused += o.refused
	h.sent += o.sent
	h.received += o.received
	h.opened += o.opened
	h.open += o.open
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
}

// Tick closes a look at all proxies: what moved since the last tick becomes one
// entry of the ring. Proxies that keep does not name are forgotten.
func (s *Store) Tick(now time.Time, keep func(id string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.proxies {
		if !keep(id) {
			delete(s.proxies, id)
		}
	}
	t := tick{at: now, elapsed: now.Sub(s.last).Seconds()}
	first := s.last.IsZero() || now.Sub(s.last) > maxGap
	s.last = now
	if first {
		s.began = now
		clear(s.pending) // a beginning: nothing to compare with
		return
	}
	for e, d := range s.pending {
		e.last = now
		t.edges = append(t.edges, edgeDelta{e, *d})
	}
	clear(s.pending)
	old := 0
	for old < len(s.ring) && (now.Sub(s.ring[old].at) > Span || len(s.ring)-old >= MaxTicks) {
		old++
	}
	s.ring = append(s.ring[:0], s.ring[old:]...)
	s.ring = append(s.ring, t)
}
