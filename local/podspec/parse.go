package podspec

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"weft.mesh/weft/node/capture"
)

// Bounds of one Deployment here.
const (
	MaxReplicas   = 200
	maxContainers = 16
	defaultGrace  = 30 * time.Second
)

const podPath = "spec.template.spec"

type parser struct{ problems []Problem }

func (p *parser) fail(field, value, message, hint string) {
	p.problems = append(p.problems, Problem{Field: field, Value: short(value), Message: message, Hint: hint})
}

func (p *parser) deployment(d *appsv1.Deployment) Spec {
	t := d.Spec.Template
	s := Spec{Namespace: d.Namespace, Name: d.Name, Hash: hashOf(t), Replicas: 1,
		Labels: maps.Clone(t.Labels), Annotations: maps.Clone(t.Annotations), Capture: true, Grace: defaultGrace}
	if s.Namespace == "" {
		s.Namespace = "default"
	}
	// Pod names must fit a DNS label with the hash and five characters added.
	if errs := validation.IsDNS1123Label(d.Name); len(errs) > 0 || len(d.Name) > 46 {
		p.fail("metadata.name", d.Name, "is not a name for local pods", "use at most 46 lower case letters, digits and dashes")
	}
	if d.Spec.Replicas != nil {
		s.Replicas = int(*d.Spec.Replicas)
	}
	if s.Replicas < 0 || s.Replicas > MaxReplicas {
		p.fail("spec.replicas", fmt.Sprint(s.Replicas), "is out of range", fmt.Sprintf("use 0 to %d", MaxReplicas))
	}
	p.selector(d)
	s.Strategy = p.strategy(d.Spec.Strategy, max(s.Replicas, 0))
	p.injection(&s)
	p.pod(&s, t.Spec)
	return s
}

func (p *parser) selector(d *appsv1.Deployment) {
	if d.Spec.Selector == nil || len(d.Spec.Selector.MatchLabels) == 0 {
		p.fail("spec.selector", "", "must be set", "use matchLabels with labels of the template")
		return
	}
	for _, k := range slices.Sorted(maps.Keys(d.Spec.Selector.MatchLabels)) {
		if want := d.Spec.Selector.MatchLabels[k]; d.Spec.Template.Labels[k] != want {
			p.fail("spec.selector.matchLabels", k+"="+want, "does not match the template's labels",
				fmt.Sprintf("add %s: %s to spec.template.metadata.labels", k, want))
		}
	}
}

func (p *parser) strategy(st appsv1.DeploymentStrategy, replicas int) Strategy {
	const at = "spec.strategy"
	switch st.Type {
	case "", appsv1.RollingUpdateDeploymentStrategyType:
	case appsv1.RecreateDeploymentStrategyType:
		if st.RollingUpdate != nil {
			p.fail(at+".rollingUpdate", "", "has no meaning with type Recreate", "remove it")
		}
		return Strategy{Recreate: true}
	default:
		p.fail(at+".type", string(st.Type), "is unknown", "use RollingUpdate or Recreate")
	}
	quarter := intstr.FromString("25%")
	surge, unavailable := &quarter, &quarter
	if r := st.RollingUpdate; r != nil {
		if r.MaxSurge != nil {
			surge = r.MaxSurge
		}
		if r.MaxUnavailable != nil {
			unavailable = r.MaxUnavailable
		}
	}
	out := Strategy{
		MaxSurge:       p.share(at+".rollingUpdate.maxSurge", surge, replicas, math.Ceil),
		MaxUnavailable: p.share(at+".rollingUpdate.maxUnavailable", unavailable, replicas, math.Floor),
	}
	if out.MaxSurge == 0 && out.MaxUnavailable == 0 {
		out.MaxUnavailable = 1 // otherwise nothing could ever change; Kubernetes does the same
	}
	return out
}

// share reads a number or a percentage of the replicas.
func (p *parser) share(at string, v *intstr.IntOrString, replicas int, round func(float64) float64) int {
	if v.Type == intstr.Int {
		if v.IntVal < 0 {
			p.fail(at, v.String(), "is negative", "use a number or a percentage")
		}
		return int(v.IntVal)
	}
	n := 0
	rest, ok := strings.CutSuffix(v.StrVal, "%")
	if _, err := fmt.Sscanf(rest, "%d", &n); !ok || err != nil || n < 0 || fmt.Sprint(n) != rest {
		p.fail(at, v.StrVal, "is not a percentage", "use a number or a percentage like 25%")
		return 0
	}
	return int(round(float64(replicas) * float64(n) / 100))
}

func (p *parser) injection(s *Spec) {
	const at = "spec.template.metadata."
	value, where := s.Labels[LabelInject], "labels"
	if value == "" {
		value, where = s.Annotations[LabelInject], "annotations"
	}
	switch value {
	case "":
	case "true", "false":
		b := value == "true"
		s.Inject = &b
	default:
		p.fail(at+where+"."+LabelInject, value, "is neither true nor false", "use \"true\" or \"false\"")
	}
	switch v := s.Annotations[AnnotationTemplates]; v {
	case "", "sidecar":
	case "gateway":
		s.Gateway = true
	default:
		p.fail(at+"annotations."+AnnotationTemplates, v, "is not supported", "use gateway or sidecar")
	}
	switch v := s.Annotations[AnnotationInterception]; v {
	case "", "REDIRECT":
	case "NONE":
		s.Capture = false
	default:
		p.fail(at+"annotations."+AnnotationInterception, v, "is not supported", "use REDIRECT or NONE")
	}
	traffic, err := capture.ParseTraffic(s.Annotations)
	if err != nil {
		a := err.(*capture.AnnotationError)
		p.fail(at+"annotations."+a.Annotation, a.Value, a.Reason, "")
	}
	s.Traffic = traffic
	p.meshAnnotations(s.Annotations)
}

// honoured are the annotations of a pod template that mean something here,
// beside those of capture. Others are not the mesh's and pass.
var honoured = []string{LabelInject, AnnotationTemplates, AnnotationInterception, AnnotationSidecarStatus, AnnotationProxyConfig}

// meshAnnotations refuses annotations that ask something of an Istio sidecar
// which ours would not do.
func (p *parser) meshAnnotations(all map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(all)) {
		domain, _, _ := strings.Cut(k, "/")
		if domain != "istio.io" && !strings.HasSuffix(domain, ".istio.io") || domain == "traffic.sidecar.istio.io" || slices.Contains(honoured, k) {
			continue
		}
		p.fail("spec.template.metadata.annotations."+k, all[k], "is not supported for local pods", "remove it; supported: "+strings.Join(honoured, ", ")+", traffic.sidecar.istio.io/…")
	}
}

func (p *parser) pod(s *Spec, t corev1.PodSpec) {
	s.ServiceAccount = t.ServiceAccountName
	if s.ServiceAccount == "" {
		s.ServiceAccount = t.DeprecatedServiceAccount
	}
	if s.ServiceAccount == "" {
		s.ServiceAccount = "default"
	}
	if g := t.TerminationGracePeriodSeconds; g != nil {
		s.Grace = time.Duration(*g) * time.Second
		if *g < 0 || *g > 3600 {
			p.fail(podPath+".terminationGracePeriodSeconds", fmt.Sprint(*g), "is out of range", "use 0 to 3600")
		}
	}
	if r := t.RestartPolicy; r != "" && r != corev1.RestartPolicyAlways {
		p.fail(podPath+".restartPolicy", string(r), "is not supported for a Deployment", hints["restartPolicy"])
	}
	if d := t.DNSPolicy; d != "" && d != corev1.DNSClusterFirst {
		p.fail(podPath+".dnsPolicy", string(d), "is not supported", hints["dnsConfig"])
	}
	p.containers(s, t.Containers)
}

func (p *parser) containers(s *Spec, list []corev1.Container) {
	const at = podPath + ".containers"
	if len(list) == 0 || len(list) > maxContainers {
		p.fail(at, fmt.Sprint(len(list)), "is no number of containers that can run", fmt.Sprintf("use 1 to %d", maxContainers))
	}
	names, hasProxy := map[string]bool{}, false
	for i, c := range list {
		path := fmt.Sprintf("%s[%d]", at, i)
		proxy := s.Gateway && c.Name == ProxyContainer
		hasProxy = hasProxy || proxy
		if len(validation.IsDNS1123Label(c.Name)) > 0 {
			p.fail(path+".name", c.Name, "is not a container name", "use lower case letters, digits and dashes")
		}
		if names[c.Name] {
			p.fail(path+".name", c.Name, "is used twice", "give every container a name of its own")
		}
		if c.Name == ProxyContainer && !s.Gateway {
			p.fail(path+".name", c.Name, "is the name of the sidecar",
				"use another name, or the annotation "+AnnotationTemplates+": gateway for a gateway")
		}
		names[c.Name] = true
		s.Containers = append(s.Containers, p.container(path, c, proxy))
	}
	if s.Gateway && !hasProxy {
		p.fail(at, "", "has no container named "+ProxyContainer, "a gateway's proxy runs in the container of that name")
	}
}

func (p *parser) container(path string, c corev1.Container, proxy bool) Container {
	out := Container{Name: c.Name, Dir: c.WorkingDir, Command: slices.Concat(c.Command, c.Args)}
	switch {
	case proxy && len(out.Command) > 0:
		p.fail(path+".command", strings.Join(out.Command, " "), "has no effect: this container is the proxy itself", "remove command and args")
	case !proxy && len(c.Command) == 0:
		p.fail(path+".command", "", "must be set: a local process has no image to take it from", "name the program, for example command: [python3, -m, http.server]")
	}
	if c.WorkingDir != "" && !filepath.IsAbs(c.WorkingDir) {
		p.fail(path+".workingDir", c.WorkingDir, "is not absolute", "begin it with /")
	}
	for i, e := range c.Env {
		out.Env = append(out.Env, p.env(fmt.Sprintf("%s.env[%d]", path, i), e))
	}
	for i, port := range c.Ports {
		out.Ports = append(out.Ports, p.port(fmt.Sprintf("%s.ports[%d]", path, i), port, proxy))
	}
	out.Startup = p.probe(path+".startupProbe", c.StartupProbe, out.Ports, true)
	out.Readiness = p.probe(path+".readinessProbe", c.ReadinessProbe, out.Ports, false)
	out.Liveness = p.probe(path+".livenessProbe", c.LivenessProbe, out.Ports, true)
	if proxy && (c.LivenessProbe != nil || c.ReadinessProbe != nil || c.StartupProbe != nil) {
		p.fail(path+".readinessProbe", "", "has no effect: the proxy's own readiness is used", "remove the probes")
	}
	return out
}

// envFields are the pod's fields that env may refer to.
var envFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "status.podIP", "status.hostIP", "spec.serviceAccountName", "spec.nodeName"}

func (p *parser) env(path string, e corev1.EnvVar) EnvVar {
	if e.Name == "" || strings.ContainsAny(e.Name, "=\x00") {
		p.fail(path+".name", e.Name, "is not a variable's name", "use letters, digits and underscores")
	}
	out := EnvVar{Name: e.Name, Value: e.Value}
	if e.ValueFrom == nil {
		return out
	}
	if e.Value != "" {
		p.fail(path+".value", e.Value, "is set together with valueFrom", "use one of them")
	}
	ref := e.ValueFrom.FieldRef
	if ref == nil {
		return out // its other forms are refused by name
	}
	if out.Field = ref.FieldPath; !slices.Contains(envFields, ref.FieldPath) && !isMapRef(ref.FieldPath) {
		p.fail(path+".valueFrom.fieldRef.fieldPath", ref.FieldPath, "is not supported", "use "+strings.Join(envFields, ", ")+", metadata.labels['KEY'] or metadata.annotations['KEY']")
	}
	return out
}

// isMapRef recognises metadata.labels['KEY'] and metadata.annotations['KEY'].
func isMapRef(path string) bool {
	_, _, ok := mapRef(path)
	return ok
}

func mapRef(path string) (mapName, key string, ok bool) {
	for _, name := range []string{"labels", "annotations"} {
		if rest, found := strings.CutPrefix(path, "metadata."+name+"['"); found {
			key, found = strings.CutSuffix(rest, "']")
			return name, key, found && key != ""
		}
	}
	return "", "", false
}

func (p *parser) port(path string, c corev1.ContainerPort, proxy bool) Port {
	if c.ContainerPort < 1 || c.ContainerPort > 65535 {
		p.fail(path+".containerPort", fmt.Sprint(c.ContainerPort), "is not a port", "use 1 to 65535")
	}
	if c.Protocol != "" && c.Protocol != corev1.ProtocolTCP && c.Protocol != corev1.ProtocolUDP {
		p.fail(path+".protocol", string(c.Protocol), "is not supported", "use TCP or UDP")
	}
	if c.HostPort < 0 || c.HostPort > 65535 {
		p.fail(path+".hostPort", fmt.Sprint(c.HostPort), "is not a port", "use 1 to 65535")
	} else if c.HostPort != 0 && !proxy {
		p.fail(path+".hostPort", fmt.Sprint(c.HostPort), "is supported only for the "+ProxyContainer+" container of a gateway",
			"publish the port through an ingress gateway")
	}
	return Port{Name: c.Name, Port: uint16(c.ContainerPort), HostPort: uint16(c.HostPort), UDP: c.Protocol == corev1.ProtocolUDP}
}

// hashOf names a template in pod names: eight characters that make no words.
func hashOf(t corev1.PodTemplateSpec) string {
	b, err := json.Marshal(t)
	if err != nil {
		b = fmt.Appendf(nil, "%v", t) // cannot happen: it was read from JSON
	}
	return Hash(string(b))
}

// Hash shortens a text to eight characters that are allowed in names.
func Hash(text string) string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	h := fnv.New64a()
	h.Write([]byte(text))
	n := h.Sum64()
	out := make([]byte, 8)
	for i := range out {
		out[i] = letters[n%uint64(len(letters))]
		n /= uint64(len(letters))
	}
	return string(out)
}
