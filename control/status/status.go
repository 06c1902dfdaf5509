// Package status remembers what every proxy was sent, what it accepted and
// what it refused, and why. It is fed by xdsserver and read by the API, the
// debug pages and the metrics. It starts nothing and blocks nobody.
package status

import (
	"slices"
	"strings"
	"sync"
	"time"

	"weft.mesh/weft/api/admin"
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

	mu      sync.Mutex // protects the following
	streams map[uint64]*proxy
	lost    []*proxy // oldest first
	rejects map[string]uint64
	pushes  map[string]uint64
}

type proxy struct {
	st    admin.ProxyStatus
	types map[string]*typeState // by type URL
}

type typeState struct {
	subscribed bool
	held       int // resources that it said it has when it subscribed
	sent       string
	acked      string
	resources  int
	lastAck    time.Time
	nack       *admin.Nack
}

// New makes an empty tracker.
func New() *Tracker {
	return &Tracker{now: time.Now, streams: map[uint64]*proxy{}, rejects: map[string]uint64{}, pushes: map[string]uint64{}}
}

// Connected begins a proxy's record; an earlier lost record of the same node ends.
func (t *Tracker) Connected(stream uint64, n *xds.Node, id spiffe.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost = slices.DeleteFunc(t.lost, func(p *proxy) bool { return p.st.ID == n.ID })
	t.streams[stream] = &proxy{
		st: admin.ProxyStatus{
			ID: n.ID, Namespace: n.Namespace, Pod: n.Name, Type: string(n.Type), Version: n.Version,
			Identity: id.String(), Connected: t.now(),
		},
		types: map[string]*typeState{},
	}
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
	for _, q := range t.streams {
		if q.st.ID == p.st.ID {
			return // it has connected again already
		}
	}
	now := t.now()
	p.st.Lost = &now
	t.lost = append(t.lost, p)
	if len(t.lost) > maxLost {
		t.lost = t.lost[1:]
	}
}

func (t *Tracker) update(stream uint64, typeURL string, f func(*typeState)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.streams[stream]
	if !ok {
		return
	}
	ts, ok := p.types[typeURL]
	if !ok {
		if len(p.types) >= shownTypes {
			return
		}
		ts = &typeState{}
		p.types[typeURL] = ts
	}
	f(ts)
}

// Subscribed notes that a type was asked for, by a proxy that holds so many resources of it from before.
func (t *Tracker) Subscribed(stream uint64, typeURL string, held int) {
	t.update(stream, typeURL, func(s *typeState) { s.subscribed, s.held = true, held })
}

// Sent notes a response.
func (t *Tracker) Sent(stream uint64, typeURL, version string, resources, _ int) {
	t.update(stream, typeURL, func(s *typeState) {
		s.sent, s.resources = version, resources
		t.pushes[xds.ShortName(typeURL)]++
	})
}

// Acked notes an acceptance.
func (t *Tracker) Acked(stream uint64, typeURL, version string) {
	t.update(stream, typeURL, func(s *typeState) {
		s.acked, s.lastAck = version, t.now()
		if s.nack != nil && version != s.nack.Version {
			s.nack.Cleared = true
		}
	})
}

// Nacked notes a refusal; the proxy goes on with what it had.
func (t *Tracker) Nacked(stream uint64, typeURL, version, reason string) {
	if len(reason) > maxReason {
		reason = reason[:maxReason] + "…"
	}
	t.update(stream, typeURL, func(s *typeState) {
		s.nack = &admin.Nack{Time: t.now(), Version: version, Reason: reason}
		t.rejects[xds.ShortName(typeURL)]++
	})
}

// Settled notes that the proxy has answered everything up to a World.
func (t *Tracker) Settled(stream uint64, world string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.streams[stream]
	if !ok {
		return
	}
	p.st.World = world
	for _, s := range p.types {
		// A proxy that came back with what it had needs nothing sent: it is in sync all the same.
		if s.subscribed && s.sent == "" {
			s.sent, s.acked, s.resources, s.lastAck = world, world, s.held, t.now()
		}
	}
}

// Counts returns pushes and refusals by type's short name, and connected proxies by version.
func (t *Tracker) Counts() (pushes, rejects map[string]uint64, connected map[string]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pushes, rejects, connected = map[string]uint64{}, map[string]uint64{}, map[string]int{}
	for k, v := range t.pushes {
		pushes[k] = v
	}
	for k, v := range t.rejects {
		rejects[k] = v
	}
	for _, p := range t.streams {
		connected[p.st.Version]++
	}
	return pushes, rejects, connected
}

// Proxies lists connected and lately lost proxies, by namespace and pod.
func (t *Tracker) Proxies() []admin.ProxyStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	cut := t.now().Add(-keepLost)
	t.lost = slices.DeleteFunc(t.lost, func(p *proxy) bool { return p.st.Lost.Before(cut) })
	out := make([]admin.ProxyStatus, 0, len(t.streams)+len(t.lost))
	for _, p := range t.streams {
		out = append(out, p.view())
	}
	for _, p := range t.lost {
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

func (p *proxy) view() admin.ProxyStatus {
	st := p.st
	st.Types = map[string]admin.TypeStatus{}
	for url, s := range p.types {
		v := admin.TypeStatus{Version: s.acked, Resources: s.resources, LastAck: s.lastAck, State: s.state()}
		if s.nack != nil {
			n := *s.nack
			v.LastNack = &n
		}
		st.Types[xds.ShortName(url)] = v
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
