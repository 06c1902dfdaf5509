package translate_test

import (
	"bytes"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/canon"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden translates each case for its nodes and compares the whole output.
func TestGolden(t *testing.T) {
	for _, c := range translatetest.Load(t, "testdata") {
		t.Run(c.Name, func(t *testing.T) {
			for _, n := range c.Nodes {
				got := allOf(t, translate.New(c.World, c.Mesh), n.Node)
				validate(t, got)
				shown := slices.DeleteFunc(got, func(r *xds.Resource) bool { return !slices.Contains(c.Types, r.TypeURL) })
				text, err := canon.Format(shown)
				if err != nil {
					t.Fatalf("%s: %v", n.File, err)
				}
				if *update {
					if err := os.WriteFile(n.File, text, 0o644); err != nil {
						t.Fatal(err)
					}
					continue
				}
				want, err := os.ReadFile(n.File)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(want, text) {
					t.Errorf("%s (-want +got):\n%s", n.File, cmp.Diff(string(want), string(text)))
				}
			}
		})
	}
}

func allOf(t *testing.T, s *translate.Snapshot, n *xds.Node) []*xds.Resource {
	t.Helper()
	var all []*xds.Resource
	for _, typ := range translatetest.Types {
		rs, err := s.Resources(n, typ, nil)
		if err != nil {
			t.Fatalf("%s for %s: %v", xds.ShortName(typ), n.ID, err)
		}
		all = append(all, rs...)
	}
	return all
}

func message(typeURL string) interface {
	proto.Message
	ValidateAll() error
} {
	switch typeURL {
	case xds.ListenerType:
		return new(listenerv3.Listener)
	case xds.RouteType:
		return new(routev3.RouteConfiguration)
	case xds.ClusterType:
		return new(clusterv3.Cluster)
	}
	return new(endpointv3.ClusterLoadAssignment)
}

// validate applies Envoy's own rules on field values.
func validate(t *testing.T, rs []*xds.Resource) {
	t.Helper()
	for _, r := range rs {
		m := message(r.TypeURL)
		if err := proto.Unmarshal(r.Body, m); err != nil {
			t.Errorf("%s %s: %v", xds.ShortName(r.TypeURL), r.Name, err)
			continue
		}
		if err := m.ValidateAll(); err != nil {
			t.Errorf("%s %s: %v", xds.ShortName(r.TypeURL), r.Name, err)
		}
	}
}
