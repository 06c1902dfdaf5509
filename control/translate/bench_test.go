package translate_test

import (
	"fmt"
	"net/netip"
	"testing"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/translate"
	"weft.mesh/weft/control/translate/translatetest"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

// big is a mesh of n services in 20 namespaces with two pods each.
func big(n int) []model.Object {
	var objects []model.Object
	for i := range n {
		ns, name := fmt.Sprint("ns", i%20), fmt.Sprint("svc", i)
		ip := func(last byte) string {
			return netip.AddrFrom4([4]byte{10, byte(i / 250), byte(i % 250), last}).String()
		}
		objects = append(objects, service(ns, name), pod(ns, name+"-a", ip(1), name), pod(ns, name+"-b", ip(2), name))
	}
	return objects
}

func everything(b *testing.B, s *translate.Snapshot, n *xds.Node) {
	for _, typ := range translatetest.Types {
		if _, err := s.Resources(n, typ, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTranslate(b *testing.B) {
	for _, n := range []int{100, 1000} {
		l := newLine(b, big(n)...)
		node := func(i int) *xds.Node { return sidecar(fmt.Sprint("ns", i%20), fmt.Sprint("svc", i, "-a"), "10.0.0.1") }
		b.Run(fmt.Sprintf("first node of %d services", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				everything(b, translate.New(l.world, l.world.Mesh()), node(0))
			}
		})
		everything(b, l.snap, node(0))
		b.Run(fmt.Sprintf("next node of the namespace of %d services", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				everything(b, l.snap, node(20*(i%(n/20))))
			}
		})
		p := pod("ns0", "svc0-a", "10.0.0.1", "svc0")
		q := *p
		q.Ready = false
		b.Run(fmt.Sprintf("an endpoint change for one node of %d services", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				before, after := l.change([]model.Object{p, &q}[i%2])
				for _, typ := range translatetest.Types {
					if !after.Unchanged(before, node(0), typ) {
						if _, err := after.Resources(node(0), typ, nil); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
		})
		rs := &model.RouteSet{Meta: meta(model.KindVirtualService, "ns0", "r"), Hosts: []string{"svc0.ns0.svc.cluster.local"}, Gateways: []string{snapshot.GatewayMesh}}
		b.Run(fmt.Sprintf("a route change for one node of %d services", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				next := *rs
				next.HTTP = []model.Route{{Name: fmt.Sprint(i), Forward: []model.Destination{{Host: "svc1.ns1.svc.cluster.local", Weight: 1}}}}
				_, after := l.change(&next)
				everything(b, after, node(0))
			}
		})
	}
}
