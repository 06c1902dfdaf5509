package gateway

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/kube/kubeclient"
)

// infrastructure is what there is of a gateway at the moment.
func (c *Controller) infrastructure(d gatewayapi.Deployment) gatewayapi.Infrastructure {
	var out gatewayapi.Infrastructure
	if s, ok := c.seen.get(objectKey{services, d.Namespace, d.Name}); ok {
		out.Addresses = kubeclient.ServiceAddresses(s)
	}
	if x, ok := c.seen.get(objectKey{deployments, d.Namespace, d.Name}); ok {
		n, _, _ := unstructured.NestedInt64(x.Object, "status", "availableReplicas")
		out.Ready = n > 0
	}
	return out
}
