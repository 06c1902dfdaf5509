package xdsserver

import (
	"maps"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/xds/fields"
)

// shape is a request as plain values.
type shape struct {
	TypeURL, Nonce, Reason, Node string
	Subscribe, Unsubscribe       []string
	Refused                      bool
	Held                         int
	Versions                     map[string]string
}

func readRequest(b []byte, most int) (*request, error) {
	r := &request{}
	return r, r.read(b, most)
}

func shapeOf(t *testing.T, r *request) shape {
	t.Helper()
	n, err := r.node()
	if err != nil {
		t.Fatal(err)
	}
	s := shape{r.typeURL, r.nonce, r.reason, n.GetId(), r.subscribe, r.unsubscribe, r.refused, r.held, nil}
	if r.versions != nil {
		s.Versions = maps.Collect(r.versions)
	}
	if len(s.Versions) == 0 {
		s.Versions = nil
	}
	return s
}

// What is read of the bytes is what the protobuf library reads.
func TestRequestsAreReadAsTheyAre(t *testing.T) {
	for _, m := range []*discovery.DeltaDiscoveryRequest{
		{},
		{TypeUrl: "t", ResponseNonce: "n"},
		{Node: &core.Node{Id: "me"}, TypeUrl: "t", ResourceNamesSubscribe: []string{"b", "a", "*"}, ResourceNamesUnsubscribe: []string{"c"}},
		{TypeUrl: "t", InitialResourceVersions: map[string]string{"a": "1", "b": "", "": "3"}},
		{TypeUrl: "t", ResponseNonce: "n", ErrorDetail: &rpcstatus.Status{Code: 3, Message: "no"}},
		{TypeUrl: "t", ErrorDetail: &rpcstatus.Status{}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		r, err := readRequest(b, 10)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(shapeOf(t, requestOf(m)), shapeOf(t, r)); d != "" {
			t.Errorf("%v (-want +got):\n%s", m, d)
		}
	}
}

func TestRequestsThatCannotBeRead(t *testing.T) {
	for _, tc := range []struct {
		name string
		b    []byte
		code codes.Code
	}{
		{"cut off", []byte{0x12, 5, 'a'}, codes.InvalidArgument},
		{"no UTF-8", []byte{0x12, 1, 0xff}, codes.InvalidArgument},
		{"an entry that is cut off", []byte{0x2a, 2, 0x0a, 9}, codes.InvalidArgument},
		{"an entry that is no UTF-8", []byte{0x2a, 3, 0x0a, 1, 0xff}, codes.InvalidArgument},
		{"an error that is cut off", []byte{0x3a, 2, 0x12, 9}, codes.InvalidArgument},
		{"too many names", []byte{0x1a, 1, 'a', 0x1a, 1, 'b', 0x1a, 1, 'c'}, codes.ResourceExhausted},
		{"too many versions", []byte{0x2a, 0, 0x2a, 0, 0x2a, 0}, codes.ResourceExhausted},
	} {
		if _, err := readRequest(tc.b, 2); status.Code(err) != tc.code {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.code)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	for _, m := range []*discovery.DeltaDiscoveryRequest{
		{Node: &core.Node{Id: "me"}, TypeUrl: "t", ResponseNonce: "n", ResourceNamesSubscribe: []string{"a"}},
		{TypeUrl: "t", InitialResourceVersions: map[string]string{"a": "1"}, ErrorDetail: &rpcstatus.Status{Message: "no"}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m discovery.DeltaDiscoveryRequest
		bad := proto.Unmarshal(b, &m)
		r, err := readRequest(b, 1000)
		if bad != nil || err != nil {
			return // one may know more fields than the other
		}
		n, err := r.node()
		if err != nil || n.GetId() != m.GetNode().GetId() && countField(b, requestNode) < 2 {
			t.Fatalf("node %v, %v; want %v", n, err, m.GetNode())
		}
		got, want := shapeOf(t, r), shapeOf(t, requestOf(&m))
		got.Node, want.Node = "", ""
		got.Held, want.Held = 0, 0 // entries that say a name twice count twice
		if countField(b, requestError) > 1 {
			got.Reason, want.Reason = "", "" // two are merged
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	})
}

func countField(b []byte, number int) (n int) {
	_ = fields.Each(b, func(f protowire.Number, _ []byte) error {
		if int(f) == number {
			n++
		}
		return nil
	})
	return n
}
