package store

import (
	"context"
	"errors"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/source"
	"weft.mesh/weft/model"
)

// ErrBehind means that a watcher asked for changes that the history no longer has: list again.
var ErrBehind = errors.New("the history no longer has these changes")

// Change is one transaction as a watcher sees it.
type Change struct {
	Revision uint64
	Puts     []convert.Object
	Deletes  []model.Key
}

// Next waits for the transactions after revision and returns those that the
// history has, oldest first. It returns ErrBehind if some of them are gone,
// ErrClosed after Close, and ctx's error when ctx ends.
func (s *Store) Next(ctx context.Context, after uint64) ([]Change, error) {
	for {
		changes, wait, err := s.since(after)
		if err != nil || len(changes) > 0 {
			return changes, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-wait:
		}
	}
}

func (s *Store) since(after uint64) ([]Change, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, nil, ErrClosed
	case after == s.revision:
		return nil, s.changed, nil
	case after > s.revision || len(s.history) == 0 || s.history[0].revision > after+1:
		return nil, nil, ErrBehind
	}
	var out []Change
	for _, b := range s.history {
		if b.revision > after {
			out = append(out, Change{Revision: b.revision, Puts: b.puts, Deletes: b.deletes})
		}
	}
	return out, nil, nil
}

// Run implements source.Source. Several may run at the same time.
func (s *Store) Run(ctx context.Context, sink source.Sink) error {
	held := map[model.Key]uint64{} // what the sink holds, by revision
	at := s.resync(sink, held)
	sink.Synced()
	for {
		changes, err := s.Next(ctx, at)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrBehind):
			at = s.resync(sink, held)
			continue
		default:
			return err
		}
		for _, c := range changes {
			for _, o := range c.Puts {
				held[o.Key] = c.Revision
			}
			for _, k := range c.Deletes {
				delete(held, k)
			}
			if len(c.Puts) > 0 {
				sink.Put(c.Puts...)
			}
			if len(c.Deletes) > 0 {
				sink.Delete(c.Deletes...)
			}
			at = c.Revision
		}
	}
}

// resync brings the sink from what it holds to the whole state.
func (s *Store) resync(sink source.Sink, held map[model.Key]uint64) uint64 {
	entries, revision := s.List()
	exists := make(map[model.Key]bool, len(entries))
	var puts []convert.Object
	for _, e := range entries {
		exists[e.Object.Key] = true
		if r, ok := held[e.Object.Key]; !ok || r != e.Revision {
			puts = append(puts, e.Object)
			held[e.Object.Key] = e.Revision
		}
	}
	var deletes []model.Key
	for k := range held {
		if !exists[k] {
			deletes = append(deletes, k)
			delete(held, k)
		}
	}
	if len(puts) > 0 {
		sink.Put(puts...)
	}
	if len(deletes) > 0 {
		sink.Delete(deletes...)
	}
	return revision
}
