package telemetry

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"weft.mesh/weft/proxy/stream"
)

// maxJSONDepth bounds nested objects of a json_format.
const maxJSONDepth = 8

// jsonFormat is a compiled json_format: an object with sorted keys, as Envoy writes it.
type jsonFormat struct {
	members   []member
	omitEmpty bool
}

type member struct {
	key   string // encoded, with quotes and colon
	value node
}

// node is one value; exactly one of its fields is set.
type node struct {
	object  *jsonFormat
	list    []node
	literal string  // encoded
	single  *op     // a lone operator: number, string or null
	format  *Format // text with operators: a string
}

// parseJSON compiles a json_format. Values may be format strings, numbers, booleans, null, objects and lists.
func parseJSON(m map[string]any, omitEmpty bool) (*jsonFormat, error) {
	return parseObject(m, omitEmpty, 1)
}

func parseObject(m map[string]any, omitEmpty bool, depth int) (*jsonFormat, error) {
	if depth > maxJSONDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxJSONDepth)
	}
	f := &jsonFormat{omitEmpty: omitEmpty}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		n, err := parseNode(m[k], omitEmpty, depth)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", k, err)
		}
		f.members = append(f.members, member{string(appendJSONString(nil, k)) + ":", n})
	}
	return f, nil
}

func parseNode(v any, omitEmpty bool, depth int) (node, error) {
	switch v := v.(type) {
	case string:
		f, err := ParseFormat(v)
		if err != nil {
			return node{}, err
		}
		if len(f.ops) == 1 && f.ops[0].value != nil {
			return node{single: &f.ops[0]}, nil
		}
		return node{format: f}, nil
	case map[string]any:
		o, err := parseObject(v, omitEmpty, depth+1)
		return node{object: o}, err
	case []any:
		n := node{list: []node{}}
		for i, e := range v {
			c, err := parseNode(e, omitEmpty, depth+1)
			if err != nil {
				return node{}, fmt.Errorf("[%d]: %w", i, err)
			}
			n.list = append(n.list, c)
		}
		return n, nil
	case nil, bool, float64, int, int64:
		b, err := json.Marshal(v)
		return node{literal: string(b)}, err
	}
	return node{}, fmt.Errorf("value of type %T is not supported", v)
}

func (f *jsonFormat) append(b []byte, i *stream.Info) []byte {
	b = append(b, '{')
	first := true
	for k := range f.members {
		m := &f.members[k]
		before := len(b)
		if !first {
			b = append(b, ',')
		}
		b = append(b, m.key...)
		out, present := m.value.append(b, i)
		if b = out; !present && f.omitEmpty {
			b = b[:before]
			continue
		}
		first = false
	}
	return append(b, '}')
}

// append appends the value; present is false for a lone operator without a value.
func (n *node) append(b []byte, i *stream.Info) (out []byte, present bool) {
	switch {
	case n.object != nil:
		return n.object.append(b, i), true
	case n.list != nil:
		b = append(b, '[')
		for k := range n.list {
			if k > 0 {
				b = append(b, ',')
			}
			b, _ = n.list[k].append(b, i)
		}
		return append(b, ']'), true
	case n.single != nil:
		return appendSingle(b, n.single, i)
	case n.format != nil:
		return n.format.appendJSON(b, i), true
	}
	return append(b, n.literal...), true
}

// appendSingle appends a lone operator: null if it has no value. Response flags "-" stay a string, as in Envoy.
func appendSingle(b []byte, o *op, i *stream.Info) ([]byte, bool) {
	start := len(b)
	if !o.number {
		b = append(b, '"')
	}
	val := len(b)
	out, ok := o.value(b, i)
	if !ok {
		return append(out[:start], "null"...), false
	}
	if o.max > 0 && len(out)-val > o.max {
		out = out[:val+o.max]
	}
	if o.number {
		return out, true
	}
	return append(escapeJSON(out, val), '"'), true
}

// appendJSON appends the text of a format as a JSON string; missing values are "-".
func (f *Format) appendJSON(b []byte, i *stream.Info) []byte {
	b = append(b, '"')
	for k := range f.ops {
		o := &f.ops[k]
		start := len(b)
		if o.value == nil {
			b = append(b, o.literal...)
		} else if out, ok := o.value(b, i); !ok {
			b = append(out[:start], '-')
		} else if b = out; o.max > 0 && len(b)-start > o.max {
			b = b[:start+o.max]
		}
		b = escapeJSON(b, start)
	}
	return append(b, '"')
}

func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	start := len(b)
	return append(escapeJSON(append(b, s...), start), '"')
}

// escapeJSON makes b[start:] the inside of a JSON string.
func escapeJSON(b []byte, start int) []byte {
	for i := start; i < len(b); i++ {
		if c := b[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return escapeJSONSlow(b, i)
		}
	}
	return b
}

func escapeJSONSlow(b []byte, start int) []byte {
	raw := string(b[start:])
	b = b[:start]
	for _, r := range raw { // bytes that are no UTF-8 become U+FFFD
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029':
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}
