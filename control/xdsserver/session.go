package xdsserver

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"weft.mesh/weft/xds"
)

// session is the protocol state of one stream: a state machine without
// goroutines, sockets or clock. Requests, new snapshots and ticks go in,
// messages to send come out. Loop only.
//
// A new snapshot starts a round: its types are sent in [xds.PushOrder], each
// after the one before was acknowledged, so that what is referred to arrives
// first; removed clusters are told last (make before break). While a round
// runs, later snapshots are not looked at: the newest starts the next round,
// so a slow client costs nothing but its own lateness.
type session struct {
	node   *xds.Node
	delta  bool
	limits Limits

	snap    xds.Snapshot // of the running or last round; nil before the first
	next    xds.Snapshot // newest
	watches map[string]*watch
	steps   []step // left of the round
	wait    waiting
	seq     uint64
}

// step is one type of a round.
type step struct {
	typeURL string
	removed bool // only tell what is gone
}

// waiting is what the round waits for.
type waiting struct {
	nonce   string
	typeURL string
	until   time.Time
	grace   bool // clusters were added: their endpoints are asked for in a moment
}

// watch is one type that the client is subscribed to.
type watch struct {
	typeURL     string
	wildcard    bool
	names       map[string]struct{}
	known       map[string]string // what the client was told: version by name, "" = does not exist
	force       map[string]struct{}
	outstanding map[string]string // version by nonce
	at          xds.Snapshot      // the snapshot that known reflects
	acked       string
	nonce       string // of the newest response
}

// message is one response to send.
type message struct {
	typeURL   string
	version   string
	nonce     string
	resources []*xds.Resource
	removed   []string
	added     bool // resources has names that the client did not have
	total     int  // resources of the type that the client has after it
}

func newSession(delta bool, l Limits) *session {
	return &session{delta: delta, limits: l, watches: map[string]*watch{}}
}

func (s *session) watch(typeURL string) (*watch, bool) {
	w, ok := s.watches[typeURL]
	if !ok {
		w = &watch{typeURL: typeURL, names: map[string]struct{}{}, known: map[string]string{}, force: map[string]struct{}{}, outstanding: map[string]string{}}
		s.watches[typeURL] = w
	}
	return w, !ok
}

// publish hands in the newest snapshot.
func (s *session) publish(snap xds.Snapshot) { s.next = snap }

// acknowledge settles a nonce. It returns the version it belonged to, ok false
// for a nonce that is unknown or was settled before.
func (s *session) acknowledge(w *watch, nonce string, now time.Time, refused bool) (string, bool) {
	version, ok := w.outstanding[nonce]
	if !ok {
		return "", false
	}
	delete(w.outstanding, nonce)
	if !refused {
		w.acked = version
	}
	if s.wait.nonce == nonce {
		s.wait.nonce = ""
		if s.wait.grace && !refused {
			s.wait.until = now.Add(s.limits.EndpointGrace)
		} else {
			s.wait = waiting{}
		}
	}
	return version, true
}

// subscribed notes that the client asked for a type, and ends a grace.
func (s *session) subscribed(typeURL string) {
	if !s.wait.grace || typeURL != xds.EndpointType {
		return
	}
	if s.wait.nonce == "" {
		s.wait = waiting{}
		return
	}
	s.wait.grace = false // asked before it acknowledged: nothing to wait for after
}

// answer builds the response to a subscription change, against the round's snapshot.
func (s *session) answer(w *watch) (*message, error) {
	if s.snap == nil {
		return nil, nil // the first round will send it
	}
	return s.build(w, s.snap, step{typeURL: w.typeURL})
}

// advance goes on with the round and returns the next messages to send.
func (s *session) advance(now time.Time) ([]*message, error) {
	var out []*message
	for {
		if s.blocked(now) {
			return out, nil
		}
		if len(s.steps) == 0 {
			if s.next == nil || s.next == s.snap {
				return out, nil
			}
			s.snap = s.next
			s.steps = s.plan()
			continue
		}
		st := s.steps[0]
		s.steps = s.steps[1:]
		m, err := s.take(st)
		if err != nil {
			return out, err
		}
		if m == nil {
			continue
		}
		out = append(out, m)
		s.wait = waiting{nonce: m.nonce, typeURL: m.typeURL, until: now.Add(s.limits.AckTimeout)}
		s.wait.grace = s.delta && m.added && m.typeURL == xds.ClusterType
	}
}

// blocked tells whether the round waits; an overdue wait ends.
func (s *session) blocked(now time.Time) bool {
	if s.wait == (waiting{}) {
		return false
	}
	if now.Before(s.wait.until) {
		return true
	}
	s.wait = waiting{}
	return false
}

// settled returns the snapshot that the client has all of: no round runs, and the newest response of each type is
// answered, also of those that a round did not wait for or gave up waiting for.
func (s *session) settled() (version string, ok bool) {
	if s.snap == nil || s.snap != s.next || len(s.steps) > 0 || s.wait != (waiting{}) {
		return "", false
	}
	for _, w := range s.watches {
		if _, open := w.outstanding[w.nonce]; open {
			return "", false
		}
	}
	return s.snap.Version(), true
}

// deadline is when advance has to be called again without an event; zero: never.
func (s *session) deadline() time.Time { return s.wait.until }

// plan lists the steps of a round: known types in push order, others after.
func (s *session) plan() []step {
	var p []step
	for _, t := range xds.PushOrder {
		if s.watches[t] != nil {
			p = append(p, step{typeURL: t})
		}
	}
	for _, t := range slices.Sorted(maps.Keys(s.watches)) {
		if !slices.Contains(xds.PushOrder, t) {
			p = append(p, step{typeURL: t})
		}
	}
	if s.delta && s.watches[xds.ClusterType] != nil {
		p = append(p, step{typeURL: xds.ClusterType, removed: true})
	}
	return p
}

func (s *session) take(st step) (*message, error) {
	w := s.watches[st.typeURL]
	if w == nil {
		return nil, nil
	}
	if !st.removed && len(w.force) == 0 && w.at != nil && s.snap.Unchanged(w.at, s.node, st.typeURL) {
		w.at = s.snap
		return nil, nil
	}
	return s.build(w, s.snap, st)
}

// build makes the response that brings the client's state of a type to the
// snapshot's; nil if there is nothing to tell.
func (s *session) build(w *watch, snap xds.Snapshot, st step) (*message, error) {
	var names []string
	if !w.wildcard {
		if len(w.names) == 0 && len(w.known) == 0 {
			return nil, nil
		}
		names = slices.Sorted(maps.Keys(w.names))
		if len(names) == 0 {
			names = []string{}
		}
	}
	all, err := snap.Resources(s.node, w.typeURL, names)
	if err != nil {
		return nil, err
	}
	if s.delta {
		return s.buildDelta(w, snap, st, all), nil
	}
	return s.buildFull(w, snap, all), nil
}

func (s *session) buildDelta(w *watch, snap xds.Snapshot, st step, all []*xds.Resource) *message {
	m := &message{typeURL: w.typeURL}
	have := make(map[string]struct{}, len(all))
	for _, r := range all {
		have[r.Name] = struct{}{}
		_, forced := w.force[r.Name]
		if v, ok := w.known[r.Name]; (!ok || v != r.Version || forced) && !st.removed {
			m.resources = append(m.resources, r)
			m.added = m.added || !ok || v == ""
			w.known[r.Name] = r.Version
		}
	}
	// Clusters that went away are told in the last step of a round, when no
	// listener or route that the client has refers to them any more.
	hold := w.typeURL == xds.ClusterType && !st.removed && (s.watches[xds.ListenerType] != nil || s.watches[xds.RouteType] != nil)
	if !hold {
		for name, v := range w.known {
			if _, ok := have[name]; !ok && v != "" {
				m.removed = append(m.removed, name)
				s.forget(w, name)
			}
		}
	}
	if !st.removed {
		for name := range w.names {
			if _, ok := have[name]; ok {
				continue
			}
			_, forced := w.force[name]
			if _, told := w.known[name]; !told || forced {
				m.removed = append(m.removed, name)
				w.known[name] = ""
			}
		}
		clear(w.force)
	}
	w.at = snap
	first := !st.removed && w.acked == "" && len(w.outstanding) == 0
	if len(m.resources) == 0 && len(m.removed) == 0 && (!first || !w.wildcard) {
		return nil
	}
	slices.Sort(m.removed)
	m.removed = slices.Compact(m.removed)
	m.total = len(have)
	return s.stamp(w, m, snap.Version())
}

// forget drops what the client was told of a name; a name that is still
// subscribed stays as "does not exist".
func (s *session) forget(w *watch, name string) {
	if _, sub := w.names[name]; sub {
		w.known[name] = ""
		return
	}
	delete(w.known, name)
}

// buildFull is the state-of-the-world form: the whole set whenever any of it changed.
func (s *session) buildFull(w *watch, snap xds.Snapshot, all []*xds.Resource) *message {
	changed := len(w.force) > 0 || w.at == nil || len(all) != len(w.known)
	for _, r := range all {
		if w.known[r.Name] != r.Version {
			changed = true
		}
	}
	w.at = snap
	clear(w.force)
	if !changed {
		return nil
	}
	w.known = make(map[string]string, len(all))
	for _, r := range all {
		w.known[r.Name] = r.Version
	}
	return s.stamp(w, &message{typeURL: w.typeURL, resources: all, total: len(all)}, snap.Version())
}

func (s *session) stamp(w *watch, m *message, version string) *message {
	s.seq++
	m.version = version
	m.nonce = strconv.FormatUint(s.seq, 36)
	// A client that never acknowledges must not grow us: the oldest nonces
	// are of no use to a client that sends the newest.
	if len(w.outstanding) >= s.limits.MaxOutstanding {
		clear(w.outstanding)
	}
	w.outstanding[m.nonce] = version
	w.nonce = m.nonce
	return m
}
