package render

import (
	"fmt"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Values are a chart's settings, decoded as YAML or JSON.
type Values map[string]any

// maxIndex bounds the lists that --set can make.
const maxIndex = 256

// Merge returns under with over laid on top: maps key by key, anything else
// replaced, null removed. Neither is changed.
func Merge(under, over Values) Values {
	out := make(Values, len(under))
	for k, v := range under {
		out[k] = clone(v)
	}
	for k, v := range over {
		if v == nil {
			delete(out, k)
			continue
		}
		a, okA := asMap(out[k])
		b, okB := asMap(v)
		if okA && okB {
			out[k] = map[string]any(Merge(a, b))
			continue
		}
		out[k] = clone(v)
	}
	return out
}

func asMap(v any) (Values, bool) {
	switch m := v.(type) {
	case Values:
		return m, true
	case map[string]any:
		return m, true
	}
	return nil, false
}

func clone(v any) any {
	switch x := v.(type) {
	case map[string]any, Values:
		m, _ := asMap(x)
		return map[string]any(Merge(m, nil))
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = clone(x[i])
		}
		return out
	}
	return v
}

// ParseYAML reads a values file.
func ParseYAML(name string, b []byte) (Values, error) {
	var v Values
	if err := yaml.UnmarshalStrict(b, &v); err != nil {
		return nil, fmt.Errorf("values file %s: %w", name, err)
	}
	return v, nil
}

// ParseSet reads --set: KEY=VALUE[,KEY=VALUE]. A key is names with dots and
// [index]; a value is a word, {a,b} for a list, or null, true, false or a
// number. A backslash takes the meaning from a comma, a dot, a brace.
func ParseSet(into Values, text string) (Values, error) {
	out := Merge(into, nil)
	for _, part := range splitUnquoted(text, ',', true) {
		key, value, ok := strings.Cut(part, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--set %q: want KEY=VALUE", part)
		}
		path, err := parsePath(key)
		if err != nil {
			return nil, fmt.Errorf("--set %q: %w", part, err)
		}
		v, err := put(map[string]any(out), path, parseValue(value))
		if err != nil {
			return nil, fmt.Errorf("--set %q: %w", part, err)
		}
		out, _ = asMap(v)
	}
	return out, nil
}

// step is one part of a key: a name, or an index where name is empty.
type step struct {
	name  string
	index int
}

func parsePath(key string) ([]step, error) {
	var out []step
	for _, p := range splitUnquoted(key, '.', false) {
		name, rest, indexed := strings.Cut(p, "[")
		if name = unescape(name); name == "" {
			return nil, fmt.Errorf("key %q: a name is empty", key)
		}
		out = append(out, step{name: name})
		for indexed {
			var num string
			var closed bool
			if num, rest, closed = strings.Cut(rest, "]"); !closed {
				return nil, fmt.Errorf("key %q: [ without ]", key)
			}
			n, err := strconv.Atoi(num)
			if err != nil || n < 0 || n > maxIndex {
				return nil, fmt.Errorf("key %q: index %q: want a number up to %d", key, num, maxIndex)
			}
			out = append(out, step{index: n})
			if rest == "" {
				break
			}
			if rest[0] != '[' {
				return nil, fmt.Errorf("key %q: %q after ]", key, rest)
			}
			rest = rest[1:]
		}
	}
	return out, nil
}

// put sets v at path in what is there, and returns the result.
func put(at any, path []step, v any) (any, error) {
	if len(path) == 0 {
		return v, nil
	}
	s := path[0]
	if s.name == "" {
		list, ok := at.([]any)
		if at != nil && !ok {
			return nil, fmt.Errorf("[%d]: this is no list", s.index)
		}
		for len(list) <= s.index {
			list = append(list, nil)
		}
		x, err := put(list[s.index], path[1:], v)
		list[s.index] = x
		return list, err
	}
	m, ok := asMap(at)
	if !ok {
		m = Values{}
	}
	x, err := put(m[s.name], path[1:], v)
	m[s.name] = x
	return map[string]any(m), err
}

func parseValue(s string) any {
	if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
		list := []any{}
		if inner := s[1 : len(s)-1]; inner != "" {
			for _, p := range splitUnquoted(inner, ',', false) {
				list = append(list, scalar(p))
			}
		}
		return list
	}
	return scalar(s)
}

func scalar(s string) any {
	switch s {
	case "null":
		return nil
	case "true":
		return true
	case "false":
		return false
	}
	// 007 and 1e3 stay text, as with Helm.
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(n, 10) == s {
		return float64(n)
	}
	return unescape(s)
}

// splitUnquoted splits at sep outside braces (where those count) and after no backslash.
func splitUnquoted(s string, sep byte, braces bool) []string {
	var out []string
	depth, start := 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case braces && c == '{':
			depth++
		case braces && c == '}' && depth > 0:
			depth--
		case c == sep && depth == 0:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
