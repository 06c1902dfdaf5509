package gateway

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"weft.mesh/weft/control/gatewayapi"
)

// infrastructure is what there is of a gateway at the moment.
func (c *Controller) infrastructure(d gatewayapi.Deployment) gatewayapi.Infrastructure {
	var out gatewayapi.Infrastructure
	if s, ok := c.seen.get(objectKey{services, d.Namespace, d.Name}); ok {
		out.Addresses = addressesOf(s)
	}
	if x, ok := c.seen.get(objectKey{deployments, d.Namespace, d.Name}); ok {
		n, _, _ := unstructured.NestedInt64(x.Object, "status", "availableReplicas")
		out.Ready = n > 0
	}
	return out
}

// addressesOf are where a Service is reached: those of its load balancer, or
// its name in the cluster where it has none.
func addressesOf(s *unstructured.Unstructured) []string {
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
