// Package inject puts the proxy into a pod: a pod in, a pod and a patch out.
//
// It is pure: what it does depends on the pod, its namespace's labels and a [Config], and nothing else. The webhook
// (control/admission) and `weft inject` are the same function, [Config.Inject]; whether a pod is to have a proxy is [Config.Required].
// Labels, annotations, precedence, names of containers, volumes and variables are Istio's (docs/kubernetes/annotations.md).
//
// An annotation of Istio's that asks for something that Weft does not do is refused, or reported by name where leaving it out
// changes neither traffic nor policy: never ignored. A pod that has its proxy is left as it is.
package inject
