package hcm

import (
	"testing"

	"weft.mesh/weft/proxy/route"
)

func TestAMissingClusterHasTheStatusOfItsRoute(t *testing.T) {
	for status, want := range map[int]int{0: 503, 404: 404, 500: 500} {
		if r := noCluster(&route.Forward{NotFound: status}); r.Status != want || r.Details != "cluster_not_found" {
			t.Errorf("%d: %+v, want status %d", status, r, want)
		}
	}
}
