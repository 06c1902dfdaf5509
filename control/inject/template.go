package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"

	mesh "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Built-in templates.
const (
	templateSidecar = "sidecar"
	templateGateway = "gateway"
)

// notOurs are templates of Istio's that Weft does not have, and why.
var notOurs = map[string]string{
	"grpc-agent":   "weft-proxy serves no xDS to programs in its pod; proxyless gRPC talks to the control plane's port 15010",
	"grpc-simple":  "write the gRPC bootstrap into the image or a ConfigMap; proxyless gRPC talks to the control plane's port 15010",
	"waypoint":     "there is no ambient mode",
	"kube-gateway": "gateways of the Gateway API are made by the control plane",
}

// checkTemplate tells whether there is a template.
func (v *Values) checkTemplate(name string) error {
	if _, ok := v.Templates[name]; ok || name == templateSidecar || name == templateGateway {
		return nil
	}
	if why := notOurs[name]; why != "" {
		return fmt.Errorf("template %q is not available: %s", name, why)
	}
	have := slices.Sorted(maps.Keys(v.Templates))
	return fmt.Errorf("template %q is not known; there are %s", name, strings.Join(append([]string{templateGateway, templateSidecar}, have...), ", "))
}

// templates are the ones that a pod asks for.
func (v *Values) templates(p *corev1.Pod) ([]string, error) {
	text, ok := p.Annotations[annTemplates]
	if !ok {
		if len(v.DefaultTemplates) > 0 {
			return v.DefaultTemplates, nil
		}
		return []string{templateSidecar}, nil
	}
	var out []string
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if err := v.checkTemplate(name); err != nil {
			return nil, fmt.Errorf("annotation %s: %w", annTemplates, err)
		}
		out = append(out, name)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("annotation %s: %q names no template", annTemplates, text)
	}
	if slices.Contains(out, templateSidecar) && slices.Contains(out, templateGateway) {
		return nil, fmt.Errorf("annotation %s: %q: a pod is a sidecar's or a gateway's, not both", annTemplates, text)
	}
	return out, nil
}

// data is what a custom template sees: Istio's names.
type data struct {
	TypeMeta       metav1.TypeMeta
	DeploymentMeta metav1.ObjectMeta
	ObjectMeta     metav1.ObjectMeta
	Spec           corev1.PodSpec
	ProxyConfig    *mesh.ProxyConfig
	Values         map[string]any
	Revision       string
	ProxyImage     string
	ProxyUID       int
	ProxyGID       int
	NativeSidecars bool
}

// functions are those that custom templates may call.
var functions = template.FuncMap{
	"annotation": func(m metav1.ObjectMeta, name string, def any) string {
		if v, ok := m.Annotations[name]; ok {
			return v
		}
		return fmt.Sprint(def)
	},
	"valueOrDefault": func(v, def any) any {
		if v == nil || v == "" {
			return def
		}
		return v
	},
	"isset":  func(m map[string]string, k string) bool { _, ok := m[k]; return ok },
	"toJSON": toJSON,
	"toJson": toJSON,
	"toYaml": func(v any) (string, error) {
		b, err := yaml.Marshal(v)
		return strings.TrimSuffix(string(b), "\n"), err
	},
	"fromJSON":  func(s string) (v any, err error) { err = json.Unmarshal([]byte(s), &v); return v, err },
	"indent":    indent,
	"nindent":   func(n int, s string) string { return "\n" + indent(n, s) },
	"quote":     func(v any) string { return fmt.Sprintf("%q", fmt.Sprint(v)) },
	"toLower":   strings.ToLower,
	"toUpper":   strings.ToUpper,
	"contains":  func(sub, s string) bool { return strings.Contains(s, sub) },
	"hasPrefix": func(prefix, s string) bool { return strings.HasPrefix(s, prefix) },
	"hasSuffix": func(suffix, s string) bool { return strings.HasSuffix(s, suffix) },
	"default": func(def, v any) any {
		if v == nil || v == "" {
			return def
		}
		return v
	},
}

func toJSON(v any) (string, error) { b, err := json.Marshal(v); return string(b), err }

func indent(n int, s string) string {
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(s, "\n", "\n"+pad)
}

func parseTemplate(name, text string) (*template.Template, error) {
	return template.New(name).Funcs(functions).Option("missingkey=error").Parse(text)
}

// maxRendered bounds what a custom template may make, in bytes.
const maxRendered = 1 << 20

// render makes a custom template's part of a pod, as JSON.
func (r *request) render(name string) ([]byte, error) {
	t, err := parseTemplate(name, r.c.Templates[name])
	if err != nil {
		return nil, fmt.Errorf("template %q: %w", name, err)
	}
	values, err := json.Marshal(r.c.Values)
	if err != nil {
		return nil, err
	}
	d := data{
		TypeMeta: metav1.TypeMeta{APIVersion: r.owner.APIVersion, Kind: r.owner.Kind}, DeploymentMeta: metav1.ObjectMeta{Name: r.owner.Name, Namespace: r.namespace},
		ObjectMeta: r.pod.ObjectMeta, Spec: r.pod.Spec, ProxyConfig: r.proxy, Revision: r.c.revision(), ProxyImage: r.image(),
		ProxyUID: proxyID, ProxyGID: proxyID, NativeSidecars: r.native,
	}
	if err := json.Unmarshal(values, &d.Values); err != nil {
		return nil, err
	}
	var b strings.Builder
	if err := t.Execute(&limited{&b, maxRendered}, d); err != nil {
		return nil, fmt.Errorf("template %q: %w", name, err)
	}
	out, err := yaml.YAMLToJSON([]byte(b.String()))
	if err != nil {
		return nil, fmt.Errorf("template %q: what it makes is no YAML: %w", name, err)
	}
	var p corev1.Pod
	if err := json.Unmarshal(out, &p); err != nil {
		return nil, fmt.Errorf("template %q: what it makes is no part of a pod: %w", name, err)
	}
	return out, nil
}

// limited fails when more than left bytes are written.
type limited struct {
	to   *strings.Builder
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, fmt.Errorf("more than %d bytes", maxRendered)
	}
	return l.to.Write(b)
}
