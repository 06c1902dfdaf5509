package console

import (
	"encoding/json"
	"strings"
)

// hidden stands for a value that is not shown.
const hidden = "(hidden)"

// secretWords are parts of names of environment variables whose values are not shown.
var secretWords = []string{"PASSWORD", "PASSWD", "SECRET", "TOKEN", "CREDENTIAL", "PRIVATE", "APIKEY", "API_KEY", "ACCESS_KEY"}

// hide takes out of an object what may be secret: a Secret's data, environment
// variables named like a secret, and what kubectl keeps of an object in an annotation.
func hide(kind string, raw json.RawMessage) (json.RawMessage, error) {
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	if kind == "Secret" {
		for _, field := range []string{"data", "stringData"} {
			if m, ok := v[field].(map[string]any); ok {
				for k := range m {
					m[k] = hidden
				}
			}
		}
	}
	if meta, ok := v["metadata"].(map[string]any); ok {
		if notes, ok := meta["annotations"].(map[string]any); ok {
			delete(notes, "kubectl.kubernetes.io/last-applied-configuration")
		}
	}
	hideEnv(v)
	return json.Marshal(v)
}

// hideEnv walks to every list called env.
func hideEnv(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			hideEnv(e)
		}
	case map[string]any:
		for k, e := range v {
			if vars, ok := e.([]any); ok && k == "env" {
				hideVars(vars)
			}
			hideEnv(e)
		}
	}
}

func hideVars(vars []any) {
	for _, e := range vars {
		m, ok := e.(map[string]any)
		if !ok {
			continue
		}
		name, _ := m["name"].(string)
		if _, ok := m["value"]; ok && secretName(name) {
			m["value"] = hidden
		}
	}
}

func secretName(name string) bool {
	name = strings.ToUpper(name)
	for _, w := range secretWords {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}
