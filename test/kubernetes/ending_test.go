package kubernetes_test

import (
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// A pod that ends serves on while others call it: here nobody is told of its end for 10 s, because what writes
// EndpointSlices stands still. That is three times as long as the pod would stay up without calls.
func TestAPodThatEndsServesUntilOthersKnow(t *testing.T) {
	const rate, late = 100, 10 * time.Second
	m := bookinfoMesh(t)
	m.Kubectl(t, "scale", "deployment/details-v1", "--replicas=2")
	if err := m.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	pods, err := m.Pods(t.Context(), "default", "details-v1")
	if err != nil || len(pods) != 2 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	start := time.Now()
	stop := kubetest.Load{URL: m.Base + "/productpage", Rate: rate, Wrong: kubetest.MissingParts}.Start(t)
	time.Sleep(2 * time.Second)
	const writer = "kube-controller-manager"
	if err := m.Bed.Pause(1, writer); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Bed.Continue(1, writer) }) // again, if the test ended before it did
	m.Kubectl(t, "delete", "--wait=false", "pod/"+pods[0].Name)
	time.Sleep(late)
	if here, err := m.Pods(t.Context(), "default", "details-v1"); err != nil || len(here) != 2 {
		t.Errorf("%d pods after %v, want the one that ends too (%v)", len(here), late, err)
	}
	if err := m.Bed.Continue(1, writer); err != nil {
		t.Fatal(err)
	}
	m.Kubectl(t, "wait", "--for=delete", "--timeout=60s", "pod/"+pods[0].Name)
	time.Sleep(2 * time.Second)
	kubetest.Lossless(t, "from outside through the gateway", stop(), rate, time.Since(start))
}
