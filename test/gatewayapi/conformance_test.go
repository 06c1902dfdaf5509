// Package gatewayapi runs the Gateway API's conformance suite against Weft on a
// cluster. It is a module of its own, so that the suite's dependencies stay out of
// the product's. `make test-conformance` starts the cluster, installs Weft and runs this.
package gatewayapi

import (
	"os"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	if os.Getenv("WEFT_KUBERNETES") == "" {
		t.Skip("SKIPPED: needs a cluster with Weft: run make test-conformance (root)")
	}
	conformance.RunConformance(t)
}
