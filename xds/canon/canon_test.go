package canon

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"weft.mesh/weft/xds"
)

func TestWhatIsFormattedIsParsedBack(t *testing.T) {
	c, err := Resource(&clusterv3.Cluster{Name: "b", ConnectTimeout: durationpb.New(1500e6), MaxRequestsPerConnection: wrapperspb.UInt32(4294967295)})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Resource(&endpointv3.ClusterLoadAssignment{ClusterName: "a"})
	if err != nil {
		t.Fatal(err)
	}
	in := []*xds.Resource{c, e}
	text, err := Format(in)
	if err != nil {
		t.Fatal(err)
	}
	want := "'@type': " + xds.ClusterType + "\nconnect_timeout: 1.500s\nmax_requests_per_connection: 4294967295\nname: b\n---\n'@type': " + xds.EndpointType + "\ncluster_name: a\n"
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Errorf("text (-want +got):\n%s", d)
	}
	out, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(in, out); d != "" {
		t.Errorf("parsed (-want +got):\n%s", d)
	}
}

func TestListsAndSeveralDocumentsAreRead(t *testing.T) {
	rs, err := Parse([]byte("- {'@type': " + xds.ClusterType + ", name: a}\n- {'@type': " + xds.ClusterType + ", name: b}\n---\n---\n{'@type': " + xds.ClusterType + ", name: c}\n"))
	if err != nil || len(rs) != 3 || rs[2].Name != "c" {
		t.Errorf("%v, %v", rs, err)
	}
}

func TestWhatIsNoResourceIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"{'@type': type.googleapis.com/nonsense}": "nonsense",
		"{name: a}": "@type",
		"{'@type': " + xds.ClusterType + ", no_such_field: 1}":               "no_such_field",
		"{'@type': type.googleapis.com/google.protobuf.Duration, value: 1s}": "no name field",
		"a: [": "document 0",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", text, err, want)
		}
	}
}
