// Package status remembers what every proxy was sent, what it accepted and
// what it refused, and why. It is fed by xdsserver and read by the API, the
// debug pages and the metrics. It starts nothing and blocks nobody.
package status

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/xdsserver"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// Bounds: lost proxies are kept for a while so that `weft status` can say so.
const (
	keepLost   = 10 * time.Minute
	maxLost    = 1000
	maxReason  = 4 << 10
	shownTypes = 16
)

// Tracker implements xdsserver.Observer. Safe for concurrent use.
type Tracker struct {
	now func() time.Time

	mu      sync.RWMutex // protects the following, but not what is in a proxy; locked before a proxy's
	streams map[uint64]*proxy
	lost    []*proxy // oldest first
	pushes  counts   // to proxies that are not connected any more
	rejects counts   // by them
}

// counts are numbers by a type's short name; types that clients made up are one.
type counts map[string]uint64

// otherTypes are all that have no short name: a client may ask for any, and with each connection for others.
const otherTypes = "other"

// proxy is the record of one that is connected, or was: it implements xdsserver.Witness. It counts for itself: a thousand that are told
// something at once do not wait for each other, nor are they looked for.
type proxy struct {
	// What each push changes stands first: of thousands of records nothing is in the processor's cache.
	mu     sync.Mutex  // protects the following
	unsent int         // types that it subscribed to, and was sent nothing of
	world  string      // that it has answered all of
	types  []typeState // at most shownTypes; begins as few
	few    [4]typeState
	now    func() time.Time
	st     admin.ProxyStatus // but for World and Types
}

type typeState struct {
	typeURL   string
	sent      string
	acked     string
	resources int
	pushes    uint64
	lastAck   time.Time
	nack      *admin.Nack
	rejects   uint64
	held      int  // resources that it said it has when it subscribed
	waits     bool // subscribed, and nothing was sent
}

// New makes an empty tracker.
func New() *Tracker {
	return &Tracker{now: time.Now, streams: map[uint64]*proxy{}, pushes: counts{}, rejects: counts{}}
}

// Connected begins a proxy's record; an earlier lost record of the same node ends.
func (t *Tracker) Connected(stream uint64, n *xds.Node, id spiffe.ID) xdsserver.Witness {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost = slices.DeleteFunc(t.lost, func(p *proxy) bool { return p.st.ID == n.ID })
	p := &proxy{now: t.now, st: admin.ProxyStatus{
		ID: n.ID, Namespace: n.Namespace, Pod: n.Name, Type: string(n.Type), Version: n.Version,
		Identity: id.String(), Connected: t.now(),
	}}
	p.types = p.few[:0]
	t.streams[stream] = p
	return p
}

// Disconnected keeps the record as lost for a while.
func (t *Tracker) Disconnected(stream uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.streams[stream]
	if !ok {
		return
	}
	delete(t.streams, stream)
	p.mu.Lock()
	now := t.now()
	p.st.Lost = &now
	p.count(t.pushes, t.rejects)
	p.mu.Unlock()
	for _, q := range t.streams {
		if q.st.ID == p.st.ID { // which never changes
			return // it has connected again already
		}
	}
	t.lost = append(t.lost, p)
	if len(t.lost) > maxLost {
		t.lost = t.lost[1:]
	}
}

// count adds what a proxy was sent and refused; mu is held.
func (p *proxy) count(pushes, rejects counts) {
	for _, s := range p.types {
		name := xds.ShortName(s.typeURL)
		if name == s.typeURL {
			name = otherTypes
		}
		if s.pushes > 0 {
			pushes[name] += s.pushes
		}
		if s.rejects > 0 {
			rejects[name] += s.rejects
		}
	}
}

func (p *proxy) update(typeURL string, f func(*typeState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.of(typeURL); s != nil {
		f(s)
	}
}

// of is the state of a type, nil if there are too many; mu is held.
func (p *proxy) of(typeURL string) *typeState {
	for i := range p.types {
		if p.types[i].typeURL == typeURL {
			return &p.types[i]
		}
	}
	if len(p.types) >= shownTypes {
		return nil
	}
	p.types = append(p.types, typeState{typeURL: typeURL})
	return &p.types[len(p.types)-1]
}

// Subscribed notes that a type was asked for, by a proxy that holds so many resources of it from before.
func (p *proxy) Subscribed(typeURL string, held int) {
	p.update(typeURL, func(s *typeState) {
		s.held = held
		if s.sent == "" && !s.waits {
			s.waits = true
			p.unsent++
		}
	})
}

// Sent notes a response.
func (p *proxy) Sent(typeURL, version string, resources, _ int) {
	p.update(typeURL, func(s *typeState) {
		s.sent, s.resources = version, resources
		s.pushes++
		p.told(s)
	})
}

// Acked notes an acceptance.
func (p *proxy) Acked(typeURL, version string) {
	p.update(typeURL, func(s *typeState) {
		s.acked, s.lastAck = version, p.now()
		if s.nack != nil && version != s.nack.Version {
			s.nack.Cleared = true
		}
	})
}

// Nacked notes a refusal; the proxy goes on with what it had.
func (p *proxy) Nacked(typeURL, version, reason string) {
	if len(reason) > maxReason {
		reason = reason[:maxReason] + "…"
	}
	p.update(typeURL, func(s *typeState) {
		s.nack = &admin.Nack{Time: p.now(), Version: version, Reason: reason}
		s.rejects++
	})
}

// Settled notes that the proxy has answered everything up to a World.
func (p *proxy) Settled(world string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.world = world
	for i := range p.types {
		if p.unsent == 0 {
			return
		}
		// A proxy that came back with what it had needs nothing sent: it is in sync all the same.
		if s := &p.types[i]; s.waits {
			s.sent, s.acked, s.resources, s.lastAck = world, world, s.held, p.now()
			p.told(s)
		}
	}
}

// told notes that a type waits no more; mu is held.
func (p *proxy) told(s *typeState) {
	if s.waits {
		s.waits = false
		p.unsent--
	}
}

// Counts returns pushes and refusals by type's short name, and connected proxies by version.
func (t *Tracker) Counts() (pushes, rejects map[string]uint64, connected map[string]int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	pushes, rejects, connected = maps.Clone(t.pushes), maps.Clone(t.rejects), map[string]int{}
	for _, p := range t.streams {
		p.mu.Lock()
		p.count(pushes, rejects)
		connected[p.st.Version]++
		p.mu.Unlock()
	}
	return pushes, rejects, connected
}

// Proxies lists connected and lately lost proxies, by namespace and pod. What pushes tell us does not wait for it.
func (t *Tracker) Proxies() []admin.ProxyStatus {
	all := t.all()
	out := make([]admin.ProxyStatus, 0, len(all))
	for _, p := range all {
		out = append(out, p.view())
	}
	slices.SortFunc(out, func(a, b admin.ProxyStatus) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Pod, b.Pod)
	})
	return out
}

// all lists the records, and forgets those of proxies that are lost for long.
func (t *Tracker) all() []*proxy {
	t.mu.Lock()
	defer t.mu.Unlock()
	cut := t.now().Add(-keepLost)
	t.lost = slices.DeleteFunc(t.lost, func(p *proxy) bool { return p.st.Lost.Before(cut) })
	return slices.AppendSeq(slices.Clone(t.lost), maps.Values(t.streams))
}

func (p *proxy) view() admin.ProxyStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.st
	st.World = p.world
	st.Types = map[string]admin.TypeStatus{}
	for _, s := range p.types {
		v := admin.TypeStatus{Version: s.acked, Resources: s.resources, LastAck: s.lastAck, State: s.state()}
		if s.nack != nil {
			n := *s.nack
			v.LastNack = &n
		}
		st.Types[xds.ShortName(s.typeURL)] = v
	}
	return st
}

func (s *typeState) state() string {
	switch {
	case s.sent == "":
		return admin.SyncNotSent
	case s.nack != nil && !s.nack.Cleared && s.nack.Version == s.sent:
		return admin.SyncRefused
	case s.acked != s.sent:
		return admin.SyncStale
	}
	return admin.SyncSynced
}
