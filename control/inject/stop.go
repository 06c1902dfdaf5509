package inject

import corev1 "k8s.io/api/core/v1"

// graceMargin is how much of a pod's grace period stays for its programs, in seconds.
const graceMargin = 5

// defaultGrace is Kubernetes' terminationGracePeriodSeconds.
const defaultGrace = 30

// stopDelay keeps the application up while others learn that the pod ends: the sidecar's preStop tells clients to go, but until
// the endpoint is gone everywhere they come again, and would find nobody. A container with a preStop hook of its own
// says itself when it ends, and a pod with little time keeps it. Only beside native sidecars: clusters that have those have
// Kubernetes' sleep hook (1.30).
func (r *request) stopDelay(p *corev1.Pod) {
	d, grace := r.c.Proxy.StopDelaySeconds, int64(defaultGrace)
	if g := r.pod.Spec.TerminationGracePeriodSeconds; g != nil {
		grace = *g
	}
	if d == 0 || !r.native || grace < d+graceMargin {
		return
	}
	for _, c := range r.pod.Spec.Containers {
		if c.Name == ContainerProxy || c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
			continue
		}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c.Name,
			Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: d}}}})
	}
}
