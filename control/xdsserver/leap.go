package xdsserver

import (
	"sync"

	"weft.mesh/weft/xds"
)

// follower is a Snapshot that knows which nodes stay alike.
type follower interface {
	// Follows tells that nodes like n which got the same list of a type, under the same names, from prev as a thing get the same
	// list from this Snapshot: what of a node decides on it has not changed.
	Follows(prev xds.Snapshot, n *xds.Node, typeURL string) bool
}

// leap is what a snapshot's list of a type becomes in another, and what is to be told of it.
type leap struct {
	key  leapKey
	once sync.Once
	ok   bool // it could be made
	all  []*xds.Resource
	m    *message // nil: nothing
}

// leapKey is all that a leap depends on.
type leapKey struct {
	from, to xds.Snapshot
	typeURL  string
	held     listKey
	names    *nameSet
	patches  bool
}

// maxLeap is how large the resources of a leap may be that is kept for others; there are at most [maxShares].
const maxLeap = maxShareBytes / maxShares

// leap brings a client to a snapshot as another that had the same was brought to it; ok is false if that
// cannot be. A thousand clients that a changed endpoint is told to need not find out a thousand times what they have now.
func (s *session) leap(w *watch, snap xds.Snapshot) (m *message, ok bool) {
	f, can := snap.(follower)
	if !can || !s.delta || w.wildcard || w.at == nil || w.again || len(w.held) == 0 || len(w.told)+len(w.force) > 0 || !f.Follows(w.at, s.node, w.typeURL) {
		return nil, false
	}
	k := leapKey{w.at, snap, w.typeURL, keyOf(w.held), w.names, s.patches(w)}
	x := s.hub.shares.leap(k)
	if x == nil {
		return nil, false
	}
	x.once.Do(func() {
		s.hub.enter()
		defer s.hub.leave()
		all, err := snap.Resources(s.node, w.typeURL, w.names.list)
		if err != nil {
			return // build says it for each
		}
		x.ok, x.all, x.m = true, all, s.deltaTo(w, snap, all)
		if x.m != nil && (x.m.wire == nil || x.m.wire.size(x.m) > maxLeap) {
			s.hub.shares.unleap(k)
		}
	})
	if !x.ok {
		return nil, false
	}
	w.held, w.at = x.all, snap
	return s.note(w, x.m), true
}

// leap returns the leap under a key; nil if there are too many.
func (s *shares) leap(k leapKey) *leap {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.last; x != nil && x.key == k {
		return x
	}
	x := s.leaps[k]
	if x != nil {
		s.last = x
		return x
	}
	if len(s.leaps) >= maxShares {
		return nil
	}
	x = &leap{key: k}
	if s.leaps == nil {
		s.leaps = map[leapKey]*leap{}
	}
	s.leaps[k] = x
	return x
}

func (s *shares) unleap(k leapKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leaps, k)
	s.last = nil
}
