package xdsclient

import (
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"weft.mesh/weft/xds"
)

// Who answers names asks for all of them, after everything else; nobody else asks.
func TestNamesAreAskedForLastAndOnlyByWhoAnswersThem(t *testing.T) {
	for _, names := range []bool{false, true} {
		r := newRig(t)
		r.set.Names = names
		c, err := New(r.set)
		if err != nil {
			t.Fatal(err)
		}
		var last *discoveryv3.DeltaDiscoveryRequest
		for _, a := range c.session.Step(opened{}) {
			last = a.(send).request
			if !names && last.GetTypeUrl() == xds.NameTableType {
				t.Error("names are asked for that nobody answers")
			}
		}
		if names && (last.GetTypeUrl() != xds.NameTableType || len(last.GetResourceNamesSubscribe()) > 0) {
			t.Errorf("last asked for is %s %v, want all names", last.GetTypeUrl(), last.GetResourceNamesSubscribe())
		}
	}
}

// The last good names serve before, or without, a control plane, and are not sent again.
func TestTheLastGoodNamesAreKept(t *testing.T) {
	for _, names := range []bool{false, true} {
		r := newRig(t)
		r.set.Names = names
		if err := saveFile(r.set.File, r.set.Node.GetId(), []*xds.Resource{res(xds.NameTableType, xds.NameTableName, "table")}); err != nil {
			t.Fatal(err)
		}
		c, err := New(r.set)
		if err != nil {
			t.Fatal(err)
		}
		c.Load()
		if got := r.sink.has(xds.NameTableType, xds.NameTableName, "table"); got != names {
			t.Errorf("Names %t: the sink has them: %t", names, got)
		}
		for _, a := range c.session.Step(opened{}) {
			if q := a.(send).request; q.GetTypeUrl() == xds.NameTableType && q.GetInitialResourceVersions()[xds.NameTableName] == "" {
				t.Error("the control plane is not told which names are held")
			}
		}
	}
}
