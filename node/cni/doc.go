// Package cni is the chained CNI plugin weft-cni: it redirects the traffic of a
// pod to its proxy while the pod's network is set up, so that the pod needs no
// privilege for that.
//
// The plugin knows no Kubernetes. It asks the node agent on a Unix socket what
// is to become of a pod ([Ask]) and programs the pod's namespace itself
// ([Program]), by the rules of node/capture. [Serve] is the agent's side of the
// socket. A message is one line of JSON, at most [maxMessage] bytes.
//
// It fails closed: without the agent's word, or where the rules cannot be
// programmed, the pod is not started, and the error says why; the kubelet tries
// again. Pods of excluded namespaces and the agent's own are never asked about,
// so that the agent can always start. It passes the result of the plugin before
// it on as it came, keeps no state, and writes nothing to the disk.
package cni

import "weft.mesh/weft/node/capture"

// Type is the plugin's name: of its program, and in the network configuration.
const Type = "weft-cni"

// Users of the proxy: what belongs to them is left alone.
const proxyID = 1337

// Pod is the pod that a network is set up for, as the runtime names it.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"` // empty: a runtime that does not say
}

// Answer is what is to become of a pod.
type Answer struct {
	// Capture: the pod's traffic goes through its proxy, narrowed by the annotations traffic.sidecar.istio.io/*.
	Capture     bool              `json:"capture"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// Names: the pod's DNS queries go to its proxy too, whatever server they are for: which ones the pod has only its containers know.
	Names bool `json:"names,omitempty"`
	// Why it is not captured, for logs.
	Why string `json:"why,omitempty"`
	// Error means that nobody knows, and the pod must not start.
	Error string `json:"error,omitempty"`
}

// table is what Program installs.
const table = capture.TableCapture
