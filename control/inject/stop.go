package inject

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// graceMargin is how much of a pod's grace period stays for its programs, in seconds.
const graceMargin = 5

// gatewayMargin is how much of it stays for a gateway after its preStop hook, in seconds: Istio's terminationDrainDuration, in which
// what is under way ends, and graceMargin.
const gatewayMargin = 5 + graceMargin

// defaultGrace is Kubernetes' terminationGracePeriodSeconds.
const defaultGrace = 30

// maxBusy is how long calls of others keep a program up, in seconds, unless the delay itself is longer.
const maxBusy = 25

// longest is what /drain/quiet takes, in seconds.
const longest = 3600

// grace is how long the pod may take to end, in seconds.
func (r *request) grace() int64 {
	if g := r.pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return *g
	}
	return defaultGrace
}

// stopDelay keeps the application up while others call it: the sidecar's preStop tells clients to go, but until the endpoint is gone
// everywhere they come again, and would find nobody. How long that takes nobody in the pod knows: it waits until nothing new came for
// the delay. A container with a preStop hook of its own says itself when it ends, and a pod with little time keeps it. Only
// beside native sidecars, which end after the application.
func (r *request) stopDelay(p *corev1.Pod) {
	d, grace := r.c.Proxy.StopDelaySeconds, r.grace()
	if d == 0 || !r.native || grace < d+graceMargin {
		return
	}
	most := max(d, min(grace-graceMargin, maxBusy))
	wait := &corev1.HTTPGetAction{Path: fmt.Sprintf("/drain/quiet?quiet=%ds&most=%ds", d, most), Port: intstr.FromInt32(r.statusPort)}
	for _, c := range r.pod.Spec.Containers {
		if c.Name == ContainerProxy || hasPreStop(c) {
			continue
		}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c.Name, Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: wait}}})
	}
}

// gatewayStop is the preStop hook of a gateway: it tells clients to go, and gets SIGTERM when nobody came for the delay. Load balancers may
// need long to hear that it ends, so it takes what the grace period leaves. Nil where somebody said how a gateway drains: then it does that.
func (r *request) gatewayStop() *corev1.LifecycleHandler {
	d, most := r.c.Proxy.StopDelaySeconds, min(r.grace()-gatewayMargin, longest)
	if d == 0 || most < d || r.saysHowItDrains() {
		return nil
	}
	return run(programProxy, "drain", "--status-port", strconv.Itoa(int(r.statusPort)), "--quiet", fmt.Sprintf("%ds", d), "--most", fmt.Sprintf("%ds", most))
}

// saysHowItDrains tells whether the pod or the mesh has Istio's settings of that, or the pod a preStop hook of its own.
func (r *request) saysHowItDrains() bool {
	variables := []string{"TERMINATION_DRAIN_DURATION_SECONDS", "EXIT_ON_ZERO_ACTIVE_CONNECTIONS"}
	for _, v := range variables {
		if _, ok := r.proxy.GetProxyMetadata()[v]; ok {
			return true
		}
	}
	for _, c := range r.pod.Spec.Containers {
		if c.Name != ContainerProxy {
			continue
		}
		if hasPreStop(c) {
			return true
		}
		for _, e := range c.Env {
			if slices.Contains(variables, e.Name) {
				return true
			}
		}
	}
	return r.proxy.GetTerminationDrainDuration() != nil
}

func hasPreStop(c corev1.Container) bool { return c.Lifecycle != nil && c.Lifecycle.PreStop != nil }
