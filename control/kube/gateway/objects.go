package gateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/inject"
	"weft.mesh/weft/model"
)

// Annotation of a Gateway that chooses the Service's type, Istio's.
const annServiceType = "networking.istio.io/service-type"

const (
	statusPort = 15021
	drainGrace = 60 // seconds that a stopping gateway has
)

// objectsOf makes everything that a gateway has.
func objectsOf(d gatewayapi.Deployment, owner *unstructured.Unstructured, conf *inject.Config, over overlays) ([]*unstructured.Unstructured, error) {
	meta := metav1.ObjectMeta{
		Name: d.Name, Namespace: d.Namespace, Labels: labelsOf(d), Annotations: d.Annotations,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: gateways.GroupVersion().String(), Kind: "Gateway", Name: owner.GetName(), UID: owner.GetUID()}},
	}
	account := &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: meta}
	service, err := serviceOf(d, meta, owner)
	if err != nil {
		return nil, err
	}
	deployment, err := deploymentOf(d, meta, conf, over)
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for _, x := range []struct {
		key string
		o   any
	}{{keyAccount, account}, {keyService, service}} {
		u, err := over.merge(x.key, x.o)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	out = append(out, deployment)
	for _, key := range []string{keyAutoscaler, keyBudget} {
		if over[key] == nil {
			continue
		}
		u, err := over.merge(key, skeleton(key, d, meta))
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// labelsOf are those of all objects of a gateway, and of its pods.
func labelsOf(d gatewayapi.Deployment) map[string]string {
	l := maps.Clone(d.Labels)
	if l == nil {
		l = map[string]string{}
	}
	l[model.GatewayNameLabel] = d.Gateway.Name
	l["gateway.networking.k8s.io/gateway-class-name"] = d.Class
	l[labelManaged] = managedBy
	return l
}

// selectorOf is what a gateway's pods are selected by: it may never change.
func selectorOf(d gatewayapi.Deployment) map[string]string {
	return map[string]string{model.GatewayNameLabel: d.Gateway.Name}
}

func serviceOf(d gatewayapi.Deployment, meta metav1.ObjectMeta, owner *unstructured.Unstructured) (*corev1.Service, error) {
	s := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: meta}
	s.Spec.Selector = selectorOf(d)
	switch t := corev1.ServiceType(owner.GetAnnotations()[annServiceType]); t {
	case "":
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort, corev1.ServiceTypeClusterIP:
		s.Spec.Type = t
	default:
		return nil, fmt.Errorf("annotation %s: %q: want LoadBalancer, NodePort or ClusterIP", annServiceType, t)
	}
	for _, a := range d.Addresses {
		ip, err := netip.ParseAddr(a)
		if err != nil || s.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue // the empty address is anybody's; control/gatewayapi says what else cannot be
		}
		s.Spec.LoadBalancerIP = ip.String()
		break
	}
	s.Spec.Ports = []corev1.ServicePort{{Name: "status-port", Port: statusPort, TargetPort: intstr.FromInt32(statusPort), Protocol: corev1.ProtocolTCP}}
	for _, p := range d.Ports {
		if p.Port != statusPort {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: p.Name, Port: int32(p.Port), TargetPort: intstr.FromInt32(int32(p.Port)), Protocol: corev1.ProtocolTCP})
		}
	}
	return s, nil
}

// deploymentOf makes the Deployment with the proxy that injection gives to pods of the template gateway.
func deploymentOf(d gatewayapi.Deployment, meta metav1.ObjectMeta, conf *inject.Config, over overlays) (*unstructured.Unstructured, error) {
	pod := labelsOf(d)
	// Traffic to it is not what a sidecar would take, and the webhook finds its proxy there already.
	pod["sidecar.istio.io/inject"] = "true"
	if conf.Revision != "" {
		pod["istio.io/rev"] = conf.Revision
	}
	grace := int64(drainGrace)
	one, zero := intstr.FromInt32(1), intstr.FromInt32(0)
	x := &appsv1.Deployment{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: meta}
	x.Spec.Selector = &metav1.LabelSelector{MatchLabels: selectorOf(d)}
	x.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &one, MaxUnavailable: &zero}}
	if over[keyAutoscaler] == nil {
		n := int32(1)
		x.Spec.Replicas = &n
	}
	x.Spec.Template.Labels = pod
	x.Spec.Template.Annotations = maps.Clone(d.Annotations)
	if x.Spec.Template.Annotations == nil {
		x.Spec.Template.Annotations = map[string]string{}
	}
	for k, v := range map[string]string{
		"inject.istio.io/templates": "gateway", "prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus",
	} {
		x.Spec.Template.Annotations[k] = v
	}
	proxy := corev1.Container{Name: inject.ContainerProxy, Image: "auto"}
	for _, p := range d.Ports {
		proxy.Ports = append(proxy.Ports, corev1.ContainerPort{ContainerPort: int32(p.Port), Protocol: corev1.ProtocolTCP})
	}
	x.Spec.Template.Spec = corev1.PodSpec{
		ServiceAccountName: d.Name, TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{proxy},
		// Ports below 1024 without a capability.
		SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}}},
	}
	text, err := yaml.Marshal(x)
	if err != nil {
		return nil, err
	}
	out, all, err := conf.Manifest(text, d.Namespace)
	if err != nil {
		return nil, fmt.Errorf("proxy of the gateway: %w", err)
	}
	for _, o := range all {
		if !o.Injected {
			return nil, fmt.Errorf("proxy of the gateway: %s", o.Why)
		}
	}
	var full appsv1.Deployment
	if err := yaml.Unmarshal(out, &full); err != nil {
		return nil, fmt.Errorf("proxy of the gateway: %w", err)
	}
	return over.merge(keyDeployment, &full)
}

// toUnstructured is a typed object for the dynamic client, without what is empty and the server's.
func toUnstructured(o any) (*unstructured.Unstructured, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(b, &u.Object); err != nil {
		return nil, err
	}
	delete(u.Object, "status")
	for _, path := range [][]string{{"metadata", "creationTimestamp"}, {"spec", "template", "metadata", "creationTimestamp"}} {
		unstructured.RemoveNestedField(u.Object, path...)
	}
	return u, nil
}

// kinds are resources by the kind that an object has.
var kinds = map[string]schema.GroupVersionResource{
	"ServiceAccount": serviceAccounts, "Service": services, "Deployment": deployments,
	"HorizontalPodAutoscaler": autoscalers, "PodDisruptionBudget": budgets,
}

func keyFor(o *unstructured.Unstructured) objectKey {
	return objectKey{kinds[o.GetKind()], o.GetNamespace(), o.GetName()}
}
