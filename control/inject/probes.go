package inject

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// prober is one entry of ISTIO_KUBE_APP_PROBERS, as weft-proxy reads it.
type prober struct {
	HTTPGet        *corev1.HTTPGetAction   `json:"httpGet,omitempty"`
	TCPSocket      *corev1.TCPSocketAction `json:"tcpSocket,omitempty"`
	GRPC           *corev1.GRPCAction      `json:"grpc,omitempty"`
	TimeoutSeconds int32                   `json:"timeoutSeconds,omitempty"`
}

// rewrite is one handler that is to call the proxy instead.
type rewrite struct {
	container string
	at        []string // where in the container
	path      string
}

// rewriteProbes finds the probes and handlers that kubelet would make past mTLS, and what the proxy has to do for
// each. Those that run a command, or call another host than the pod, stay.
func (r *request) rewriteProbes() (env string, out []rewrite, err error) {
	if !r.rewrites {
		return "", nil, nil
	}
	probers := map[string]prober{}
	add := func(ct *corev1.Container, at []string, path string, h *corev1.ProbeHandler, timeout int32) {
		p, ok := r.prober(ct, h, timeout)
		if !ok {
			return
		}
		probers[path] = p
		out = append(out, rewrite{ct.Name, at, path})
	}
	for _, ct := range r.probed() {
		for _, x := range []struct {
			at, path string
			probe    *corev1.Probe
		}{{"livenessProbe", "livez", ct.LivenessProbe}, {"readinessProbe", "readyz", ct.ReadinessProbe}, {"startupProbe", "startupz", ct.StartupProbe}} {
			if x.probe != nil {
				add(ct, []string{x.at}, "/app-health/"+ct.Name+"/"+x.path, &x.probe.ProbeHandler, x.probe.TimeoutSeconds)
			}
		}
		if l := ct.Lifecycle; l != nil {
			for _, x := range []struct {
				at, path string
				h        *corev1.LifecycleHandler
			}{{"postStart", "poststartz", l.PostStart}, {"preStop", "prestopz", l.PreStop}} {
				if x.h != nil {
					add(ct, []string{"lifecycle", x.at}, "/app-lifecycle/"+ct.Name+"/"+x.path, &corev1.ProbeHandler{HTTPGet: x.h.HTTPGet, TCPSocket: x.h.TCPSocket}, 0)
				}
			}
		}
	}
	if len(probers) == 0 {
		return "", nil, nil
	}
	b, err := json.Marshal(probers) // sorted by path
	return string(b), out, err
}

// probed are the application's containers, and other native sidecars.
func (r *request) probed() []*corev1.Container {
	var out []*corev1.Container
	for i := range r.pod.Spec.InitContainers {
		if c := &r.pod.Spec.InitContainers[i]; c.Name != ContainerProxy && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c)
		}
	}
	for i := range r.pod.Spec.Containers {
		if c := &r.pod.Spec.Containers[i]; c.Name != ContainerProxy {
			out = append(out, c)
		}
	}
	return out
}

func (r *request) prober(ct *corev1.Container, h *corev1.ProbeHandler, timeout int32) (prober, bool) {
	p := prober{TimeoutSeconds: timeout}
	ok := false
	port := func(v intstr.IntOrString) intstr.IntOrString {
		n, found := portNumber(ct, v)
		if !found {
			r.warn("container %s: a probe names the port %s, which the container does not have: the probe is left as it is", ct.Name, v.String())
		}
		ok = found && n != r.statusPort // one of the proxy's own has been rewritten before
		return intstr.FromInt32(n)
	}
	switch {
	case h.HTTPGet != nil && h.HTTPGet.Host == "":
		p.HTTPGet = h.HTTPGet.DeepCopy()
		p.HTTPGet.Port = port(h.HTTPGet.Port)
	case h.TCPSocket != nil && h.TCPSocket.Host == "":
		p.TCPSocket = &corev1.TCPSocketAction{Port: port(h.TCPSocket.Port)}
	case h.GRPC != nil:
		p.GRPC = h.GRPC.DeepCopy()
		ok = p.GRPC.Port != r.statusPort
	}
	return p, ok
}

// portNumber finds a port that may have a name.
func portNumber(ct *corev1.Container, v intstr.IntOrString) (int32, bool) {
	if v.Type == intstr.Int {
		return v.IntVal, true
	}
	for _, p := range ct.Ports {
		if p.Name == v.StrVal {
			return p.ContainerPort, true
		}
	}
	var n int32
	if _, err := fmt.Sscanf(v.StrVal, "%d", &n); err == nil && fmt.Sprint(n) == v.StrVal && n > 0 {
		return n, true
	}
	return 0, false
}

// apply turns the handlers in the document.
func (w rewrite) apply(d document, port int32) {
	for _, list := range []string{"containers", "initContainers"} {
		for _, c := range d.containers(list) {
			if c["name"] != w.container {
				continue
			}
			h := c
			for _, k := range w.at {
				h, _ = h[k].(map[string]any)
			}
			if h == nil {
				continue
			}
			for _, k := range []string{"httpGet", "tcpSocket", "grpc"} {
				delete(h, k)
			}
			h["httpGet"] = map[string]any{"path": w.path, "port": port}
		}
	}
}
