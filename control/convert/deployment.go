package convert

import (
	"fmt"
	"math"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/model"
)

// checkDeployment checks what other objects rely on: selector, labels, port
// names, service account. What the runtime can run is Options.CheckDeployment's.
func checkDeployment(w *walker, o *Object, d *appsv1.Deployment) {
	fail := func(code, path, val, msg, hint string) { w.problem(o, admin.SeverityError, code, path, val, msg, hint) }
	if n := d.Spec.Replicas; n != nil && *n < 0 {
		fail(CodeInvalidValue, "spec.replicas", fmt.Sprint(*n), "replicas is negative", "use 0 or more")
	}
	labels := d.Spec.Template.Labels
	for _, k := range sortedKeys(labels) {
		checkLabel(w, o, "spec.template.metadata.labels", k, labels[k])
	}
	sel := d.Spec.Selector
	switch {
	case sel == nil || len(sel.MatchLabels) == 0 && len(sel.MatchExpressions) == 0:
		fail(CodeMissingField, "spec.selector", "", "the selector is missing", "add matchLabels with labels of the pod template")
		return
	case len(sel.MatchExpressions) > 0:
		fail(CodeUnsupportedField, "spec.selector.matchExpressions", "", "the field is not supported", "use matchLabels")
	}
	for _, k := range sortedKeys(sel.MatchLabels) {
		want := sel.MatchLabels[k]
		path := "spec.selector.matchLabels[" + k + "]"
		if got, ok := labels[k]; !ok {
			fail(CodeSelectorMismatch, path, want, "the pod template has no label "+k, fmt.Sprintf("add %s: %s to spec.template.metadata.labels", k, want))
		} else if got != want {
			fail(CodeSelectorMismatch, path, want, fmt.Sprintf("the pod template has %s: %s", k, got), "make both the same")
		}
	}
	checkProxyConfig(fail, d.Spec.Template.Annotations)
	checkContainers(fail, d.Spec.Template.Spec.Containers)
	if sa := d.Spec.Template.Spec.ServiceAccountName; sa != "" && !isSubdomain(sa) {
		fail(CodeInvalidName, "spec.template.spec.serviceAccountName", sa, "the name is not valid", "use lower-case letters, digits and '-'")
	}
}

// checkProxyConfig checks a template's own proxy configuration, which today only a gateway has a use for.
func checkProxyConfig(fail func(code, path, val, msg, hint string), annotations map[string]string) {
	text := annotations[annotationProxyConfig]
	if text == "" {
		return
	}
	const path = "spec.template.metadata.annotations[" + annotationProxyConfig + "]"
	t, err := parseProxyConfig(text)
	switch {
	case err != nil:
		fail(CodeUnsupportedField, path, text, err.Error(), "gatewayTopology with numTrustedProxies, forwardClientCertDetails and proxyProtocol is supported")
	case t != model.Topology{} && annotations[annotationTemplates] != "gateway":
		fail(CodeUnsupportedField, path, text, "gatewayTopology is for gateways", "add "+annotationTemplates+": gateway, or remove it")
	}
}

func checkContainers(fail func(code, path, val, msg, hint string), containers []corev1.Container) {
	if len(containers) == 0 {
		fail(CodeMissingField, "spec.template.spec.containers", "", "the pod template has no container", "add one with a name and a command")
	}
	names, ports, numbers := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, c := range containers {
		base := fmt.Sprintf("spec.template.spec.containers[%d]", i)
		switch {
		case c.Name == "":
			fail(CodeMissingField, base+".name", "", "the container has no name", "add name: app")
		case !isLabel(c.Name):
			fail(CodeInvalidName, base+".name", c.Name, "the name is not valid", "use lower-case letters, digits and '-'")
		case names[c.Name]:
			fail(CodeDuplicateKey, base+".name", c.Name, "two containers have the same name", "rename one of them")
		}
		names[c.Name] = true
		for j, p := range c.Ports {
			path := fmt.Sprintf("%s.ports[%d]", base, j)
			if p.ContainerPort < 1 || p.ContainerPort > math.MaxUint16 {
				fail(CodeInvalidPort, path+".containerPort", fmt.Sprint(p.ContainerPort), "the port is out of range", "use 1 to 65535")
			}
			number := fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)
			if numbers[number] {
				fail(CodeDuplicatePort, path+".containerPort", fmt.Sprint(p.ContainerPort), "the pod has the port twice", "keep one of them")
			}
			numbers[number] = true
			if p.Name == "" {
				continue
			}
			if len(p.Name) > 15 || !portNameRE.MatchString(p.Name) {
				fail(CodeInvalidName, path+".name", p.Name, "the port name is not valid", "use at most 15 lower-case letters, digits and '-'")
			}
			if ports[p.Name] {
				fail(CodeDuplicatePort, path+".name", p.Name, "two ports of the pod have the same name", "rename one of them")
			}
			ports[p.Name] = true
		}
	}
}

func deploymentModel(c *conv, d *appsv1.Deployment) []model.Object {
	m := &model.Deployment{Meta: c.meta(), PodLabels: d.Spec.Template.Labels, ServiceAccount: d.Spec.Template.Spec.ServiceAccountName,
		Ports: map[string]uint16{}, Replicas: 1}
	if m.ServiceAccount == "" {
		m.ServiceAccount = "default"
	}
	if d.Spec.Replicas != nil {
		m.Replicas = *d.Spec.Replicas
	}
	m.Ports, _ = containerPorts(d.Spec.Template.Spec.Containers)
	return []model.Object{m}
}

func containerPorts(cs []corev1.Container) (named map[string]uint16, all []uint16) {
	named = map[string]uint16{}
	for _, c := range cs {
		for _, p := range c.Ports {
			if p.ContainerPort < 1 || p.ContainerPort > math.MaxUint16 {
				continue
			}
			all = append(all, uint16(p.ContainerPort))
			if p.Name != "" {
				named[p.Name] = uint16(p.ContainerPort)
			}
		}
	}
	return named, all
}
