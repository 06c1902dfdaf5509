package inject

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// interception is the only way that traffic is redirected.
const interception = "REDIRECT"

// validationUser is whom the check of the redirection runs as: anybody but the proxy.
const validationUser = 65532

// captureContainer is the init container that redirects the pod's traffic, or with a node agent
// the one that checks that the agent has; then the annotations tell the agent how.
func (r *request) captureContainer(res corev1.ResourceRequirements, annotations map[string]string) corev1.Container {
	if !r.c.CNI.Enabled {
		return r.initContainer(res)
	}
	annotations[annInterception] = interception
	for k, v := range r.traffic() {
		annotations[k] = v
	}
	return r.validationContainer(res)
}

// captured are the annotations by which a pod, or else the values, narrow what is captured.
func (r *request) captured(name, def string) string {
	if s, ok := r.pod.Annotations[name]; ok {
		return s
	}
	return def
}

// traffic are the annotations that say all that the values do, for a node agent, which does not know them. Those
// that say what is so without them are left out.
func (r *request) traffic() map[string]string {
	v := r.c.Proxy
	exclude := r.captured(annExcludeInbound, v.ExcludeInboundPorts)
	if r.statusPort != DefaultValues().Proxy.StatusPort { // that one is never captured
		exclude = strings.TrimSuffix(strconv.Itoa(int(r.statusPort))+","+exclude, ",")
	}
	out := map[string]string{}
	for _, x := range []struct{ name, value, without string }{
		{annIncludeRanges, r.captured(annIncludeRanges, v.IncludeIPRanges), "*"},
		{annExcludeRanges, r.captured(annExcludeRanges, v.ExcludeIPRanges), ""},
		{annIncludeInbound, r.captured(annIncludeInbound, v.IncludeInboundPorts), "*"},
		{annExcludeInbound, exclude, ""},
		{annIncludeOutbound, r.captured(annIncludeOutbound, v.IncludeOutboundPorts), ""},
		{annExcludeOutbound, r.captured(annExcludeOutbound, v.ExcludeOutboundPorts), ""},
	} {
		if x.value != x.without {
			out[x.name] = x.value
		}
	}
	return out
}

// validationContainer lets the pod start only if the node agent has redirected its traffic. The agent knows it by its name.
func (r *request) validationContainer(res corev1.ResourceRequirements) corev1.Container {
	return corev1.Container{
		Name: ContainerValidation, Image: r.image(), ImagePullPolicy: r.c.Global.ImagePullPolicy, Resources: res,
		Command: []string{programNode}, Args: []string{"validate"}, SecurityContext: restricted(validationUser),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

// initContainer redirects the pod's traffic. It is the only one with a capability.
func (r *request) initContainer(res corev1.ResourceRequirements) corev1.Container {
	v := r.c.Proxy
	exclude := []string{strconv.Itoa(metricsPort), strconv.Itoa(readyPort), strconv.Itoa(int(r.statusPort))}
	if s := r.captured(annExcludeInbound, v.ExcludeInboundPorts); s != "" {
		exclude = append(exclude, s)
	}
	c := corev1.Container{
		Name: ContainerInit, Image: r.image(), ImagePullPolicy: r.c.Global.ImagePullPolicy, Resources: res, Command: []string{programNode},
		Args: []string{"capture", "-p", "15001", "-z", "15006", "-u", strconv.Itoa(proxyID), "-m", interception,
			"-i", r.captured(annIncludeRanges, v.IncludeIPRanges), "-x", r.captured(annExcludeRanges, v.ExcludeIPRanges),
			"-b", r.captured(annIncludeInbound, v.IncludeInboundPorts), "-d", strings.Join(exclude, ",")},
		SecurityContext: restricted(0),
	}
	for _, x := range [][2]string{{"-q", r.captured(annIncludeOutbound, v.IncludeOutboundPorts)}, {"-o", r.captured(annExcludeOutbound, v.ExcludeOutboundPorts)}, {"-c", r.pod.Annotations[annExcludeInterfaces]}} {
		if x[1] != "" {
			c.Args = append(c.Args, x[0], x[1])
		}
	}
	if r.answersNames() {
		c.Args = append(c.Args, "--redirect-dns")
	}
	c.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_ADMIN"}
	return c
}
