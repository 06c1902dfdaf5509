package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// schema is the part of JSON Schema that values.schema.json uses. A keyword
// that is not here makes the file unreadable, so that none is without effect.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Ref         string             `json:"$ref,omitempty"` // #/$defs/NAME
	Defs        map[string]*schema `json:"$defs,omitempty"`
	Type        string             `json:"type,omitempty"`
	Enum        []any              `json:"enum,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	MaxLength   int                `json:"maxLength,omitempty"`
	Minimum     *float64           `json:"minimum,omitempty"`
	Maximum     *float64           `json:"maximum,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Additional  *bool              `json:"additionalProperties,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	root        *schema
	re          *regexp.Regexp
}

func loadSchema(fsys fs.FS, name string) (*schema, error) {
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, fmt.Errorf("chart: %w", err)
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	var s schema
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("chart: %s: %w", name, err)
	}
	if err := s.prepare(&s); err != nil {
		return nil, fmt.Errorf("chart: %s: %w", name, err)
	}
	return &s, nil
}

func (s *schema) prepare(root *schema) (err error) {
	s.root = root
	if s.Pattern != "" {
		if s.re, err = regexp.Compile(s.Pattern); err != nil {
			return err
		}
	}
	if s.Ref != "" && root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")] == nil {
		return fmt.Errorf("$ref %q: no such definition", s.Ref)
	}
	var errs []error
	for _, m := range []map[string]*schema{s.Defs, s.Properties} {
		for _, x := range m {
			errs = append(errs, x.prepare(root))
		}
	}
	if s.Items != nil {
		errs = append(errs, s.Items.prepare(root))
	}
	return errors.Join(errs...)
}

// check reports everything in v that the schema does not allow.
func (s *schema) check(v Values) error {
	var errs []error
	s.walk("", map[string]any(v), &errs)
	return errors.Join(errs...)
}

func (s *schema) walk(path string, v any, errs *[]error) {
	if s.Ref != "" {
		s = s.root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")]
	}
	fail := func(format string, args ...any) {
		*errs = append(*errs, fmt.Errorf("value %s: %s", path, fmt.Sprintf(format, args...)))
	}
	if s.Type != "" && !isType(v, s.Type) {
		fail("%s: want %s", show(v), article(s.Type))
		return
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		var words []string
		for _, e := range s.Enum {
			words = append(words, fmt.Sprint(e))
		}
		fail("%s: want one of %s", show(v), strings.Join(words, ", "))
	}
	switch x := v.(type) {
	case string:
		if s.re != nil && !s.re.MatchString(x) {
			fail("%q: want text that matches %s", x, s.Pattern)
		}
		if s.MaxLength > 0 && len(x) > s.MaxLength {
			fail("%q: %d characters, at most %d", x, len(x), s.MaxLength)
		}
	case float64:
		if s.Minimum != nil && x < *s.Minimum || s.Maximum != nil && x > *s.Maximum {
			fail("%v: out of range", x)
		}
	case []any:
		for i, e := range x {
			if s.Items != nil {
				s.Items.walk(fmt.Sprintf("%s[%d]", path, i), e, errs)
			}
		}
	case map[string]any:
		s.walkMap(path, x, errs)
	}
}

func (s *schema) walkMap(path string, m map[string]any, errs *[]error) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		at := strings.TrimPrefix(path+"."+k, ".")
		if p := s.Properties[k]; p != nil {
			p.walk(at, m[k], errs)
		} else if s.Additional != nil && !*s.Additional {
			*errs = append(*errs, fmt.Errorf("value %s: not known; here are: %s", at, strings.Join(slices.Sorted(maps.Keys(s.Properties)), ", ")))
		}
	}
}

func isType(v any, want string) bool {
	switch x := v.(type) {
	case string:
		return want == "string"
	case bool:
		return want == "boolean"
	case float64:
		return want == "number" || want == "integer" && x == float64(int64(x))
	case []any:
		return want == "array"
	case map[string]any:
		return want == "object"
	}
	return false
}

func article(t string) string {
	switch t {
	case "array":
		return "a list"
	case "object":
		return "a map"
	case "boolean":
		return "true or false"
	case "integer":
		return "a whole number"
	}
	return "a " + t
}

func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil || len(b) > 80 {
		return fmt.Sprintf("%T", v)
	}
	return string(b)
}
