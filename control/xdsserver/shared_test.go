package xdsserver

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"weft.mesh/weft/xds"
)

var fixedTime = time.Unix(1000, 0)

// sameList gives all nodes the same lists, as translation does.
type sameList struct{ *fakeSnapshot }

func (s sameList) Resources(_ *xds.Node, typeURL string, _ []string) ([]*xds.Resource, error) {
	return s.byType[typeURL], nil
}

func (s sameList) Common(_ *xds.Node, typeURL string) []*xds.Resource {
	if typeURL != xds.ClusterType {
		return nil
	}
	return s.byType["common"]
}

func (s sameList) Unchanged(prev xds.Snapshot, _ *xds.Node, typeURL string) bool {
	return same(s.byType[typeURL], prev.(sameList).byType[typeURL])
}

// Two clients that have the same and get the same are sent one message.
func TestAMessageForManyIsEncodedOnce(t *testing.T) {
	h := newHub()
	var sessions []*session
	for range 2 {
		s := newSession(true, Limits{}.withDefaults(), h)
		s.node = &xds.Node{ID: "n"}
		w, first := s.watch(xds.EndpointType)
		s.subscribe(w, []string{"a", "b"}, nil, first)
		sessions = append(sessions, s)
	}
	if sessions[0].watches.of(xds.EndpointType).names != sessions[1].watches.of(xds.EndpointType).names {
		t.Error("the same names are two sets")
	}
	push := func(snap xds.Snapshot) (out []*message) {
		h.shares.clear()
		for _, s := range sessions {
			s.publish(snap)
			ms, err := s.advance(fixedTime)
			if err != nil || len(ms) != 1 {
				t.Fatalf("%d messages, %v", len(ms), err)
			}
			s.acknowledge(s.watches.of(xds.EndpointType), ms[0].nonce, fixedTime, false)
			out = append(out, ms[0])
		}
		return out
	}
	for i, snap := range []*fakeSnapshot{snap("1", "EDS a=1 b=1"), snap("2", "EDS a=1 b=2")} {
		ms := push(sameList{snap})
		if ms[0] != ms[1] || ms[0].wire == nil {
			t.Fatalf("push %d: two messages", i)
		}
		if n := len(ms[0].resources); n != 2-i {
			t.Errorf("push %d: %d resources", i, n)
		}
		if &ms[0].wire.response(ms[0], true).ProtoReflect().GetUnknown()[0] != &ms[1].wire.response(ms[1], true).ProtoReflect().GetUnknown()[0] {
			t.Errorf("push %d: compressed twice", i)
		}
	}
}

// Clusters that a client has in common with others come first, its own after them, and nothing waits for endpoints in between.
func TestWhatIsCommonComesFirst(t *testing.T) {
	var line []string
	for i := range minCommon {
		line = append(line, fmt.Sprintf("c%02d=1", i))
	}
	f := snap("1", "CDS "+strings.Join(line, " ")+" own=1", "LDS l=1")
	f.byType["common"] = f.byType[xds.ClusterType][:minCommon:minCommon]
	c := newClient(t, true, xds.ClusterType, xds.ListenerType)
	c.s.publish(sameList{f})
	var sent [][]string
	for {
		ms, err := c.s.advance(c.now)
		if err != nil {
			t.Fatal(err)
		}
		if len(ms) == 0 {
			break
		}
		for _, m := range ms {
			names := []string{xds.ShortName(m.typeURL)}
			for _, r := range m.resources {
				names = append(names, r.Name)
			}
			sent = append(sent, names)
			if c.s.acknowledge(c.s.watches.of(m.typeURL), m.nonce, c.now, false); c.s.wait != (waiting{}) {
				t.Errorf("after %v the round waits", names)
			}
		}
	}
	want := [][]string{append([]string{"CDS"}, names(f.byType["common"])...), {"CDS", "own"}, {"LDS", "l"}}
	if d := cmp.Diff(want, sent); d != "" {
		t.Errorf("messages (-want +got):\n%s", d)
	}
	if v, ok := c.s.settled(); !ok || v != "1" {
		t.Errorf("settled: %q, %v", v, ok)
	}
}

func names(rs []*xds.Resource) []string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Name)
	}
	return out
}

// The hand-written encoding is what protobuf makes of the same response, compressed or not.
func TestASharedMessageIsTheResponse(t *testing.T) {
	m := &message{typeURL: xds.EndpointType, version: "7", nonce: "n1", removed: []string{"x", "y"}, wire: &wire{},
		resources: []*xds.Resource{xds.NewResource(xds.EndpointType, "a", bytes.Repeat([]byte("long "), 100)), xds.NewResource(xds.EndpointType, "b", nil)}}
	for _, zip := range []bool{false, true} {
		raw, err := proto.Marshal(m.wire.response(m, zip))
		if err != nil {
			t.Fatal(err)
		}
		if zip {
			z, err := gzip.NewReader(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			if raw, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		var got, want discovery.DeltaDiscoveryResponse
		if err := proto.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		plain := *m
		plain.wire = nil
		out := &catch{}
		if _, err := (&deltaProtocol{g: out}).send(&plain); err != nil {
			t.Fatal(err)
		}
		proto.Merge(&want, out.got)
		if d := cmp.Diff(&want, &got, protocmp.Transform()); d != "" {
			t.Errorf("compressed %v (-want +got):\n%s", zip, d)
		}
	}
	if n := m.wire.size(m); n != 500 {
		t.Errorf("size %d", n)
	}
}

// catch keeps what is sent.
type catch struct {
	discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	got *discovery.DeltaDiscoveryResponse
}

func (c *catch) Send(r *discovery.DeltaDiscoveryResponse) error { c.got = r; return nil }

// What goes to many is compressed, what goes to one is only stored; a client of gRPC reads both.
func TestAClientReadsWhatIsCompressedAndWhatIsStored(t *testing.T) {
	eachCarrier(t, aClientReadsWhatIsCompressedAndWhatIsStored)
}

func aClientReadsWhatIsCompressedAndWhatIsStored(t *testing.T, carrier string) {
	srv, client := dialServer(t, carrier, Limits{})
	srv.Publish(sameList{snap("1", "CDS own=1", "EDS a=1 b=2")})
	st, err := client.DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, q := range []*discovery.DeltaDiscoveryRequest{
		{Node: &core.Node{Id: "sidecar~10.0.0.1~a.default~default.svc.cluster.local"}, TypeUrl: xds.ClusterType},
		{TypeUrl: xds.EndpointType, ResourceNamesSubscribe: []string{"a", "b"}},
	} {
		if err := st.Send(q); err != nil {
			t.Fatal(err)
		}
		r, err := st.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range r.GetResources() {
			got[xds.ShortName(r.GetTypeUrl())+" "+x.GetName()] = string(x.GetResource().GetValue())
		}
	}
	if d := cmp.Diff(map[string]string{"CDS own": "1", "EDS a": "1", "EDS b": "2"}, got); d != "" {
		t.Errorf("resources (-want +got):\n%s", d)
	}
	if !ours() {
		t.Error("gRPC's registry has another compressor: nothing was compressed")
	}
}

func TestNamesAreEdited(t *testing.T) {
	n := &nameSet{[]string{"b", "d"}}
	for _, tt := range []struct{ add, drop, want []string }{
		{[]string{"c", "a", "b", "a"}, nil, []string{"a", "b", "c", "d"}},
		{nil, []string{"d", "x"}, []string{"b"}},
		{[]string{"e"}, []string{"b", "d"}, []string{"e"}},
	} {
		if got := n.edit(tt.add, tt.drop); !slices.Equal(got, tt.want) {
			t.Errorf("%v + %v - %v = %v, want %v", n.list, tt.add, tt.drop, got, tt.want)
		}
	}
}

// What is kept for others is bounded in bytes too: a thousand clients may each want something else.
func TestMessagesForOthersAreKeptWithinABound(t *testing.T) {
	var s shares
	big := &xds.Resource{Name: "a", Body: make([]byte, maxShareBytes/4)}
	message := func(name string) *message {
		return s.of(shareKey{typeURL: name}, func() *message { return &message{resources: []*xds.Resource{big}} })
	}
	for i := range 8 {
		if m := message(fmt.Sprint(i)); m == nil || len(m.resources) != 1 {
			t.Fatalf("message %d: %+v", i, m)
		}
	}
	if len(s.m) != 4 || s.bytes != maxShareBytes {
		t.Errorf("%d messages of %d bytes are kept, want 4 of %d", len(s.m), s.bytes, maxShareBytes)
	}
	if message("0") != message("0") {
		t.Error("a message that fits is made again")
	}
	s.clear()
	if message("7") != message("7") {
		t.Error("after another snapshot there is no room")
	}
}

// trail is a snapshot whose lists many nodes have, which counts how often it is asked.
type trail struct {
	sameList
	asked *int
	fails bool
}

func (s trail) Resources(n *xds.Node, typeURL string, names []string) ([]*xds.Resource, error) {
	*s.asked++
	return s.sameList.Resources(n, typeURL, names)
}

func (s trail) Unchanged(prev xds.Snapshot, n *xds.Node, typeURL string) bool {
	return s.sameList.Unchanged(prev.(trail).sameList, n, typeURL)
}

func (s trail) Follows(xds.Snapshot, *xds.Node, string) bool { return !s.fails }

// Of clients that have the same and stay alike, one is asked for what it has now.
func TestClientsThatStayAlikeAreWorkedOutOnce(t *testing.T) {
	for _, fails := range []bool{false, true} {
		h, asked := newHub(), 0
		var sessions []*session
		for range 3 {
			s := newSession(true, Limits{}.withDefaults(), h)
			s.node = &xds.Node{ID: "n"}
			w, first := s.watch(xds.EndpointType)
			s.subscribe(w, []string{"a", "b"}, nil, first)
			sessions = append(sessions, s)
		}
		push := func(of *fakeSnapshot) {
			h.shares.clear()
			asked = 0
			for i, s := range sessions {
				s.publish(trail{sameList{of}, &asked, fails})
				ms, err := s.advance(fixedTime)
				if err != nil || len(ms) != 1 {
					t.Fatalf("%d messages, %v", len(ms), err)
				}
				if got := ms[0].resources[len(ms[0].resources)-1]; got.Name != "b" || ms[0].version != of.version {
					t.Errorf("client %d is told %s of %s", i, got.Name, ms[0].version)
				}
				s.acknowledge(s.watches.of(xds.EndpointType), ms[0].nonce, fixedTime, false)
				if v, ok := s.settled(); !ok || v != of.version {
					t.Errorf("client %d has %q", i, v)
				}
			}
		}
		push(snap("1", "EDS a=1 b=1"))
		push(snap("2", "EDS a=1 b=2"))
		want := 1
		if fails {
			want = len(sessions)
		}
		if asked != want {
			t.Errorf("nodes that may differ %t: asked %d times, want %d", fails, asked, want)
		}
		// One that asked for something again is told it, though the others are not.
		w := sessions[1].watches.of(xds.EndpointType)
		sessions[1].subscribe(w, []string{"a"}, nil, false)
		h.shares.clear()
		for i, s := range sessions {
			s.publish(trail{sameList{snap("3", "EDS a=1 b=3")}, &asked, fails})
			ms, err := s.advance(fixedTime)
			if err != nil || len(ms) != 1 {
				t.Fatalf("%d messages, %v", len(ms), err)
			}
			if n, want := len(ms[0].resources), map[bool]int{true: 2, false: 1}[i == 1]; n != want {
				t.Errorf("client %d is told %d resources, want %d", i, n, want)
			}
		}
	}
}

// Clients of different lists that are told of the same endpoints are sent one message.
func TestWhoIsToldTheSameGetsOneMessage(t *testing.T) {
	h, known := newHub(), map[string]*xds.Resource{}
	told := func(version string, lines ...string) *message {
		s := newSession(true, Limits{}.withDefaults(), h)
		s.node = &xds.Node{ID: "n"}
		w, first := s.watch(xds.EndpointType)
		s.subscribe(w, []string{"a", "b"}, nil, first)
		s.publish(sameList{snap(version, lines[0])})
		if _, err := s.advance(fixedTime); err != nil {
			t.Fatal(err)
		}
		s.acknowledge(w, w.nonce, fixedTime, false)
		after := snap(version+"'", lines[1])
		for i, r := range after.byType[xds.EndpointType] { // equal content is the same pointer
			if k := r.Name + string(r.Body); known[k] == nil {
				known[k] = r
			} else {
				after.byType[xds.EndpointType][i] = known[k]
			}
		}
		s.publish(sameList{after})
		ms, err := s.advance(fixedTime)
		if err != nil || len(ms) != 1 {
			t.Fatalf("%d messages, %v", len(ms), err)
		}
		return ms[0]
	}
	x := told("1", "EDS a=1 b=1", "EDS a=1 b=2")
	if y := told("1", "EDS a=3 b=1", "EDS a=3 b=2"); x != y || x.wire == nil {
		t.Error("two messages for what is the same")
	}
	for name, other := range map[string]*message{
		"another version":  told("2", "EDS a=1 b=1", "EDS a=1 b=2"),
		"another endpoint": told("1", "EDS a=1 b=1", "EDS a=2 b=1"),
		"one that is gone": told("1", "EDS a=1 b=1", "EDS b=2"),
		"another has come": told("1", "EDS a=1", "EDS a=1 b=2"),
		"two have changed": told("1", "EDS a=1 b=1", "EDS a=2 b=2"),
		"more that it has": told("1", "EDS a=1 b=1 c=1", "EDS a=1 b=2 c=1"),
	} {
		if x == other {
			t.Errorf("%s: the same message", name)
		}
	}
}
