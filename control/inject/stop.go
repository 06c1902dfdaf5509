package inject

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// graceMargin is how much of a pod's grace period stays for its programs, in seconds.
const graceMargin = 5

// defaultGrace is Kubernetes' terminationGracePeriodSeconds.
const defaultGrace = 30

// maxBusy is how long calls of others keep a program up, in seconds, unless the delay itself is longer.
const maxBusy = 25

// stopDelay keeps the application up while others call it: the sidecar's preStop tells clients to go, but until the endpoint is gone
// everywhere they come again, and would find nobody. How long that takes nobody in the pod knows: it waits until nothing new came for
// the delay. A container with a preStop hook of its own says itself when it ends, and a pod with little time keeps it. Only
// beside native sidecars, which end after the application.
func (r *request) stopDelay(p *corev1.Pod) {
	d, grace := r.c.Proxy.StopDelaySeconds, int64(defaultGrace)
	if g := r.pod.Spec.TerminationGracePeriodSeconds; g != nil {
		grace = *g
	}
	if d == 0 || !r.native || grace < d+graceMargin {
		return
	}
	most := max(d, min(grace-graceMargin, maxBusy))
	wait := &corev1.HTTPGetAction{Path: fmt.Sprintf("/drain/quiet?quiet=%ds&most=%ds", d, most), Port: intstr.FromInt32(r.statusPort)}
	for _, c := range r.pod.Spec.Containers {
		if c.Name == ContainerProxy || c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
			continue
		}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c.Name, Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: wait}}})
	}
}
