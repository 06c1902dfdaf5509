package snapshot

import (
	"context"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/model"
)

// Settings of a Store.
type Settings struct {
	Mesh  model.Mesh
	Quiet time.Duration // a batch ends when nothing came for so long; default 100 ms
	Max   time.Duration // and at the latest so long after its first change; default 1 s
}

// Store gathers changes and turns them into Worlds. After a quiet time the
// first change makes a World at once; in a storm they are batched.
//
// Pending changes are kept by key (the last one counts), so that the queue is
// bounded by the number of objects. Safe for concurrent use.
type Store struct {
	quiet, max time.Duration
	current    atomic.Pointer[World]
	wake       chan struct{} // 1 slot: something is pending

	mu       sync.Mutex // protects the following
	pending  map[model.Key]Change
	order    []model.Key
	began    time.Time     // when the first of them came; zero: nothing is pending
	mesh     *model.Mesh   // settings that the next World has; nil: those of the current
	applied  uint64        // calls of Apply
	built    uint64        // of them in the current World
	progress chan struct{} // closed when built grows
}

// NewStore makes a store that holds an empty World.
func NewStore(s Settings) *Store {
	if s.Quiet <= 0 {
		s.Quiet = 100 * time.Millisecond
	}
	if s.Max <= 0 {
		s.Max = time.Second
	}
	st := &Store{quiet: s.Quiet, max: s.Max, wake: make(chan struct{}, 1), pending: map[model.Key]Change{}, progress: make(chan struct{})}
	st.current.Store(Empty(s.Mesh))
	return st
}

// World is the current World; never nil.
func (s *Store) World() *World { return s.current.Load() }

// Apply queues changes; Run makes a World of them. It never blocks on Run.
func (s *Store) Apply(changes ...Change) {
	if len(changes) == 0 {
		return
	}
	s.mu.Lock()
	for _, c := range changes {
		if _, ok := s.pending[c.Key]; !ok {
			s.order = append(s.order, c.Key)
		}
		s.pending[c.Key] = c
	}
	s.begin()
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// SetMesh makes the next World one of other mesh-wide settings. All of it is
// built anew: settings change seldom.
func (s *Store) SetMesh(mesh model.Mesh) {
	s.mu.Lock()
	s.mesh = &mesh
	s.begin()
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// begin notes a call that left something pending. The caller holds mu.
func (s *Store) begin() {
	s.applied++
	if s.began.IsZero() {
		s.began = time.Now()
	}
}

// Run builds Worlds until ctx ends and calls publish, on its own goroutine,
// with each that differs from the one before.
func (s *Store) Run(ctx context.Context, publish func(*World)) error {
	var last time.Time // of the last World
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		}
		if time.Since(last) < s.quiet {
			if err := s.gather(ctx); err != nil {
				return err
			}
		}
		s.Flush(publish)
		last = time.Now()
	}
}

// gather waits until no change came for the quiet time, at most the maximum.
func (s *Store) gather(ctx context.Context) error {
	deadline := time.NewTimer(s.max)
	defer deadline.Stop()
	quiet := time.NewTimer(s.quiet)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return nil
		case <-quiet.C:
			return nil
		case <-s.wake:
			quiet.Reset(s.quiet)
		}
	}
}

// Flush builds a World of what is pending now. Callers other than Run use it
// before Run starts (initial load) or in tests; never at the same time as Run.
func (s *Store) Flush(publish func(*World)) {
	s.mu.Lock()
	changes := make([]Change, 0, len(s.order))
	for _, k := range s.order {
		changes = append(changes, s.pending[k])
	}
	clear(s.pending)
	s.order = nil
	taken, mesh, began := s.applied, s.mesh, s.began
	s.mesh, s.began = nil, time.Time{}
	s.mu.Unlock()
	defer s.done(taken)
	prev := s.current.Load()
	next := prev
	if mesh != nil {
		next = rebuild(prev, *mesh)
	}
	next = Build(next, changes, time.Now())
	if next == prev {
		return
	}
	next.began = began
	s.current.Store(next)
	if publish != nil {
		publish(next)
	}
}

// done says that a World holds what was applied so far, and was published.
func (s *Store) done(taken uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.built = taken
	close(s.progress)
	s.progress = make(chan struct{})
}

// Sync waits until everything that was applied before the call is part of a
// published World, and returns that World or a later one.
func (s *Store) Sync(ctx context.Context) (*World, error) {
	s.mu.Lock()
	want := s.applied
	s.mu.Unlock()
	for {
		s.mu.Lock()
		built, progress := s.built, s.progress
		s.mu.Unlock()
		if built >= want {
			return s.World(), nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-progress:
		}
	}
}

// rebuild is the World of the same objects under other settings. It continues
// the line's numbers, and shares nothing with prev.
func rebuild(prev *World, mesh model.Mesh) *World {
	if mesh = Defaults(mesh); reflect.DeepEqual(mesh, prev.mesh) {
		return prev
	}
	var all []Change
	for k, objects := range prev.objects.all() {
		all = append(all, Change{k, objects})
	}
	base := Empty(mesh)
	base.seq = prev.seq
	return Build(base, all, time.Now())
}
