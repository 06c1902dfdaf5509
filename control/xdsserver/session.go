package xdsserver

import (
	"iter"
	"maps"
	"slices"
	"strings"
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
//
// What a client has is the list of the snapshot that it was brought to, which
// others have too; of its own a session keeps only what differs from that.
type session struct {
	node   *xds.Node
	delta  bool
	limits Limits
	hub    *hub

	snap    xds.Snapshot // of the running or last round; nil before the first
	next    xds.Snapshot // newest
	watches watches
	first   [4]watch // the memory of these
	// unanswered is the number of watches that wait.
	unanswered int
	round      []step      // all of a round, see plan; never changed in place
	endpoints  []step      // those of a round in which nothing but endpoints can be new
	one        [1]*message // advance returns it, and mostly no other
	steps      []step      // left of the round
	wait       waiting
}

// step is one type of a round.
type step struct {
	of      *watch
	removed bool // only tell what is gone
}

// waiting is what the round waits for.
type waiting struct {
	nonce   string
	typeURL string
	until   time.Time // zero: it does not wait
	grace   bool      // clusters were added: their endpoints are asked for in a moment
}

// watch is one type that the client is subscribed to.
type watch struct {
	// What is looked at for each new snapshot stands first: thousands of watches are not in the processor's cache.
	typeURL string
	at      xds.Snapshot // the snapshot that held reflects
	// force are names to be sent again though they did not change; nil: none.
	force    map[string]struct{}
	wildcard bool
	// again makes the next state-of-the-world response be sent though nothing changed.
	again   bool
	begun   bool // the first part of what it has was sent, see buildCommon
	refused bool // the newest answer was a refusal: what the client has is not known for sure
	waits   bool // there is no answer to the newest response
	// held is what the client was sent, sorted by name. Subscribed names that are not in it were
	// told not to exist, once there was a response (at is not nil).
	held  []*xds.Resource
	names *nameSet
	// told are versions of what the client has besides: what it said it has, before its first response, and
	// clusters that are gone, until it is told so. Mostly nil.
	told        map[string]string
	outstanding []sent // begins as one
	one         [1]sent
	nonce       string // of the newest response
	acked       string
}

// sent is a response without an answer.
type sent struct{ nonce, version string }

// message is one response to send. Nothing in it may be changed: others may send it too.
type message struct {
	typeURL   string
	version   string
	nonce     string
	resources []*xds.Resource
	patches   map[string][]byte // of resources that go as a patch of what the client has
	removed   []string
	added     bool  // resources has names that the client did not have
	partial   bool  // another message of the same type follows
	rest      bool  // it is that other one
	total     int   // resources of the type that the client has after it
	wire      *wire // its encoding, if others send it too
}

func newSession(delta bool, l Limits, h *hub) *session {
	s := &session{}
	s.of(delta, l, h)
	return s
}

// of makes an empty session one of a server.
func (s *session) of(delta bool, l Limits, h *hub) { s.delta, s.limits, s.hub = delta, l, h }

func (s *session) watch(typeURL string) (*watch, bool) {
	if w := s.watches.of(typeURL); w != nil {
		return w, false
	}
	var w *watch
	if n := len(s.watches); n < len(s.first) {
		w = &s.first[n]
	} else {
		w = &watch{}
	}
	w.typeURL, w.names, w.outstanding = knownType(typeURL), noNames, w.one[:0]
	s.watches = append(s.watches, w)
	s.round = s.plan()
	s.endpoints = slices.DeleteFunc(slices.Clone(s.round), func(st step) bool { return st.of.typeURL != xds.EndpointType })
	return w, true
}

// watches are few, one for each type.
type watches []*watch

// of is that of a type; nil: there is none.
func (l watches) of(typeURL string) *watch {
	for _, w := range l {
		if w.typeURL == typeURL {
			return w
		}
	}
	return nil
}

// knownType is the constant of a type, or a copy. Strings that are the same memory are found to be equal at once.
func knownType(typeURL string) string {
	if i := slices.Index(xds.PushOrder, typeURL); i >= 0 {
		return xds.PushOrder[i]
	}
	return strings.Clone(typeURL)
}

// subscribe changes the names of an incremental watch. A name that is subscribed again is
// sent again, also if it did not change.
func (s *session) subscribe(w *watch, add, drop []string, first bool) {
	w.names = s.hub.names.of(w.names.edit(add, drop))
	if !first {
		for _, n := range add {
			if w.force == nil {
				w.force = make(map[string]struct{}, len(add))
			}
			w.force[strings.Clone(n)] = struct{}{}
		}
	}
	if len(drop) == 0 {
		return
	}
	for _, n := range drop {
		delete(w.force, n)
	}
	if !w.wildcard { // the client does not have them any more
		w.held = slices.DeleteFunc(slices.Clone(w.held), func(r *xds.Resource) bool { return slices.Contains(drop, r.Name) })
	}
}

// publish hands in the newest snapshot.
func (s *session) publish(snap xds.Snapshot) { s.next = snap }

// acknowledge settles a nonce. It returns the version it belonged to, ok false
// for a nonce that is unknown or was settled before.
func (s *session) acknowledge(w *watch, nonce string, now time.Time, refused bool) (string, bool) {
	i := slices.IndexFunc(w.outstanding, func(x sent) bool { return x.nonce == nonce })
	if i < 0 {
		return "", false
	}
	version := w.outstanding[i].version
	w.outstanding = slices.Delete(w.outstanding, i, i+1)
	if w.refused = refused; !refused {
		w.acked = version
	}
	if w.waits && nonce == w.nonce {
		w.waits = false
		s.unanswered--
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
	return s.build(s.snap, step{of: w})
}

// advance goes on with the round and returns the next messages to send, valid until it is called again.
func (s *session) advance(now time.Time) ([]*message, error) {
	out := s.one[:0]
	for {
		if s.blocked(now) {
			return out, nil
		}
		if len(s.steps) == 0 {
			if s.next == nil || s.next == s.snap {
				return out, nil
			}
			s.begin(s.next)
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
		if m.partial {
			s.steps = slices.Concat([]step{st}, s.steps)
		}
		out = append(out, m)
		s.wait = waiting{nonce: m.nonce, typeURL: m.typeURL, until: now.Add(s.limits.AckTimeout)}
		s.wait.grace = s.delta && m.added && !m.partial && !m.rest && m.typeURL == xds.ClusterType
	}
}

// endpointer is a Snapshot that knows that nothing but endpoints is new in it.
type endpointer interface {
	OnlyEndpoints(prev xds.Snapshot) bool
}

// begin starts a round. A change of endpoints, which is the most frequent one, is not looked for in other types: these move along, as
// a watch that stayed behind would keep an old World alive.
func (s *session) begin(snap xds.Snapshot) {
	before := s.snap
	s.snap, s.steps = snap, s.round
	e, ok := snap.(endpointer)
	if !ok || !s.delta || before == nil || !e.OnlyEndpoints(before) {
		return
	}
	steps := s.endpoints
	for _, w := range s.watches {
		switch {
		case w.typeURL == xds.EndpointType:
		case w.at == before:
			w.at = snap
		default:
			steps = s.round
		}
	}
	s.steps = steps
}

// none: it does not wait.
func (w *waiting) none() bool { return w.until.IsZero() }

// blocked tells whether the round waits; an overdue wait ends.
func (s *session) blocked(now time.Time) bool {
	if s.wait.none() {
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
	if s.snap == nil || s.snap != s.next || len(s.steps) > 0 || !s.wait.none() {
		return "", false
	}
	return s.snap.Version(), s.unanswered == 0
}

// deadline is when advance has to be called again without an event; zero: never.
func (s *session) deadline() time.Time { return s.wait.until }

// plan lists the steps of a round: known types in push order, others after.
func (s *session) plan() []step {
	var p []step
	for _, t := range xds.PushOrder {
		if w := s.watches.of(t); w != nil {
			p = append(p, step{of: w})
		}
	}
	known := len(p)
	for _, w := range s.watches {
		if !slices.Contains(xds.PushOrder, w.typeURL) {
			p = append(p, step{of: w})
		}
	}
	slices.SortFunc(p[known:], func(a, b step) int { return strings.Compare(a.of.typeURL, b.of.typeURL) })
	if w := s.watches.of(xds.ClusterType); s.delta && w != nil {
		p = append(p, step{of: w, removed: true})
	}
	return p
}

func (s *session) take(st step) (*message, error) {
	w := st.of
	if st.removed && len(w.told) == 0 {
		return nil, nil
	}
	if !st.removed && len(w.force) == 0 && !w.again && w.at != nil && s.snap.Unchanged(w.at, s.node, w.typeURL) {
		w.at = s.snap
		return nil, nil
	}
	if m := s.buildCommon(w, s.snap); m != nil {
		return m, nil
	}
	if m, ok := s.leap(w, s.snap); ok {
		return m, nil
	}
	return s.build(s.snap, st)
}

// build makes the response that brings the client's state of a type to the
// snapshot's; nil if there is nothing to tell.
func (s *session) build(snap xds.Snapshot, st step) (*message, error) {
	w := st.of
	var names []string
	if !w.wildcard {
		if names = w.names.list; len(names) == 0 && len(w.held)+len(w.told) == 0 {
			return nil, nil
		}
	}
	s.hub.enter()
	defer s.hub.leave()
	all, err := snap.Resources(s.node, w.typeURL, names)
	if err != nil {
		return nil, err
	}
	switch {
	case !s.delta:
		return s.buildFull(w, snap, all), nil
	case st.removed:
		return s.buildRemoved(w, snap, all), nil
	}
	return s.buildDelta(w, snap, all), nil
}

// commoner is a Snapshot that knows which resources of all that a node gets of a type
// are the same list for many nodes.
type commoner interface {
	Common(n *xds.Node, typeURL string) []*xds.Resource
}

// minCommon is from how many resources on it is worth a response of its own to send what others get too.
const minCommon = 16

// buildCommon begins a client's first round with what it has in common with others, so that
// a thousand clients which come at once do not each need a message of their own for a thousand clusters.
func (s *session) buildCommon(w *watch, snap xds.Snapshot) *message {
	c, ok := snap.(commoner)
	if !ok || !s.delta || !w.wildcard || w.at != nil || len(w.held)+len(w.told)+len(w.force)+len(w.names.list) > 0 {
		return nil
	}
	s.hub.enter()
	defer s.hub.leave()
	list := c.Common(s.node, w.typeURL)
	if len(list) < minCommon {
		return nil
	}
	k := shareKey{typeURL: w.typeURL, version: snap.Version(), to: keyOf(list), wildcard: true, fresh: true}
	m := s.hub.shares.of(k, func() *message {
		m := s.message(w, snap, len(list))
		m.resources, m.added, m.partial = list, true, true
		return m
	})
	w.held, w.begun = list, true
	return s.note(w, m)
}

// recognise keeps what a client says it has: the newest snapshot's list as far as that is the same, so that a thousand
// clients that come back, each with the versions of thousands of resources, then have what they have in common once.
func (s *session) recognise(w *watch, versions iter.Seq2[string, string]) error {
	var all []*xds.Resource
	if s.next != nil {
		names := w.names.list
		if w.wildcard {
			names = nil
		}
		s.hub.enter()
		defer s.hub.leave()
		var err error
		if all, err = s.next.Resources(s.node, w.typeURL, names); err != nil {
			return err
		}
	}
	has, n := make([]bool, len(all)), 0
	for name, version := range versions {
		i, ok := index(all, name)
		if same := ok && all[i].Version == version; !same {
			if w.told == nil {
				w.told = map[string]string{}
			}
			w.told[strings.Clone(name)] = strings.Clone(version)
		} else if !has[i] {
			has[i] = true
			n++
		}
	}
	if n == len(all) {
		w.held = all
	} else if n > 0 {
		w.held = make([]*xds.Resource, 0, n)
		for i, r := range all {
			if has[i] {
				w.held = append(w.held, r)
			}
		}
	}
	for name := range w.told { // of a name that is said twice, what we know counts
		if find(w.held, name) != nil {
			delete(w.told, name)
		}
	}
	return nil
}

func (s *session) buildDelta(w *watch, snap xds.Snapshot, all []*xds.Resource) *message {
	m := s.deltaTo(w, snap, all)
	first := w.acked == "" && len(w.outstanding) == 0
	w.held, w.at, w.force = all, snap, nil
	if m == nil && first && w.wildcard {
		m = s.message(w, snap, len(all)) // there is nothing: the client waits for that word
	}
	return s.note(w, m)
}

// deltaTo makes the message that leads from what the client has to a list; nil if there is nothing to tell.
func (s *session) deltaTo(w *watch, snap xds.Snapshot, all []*xds.Resource) *message {
	fresh := w.at == nil
	if !fresh && len(w.told) == 0 && len(w.force) == 0 && len(all) == len(w.held) && keyOf(all) == keyOf(w.held) {
		return nil
	}
	if w.typeURL == xds.ClusterType || len(w.told) > 0 || len(w.force) > 0 || len(all) == 0 {
		return s.compare(w, snap, all, fresh)
	}
	// What nodes have of these types is the same for many of them.
	k := shareKey{w.typeURL, snap.Version(), keyOf(w.held), keyOf(all), w.names, w.wildcard, fresh, s.patches(w)}
	return s.hub.shares.of(k, func() *message { return s.compare(w, snap, all, fresh) })
}

// compare makes the message of a difference, and keeps what is to be told later.
func (s *session) compare(w *watch, snap xds.Snapshot, all []*xds.Resource, fresh bool) *message {
	d := differ(w.held, all, w.told, w.force)
	m := s.message(w, snap, len(all))
	m.resources, m.added = d.resources, d.added
	if s.patches(w) {
		m.patches = patchesOf(d, w.force)
	}
	m.rest, w.begun = w.begun, false // endpoints were asked for after the first part
	// Clusters that went away are told in the last step of a round, when no
	// listener or route that the client has refers to them any more.
	hold := w.typeURL == xds.ClusterType && (s.watches.of(xds.ListenerType) != nil || s.watches.of(xds.RouteType) != nil)
	told := w.told
	w.told = nil
	if hold {
		w.told = d.forgotten
		for _, r := range d.gone {
			if w.told == nil {
				w.told = map[string]string{}
			}
			w.told[r.Name] = r.Version
		}
	} else {
		for _, r := range d.gone {
			m.removed = append(m.removed, r.Name)
		}
		for name := range d.forgotten {
			m.removed = append(m.removed, name)
		}
	}
	// Names that do not exist are told once: after that they are known not to.
	absent := func(name string) {
		if _, ok := told[name]; !ok && find(all, name) == nil {
			m.removed = append(m.removed, name)
		}
	}
	if fresh {
		for _, name := range w.names.list {
			absent(name)
		}
	}
	for name := range w.force {
		absent(name)
	}
	if len(m.resources) == 0 && len(m.removed) == 0 {
		return nil
	}
	slices.Sort(m.removed)
	m.removed = slices.Compact(m.removed)
	return m
}

// buildRemoved tells of clusters that are gone.
func (s *session) buildRemoved(w *watch, snap xds.Snapshot, all []*xds.Resource) *message {
	m := s.message(w, snap, len(all))
	for _, name := range slices.Sorted(maps.Keys(w.told)) {
		if find(all, name) == nil {
			m.removed = append(m.removed, name)
		}
	}
	w.told = nil
	if len(m.removed) == 0 {
		return nil
	}
	return s.note(w, m)
}

// buildFull is the state-of-the-world form: the whole set whenever any of it changed.
func (s *session) buildFull(w *watch, snap xds.Snapshot, all []*xds.Resource) *message {
	changed := w.again || w.at == nil || !same(w.held, all)
	w.at, w.held, w.again = snap, all, false
	if !changed {
		return nil
	}
	m := s.message(w, snap, len(all))
	m.resources = all
	return s.note(w, m)
}

func (s *session) message(w *watch, snap xds.Snapshot, total int) *message {
	return &message{typeURL: w.typeURL, version: snap.Version(), nonce: s.hub.nonce(), total: total}
}

// note keeps the message's nonce until it is answered.
func (s *session) note(w *watch, m *message) *message {
	if m == nil {
		return nil
	}
	// A client that never acknowledges must not grow us: the oldest nonces
	// are of no use to a client that sends the newest.
	if len(w.outstanding) >= s.limits.MaxOutstanding {
		w.outstanding = w.outstanding[:0]
	}
	w.outstanding = append(w.outstanding, sent{m.nonce, m.version})
	if w.nonce = m.nonce; !w.waits {
		w.waits = true
		s.unanswered++
	}
	return m
}
