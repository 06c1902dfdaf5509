package xdsserver

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/patch"
)

// tableOf is a route table of a hundred hosts, the last of which is as told.
func tableOf(last string) *xds.Resource {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "80")
	for i := range 99 {
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), fmt.Sprintf("host %d %s", i, strings.Repeat("x", 40)))
	}
	return xds.NewResource(xds.RouteType, "80", protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), last))
}

func tables(version, last string) *fakeSnapshot {
	return &fakeSnapshot{version, map[string][]*xds.Resource{xds.RouteType: {tableOf(last)}}}
}

// wantPatch checks that a message is of one table, and whether it goes as a patch of another version (from not empty).
func wantPatch(t *testing.T, m *message, from, to string) {
	t.Helper()
	if m == nil || len(m.resources) != 1 {
		t.Fatalf("message %+v, want one resource", m)
	}
	for _, encoded := range [][]byte{encodeDelta(nil, m), encodedAlone(t, m)} {
		var r discovery.DeltaDiscoveryResponse
		if err := proto.Unmarshal(encoded, &r); err != nil {
			t.Fatal(err)
		}
		x, want := r.GetResources()[0], tableOf(to)
		if x.GetName() != "80" || x.GetVersion() != want.Version {
			t.Errorf("resource %s version %s, want 80 and %s", x.GetName(), x.GetVersion(), want.Version)
		}
		body, typeURL := x.GetResource().GetValue(), xds.RouteType
		if from != "" {
			typeURL = patch.Type
			if len(encoded) > 250 {
				t.Errorf("%d bytes for a change of a few", len(encoded))
			}
			var err error
			if body, err = patch.Apply(tableOf(from), body, x.GetVersion()); err != nil {
				t.Error(err)
			}
		}
		if x.GetResource().GetTypeUrl() != typeURL || !bytes.Equal(body, want.Body) {
			t.Errorf("a %s, want a %s of table %q", x.GetResource().GetTypeUrl(), typeURL, to)
		}
	}
}

// recorder is a stream's sending end.
type recorder struct {
	discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	got *discovery.DeltaDiscoveryResponse
}

func (r *recorder) Send(m *discovery.DeltaDiscoveryResponse) error { r.got = m; return nil }

// encodedAlone is how a message goes to one client.
func encodedAlone(t *testing.T, m *message) []byte {
	alone, g := *m, &recorder{}
	alone.wire = nil
	if _, err := (&deltaProtocol{g: g}).send(&alone); err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(g.got)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// patchClient is subscribed to the table. It answers when it is told to.
func patchClient(t *testing.T, takes bool) *client {
	c := newClient(t, true)
	c.s.node.Patches = takes
	w, _ := c.s.watch(xds.RouteType)
	c.s.subscribe(w, []string{"80"}, nil, true)
	return c
}

// round publishes a snapshot and returns the message of the round; nil if there is none.
func (c *client) round(s xds.Snapshot) *message {
	c.t.Helper()
	c.s.publish(s)
	ms, err := c.s.advance(c.now)
	if err != nil {
		c.t.Fatal(err)
	}
	if len(ms) == 0 {
		return nil
	}
	return ms[0]
}

func (c *client) answer(m *message, refused bool) {
	c.s.acknowledge(c.s.watches.of(xds.RouteType), m.nonce, c.now, refused)
}

func TestWhatChangedOfATableGoesAsAPatch(t *testing.T) {
	c := patchClient(t, true)
	m := c.round(tables("1", "a"))
	wantPatch(t, m, "", "a")
	c.answer(m, false)
	m = c.round(tables("2", "b"))
	wantPatch(t, m, "a", "b")
	c.answer(m, false)
	wantPatch(t, c.round(tables("3", "c")), "b", "c")
}

func TestAClientThatTakesNoPatchesGetsTablesWhole(t *testing.T) {
	c := patchClient(t, false)
	c.answer(c.round(tables("1", "a")), false)
	wantPatch(t, c.round(tables("2", "b")), "", "b")
}

func TestARefusalIsFollowedByTheWholeTable(t *testing.T) {
	c := patchClient(t, true)
	c.answer(c.round(tables("1", "a")), false)
	c.answer(c.round(tables("2", "b")), true)
	m := c.round(tables("3", "c"))
	wantPatch(t, m, "", "c")
	c.answer(m, false)
	wantPatch(t, c.round(tables("4", "d")), "c", "d")
}

func TestAnAnswerThatIsMissingIsFollowedByTheWholeTable(t *testing.T) {
	c := patchClient(t, true)
	c.answer(c.round(tables("1", "a")), false)
	c.round(tables("2", "b"))
	c.now = c.now.Add(c.s.limits.AckTimeout)
	wantPatch(t, c.round(tables("3", "c")), "", "c")
}

func TestATableThatIsAskedForAgainGoesWhole(t *testing.T) {
	c := patchClient(t, true)
	c.answer(c.round(tables("1", "a")), false)
	c.answer(c.round(tables("2", "b")), false)
	w := c.s.watches.of(xds.RouteType)
	c.s.subscribe(w, []string{"80"}, nil, false)
	m, err := c.s.answer(w)
	if err != nil {
		t.Fatal(err)
	}
	wantPatch(t, m, "", "b")
}

func TestWhatAClientSaysItHasIsNotPatched(t *testing.T) {
	c := patchClient(t, true)
	c.s.watches.of(xds.RouteType).told = map[string]string{"80": tableOf("a").Version}
	wantPatch(t, c.round(tables("1", "b")), "", "b")
}

// Clients that take patches and those that do not have messages of their own, also where everything else is the same.
func TestMessagesAreSharedByThoseWhoTakeThemAlike(t *testing.T) {
	clients := []*client{patchClient(t, true), patchClient(t, true), patchClient(t, false)}
	for _, c := range clients {
		w := c.s.watches.of(xds.RouteType)
		c.s.hub = clients[0].s.hub
		w.names = c.s.hub.names.of(w.names.list)
	}
	push := func(snap *fakeSnapshot) (out []*message) {
		clients[0].s.hub.shares.clear()
		for _, c := range clients {
			m := c.round(sameList{snap})
			c.answer(m, false)
			out = append(out, m)
		}
		return out
	}
	push(tables("1", "a"))
	got := push(tables("2", "b"))
	wantPatch(t, got[0], "a", "b")
	wantPatch(t, got[2], "", "b")
	if got[0] != got[1] || got[0] == got[2] {
		t.Errorf("messages %p, %p and %p: want the first two to be one", got[0], got[1], got[2])
	}
}

// Names are one resource of all that there is; what changed of them goes as a patch as well.
func TestWhatChangedOfNamesGoesAsAPatch(t *testing.T) {
	names := func(version, last string) xds.Snapshot {
		r := tableOf(last)
		return &fakeSnapshot{version, map[string][]*xds.Resource{xds.NameTableType: {xds.NewResource(xds.NameTableType, xds.NameTableName, r.Body)}}}
	}
	for _, takes := range []bool{false, true} {
		c := newClient(t, true)
		c.s.node.Patches = takes
		w, _ := c.s.watch(xds.NameTableType)
		w.wildcard = true
		m := c.round(names("1", "a"))
		if m == nil || len(m.resources) != 1 || len(m.patches) != 0 {
			t.Fatalf("first message %+v, want the whole table", m)
		}
		c.s.acknowledge(w, m.nonce, c.now, false)
		if m = c.round(names("2", "b")); m == nil || len(m.resources) != 1 || (m.patches[xds.NameTableName] != nil) != takes {
			t.Errorf("takes patches: %t; message %+v", takes, m)
		}
	}
}
