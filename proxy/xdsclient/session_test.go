package xdsclient

import (
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/patch"
)

func response(typeURL, nonce string, rs ...*discoveryv3.Resource) received {
	return received{&discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: nonce, Resources: rs}}
}

func wire(typeURL, name string) *discoveryv3.Resource {
	return &discoveryv3.Resource{Name: name, Version: "1", Resource: &anypb.Any{TypeUrl: typeURL}}
}

func TestAStreamOpensWithWildcardsOnlyAndNeverWithAnEmptyNameList(t *testing.T) {
	s := newSession(node, xds.PushOrder, none)
	if acts := s.Step(wanted{xds.EndpointType, []string{"e"}}); acts != nil {
		t.Errorf("sent %v before there was a stream", acts)
	}
	s.Step(wanted{xds.EndpointType, nil})
	var got []string
	for _, a := range s.Step(opened{}) {
		got = append(got, xds.ShortName(a.(send).request.GetTypeUrl()))
	}
	if strings.Join(got, " ") != "CDS LDS" {
		t.Errorf("subscribed to %q: an empty list of endpoints would mean all of them", got)
	}
}

func TestMalformedResponsesAreRefused(t *testing.T) {
	s := newSession(node, xds.PushOrder, none)
	s.Step(opened{})
	for _, tc := range []struct {
		name string
		in   received
		want string
	}{
		{"a type that was not asked for", response(xds.SecretType, "n"), "not subscribed"},
		{"an unknown type", response("type.googleapis.com/x", "n"), "not subscribed"},
		{"a resource of another type", response(xds.ClusterType, "n", wire(xds.RouteType, "c")), "is a " + xds.RouteType},
		{"a resource without a name", response(xds.ClusterType, "n", wire(xds.ClusterType, "")), "has no name"},
		{"a resource without a body", response(xds.ClusterType, "n", &discoveryv3.Resource{Name: "c"}), "has no body"},
		{"a resource with a TTL", response(xds.ClusterType, "n", &discoveryv3.Resource{Name: "c", Ttl: durationpb.New(1), Resource: &anypb.Any{TypeUrl: xds.ClusterType}}), "ttl"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			acts := s.Step(tc.in)
			if a, ok := acts[0].(apply); ok {
				acts = s.Step(settled{update: a.update})
			}
			r := acts[0].(send).request
			if !strings.Contains(r.GetErrorDetail().GetMessage(), tc.want) || r.GetResponseNonce() != "n" {
				t.Errorf("answer = %v, want a NACK with %q", r, tc.want)
			}
		})
	}
}

func TestTheNodeIsSentOncePerStream(t *testing.T) {
	s := newSession(node, xds.PushOrder, none)
	for range 2 {
		n := 0
		for _, a := range s.Step(opened{}) {
			if a.(send).request.GetNode() != nil {
				n++
			}
		}
		if n != 1 {
			t.Errorf("node sent %d times, want once", n)
		}
	}
}

// none holds nothing.
func none(string, string) *xds.Resource { return nil }

// routes is a session that is subscribed to table "80" and holds a version of it, and the table's next version.
func routes(t *testing.T) (s *session, have, next *xds.Resource) {
	body := func(last string) []byte {
		b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "80")
		for range 50 {
			b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), "a host")
		}
		return protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), last)
	}
	have, next = xds.NewResource(xds.RouteType, "80", body("a")), xds.NewResource(xds.RouteType, "80", body("b"))
	s = newSession(node, xds.PushOrder, func(typeURL, name string) *xds.Resource {
		if typeURL == have.TypeURL && name == have.Name {
			return have
		}
		return nil
	})
	s.held([]*xds.Resource{have})
	s.Step(opened{})
	s.Step(wanted{xds.RouteType, []string{"80"}})
	return s, have, next
}

func patched(name, version string, p []byte) *discoveryv3.Resource {
	return &discoveryv3.Resource{Name: name, Version: version, Resource: &anypb.Any{TypeUrl: patch.Type, Value: p}}
}

func TestAPatchBecomesTheWholeResource(t *testing.T) {
	s, have, next := routes(t)
	u := s.Step(response(xds.RouteType, "n", patched("80", next.Version, patch.Make(have, next))))[0].(apply).update
	if len(u.Set) != 1 || !cmp.Equal(u.Set[0], next) {
		t.Fatalf("update %v, want the table's next version", u.Set)
	}
	acts := s.Step(settled{update: u})
	if r := acts[0].(send).request; len(acts) != 1 || r.GetErrorDetail() != nil || len(r.GetResourceNamesSubscribe()) != 0 {
		t.Errorf("answer %v, want an acknowledgement", acts)
	}
}

func TestAPatchOfWhatIsNotHeldIsAskedForWhole(t *testing.T) {
	s, have, next := routes(t)
	u := s.Step(response(xds.RouteType, "n", patched("80", have.Version, patch.Make(next, have))))[0].(apply).update
	acts := s.Step(settled{update: u})
	if len(u.Set) != 0 || len(acts) != 2 {
		t.Fatalf("update %v and %d requests, want no update and two requests", u.Set, len(acts))
	}
	ack, again := acts[0].(send).request, acts[1].(send).request
	if ack.GetResponseNonce() != "n" || ack.GetErrorDetail() != nil || again.GetResponseNonce() != "" || !cmp.Equal(again.GetResourceNamesSubscribe(), []string{"80"}) {
		t.Errorf("requests %v and %v, want an acknowledgement and a subscription to the table", ack, again)
	}
	s.Step(wanted{xds.RouteType, nil})
	u = s.Step(response(xds.RouteType, "m", patched("80", have.Version, patch.Make(next, have))))[0].(apply).update
	if acts := s.Step(settled{update: u}); len(acts) != 1 || acts[0].(send).request.GetErrorDetail() != nil {
		t.Errorf("a patch of what is not wanted any more: %v, want an acknowledgement alone", acts)
	}
}

func TestAPatchThatLeadsElsewhereIsRefused(t *testing.T) {
	s, have, next := routes(t)
	u := s.Step(response(xds.RouteType, "n", patched("80", "other", patch.Make(have, next))))[0].(apply).update
	acts := s.Step(settled{update: u})
	if r := acts[0].(send).request; len(u.Set) != 0 || len(acts) != 1 || !strings.Contains(r.GetErrorDetail().GetMessage(), `resource "80": patch: it leads to version`) {
		t.Errorf("update %v, answer %v, want a refusal", u.Set, acts)
	}
}
