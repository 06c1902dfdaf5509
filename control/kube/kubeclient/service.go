package kubeclient

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// ServiceAddresses are where a Service is reached: those of its load balancer, or
// its name in the cluster where it has none.
func ServiceAddresses(s *unstructured.Unstructured) []string {
	if t, _, _ := unstructured.NestedString(s.Object, "spec", "type"); t != string(corev1.ServiceTypeLoadBalancer) {
		return []string{fmt.Sprintf("%s.%s.svc.cluster.local", s.GetName(), s.GetNamespace())}
	}
	var out []string
	list, _, _ := unstructured.NestedSlice(s.Object, "status", "loadBalancer", "ingress")
	for _, x := range list {
		m, _ := x.(map[string]any)
		for _, k := range []string{"ip", "hostname"} {
			if a, _ := m[k].(string); a != "" {
				out = append(out, a)
				break
			}
		}
	}
	return out
}
