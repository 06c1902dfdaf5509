package translate_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// A table is put together from the parts of the one before. Whatever changes, it is what it would be
// if it were made anew, byte for byte, and encoded as a message is.
func TestATableInPartsIsTheTable(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	l := newLine(t, append(small(), service("other", "web"))...)
	nodes := []*xds.Node{sidecar("default", "api-1", "10.0.0.2"), sidecar("other", "far-1", "10.0.0.3"), sidecar("default", "web-1", "10.0.0.1")}
	nodes[2].WeftProxy, nodes[0].Metadata.DNSCapture = false, true
	hosts := []string{"web.default.svc.cluster.local", "api.default.svc.cluster.local", "far.other.svc.cluster.local", "web.other.svc.cluster.local", "*.default.svc.cluster.local"}
	var last []byte
	different := 0
	for i := range 150 {
		var o model.Object
		ns, host := []string{"default", "other"}[r.IntN(2)], hosts[r.IntN(len(hosts))]
		switch r.IntN(5) {
		case 0:
			s := service(ns, fmt.Sprint("svc-", r.IntN(4)))
			if r.IntN(3) == 0 {
				s.Ports = append(s.Ports, model.Port{Number: 81, Name: "more", Protocol: model.ProtocolHTTP, TargetPort: 8081})
			}
			if r.IntN(3) == 0 {
				s.ExportTo = []string{"."}
			}
			o = s
		case 1:
			o = &model.DestinationRule{Meta: meta(model.KindDestinationRule, ns, fmt.Sprint("rule-", r.IntN(3))), Host: host,
				Policy: model.TrafficPolicy{LB: &model.LoadBalancer{Policy: model.LBConsistent, Hash: &model.ConsistentHash{Header: fmt.Sprint("h", i)}}}}
		case 2: // an entry that claims a name that a service of the cluster has too
			s := service(ns, fmt.Sprint("entry-", r.IntN(2)))
			s.Host = fmt.Sprintf("svc-%d.default", r.IntN(4))
			o = s
		default:
			o = &model.RouteSet{Meta: meta(model.KindVirtualService, ns, fmt.Sprint("vs-", r.IntN(4))), Hosts: []string{host}, Gateways: []string{snapshot.GatewayMesh},
				HTTP: []model.Route{{Name: fmt.Sprint(i % 3), Forward: []model.Destination{{Host: hosts[r.IntN(4)], Weight: 1}}}}}
		}
		if r.IntN(4) == 0 { // gone
			l.world = snapshot.Build(l.world, []snapshot.Change{{Key: o.ObjectMeta().Key}}, epoch)
			l.snap = l.snap.Next(l.world)
		} else {
			l.change(o)
		}
		fresh := translate.New(l.world, l.world.Mesh())
		for _, n := range nodes {
			got, want := get(t, l.snap, n, xds.RouteType), get(t, fresh, n, xds.RouteType)
			if len(got) != len(want) {
				t.Fatalf("change %d: %d tables, want %d", i, len(got), len(want))
			}
			for j := range got {
				if got[j].Name != want[j].Name || !bytes.Equal(got[j].Body, want[j].Body) {
					t.Fatalf("change %d, %T: table %s of %s differs from the one that is made anew", i, o, got[j].Name, n.ID)
				}
			}
		}
		body := named(t, get(t, l.snap, nodes[0], xds.RouteType), "80").Body
		if !bytes.Equal(body, last) {
			different++
		}
		last = body
		var m routev3.RouteConfiguration
		if err := proto.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		if again, err := (proto.MarshalOptions{Deterministic: true}).Marshal(&m); err != nil || !bytes.Equal(again, body) {
			t.Fatalf("change %d: the table is not encoded as a message is: %v", i, err)
		}
	}
	if different < 40 {
		t.Errorf("%d of 150 changes changed the table", different)
	}
}

// What a change of routes has nothing to do with stays the same list, so that nobody compares it.
func TestARouteChangeLeavesListsAlone(t *testing.T) {
	l := newLine(t, small()...)
	n := sidecar("default", "api-1", "10.0.0.2")
	before := get(t, l.snap, n, xds.ListenerType)
	_, after := l.change(&model.RouteSet{Meta: meta(model.KindVirtualService, "default", "web"), Hosts: []string{"web.default.svc.cluster.local"},
		Gateways: []string{snapshot.GatewayMesh}, HTTP: []model.Route{{Forward: []model.Destination{{Host: "api.default.svc.cluster.local", Weight: 1}}}}})
	if got := get(t, after, n, xds.ListenerType); &got[0] != &before[0] {
		t.Error("the listeners are another list")
	}
}
