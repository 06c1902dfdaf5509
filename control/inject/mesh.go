package inject

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	mesh "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"
)

// ParseConfig reads the control plane's ConfigMap: values, and of the MeshConfig what injection honours, which is
// enablePrometheusMerge and the fields of defaultConfig that a pod's annotation may have. rest is the MeshConfig without
// that, for those who honour the other fields or refuse them (convert.MeshConfig).
func ParseConfig(values, meshConfig string) (c *Config, rest string, err error) {
	c = &Config{}
	if c.Values, err = ParseValues(values); err != nil {
		return nil, "", err
	}
	b, err := yaml.YAMLToJSONStrict([]byte(meshConfig))
	if err != nil {
		return nil, "", fmt.Errorf("mesh config: no YAML: %w", err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, "", fmt.Errorf("mesh config: want a mapping of fields: %w", err)
	}
	if raw, ok := fields["enablePrometheusMerge"]; ok {
		merge := true
		if err := json.Unmarshal(raw, &merge); err != nil {
			return nil, "", fmt.Errorf("mesh config: enablePrometheusMerge: %w", err)
		}
		c.NoPrometheusMerge = !merge
		delete(fields, "enablePrometheusMerge")
	}
	if raw, ok := fields["trustDomain"]; ok { // both need it
		if err := json.Unmarshal(raw, &c.TrustDomain); err != nil {
			return nil, "", fmt.Errorf("mesh config: trustDomain: %w", err)
		}
	}
	if c.Defaults, err = takeDefaults(fields); err != nil {
		return nil, "", fmt.Errorf("mesh config: defaultConfig: %w", err)
	}
	out, err := yaml.Marshal(fields)
	if len(fields) == 0 {
		out = nil
	}
	return c, string(out), err
}

// takeDefaults moves what injection honours of defaultConfig out of the fields.
func takeDefaults(fields map[string]json.RawMessage) (*mesh.ProxyConfig, error) {
	raw, ok := fields["defaultConfig"]
	if !ok {
		return nil, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	ours := map[string]json.RawMessage{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if name != "gatewayTopology" && (slices.Contains(forProxy, name) || slices.Contains(forOthers, name) || slices.Contains(withoutMeaning, name)) {
			ours[name] = all[name]
			delete(all, name)
		}
	}
	b, err := json.Marshal(ours)
	if err != nil {
		return nil, err
	}
	pc := &mesh.ProxyConfig{}
	if err := protojson.Unmarshal(b, pc); err != nil {
		return nil, err
	}
	if _, err := checkProxyConfig(pc); err != nil {
		return nil, err
	}
	delete(fields, "defaultConfig")
	if len(all) > 0 {
		if fields["defaultConfig"], err = json.Marshal(all); err != nil {
			return nil, err
		}
	}
	return pc, nil
}
