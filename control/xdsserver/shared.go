package xdsserver

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"weft.mesh/weft/xds"
)

// hub is what the sessions of a server have in common. Safe for concurrent use.
type hub struct {
	names  *nameSets
	shares shares
	nonces atomic.Uint64
	slots  chan struct{} // bounds how many sessions work something out at once
}

func newHub() *hub {
	return &hub{names: newNameSets(), slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))}
}

// enter waits for a slot, which leave gives back.
func (h *hub) enter() { h.slots <- struct{}{} }
func (h *hub) leave() { <-h.slots }

// nonce is a new one for all streams: a message may go to many of them.
func (h *hub) nonce() string { return strconv.FormatUint(h.nonces.Add(1), 36) }

// Bounds of the messages that are kept for others between two snapshots. An encoding is as large as its
// resources, and many that come at once may each want something else.
const (
	maxShares     = 1024
	maxShareBytes = 64 << 20
)

// shares are messages that bring all clients which have the same to the same. They
// live until the next snapshot. Safe for concurrent use.
type shares struct {
	mu    sync.Mutex // protects the following
	m     map[shareKey]*shared
	bytes int // of the resources of all of them
	leaps map[leapKey]*leap
	last  *leap // that was asked for: mostly it is asked for again
	alike map[content]*message
}

// shareKey is all that a message depends on. Lists are told apart by where they are:
// a snapshot gives the same answer as the same list.
type shareKey struct {
	typeURL, version string
	from, to         listKey
	names            *nameSet
	wildcard, fresh  bool
	patches          bool // for clients that take them
}

// listKey is a list as a thing.
type listKey struct {
	first **xds.Resource
	n     int
}

func keyOf(l []*xds.Resource) listKey {
	if len(l) == 0 {
		return listKey{}
	}
	return listKey{&l[0], len(l)}
}

type shared struct {
	once sync.Once
	m    *message
}

// of returns the message under a key, made once; nil if there is nothing to tell.
func (s *shares) of(k shareKey, build func() *message) *message {
	s.mu.Lock()
	x := s.m[k]
	if x == nil {
		if len(s.m) >= maxShares {
			s.mu.Unlock()
			return build()
		}
		x = &shared{}
		if s.m == nil {
			s.m = map[shareKey]*shared{}
		}
		s.m[k] = x
	}
	s.mu.Unlock()
	x.once.Do(func() {
		m := build()
		if m == nil {
			return
		}
		m.wire = &wire{}
		if x.m = s.one(m); x.m == m {
			s.weigh(k, x)
		}
	})
	return x.m
}

// content is all of a message of few endpoints: those who are told the same need not have had the same before.
type content struct {
	version   string
	added     bool
	total     int
	resources [4]*xds.Resource
}

// one returns the message that has the same content, if it is of few endpoints.
func (s *shares) one(m *message) *message {
	if m.typeURL != xds.EndpointType || len(m.removed) > 0 || m.patches != nil || m.partial || m.rest {
		return m
	}
	c := content{version: m.version, added: m.added, total: m.total}
	if len(m.resources) > len(c.resources) {
		return m
	}
	copy(c.resources[:], m.resources)
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.alike[c]; have != nil {
		return have
	}
	if len(s.alike) >= maxShares {
		return m
	}
	if s.alike == nil {
		s.alike = map[content]*message{}
	}
	s.alike[c] = m
	return m
}

// weigh counts a message that was just made. One that does not fit is not kept for others.
func (s *shares) weigh(k shareKey, x *shared) {
	size := x.m.wire.size(x.m)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.m[k] != x: // of a snapshot before
	case s.bytes+size > maxShareBytes:
		delete(s.m, k)
	default:
		s.bytes += size
	}
}

// clear forgets what leads to an older snapshot.
func (s *shares) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m, s.bytes, s.leaps, s.last, s.alike = nil, 0, nil, nil, nil
}
