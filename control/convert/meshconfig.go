package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	mesh "istio.io/api/mesh/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"weft.mesh/weft/model"
	"weft.mesh/weft/spiffe"
)

// maxMeshConfig bounds a MeshConfig in bytes.
const maxMeshConfig = 1 << 20

// meshConfigFields are the fields of MeshConfig that are honoured, by the path
// of the message that has them; "*" takes a message whole.
var meshConfigFields = map[string]string{
	"":                      "trustDomain rootNamespace accessLogFile accessLogFormat accessLogEncoding connectTimeout enableAutoMtls outboundTrafficPolicy localityLbSetting defaultConfig discoverySelectors ingressClass ingressService ingressControllerMode ingressSelector",
	"outboundTrafficPolicy": "mode",
	"localityLbSetting":     "*",
	"defaultConfig":         "tracing",
	"defaultConfig.tracing": "sampling",
}

// MeshConfig reads Istio's MeshConfig (what the ConfigMap istio has under mesh)
// in YAML or JSON. A field that is not honoured is an error that names it: what
// is accepted works. Fields that are not there keep what base says.
func MeshConfig(text string, base model.Mesh) (model.Mesh, error) {
	if len(text) > maxMeshConfig {
		return base, fmt.Errorf("mesh config: %d bytes: at most %d", len(text), maxMeshConfig)
	}
	b, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return base, fmt.Errorf("mesh config: no YAML: %w", err)
	}
	var raw map[string]any
	if err := json.Unmarshal(b, &raw); err != nil {
		return base, errors.New("mesh config: want a mapping of fields, like accessLogFile: /dev/stdout")
	}
	if err := checkMeshFields("", raw); err != nil {
		return base, fmt.Errorf("mesh config: %w", err)
	}
	var mc mesh.MeshConfig
	if err := protojson.Unmarshal(b, &mc); err != nil {
		return base, fmt.Errorf("mesh config: %s", strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: "))
	}
	return meshModel(base, raw, &mc)
}

// checkMeshFields refuses what is not honoured. It looks at the text, not at the
// message, in which a field with its zero value is not there.
func checkMeshFields(path string, fields map[string]any) error {
	allowed := strings.Fields(meshConfigFields[path])
	if slices.Contains(allowed, "*") {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		full := strings.TrimPrefix(path+"."+name, ".")
		if !slices.Contains(allowed, name) {
			return fmt.Errorf("%s: not supported; supported are %s", full, strings.Join(allowed, ", "))
		}
		if m, ok := fields[name].(map[string]any); ok {
			if err := checkMeshFields(full, m); err != nil {
				return err
			}
		}
	}
	return nil
}

func meshModel(out model.Mesh, raw map[string]any, mc *mesh.MeshConfig) (model.Mesh, error) {
	has := func(name string) bool { return raw[name] != nil }
	if has("trustDomain") {
		if err := spiffe.ValidateTrustDomain(mc.TrustDomain); err != nil {
			return out, fmt.Errorf("mesh config: trustDomain: %w", err)
		}
		out.TrustDomain = mc.TrustDomain
	}
	if has("rootNamespace") {
		if !isLabel(mc.RootNamespace) {
			return out, fmt.Errorf("mesh config: rootNamespace %q: want the name of a namespace", mc.RootNamespace)
		}
		out.RootNamespace = mc.RootNamespace
	}
	if has("accessLogFile") {
		out.AccessLogFile = mc.AccessLogFile
		if f := mc.AccessLogFile; f != "" && !strings.HasPrefix(f, "/") {
			return out, fmt.Errorf("mesh config: accessLogFile %q: want an absolute path, like /dev/stdout", f)
		}
	}
	out.AccessLogJSON = mc.AccessLogEncoding == mesh.MeshConfig_JSON || out.AccessLogJSON && !has("accessLogEncoding")
	if has("accessLogFormat") {
		out.AccessLogFormat = mc.AccessLogFormat
		var object map[string]any
		if out.AccessLogJSON && mc.AccessLogFormat != "" && json.Unmarshal([]byte(mc.AccessLogFormat), &object) != nil {
			return out, fmt.Errorf("mesh config: accessLogFormat %q: want a JSON object, since accessLogEncoding is JSON", mc.AccessLogFormat)
		}
	}
	if d := mc.ConnectTimeout; d != nil {
		if out.ConnectTimeout = d.AsDuration(); out.ConnectTimeout <= 0 {
			return out, fmt.Errorf("mesh config: connectTimeout %v: want more than 0", out.ConnectTimeout)
		}
	}
	if mc.EnableAutoMtls != nil {
		out.DisableAutoMTLS = !mc.EnableAutoMtls.Value
	}
	switch mode := mc.GetOutboundTrafficPolicy().GetMode(); {
	case !has("outboundTrafficPolicy"):
	case mode == mesh.MeshConfig_OutboundTrafficPolicy_ALLOW_ANY, mode == mesh.MeshConfig_OutboundTrafficPolicy_REGISTRY_ONLY:
		out.RegistryOnly = mode == mesh.MeshConfig_OutboundTrafficPolicy_REGISTRY_ONLY
	default:
		return out, fmt.Errorf("mesh config: outboundTrafficPolicy.mode %v: want ALLOW_ANY or REGISTRY_ONLY", mode)
	}
	if err := meshSampling(&out, raw, mc); err != nil {
		return out, err
	}
	if has("discoverySelectors") {
		var err error
		if out.DiscoverySelectors, err = discoverySelectors(mc.DiscoverySelectors); err != nil {
			return out, err
		}
	}
	if err := meshIngress(&out.Ingress, raw, mc); err != nil {
		return out, err
	}
	if l := mc.LocalityLbSetting; l != nil {
		c := &conv{o: &Object{}, mesh: withDefaults(out)}
		out.LocalityLB = c.localityLB("localityLbSetting", l)
		for _, d := range c.diags {
			return out, fmt.Errorf("mesh config: %s %q: %s: %s", d.Field, d.Value, d.Message, d.Hint)
		}
	}
	return out, nil
}

// meshIngress reads which Ingresses are served, and by what.
func meshIngress(out *model.IngressSettings, raw map[string]any, mc *mesh.MeshConfig) error {
	if raw["ingressControllerMode"] != nil {
		out.Off = mc.IngressControllerMode == mesh.MeshConfig_OFF
		out.Unclassed = mc.IngressControllerMode == mesh.MeshConfig_DEFAULT
	}
	if raw["ingressClass"] != nil {
		if out.Class = mc.IngressClass; !isSubdomain(out.Class) {
			return fmt.Errorf("mesh config: ingressClass %q: want a value of the annotation %s, like weft", out.Class, annotationIngressClass)
		}
	}
	if raw["ingressSelector"] != nil {
		if out.Selector = mc.IngressSelector; out.Selector == "" || len(out.Selector) > 63 || !labelText.MatchString(out.Selector) {
			return fmt.Errorf("mesh config: ingressSelector %q: want the value of the label istio of the gateway's pods, like ingressgateway", out.Selector)
		}
	}
	if raw["ingressService"] != nil {
		out.Service = mc.IngressService
		ns, name, ok := strings.Cut(out.Service, "/")
		if !ok {
			ns, name = "any", out.Service
		}
		if !isLabel(ns) || !isLabel(name) {
			return fmt.Errorf("mesh config: ingressService %q: want the name of a Service, or namespace/name", out.Service)
		}
	}
	return nil
}

// discoverySelectors writes selectors as kubectl does: "a=b,c in (d,e)".
func discoverySelectors(list []*mesh.LabelSelector) ([]string, error) {
	var out []string
	for i, l := range list {
		s := &metav1.LabelSelector{MatchLabels: l.MatchLabels}
		for _, e := range l.MatchExpressions {
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: e.Key, Operator: metav1.LabelSelectorOperator(e.Operator), Values: e.Values})
		}
		parsed, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			return nil, fmt.Errorf("mesh config: discoverySelectors[%d]: %w", i, err)
		}
		out = append(out, parsed.String())
	}
	return out, nil
}

// meshSampling reads defaultConfig.tracing.sampling: percent of requests, of which 0 is none.
func meshSampling(out *model.Mesh, raw map[string]any, mc *mesh.MeshConfig) error {
	dc, _ := raw["defaultConfig"].(map[string]any)
	tracing, _ := dc["tracing"].(map[string]any)
	if _, ok := tracing["sampling"]; !ok {
		return nil
	}
	s := mc.GetDefaultConfig().GetTracing().GetSampling()
	switch {
	case s < 0 || s > 100:
		return fmt.Errorf("mesh config: defaultConfig.tracing.sampling %v: want 0 to 100", s)
	case s == 0:
		out.TraceSampling = -1
	default:
		out.TraceSampling = s
	}
	return nil
}
