package xdsclient

import (
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"weft.mesh/weft/xds"
)

func response(typeURL, nonce string, rs ...*discoveryv3.Resource) received {
	return received{&discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: nonce, Resources: rs}}
}

func wire(typeURL, name string) *discoveryv3.Resource {
	return &discoveryv3.Resource{Name: name, Version: "1", Resource: &anypb.Any{TypeUrl: typeURL}}
}

func TestAStreamOpensWithWildcardsOnlyAndNeverWithAnEmptyNameList(t *testing.T) {
	s := newSession(node)
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
	s := newSession(node)
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
	s := newSession(node)
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
