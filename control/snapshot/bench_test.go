package snapshot

import (
	"fmt"
	"testing"

	"weft.mesh/weft/model"
)

// big is a mesh of n services with two pods each.
func big(n int) []Change {
	var objects []model.Object
	for i := range n {
		ns, name := fmt.Sprint("ns", i%20), fmt.Sprint("svc", i)
		objects = append(objects, service(ns, name), pod(ns, name+"-a", fmt.Sprintf("10.%d.%d.1", i/250, i%250), name), pod(ns, name+"-b", fmt.Sprintf("10.%d.%d.2", i/250, i%250), name))
	}
	return put(objects...)
}

func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		changes := big(n)
		b.Run(fmt.Sprintf("all of %d services", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Build(Empty(model.Mesh{}), changes, epoch)
			}
		})
		w := Build(Empty(model.Mesh{}), changes, epoch)
		p := pod("ns0", "svc0-a", "10.0.0.1", "svc0")
		q := *p
		q.Ready = false
		b.Run(fmt.Sprintf("one endpoint of %d services", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				w = Build(w, put([]model.Object{p, &q}[i%2]), epoch)
			}
		})
	}
}
