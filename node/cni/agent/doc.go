// Package agent is what the node agent does for the pods of its node: it tells
// the CNI plugin what is to become of a pod ([Judge]), and mends pods that
// started before the plugin was there ([Repair]).
//
// It knows Kubernetes' pods and nothing else of the mesh: injection has written
// all that matters into the pod. It reads pods of its own node only, and what it
// does to one that is broken is chosen by [Mode]: program the rules into the
// running pod, delete the pod, or label it.
//
// A pod that cannot be judged is an error, and does not start; one that has no
// proxy, or redirects by itself, is left alone.
package agent

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"weft.mesh/weft/node/cni"
)

// What injection writes into pods, as control/inject does and Istio.
const (
	annotationStatus    = "sidecar.istio.io/status"
	annotationTraffic   = "traffic.sidecar.istio.io/"
	containerProxy      = "istio-proxy"
	containerInit       = "istio-init"
	containerValidation = "istio-validation"
	variableNames       = "ISTIO_META_DNS_CAPTURE"
	roleSidecar         = "sidecar" // first argument of a proxy whose pod is captured
)

// mirrorAnnotation is of the API server's picture of a static pod, and has the UID that the runtime knows.
const mirrorAnnotation = "kubernetes.io/config.hash"

// Decide is what is to become of a pod.
func Decide(p *corev1.Pod) cni.Answer {
	named := func(name string) func(corev1.Container) bool {
		return func(c corev1.Container) bool { return c.Name == name }
	}
	all := slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
	proxy := slices.IndexFunc(all, named(containerProxy))
	switch {
	case p.Spec.HostNetwork:
		return cni.Answer{Why: "it has the node's network"}
	case p.Annotations[annotationStatus] == "":
		return cni.Answer{Why: "it is not injected"}
	case slices.ContainsFunc(p.Spec.InitContainers, named(containerInit)):
		return cni.Answer{Why: "its container istio-init redirects"}
	case proxy < 0:
		return cni.Answer{Why: "it has no proxy"}
	case !validated(p) && (len(all[proxy].Args) == 0 || all[proxy].Args[0] != roleSidecar):
		return cni.Answer{Why: "its proxy is no sidecar"}
	}
	a := cni.Answer{Capture: true, Annotations: map[string]string{}, Names: answersNames(all[proxy])}
	for k, v := range p.Annotations {
		if len(k) > len(annotationTraffic) && k[:len(annotationTraffic)] == annotationTraffic {
			a.Annotations[k] = v
		}
	}
	return a
}

// answersNames tells whether the proxy answers the pod's DNS queries, as injection sets it.
func answersNames(proxy corev1.Container) bool {
	return slices.ContainsFunc(proxy.Env, func(e corev1.EnvVar) bool { return e.Name == variableNames && e.Value == "true" })
}

// validated tells whether the pod checks its redirection before anything else starts.
func validated(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == containerValidation })
}

// same tells whether p is the pod that the runtime means: another of the same name may have come since.
func same(p *corev1.Pod, uid string) bool {
	return uid == "" || string(p.UID) == uid || p.Annotations[mirrorAnnotation] == uid
}
