package xdsserver

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/xds"
)

// fakeSnapshot is a set of resources by type, the same for every node.
type fakeSnapshot struct {
	version string
	byType  map[string][]*xds.Resource
}

func (f *fakeSnapshot) Version() string { return f.version }

func (f *fakeSnapshot) Resources(_ *xds.Node, typeURL string, names []string) ([]*xds.Resource, error) {
	var out []*xds.Resource
	for _, r := range f.byType[typeURL] {
		if names == nil || slices.Contains(names, r.Name) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (f *fakeSnapshot) Unchanged(prev xds.Snapshot, _ *xds.Node, typeURL string) bool {
	p, ok := prev.(*fakeSnapshot)
	return ok && slices.Equal(p.byType[typeURL], f.byType[typeURL])
}

// snap makes a snapshot from "CDS a=1 b=2" lines.
func snap(version string, lines ...string) *fakeSnapshot {
	short := map[string]string{"CDS": xds.ClusterType, "EDS": xds.EndpointType, "LDS": xds.ListenerType, "RDS": xds.RouteType}
	f := &fakeSnapshot{version: version, byType: map[string][]*xds.Resource{}}
	for _, l := range lines {
		p := strings.Fields(l)
		for _, kv := range p[1:] {
			name, v, _ := strings.Cut(kv, "=")
			f.byType[short[p[0]]] = append(f.byType[short[p[0]]], xds.NewResource(short[p[0]], name, []byte(v)))
		}
	}
	return f
}

// client drives a session the way a proxy does, and writes down what it got.
type client struct {
	t    *testing.T
	s    *session
	now  time.Time
	log  []string
	nack bool
}

func newClient(t *testing.T, delta bool, types ...string) *client {
	c := &client{t: t, s: newSession(delta, Limits{}.withDefaults(), newHub()), now: time.Unix(1000, 0)}
	c.s.node = &xds.Node{ID: "n"}
	for _, typ := range types {
		w, _ := c.s.watch(typ)
		w.wildcard = true
	}
	return c
}

func (c *client) record(ms []*message) {
	for _, m := range ms {
		var parts []string
		for _, r := range m.resources {
			parts = append(parts, fmt.Sprintf("%s=%s", r.Name, r.Body))
		}
		for _, r := range m.removed {
			parts = append(parts, "-"+r)
		}
		c.log = append(c.log, strings.TrimSpace(xds.ShortName(m.typeURL)+" "+strings.Join(parts, " ")))
	}
}

// run advances and acknowledges until nothing more comes.
func (c *client) run() {
	for {
		ms, err := c.s.advance(c.now)
		if err != nil {
			c.t.Fatal(err)
		}
		if len(ms) == 0 {
			if d := c.s.deadline(); !d.IsZero() && c.s.wait.nonce == "" {
				c.now = d // let a grace pass
				continue
			}
			return
		}
		c.record(ms)
		for _, m := range ms {
			c.s.acknowledge(c.s.watches.of(m.typeURL), m.nonce, c.now, c.nack)
		}
	}
}

func (c *client) want(lines ...string) {
	c.t.Helper()
	if d := cmp.Diff(lines, c.log); d != "" {
		c.t.Errorf("messages (-want +got):\n%s", d)
	}
	c.log = nil
}

func TestAFirstRoundSendsTypesInPushOrder(t *testing.T) {
	c := newClient(t, true, xds.RouteType, xds.ListenerType, xds.EndpointType, xds.ClusterType)
	c.s.publish(snap("1", "CDS a=1", "EDS a=1", "LDS l=1", "RDS r=1"))
	c.run()
	c.want("CDS a=1", "EDS a=1", "LDS l=1", "RDS r=1")
}

func TestAPushSendsOnlyWhatChanged(t *testing.T) {
	c := newClient(t, true, xds.ClusterType, xds.EndpointType)
	c.s.publish(snap("1", "CDS a=1 b=1", "EDS a=1 b=1"))
	c.run()
	c.log = nil
	c.s.publish(snap("2", "CDS a=1 b=1", "EDS a=1 b=2"))
	c.run()
	c.want("EDS b=2")
	c.s.publish(snap("3", "CDS a=1 b=1", "EDS a=1 b=2"))
	c.run()
	c.want()
}

func TestRemovedClustersAreToldAfterRoutes(t *testing.T) {
	c := newClient(t, true, xds.ClusterType, xds.ListenerType, xds.RouteType)
	c.s.publish(snap("1", "CDS old=1", "LDS l=1", "RDS r=old"))
	c.run()
	c.log = nil
	c.s.publish(snap("2", "CDS new=1", "LDS l=1", "RDS r=new"))
	c.run()
	c.want("CDS new=1", "RDS r=new", "CDS -old")
}

func TestANewClusterWaitsForItsEndpointsToBeAskedFor(t *testing.T) {
	c := newClient(t, true, xds.ClusterType, xds.RouteType)
	c.s.publish(snap("1", "CDS a=1", "EDS a=1", "RDS r=1"))
	ms, _ := c.s.advance(c.now)
	c.record(ms)
	c.s.acknowledge(c.s.watches.of(xds.ClusterType), ms[0].nonce, c.now, false)
	if ms, _ := c.s.advance(c.now); len(ms) != 0 {
		t.Errorf("routes were sent before the endpoints of a new cluster: %v", ms)
	}
	w, _ := c.s.watch(xds.EndpointType)
	c.s.subscribe(w, []string{"a"}, nil, true)
	c.s.subscribed(xds.EndpointType)
	m, err := c.s.answer(w)
	if err != nil || m == nil {
		t.Fatalf("answer = %v, %v", m, err)
	}
	c.record([]*message{m})
	c.run()
	c.want("CDS a=1", "EDS a=1", "RDS r=1")
}

func TestARoundWaitsForTheAcknowledgement(t *testing.T) {
	c := newClient(t, true, xds.ClusterType, xds.RouteType)
	c.s.publish(snap("1", "CDS a=1", "RDS r=1"))
	c.run()
	c.log = nil
	c.s.publish(snap("2", "CDS a=2", "RDS r=2"))
	ms, _ := c.s.advance(c.now)
	if len(ms) != 1 {
		t.Fatalf("%d messages before any acknowledgement, want 1", len(ms))
	}
	// Changes meanwhile become one later round with the newest only.
	c.s.publish(snap("3", "CDS a=3", "RDS r=3"))
	c.s.publish(snap("4", "CDS a=4", "RDS r=4"))
	if more, _ := c.s.advance(c.now); len(more) != 0 {
		t.Fatalf("sent %d messages while one was not acknowledged", len(more))
	}
	c.record(ms)
	c.s.acknowledge(c.s.watches.of(xds.ClusterType), ms[0].nonce, c.now, false)
	c.run()
	c.want("CDS a=2", "RDS r=2", "CDS a=4", "RDS r=4")
}

func TestASilentClientHoldsARoundUpForTheAckTimeoutOnly(t *testing.T) {
	c := newClient(t, true, xds.ClusterType, xds.RouteType)
	c.s.publish(snap("1", "CDS a=1", "RDS r=1"))
	ms, _ := c.s.advance(c.now)
	if len(ms) != 1 {
		t.Fatal("no first message")
	}
	if ms, _ := c.s.advance(c.now.Add(9 * time.Second)); len(ms) != 0 {
		t.Error("went on before the timeout")
	}
	if ms, _ := c.s.advance(c.now.Add(10 * time.Second)); len(ms) != 1 {
		t.Error("did not go on after the timeout")
	}
}

// A client has a snapshot when it has answered everything, not when the server has stopped waiting.
func TestSettledMeansAnswered(t *testing.T) {
	c := newClient(t, true, xds.ClusterType, xds.RouteType)
	c.s.publish(snap("1", "CDS a=1", "RDS r=1"))
	c.run()
	if v, ok := c.s.settled(); !ok || v != "1" {
		t.Fatalf("settled %q %v", v, ok)
	}
	c.s.publish(snap("2", "CDS a=2", "RDS r=2"))
	ms, _ := c.s.advance(c.now)
	// A change of the subscription is answered from the snapshot of the round, past its order.
	routes := c.s.watches.of(xds.RouteType)
	early, err := c.s.answer(routes)
	if err != nil || early == nil {
		t.Fatalf("answer: %v %v", early, err)
	}
	c.s.acknowledge(c.s.watches.of(xds.ClusterType), ms[0].nonce, c.now, false)
	if more, _ := c.s.advance(c.now); len(more) != 0 {
		t.Fatalf("routes are sent twice: %d messages", len(more))
	}
	if v, ok := c.s.settled(); ok {
		t.Errorf("settled on %s while routes are not acknowledged", v)
	}
	c.s.acknowledge(routes, early.nonce, c.now, false)
	if _, ok := c.s.settled(); !ok {
		t.Error("not settled when everything is acknowledged")
	}
	// Nor when the time for an acknowledgement is over.
	c.s.publish(snap("3", "CDS a=3", "RDS r=2"))
	if ms, _ := c.s.advance(c.now); len(ms) != 1 {
		t.Fatalf("%d messages", len(ms))
	}
	if ms, _ := c.s.advance(c.now.Add(time.Minute)); len(ms) != 0 {
		t.Fatalf("%d messages more", len(ms))
	}
	if v, ok := c.s.settled(); ok {
		t.Errorf("settled on %s by silence", v)
	}
}

func TestARefusedVersionIsNotSentAgain(t *testing.T) {
	c := newClient(t, true, xds.ClusterType)
	c.s.publish(snap("1", "CDS a=1"))
	c.run()
	c.log, c.nack = nil, true
	c.s.publish(snap("2", "CDS a=bad"))
	c.run()
	c.want("CDS a=bad")
	c.nack = false
	c.s.publish(snap("3", "CDS a=bad"))
	c.run()
	c.want()
	c.s.publish(snap("4", "CDS a=good"))
	c.run()
	c.want("CDS a=good")
}

func TestASubscribedNameThatDoesNotExistIsToldOnce(t *testing.T) {
	c := newClient(t, true)
	c.s.publish(snap("1", "EDS a=1"))
	w, _ := c.s.watch(xds.EndpointType)
	c.s.subscribe(w, []string{"a", "ghost"}, nil, true)
	c.run()
	c.want("EDS a=1 -ghost")
	c.s.publish(snap("2", "EDS a=1 ghost=1"))
	c.run()
	c.want("EDS ghost=1")
	c.s.publish(snap("3", "EDS a=1"))
	c.run()
	c.want("EDS -ghost")
}

func TestAReconnectWithInitialVersionsSendsOnlyWhatIsMissing(t *testing.T) {
	c := newClient(t, true, xds.ClusterType)
	s := snap("1", "CDS a=1 b=1")
	w := c.s.watches.of(xds.ClusterType)
	w.told = map[string]string{"a": s.byType[xds.ClusterType][0].Version, "gone": "x"}
	c.s.publish(s)
	c.run()
	c.want("CDS b=1 -gone")
}

func TestStateOfTheWorldSendsTheWholeSetWhenAnyOfItChanged(t *testing.T) {
	c := newClient(t, false, xds.ClusterType, xds.ListenerType)
	c.s.publish(snap("1", "CDS a=1 b=1", "LDS l=1"))
	c.run()
	c.want("CDS a=1 b=1", "LDS l=1")
	c.s.publish(snap("2", "CDS a=1 b=2", "LDS l=1"))
	c.run()
	c.want("CDS a=1 b=2")
	c.s.publish(snap("3", "CDS b=2", "LDS l=1"))
	c.run()
	c.want("CDS b=2")
}

func TestOutstandingNoncesAreBounded(t *testing.T) {
	c := newClient(t, true)
	w, _ := c.s.watch(xds.EndpointType)
	c.s.publish(snap("1", "EDS a=1"))
	c.run()
	for range 10_000 {
		c.s.subscribe(w, []string{"a"}, nil, false)
		if _, err := c.s.answer(w); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.outstanding); n > c.s.limits.MaxOutstanding {
		t.Errorf("%d outstanding nonces, at most %d", n, c.s.limits.MaxOutstanding)
	}
}

// What a client says it has is kept as the list that others have.
func TestAClientThatComesBackHasTheSnapshotsList(t *testing.T) {
	s := snap("1", "CDS a=1 b=1 c=1")
	list := s.byType[xds.ClusterType]
	for _, tc := range []struct {
		name string
		told map[string]string
		same bool // it has the list itself
		want []string
	}{
		{"everything", map[string]string{"a": list[0].Version, "b": list[1].Version, "c": list[2].Version}, true, []string{"CDS"}},
		{"everything and more", map[string]string{"a": list[0].Version, "b": list[1].Version, "c": list[2].Version, "gone": "x"}, true, []string{"CDS -gone"}},
		{"one of another version, one not at all", map[string]string{"a": list[0].Version, "b": "old", "gone": "x"}, false, []string{"CDS b=1 c=1 -gone"}},
		{"nothing of it", map[string]string{"gone": "x"}, false, []string{"CDS a=1 b=1 c=1 -gone"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClient(t, true, xds.ClusterType)
			w := c.s.watches.of(xds.ClusterType)
			c.s.publish(sameList{s})
			if err := c.s.recognise(w, maps.All(tc.told)); err != nil {
				t.Fatal(err)
			}
			if got := keyOf(w.held) == keyOf(list); got != tc.same || len(w.told) != len(tc.told)-len(w.held) {
				t.Errorf("it has the list itself: %v, want %v; %d resources and %d besides", got, tc.same, len(w.held), len(w.told))
			}
			c.run()
			c.want(tc.want...)
		})
	}
}
