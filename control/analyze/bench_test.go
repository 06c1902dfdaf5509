package analyze_test

import (
	"fmt"
	"strings"
	"testing"

	"weft.mesh/weft/control/analyze"
)

// BenchmarkCheck is one changed VirtualService in a mesh of services, each with a Deployment, rule and route.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			var text strings.Builder
			for i := range n {
				text.WriteString(strings.ReplaceAll(service+rule+route, "reviews", fmt.Sprintf("svc-%d", i)))
			}
			mesh := decode(b, text.String())
			changed := decode(b, strings.ReplaceAll(route, "reviews", "svc-0"))
			b.ReportAllocs()
			for b.Loop() {
				if ds := analyze.Check(mesh, changed, nil, analyze.Options{}); len(ds) != 0 {
					b.Fatal(ds)
				}
			}
		})
	}
}
