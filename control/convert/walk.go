package convert

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"

	"weft.mesh/weft/api/admin"
)

// walker checks a YAML tree against a schema, notes the position of every
// field, and makes two JSON trees: raw as written, and canonical as protojson
// wants it (durations in seconds).
type walker struct {
	file   string
	object string
	offset int // added to lines
	pos    map[string]position
	diags  []admin.Diagnostic
	nodes  int // visited, aliases expanded
	// lenient takes null for absent: the text was written by a program.
	lenient bool
	full    bool
	active  map[*yaml.Node]bool // anchored values being walked
}

// value is one checked value in both forms. ok is false if it must be left out.
type value struct {
	raw, canon any
	ok         bool
}

func same(v any) value { return value{v, v, true} }

var none = value{}

func (w *walker) at(n *yaml.Node) position { return position{n.Line + w.offset, n.Column} }

func (w *walker) report(sev admin.Severity, code string, n *yaml.Node, path, val, msg, hint string) {
	p := w.at(n)
	w.diags = append(w.diags, admin.Diagnostic{Severity: sev, Code: code, File: w.file, Line: p.line, Column: p.col,
		Object: w.object, Field: path, Value: clip(val), Message: msg, Hint: hint})
}

func (w *walker) fail(code string, n *yaml.Node, path, val, msg, hint string) value {
	w.report(admin.SeverityError, code, n, path, val, msg, hint)
	return none
}

// enter follows aliases and counts nodes. It returns nil when a bound is passed.
func (w *walker) enter(n *yaml.Node, path string, depth int) (*yaml.Node, func()) {
	leave := func() {}
	alias := n
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Anchor != "" {
		if w.active[n] {
			w.fail(CodeAlias, alias, path, "*"+alias.Value, "the alias refers to itself", "write the fields out")
			return nil, leave
		}
		w.active[n] = true
		leave = func() { delete(w.active, n) }
	}
	if w.nodes++; w.nodes > MaxNodes || depth > MaxDepth {
		if !w.full {
			w.full = true
			msg, hint := fmt.Sprintf("the document has more than %d values with its aliases expanded", MaxNodes), "split it, or use fewer aliases"
			if depth > MaxDepth {
				msg, hint = fmt.Sprintf("the document is nested deeper than %d levels", MaxDepth), "nest less deeply"
			}
			w.fail(CodeTooLarge, n, path, "", msg, hint)
		}
		return nil, leave
	}
	return n, leave
}

// walk checks one value.
func (w *walker) walk(n *yaml.Node, s *schema, path string, depth int) value {
	n, leave := w.enter(n, path, depth)
	defer leave()
	if n == nil || w.full {
		return none
	}
	switch s.kind {
	case kindObject:
		return w.walkObject(n, s, path, depth)
	case kindMap:
		return w.walkMap(n, s, path, depth)
	case kindList:
		return w.walkList(n, s, path, depth)
	case kindAny:
		return w.walkAny(n, path, depth)
	}
	if n.Kind != yaml.ScalarNode {
		return w.wrongType(n, s, path)
	}
	return w.scalar(n, s, path)
}

// pairs gives the entries of a mapping, refusing duplicate and strange keys.
func (w *walker) pairs(n *yaml.Node, path string, each func(key string, k, v *yaml.Node)) {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			w.fail(CodeWrongType, n.Content[i], path, "", "a key must be a plain name", "write the key as text")
			continue
		}
		if k.Tag == "!!merge" {
			w.fail(CodeAlias, k, path, "<<", "merge keys are not supported", "write the fields out")
			continue
		}
		if line, dup := seen[k.Value]; dup {
			w.fail(CodeDuplicateKey, k, join(path, k.Value), k.Value, fmt.Sprintf("the key is written twice, first in line %d", line), "keep one of them")
			continue
		}
		seen[k.Value] = k.Line + w.offset
		each(k.Value, k, v)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (w *walker) note(path string, k, v *yaml.Node) {
	if v.Kind == yaml.ScalarNode {
		k = v
	}
	w.pos[path] = w.at(k)
}

func (w *walker) walkObject(n *yaml.Node, s *schema, path string, depth int) value {
	if n.Kind != yaml.MappingNode {
		return w.wrongType(n, s, path)
	}
	raw, canon, oneofs := map[string]any{}, map[string]any{}, map[string][]alternative{}
	w.pairs(n, path, func(key string, k, v *yaml.Node) {
		p := join(path, key)
		w.note(p, k, v)
		f := s.fields[key]
		switch {
		case f == nil:
			w.fail(CodeUnknownField, k, p, scalarText(v), fmt.Sprintf("%s has no field %q", describe(s, path), key), meant(key, s.names()))
			return
		case f.server:
			if !isEmpty(v) {
				w.report(admin.SeverityWarning, CodeServerField, k, p, "", "the field is written by a server and is dropped", "remove it")
			}
			return
		case isNull(v):
			w.null(k, f, p)
			return
		case f.refused != nil:
			msg := "the field is not supported"
			if f.refused.code == CodeDeprecatedField {
				msg = "the field is deprecated and not supported"
			}
			w.fail(f.refused.code, k, p, scalarText(v), msg, f.refused.hint)
			return
		}
		if f.oneof != "" {
			oneofs[f.oneof] = append(oneofs[f.oneof], alternative{key, p, k, v})
		}
		if got := w.walk(v, f.schema, p, depth+1); got.ok {
			raw[key], canon[key] = got.raw, got.canon
		}
	})
	for _, name := range slices.Sorted(maps.Keys(oneofs)) {
		w.exclude(oneofs[name])
	}
	return value{raw, canon, true}
}

// alternative is a field of a oneof that is written.
type alternative struct {
	key, path string
	k, v      *yaml.Node
}

// exclude reports all alternatives but one, in the order of their names: an API server hands an object on with its fields
// in that order, and must hear the same as who wrote them in another.
func (w *walker) exclude(set []alternative) {
	slices.SortFunc(set, func(a, b alternative) int { return strings.Compare(a.key, b.key) })
	for _, a := range set[1:] {
		w.fail(CodeExclusive, a.k, a.path, scalarText(a.v), fmt.Sprintf("%s and %s exclude each other", set[0].key, a.key), "keep one of them")
	}
}

// null handles "field:" without a value: it means not set, which may not be what was meant.
func (w *walker) null(k *yaml.Node, f *field, path string) {
	if w.lenient || f.schema.kind == kindTime {
		return // Kubernetes' encoder writes times, and required lists, that are not set as null
	}
	hint := "give it a value or remove it"
	switch f.schema.kind {
	case kindList:
		hint = "write [] for an empty list, or remove it"
	case kindObject, kindMap:
		hint = "write {} for an empty object, or remove it"
	}
	w.fail(CodeEmptyField, k, path, "", "the field has no value", hint)
}

func describe(s *schema, path string) string {
	if path == "" {
		return "a " + s.name
	}
	if s.name != "" {
		return path + " (" + s.name + ")"
	}
	return path
}

func (w *walker) walkMap(n *yaml.Node, s *schema, path string, depth int) value {
	if n.Kind != yaml.MappingNode {
		return w.wrongType(n, s, path)
	}
	raw, canon := map[string]any{}, map[string]any{}
	w.pairs(n, path, func(key string, k, v *yaml.Node) {
		p := path + "[" + key + "]"
		w.note(p, k, v)
		if s.intKey {
			if _, err := strconv.ParseUint(key, 10, 32); err != nil {
				w.fail(CodeWrongType, k, p, key, "the key must be a number", "write a port number")
				return
			}
		}
		if isNull(v) {
			w.fail(CodeEmptyField, k, p, "", "the entry has no value", emptyHint(s.elem))
			return
		}
		if got := w.walk(v, s.elem, p, depth+1); got.ok {
			raw[key], canon[key] = got.raw, got.canon
		}
	})
	return value{raw, canon, true}
}

func emptyHint(s *schema) string {
	switch s.kind {
	case kindObject, kindMap:
		return "write {} for an empty one"
	case kindString:
		return `write "" for an empty text`
	}
	return "give it a value or remove it"
}

func (w *walker) walkList(n *yaml.Node, s *schema, path string, depth int) value {
	if n.Kind != yaml.SequenceNode {
		return w.wrongType(n, s, path)
	}
	raw, canon := make([]any, 0, len(n.Content)), make([]any, 0, len(n.Content))
	for i, e := range n.Content {
		p := path + "[" + strconv.Itoa(i) + "]"
		w.pos[p] = w.at(e)
		if isNull(e) {
			w.fail(CodeEmptyField, e, p, "", "the list entry has no value", emptyHint(s.elem))
			continue
		}
		if got := w.walk(e, s.elem, p, depth+1); got.ok {
			raw, canon = append(raw, got.raw), append(canon, got.canon)
		}
	}
	return value{raw, canon, true}
}

// walkAny takes free-form data as it is.
func (w *walker) walkAny(n *yaml.Node, path string, depth int) value {
	switch n.Kind {
	case yaml.MappingNode:
		return w.walkMap(n, &schema{kind: kindMap, elem: &schema{kind: kindAny}}, path, depth)
	case yaml.SequenceNode:
		return w.walkList(n, &schema{kind: kindList, elem: &schema{kind: kindAny}}, path, depth)
	}
	switch n.ShortTag() {
	case "!!bool":
		return same(strings.EqualFold(n.Value, "true"))
	case "!!int":
		if v := w.scalar(n, intSchema(math.MinInt64, math.MaxInt64), path); v.ok {
			return v
		}
		return none
	case "!!float":
		return w.scalar(n, &schema{kind: kindFloat}, path)
	}
	return same(n.Value)
}

var kindNames = map[kind]string{
	kindObject: "an object", kindList: "a list", kindMap: "a mapping", kindString: "text", kindBool: "true or false",
	kindInt: "a whole number", kindFloat: "a number", kindDuration: "a duration", kindEnum: "a name", kindBytes: "base64 text",
	kindQuantity: "a quantity", kindIntOrString: "a number or a name", kindTime: "a time",
}

func (w *walker) wrongType(n *yaml.Node, s *schema, path string) value {
	hint := "write " + kindNames[s.kind]
	switch s.kind {
	case kindList:
		hint = `write a list: start each entry with "- "`
	case kindObject:
		hint = "write fields: " + quoteList(slices.Sorted(slices.Values(s.names())))
	case kindDuration:
		hint = "write a duration with a unit, like 500ms or 5s"
	}
	return w.fail(CodeWrongType, n, path, scalarText(n), fmt.Sprintf("the value must be %s, not %s", kindNames[s.kind], nodeKind(n)), hint)
}

func nodeKind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "nothing"
	}
	return "text"
}

func (w *walker) scalar(n *yaml.Node, s *schema, path string) value {
	tag := n.ShortTag()
	switch s.kind {
	case kindString, kindTime, kindEnum, kindBytes:
		return w.text(n, s, path, tag)
	case kindBool:
		if tag != "!!bool" {
			return w.wrongType(n, s, path)
		}
		return same(strings.EqualFold(n.Value, "true"))
	case kindInt:
		return w.integer(n, s, path, tag)
	case kindFloat:
		var f float64
		if tag != "!!int" && tag != "!!float" || n.Decode(&f) != nil {
			return w.wrongType(n, s, path)
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return w.fail(CodeInvalidValue, n, path, n.Value, "the number is not finite", "write an ordinary number")
		}
		return same(f)
	case kindDuration:
		return w.duration(n, s, path, tag)
	case kindQuantity:
		if _, err := resource.ParseQuantity(n.Value); err != nil {
			return w.fail(CodeInvalidValue, n, path, n.Value, "the value is not a quantity", "write it like 100m or 64Mi")
		}
		return same(n.Value)
	case kindIntOrString:
		if tag == "!!int" {
			return w.integer(n, intSchema(0, math.MaxInt32), path, tag)
		}
		return w.text(n, s, path, tag)
	}
	return w.wrongType(n, s, path)
}

// yaml11Bools are read as booleans by kubectl and as text by YAML 1.2.
var yaml11Bools = []string{"yes", "no", "on", "off"}

func (w *walker) text(n *yaml.Node, s *schema, path, tag string) value {
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	if tag != "!!str" && tag != "!!timestamp" || plain && slices.Contains(yaml11Bools, strings.ToLower(n.Value)) {
		got := nodeKind(n)
		if tag == "!!str" {
			got = "a boolean of YAML 1.1"
		}
		return w.fail(CodeWrongType, n, path, n.Value, fmt.Sprintf("the value must be %s, not %s", kindNames[s.kind], got), fmt.Sprintf("quote it: %q", n.Value))
	}
	switch s.kind {
	case kindEnum:
		if !slices.Contains(s.enum, n.Value) {
			return w.fail(CodeInvalidValue, n, path, n.Value, fmt.Sprintf("%q is not a %s", n.Value, s.name), enumHint(n.Value, s.enum))
		}
	case kindTime:
		if _, err := time.Parse(time.RFC3339, n.Value); err != nil {
			return w.fail(CodeInvalidValue, n, path, n.Value, "the value is not a time", "write it like 2026-01-31T12:00:00Z")
		}
	case kindBytes:
		if _, err := base64.StdEncoding.DecodeString(n.Value); err != nil {
			return w.fail(CodeInvalidValue, n, path, n.Value, "the value is not base64", "use string instead of bytes for text")
		}
	}
	return same(n.Value)
}

func enumHint(got string, known []string) string {
	hint := "use " + oneLine(known)
	if n := Nearest(got, known); n != "" {
		hint = "did you mean " + n + "? known: " + quoteList(known)
	}
	return hint
}

func (w *walker) integer(n *yaml.Node, s *schema, path, tag string) value {
	if tag != "!!int" {
		return w.wrongType(n, s, path)
	}
	var i int64
	var u uint64
	switch {
	case n.Decode(&i) == nil:
		if float64(i) < s.min || float64(i) > s.max {
			return w.outOfRange(n, s, path)
		}
		return same(json.Number(strconv.FormatInt(i, 10)))
	case n.Decode(&u) == nil && s.max > math.MaxInt64:
		return same(json.Number(strconv.FormatUint(u, 10)))
	}
	return w.outOfRange(n, s, path)
}

func (w *walker) outOfRange(n *yaml.Node, s *schema, path string) value {
	return w.fail(CodeInvalidValue, n, path, n.Value, "the number is out of range", fmt.Sprintf("from %.0f to %.0f", s.min, s.max))
}

// duration takes Go's syntax, which is what Istio's decoder takes, and gives protojson's seconds.
func (w *walker) duration(n *yaml.Node, s *schema, path, tag string) value {
	const hint = "write a duration with a unit, like 500ms or 5s"
	if tag != "!!str" {
		if tag == "!!int" {
			return w.fail(CodeInvalidDuration, n, path, n.Value, "the duration has no unit", "did you mean "+n.Value+"s?")
		}
		return w.wrongType(n, s, path)
	}
	d, err := time.ParseDuration(n.Value)
	if err != nil {
		return w.fail(CodeInvalidDuration, n, path, n.Value, "the value is not a duration", hint)
	}
	if d < 0 {
		return w.fail(CodeInvalidDuration, n, path, n.Value, "the duration is negative", hint)
	}
	return value{n.Value, fmt.Sprintf("%d.%09ds", d/time.Second, d%time.Second), true}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// isEmpty tells whether a server field holds nothing worth a warning.
func isEmpty(n *yaml.Node) bool {
	return isNull(n) || (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && len(n.Content) == 0
}

func scalarText(n *yaml.Node) string {
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Value
	case yaml.AliasNode:
		return "*" + n.Value
	}
	return ""
}
