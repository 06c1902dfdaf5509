package peermeta

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/spiffe"
)

var (
	caller = &stream.Workload{Name: "productpage-v1", Namespace: "default", App: "productpage", Version: "v1", CanonicalName: "productpage", CanonicalRevision: "v1", Cluster: "Kubernetes"}
	callee = &stream.Workload{Name: "reviews-v2", Namespace: "default", App: "reviews", Version: "v2", CanonicalName: "reviews", CanonicalRevision: "v2", Cluster: "Kubernetes"}
)

func node(t *testing.T, d stream.Direction, w *stream.Workload) *Filter {
	t.Helper()
	f, err := New(nil, d, Node{ID: "sidecar~" + w.Name, Workload: w})
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
	return &stream.ConnInfo{TLS: true, PeerID: id}
}

func newStream(c *stream.ConnInfo) *filter.Stream {
	return &filter.Stream{Conn: c, Req: &stream.Request{}, Info: &stream.Info{Conn: c}}
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
