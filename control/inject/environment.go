package inject

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// environment are the variables of the proxy's container, Istio's names.
func (r *request) environment() []corev1.EnvVar {
	var out []corev1.EnvVar
	value := func(k, v string) {
		if v != "" {
			out = append(out, corev1.EnvVar{Name: k, Value: v})
		}
	}
	field := func(k, path string) {
		out = append(out, corev1.EnvVar{Name: k, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}})
	}
	field("POD_NAME", "metadata.name")
	field("POD_NAMESPACE", "metadata.namespace")
	field("INSTANCE_IP", "status.podIP")
	field("INSTANCE_IPS", "status.podIPs")
	field("SERVICE_ACCOUNT", "spec.serviceAccountName")
	field("HOST_IP", "status.hostIP")
	value("PROXY_CONFIG", r.proxyJSON)
	value("TRUST_DOMAIN", r.c.trustDomain())
	value("ISTIO_META_CLUSTER_ID", or(r.c.Global.ClusterName, "Kubernetes"))
	field("ISTIO_META_NODE_NAME", "spec.nodeName")
	value("ISTIO_META_POD_PORTS", podPorts(r.pod))
	value("ISTIO_META_APP_CONTAINERS", appContainers(r.pod))
	value("ISTIO_META_WORKLOAD_NAME", r.owner.Name)
	if r.owner.Name != "" {
		value("ISTIO_META_OWNER", r.owner.reference(r.namespace))
	}
	if !r.gateway {
		value("ISTIO_META_INTERCEPTION_MODE", "REDIRECT")
	}
	value("ISTIO_META_MESH_ID", or(r.c.Global.MeshID, r.c.trustDomain()))
	value("ISTIO_META_NETWORK", or(r.pod.Labels["topology.istio.io/network"], r.c.Global.Network))
	value("ISTIO_KUBE_APP_PROBERS", r.probersJSON)
	value("ISTIO_PROMETHEUS_ANNOTATIONS", r.scrapeJSON)
	for _, k := range slices.Sorted(maps.Keys(r.proxy.GetProxyMetadata())) {
		out = slices.DeleteFunc(out, func(e corev1.EnvVar) bool { return e.Name == k })
		value(k, r.proxy.GetProxyMetadata()[k])
	}
	return out
}

// podPorts are the ports of the application's containers, as JSON.
func podPorts(p *corev1.Pod) string {
	ports := []corev1.ContainerPort{}
	for _, c := range p.Spec.Containers {
		if c.Name != ContainerProxy {
			ports = append(ports, c.Ports...)
		}
	}
	b, err := json.Marshal(ports)
	if err != nil { // plain values
		return ""
	}
	return string(b)
}

func appContainers(p *corev1.Pod) string {
	var names []string
	for _, c := range p.Spec.Containers {
		if c.Name != ContainerProxy {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, ",")
}
