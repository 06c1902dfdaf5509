// Package apiserver gives a test a real API server, without a cluster, in about 3 s:
// for contract tests of what watches and writes Kubernetes. It has the
// definitions of deploy/crds, and no controllers: the test writes EndpointSlices,
// pods and status itself.
//
// Tests that use it live below test/kubernetes. Without the binaries, which
// `go run ./test/kubernetes/cluster build` makes, they skip with one line.
package apiserver

import (
	"context"
	"os"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/testbed"
)

// Start starts an API server that ends with the test. Client libraries take its Kubeconfig.
func Start(t testing.TB) *testbed.APIServer {
	t.Helper()
	s, bed := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := bed.InstallCRDs(ctx, s.Client); err != nil {
		t.Fatal(err)
	}
	return s
}

// Bare is [Start] without any definitions.
func Bare(t testing.TB) *testbed.APIServer {
	t.Helper()
	s, _ := start(t)
	return s
}

func start(t testing.TB) (*testbed.APIServer, *testbed.Bed) {
	t.Helper()
	bed, err := testbed.Find(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if err := bed.Missing(); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := bed.StartAPIServer(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	return s, bed
}
