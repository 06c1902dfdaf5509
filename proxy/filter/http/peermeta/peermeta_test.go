package peermeta

import (
	"encoding/base64"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/transport/exchange"
	"weft.mesh/weft/spiffe"
)

var (
	caller = &stream.Workload{Name: "productpage-v1", Namespace: "default", App: "productpage", Version: "v1", CanonicalName: "productpage", CanonicalRevision: "v1", Cluster: "Kubernetes"}
	callee = &stream.Workload{Name: "reviews-v2", Namespace: "default", App: "reviews", Version: "v2", CanonicalName: "reviews", CanonicalRevision: "v2", Cluster: "Kubernetes"}
)

func node(t *testing.T, d stream.Direction, w *stream.Workload) *Filter {
	t.Helper()
	f, err := New(nil, d, Node{ID: "sidecar~" + w.Name, Workload: named(w, "spiffe://cluster.local/ns/default/sa/"+w.App)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// said is the value of the header by which f introduces us.
func said(f *Filter) []byte { return f.metadata[len(headerMetadata)+2 : len(f.metadata)-2] }

func mesh(t *testing.T, sa string) *stream.ConnInfo {
	t.Helper()
	id, err := spiffe.New("cluster.local", "default", sa)
	if err != nil {
		t.Fatal(err)
	}
	return &stream.ConnInfo{TLS: true, PeerID: id, Met: new(stream.Meeting)}
}

func newStream(c *stream.ConnInfo) *filter.Stream {
	return &filter.Stream{Conn: c, Req: &stream.Request{}, Info: &stream.Info{Conn: c, Peer: c.Met.Peer()}, State: make([]any, 2)}
}

// conversation is one exchange between two proxies on the connection with ends up and down. It tells whether request and
// response carried metadata, and whom the two took each other for.
type conversation struct {
	asked, answered      bool
	clientSaw, serverSaw *stream.Workload
}

func talk(t *testing.T, client, server *Filter, up, down *stream.ConnInfo) (c conversation) {
	t.Helper()
	out := newStream(&stream.ConnInfo{})
	client.Request(out)
	client.Upstream(out, up)
	out.Upstream, out.Info.UpstreamID = up, up.PeerID
	c.asked = out.Req.Fields.Has(headerMetadata)
	if c.asked != out.Req.Fields.Has(headerID) {
		t.Error("of the request's two headers one is there")
	}

	in := newStream(down)
	in.Req.Fields = out.Req.Fields
	server.Request(in)
	in.Resp = &stream.Response{}
	server.Response(in)
	c.answered = in.Resp.Fields.Has(headerMetadata)
	if c.answered != in.Resp.Fields.Has(headerID) {
		t.Error("of the response's two headers one is there")
	}

	out.Resp = in.Resp
	client.Response(out)
	if n := in.Req.Fields.Len() + out.Resp.Fields.Len(); n != 0 {
		t.Errorf("%d headers reach applications", n)
	}
	c.clientSaw, c.serverSaw = out.Info.Peer, in.Info.Peer
	return c
}

// knows checks whom the two took each other for.
func (c conversation) knows(t *testing.T, callee, caller *stream.Workload) {
	t.Helper()
	if diff := cmp.Diff(callee, c.clientSaw); diff != "" {
		t.Error("callee as the client sees it:", diff)
	}
	if diff := cmp.Diff(caller, c.serverSaw); diff != "" {
		t.Error("caller as the server sees it:", diff)
	}
}

// istios is the value of the header as Istio's proxies say it.
func istios(t *testing.T, w *stream.Workload) string {
	t.Helper()
	data, err := proto.Marshal(exchange.Metadata(w))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(data)
}

func TestOnceOnAConnectionIsEnough(t *testing.T) {
	client, server := node(t, stream.Outbound, caller), node(t, stream.Inbound, callee)
	up, down := mesh(t, "reviews"), mesh(t, "productpage")
	calleeSeen, callerSeen := named(callee, up.PeerID.String()), named(caller, down.PeerID.String())
	for i := range 4 {
		c := talk(t, client, server, up, down)
		c.knows(t, calleeSeen, callerSeen)
		if first := i == 0; c.asked != first || c.answered != first {
			t.Errorf("exchange %d: metadata in the request: %v, in the response: %v; want both: %v", i, c.asked, c.answered, first)
		}
	}
	if c := talk(t, client, server, mesh(t, "reviews"), mesh(t, "productpage")); !c.asked || !c.answered {
		t.Error("another connection is taken for one on which both know each other")
	}
	if c := talk(t, node(t, stream.Outbound, caller), node(t, stream.Inbound, callee), up, down); c.asked || c.answered {
		t.Error("the same under a new configuration is said again")
	}
}

// A proxy in between that is none of the mesh's passes on what many say over one connection, which is its own.
func TestWhatIsPassedOnIsNotRemembered(t *testing.T) {
	client, server := node(t, stream.Outbound, caller), node(t, stream.Inbound, callee)
	up, down := mesh(t, "between"), mesh(t, "between")
	for i := range 2 {
		c := talk(t, client, server, up, down)
		c.knows(t, named(callee, up.PeerID.String()), named(caller, down.PeerID.String()))
		if !c.asked || !c.answered {
			t.Errorf("exchange %d: request %v, response %v; want both", i, c.asked, c.answered)
		}
	}
	s := newStream(down)
	if server.Request(s); s.Info.Peer != nil {
		t.Errorf("a request of nobody's is taken for one of %v", s.Info.Peer)
	}
}

func TestWhoHasSomethingNewToSaySaysIt(t *testing.T) {
	up, down := mesh(t, "reviews"), mesh(t, "productpage")
	client, server := node(t, stream.Outbound, caller), node(t, stream.Inbound, callee)
	talk(t, client, server, up, down)

	caller2, callee2 := *caller, *callee
	caller2.Version, callee2.Version = "v2", "v3"
	client = node(t, stream.Outbound, &caller2)
	c := talk(t, client, server, up, down)
	c.knows(t, named(callee, up.PeerID.String()), named(&caller2, down.PeerID.String()))
	if !c.asked || !c.answered {
		t.Errorf("a changed caller: request %v, response %v; want both", c.asked, c.answered)
	}
	server = node(t, stream.Inbound, &callee2)
	c = talk(t, client, server, up, down)
	c.knows(t, named(&callee2, up.PeerID.String()), named(&caller2, down.PeerID.String()))
	if c.asked || !c.answered {
		t.Errorf("a changed callee: request %v, response %v; want the response", c.asked, c.answered)
	}
}

func TestACallerOfIstiosIsAnsweredEachTime(t *testing.T) {
	server, down := node(t, stream.Inbound, callee), mesh(t, "productpage")
	for i := range 3 {
		s := newStream(down)
		s.Req.Fields.Add(headerMetadata, istios(t, caller))
		server.Request(s)
		s.Resp = &stream.Response{}
		server.Response(s)
		if diff := cmp.Diff(named(caller, down.PeerID.String()), s.Info.Peer); diff != "" || !s.Resp.Fields.Has(headerMetadata) {
			t.Errorf("exchange %d: answered %v, caller as the server sees it: %s", i, s.Resp.Fields.Has(headerMetadata), diff)
		}
	}
	s := newStream(down)
	server.Request(s)
	s.Resp = &stream.Response{}
	if server.Response(s); s.Info.Peer != nil || s.Resp.Fields.Len() != 0 {
		t.Errorf("a request without metadata: caller %v, %d headers in the response; want neither", s.Info.Peer, s.Resp.Fields.Len())
	}
}

func TestACalleeOfIstiosIsToldEachTime(t *testing.T) {
	client, up := node(t, stream.Outbound, caller), mesh(t, "reviews")
	for i := range 3 {
		s := newStream(&stream.ConnInfo{})
		client.Upstream(s, up)
		if !s.Req.Fields.Has(headerMetadata) {
			t.Errorf("exchange %d: the request does not introduce the caller", i)
		}
		s.Upstream, s.Info.UpstreamID, s.Resp = up, up.PeerID, &stream.Response{}
		s.Resp.Fields.Add(headerMetadata, istios(t, callee))
		client.Response(s)
		if diff := cmp.Diff(named(callee, up.PeerID.String()), s.Info.Peer); diff != "" {
			t.Errorf("exchange %d: callee as the client sees it: %s", i, diff)
		}
	}
}

// A request that introduces its caller is answered, whatever others on the connection have found out meanwhile.
func TestWhoIntroducesItselfIsAnswered(t *testing.T) {
	client, server := node(t, stream.Outbound, caller), node(t, stream.Inbound, callee)
	down := mesh(t, "productpage")
	ask := func() *filter.Stream {
		s := newStream(down)
		s.Req.Fields.SetBytes(headerMetadata, said(client))
		server.Request(s)
		s.Resp = &stream.Response{}
		return s
	}
	first, second := ask(), ask()
	server.Response(second)
	server.Response(first)
	if !first.Resp.Fields.Has(headerMetadata) || !second.Resp.Fields.Has(headerMetadata) {
		t.Error("one of two requests at the same time is not answered")
	}
}

func TestATryBeforeLeavesNothing(t *testing.T) {
	client, server := node(t, stream.Outbound, caller), node(t, stream.Inbound, callee)
	known, down := mesh(t, "reviews"), mesh(t, "productpage")
	talk(t, client, server, known, down)
	s := newStream(&stream.ConnInfo{})
	client.Request(s)
	client.Upstream(s, mesh(t, "reviews")) // a connection on which nobody knows us
	client.Upstream(s, known)
	if s.Req.Fields.Len() != 0 {
		t.Error("what was for another connection goes to one that knows us")
	}
	client.Upstream(s, mesh(t, "reviews"))
	if !s.Req.Fields.Has(headerMetadata) {
		t.Error("a connection that does not know us is told nothing")
	}
}

func named(w *stream.Workload, principal string) *stream.Workload {
	x := *w
	x.Principal = principal
	return &x
}

func TestBothSidesLearnOfEachOther(t *testing.T) {
	client, server := node(t, stream.Outbound, caller), node(t, stream.Inbound, callee)
	up, down := mesh(t, "reviews"), mesh(t, "productpage")

	out := newStream(&stream.ConnInfo{})
	client.Request(out)
	client.Upstream(out, up)
	if !out.Req.Fields.Has(headerMetadata) || string(out.Req.Fields.Get(headerID)) != "sidecar~productpage-v1" {
		t.Fatal("the request does not introduce the caller")
	}

	in := newStream(down)
	in.Req.Fields = out.Req.Fields
	server.Request(in)
	if diff := cmp.Diff(named(caller, down.PeerID.String()), in.Info.Peer); diff != "" {
		t.Error("caller as the server sees it:", diff)
	}
	if in.Req.Fields.Len() != 0 {
		t.Error("the application gets the peer headers")
	}
	in.Resp = &stream.Response{}
	server.Response(in)

	out.Resp, out.Info.UpstreamID = in.Resp, up.PeerID
	client.Response(out)
	if diff := cmp.Diff(named(callee, up.PeerID.String()), out.Info.Peer); diff != "" {
		t.Error("callee as the client sees it:", diff)
	}
	if out.Resp.Fields.Len() != 0 {
		t.Error("the calling application gets the peer headers")
	}
}

func TestNothingIsSaidOrBelievedWithoutMTLS(t *testing.T) {
	client, server := node(t, stream.Gateway, caller), node(t, stream.Inbound, callee)
	out := newStream(&stream.ConnInfo{})
	out.Req.Fields.Add("X-Envoy-Peer-Metadata", "Zm9v")
	out.Req.Fields.Add("x-envoy-peer-metadata-id", "mallory")
	client.Request(out)
	if out.Req.Fields.Len() != 0 {
		t.Error("headers from outside pass the gateway")
	}
	client.Upstream(out, mesh(t, "a")) // a first try to a peer
	client.Upstream(out, &stream.ConnInfo{})
	if out.Req.Fields.Len() != 0 {
		t.Error("our metadata goes to a peer without mTLS")
	}

	in := newStream(&stream.ConnInfo{})
	in.Req.Fields.SetBytes(headerMetadata, said(client))
	server.Request(in)
	in.Resp = &stream.Response{}
	server.Response(in)
	if in.Info.Peer != nil || in.Req.Fields.Len() != 0 || in.Resp.Fields.Len() != 0 {
		t.Error("a peer without mTLS was believed, answered, or its headers passed")
	}
}

func TestGarbageIsDropped(t *testing.T) {
	server := node(t, stream.Inbound, callee)
	for _, v := range []string{"", "%%%", "Zm9v", "////"} {
		in := newStream(mesh(t, "x"))
		in.Req.Fields.Add(headerMetadata, v)
		server.Request(in)
		if in.Info.Peer != nil || in.Req.Fields.Len() != 0 {
			t.Errorf("metadata %q: peer %v, %d headers left", v, in.Info.Peer, in.Req.Fields.Len())
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	server := node(t, stream.Inbound, callee)
	data := said(node(t, stream.Outbound, &stream.Workload{Name: strings.Repeat("x", 8<<10)}))
	for i := range 1000 {
		server.known.lookup(data, "spiffe://cluster.local/"+strconv.Itoa(i))
	}
	if server.known.size == 0 || server.known.size > maxCache {
		t.Errorf("%d bytes cached, want some and at most %d", server.known.size, maxCache)
	}
}

func TestKnownPeersCostNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	server := node(t, stream.Inbound, callee)
	data := said(node(t, stream.Outbound, caller))
	in := newStream(mesh(t, "productpage"))
	if n := testing.AllocsPerRun(100, func() {
		in.Req.Fields.SetBytes(headerMetadata, data)
		server.Request(in)
		clear(in.State)
	}); n != 0 {
		t.Errorf("allocs = %v, want 0", n)
	}
}

func TestConfiguration(t *testing.T) {
	istio := map[string]any{"upstream_discovery": []any{map[string]any{"istio_headers": map[string]any{}}, map[string]any{"workload_discovery": map[string]any{}}}}
	for name, c := range map[string]struct {
		cfg map[string]any
		ok  bool
	}{
		"Istio's own":       {istio, true},
		"an unknown method": {map[string]any{"upstream_discovery": []any{map[string]any{"baggage": map[string]any{}}}}, false},
		"an unknown field":  {map[string]any{"other": true}, false},
	} {
		s, err := structpb.NewStruct(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(s, stream.Outbound, Node{}); (err == nil) != c.ok {
			t.Errorf("%s: error %v, want accepted: %v", name, err, c.ok)
		}
	}
}
