package translate_test

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// A port of no known protocol is spoken to as its client speaks by sidecars, which find that out of the client's connection to this port; by
// gateways, whose clients speak HTTP/2 to the gateway, as HTTP/1.1.
func TestTheProtocolToAPortThatDoesNotSayIt(t *testing.T) {
	auto := service("default", "web")
	auto.Ports[0].Protocol, auto.Ports[0].Name = model.ProtocolAuto, ""
	l := newLine(t, append(withGateway(), auto)...)
	for _, c := range []struct {
		node   *xds.Node
		client bool
	}{{router(), false}, {sidecar("default", "api-1", "10.0.0.2"), true}, {router(), false}} {
		if got := usesClientProtocol(t, named(t, get(t, l.snap, c.node, xds.ClusterType), webCluster)); got != c.client {
			t.Errorf("%s: uses its client's protocol: %t, want %t", c.node.ID, got, c.client)
		}
	}
}

func usesClientProtocol(t *testing.T, r *xds.Resource) bool {
	t.Helper()
	var c clusterv3.Cluster
	if err := proto.Unmarshal(r.Body, &c); err != nil {
		t.Fatal(err)
	}
	for _, x := range c.TypedExtensionProtocolOptions {
		var o upstreamsv3.HttpProtocolOptions
		if err := x.UnmarshalTo(&o); err != nil {
			t.Fatal(err)
		}
		return o.GetUseDownstreamProtocolConfig() != nil
	}
	return false
}
