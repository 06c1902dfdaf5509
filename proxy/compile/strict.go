package compile

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// maxDepth bounds the nesting of messages that are walked.
const maxDepth = 64

// maxUnsupported bounds how many unsupported fields one refusal names.
const maxUnsupported = 8

// message is a protobuf message with its own validation (protoc-gen-validate).
type message interface {
	proto.Message
	Validate() error
}

// decode reads body into m and refuses what the schema, the schema's own
// rules or this proxy do not know: unknown fields, values out of range, and
// every set field that the table of supported fields does not list.
func decode(body []byte, m message) error {
	if err := proto.Unmarshal(body, m); err != nil {
		return fmt.Errorf("not a %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return Strict(m, Supported)
}

// unpack is decode for a typed_config. The type URL must be m's.
func unpack(a *anypb.Any, m message) error {
	if a == nil {
		return missing("typed_config", "want a %s", m.ProtoReflect().Descriptor().FullName())
	}
	want := m.ProtoReflect().Descriptor().FullName()
	if a.MessageName() != want {
		return bad("typed_config.type_url", a.GetTypeUrl(), "not supported here; want %s", want)
	}
	return at("typed_config", decode(a.GetValue(), m))
}

// Fields lists supported fields by message: names separated by spaces, "*" for all.
type Fields map[protoreflect.FullName]string

// Strict refuses unknown fields, every set field that the table does not
// list, and what the message's own Validate refuses. Messages of
// google.protobuf are taken whole; an Any is opaque here, whoever reads it checks what is inside.
// Filter packages use it on their own messages with tables of their own.
func Strict(m message, table Fields) error {
	w := walker{table: table}
	w.message("", m.ProtoReflect(), 0)
	if len(w.found) > 0 {
		return unsupported(w.found)
	}
	if err := m.Validate(); err != nil {
		return fmt.Errorf("invalid: %w", err)
	}
	return nil
}

func unsupported(found []string) error {
	more := ""
	if n := len(found) - maxUnsupported; n > 0 {
		found, more = found[:maxUnsupported], fmt.Sprintf(" (and %d more)", n)
	}
	return fmt.Errorf("not supported by this proxy: %s%s; remove it", strings.Join(found, ", "), more)
}

// walker collects the paths of set fields that are not supported.
type walker struct {
	table Fields
	found []string
}

func (w *walker) add(path string) { w.found = append(w.found, path) }

func (w *walker) message(path string, m protoreflect.Message, depth int) {
	name := m.Descriptor().FullName()
	if strings.HasPrefix(string(name), "google.protobuf.") {
		return
	}
	if depth > maxDepth {
		w.add(path + ": nested too deep")
		return
	}
	if u := m.GetUnknown(); len(u) > 0 {
		w.add(fmt.Sprintf("unknown field number %d of %s in %s", firstNumber(u), name, orRoot(path)))
	}
	allowed, ok := w.table[name]
	if !ok {
		w.add(fmt.Sprintf("%s (message %s)", orRoot(path), name))
		return
	}
	// Range is in no particular order; the text of a refusal must be stable.
	var set []protoreflect.FieldDescriptor
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		set = append(set, f)
		return true
	})
	slices.SortFunc(set, func(a, b protoreflect.FieldDescriptor) int { return a.Index() - b.Index() })
	for _, f := range set {
		p := join(path, string(f.Name()))
		if !lists(allowed, string(f.Name())) {
			w.add(p)
			continue
		}
		w.field(p, f, m.Get(f), depth)
	}
}

func (w *walker) field(path string, f protoreflect.FieldDescriptor, v protoreflect.Value, depth int) {
	switch {
	case f.IsMap():
		if f.MapValue().Message() == nil {
			return
		}
		var keys []protoreflect.MapKey
		v.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			keys = append(keys, k)
			return true
		})
		slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			w.message(path+"["+k.String()+"]", v.Map().Get(k).Message(), depth+1)
		}
	case f.Message() == nil:
	case f.IsList():
		l := v.List()
		for i := range l.Len() {
			w.message(fmt.Sprintf("%s[%d]", path, i), l.Get(i).Message(), depth+1)
		}
	default:
		w.message(path, v.Message(), depth+1)
	}
}

// lists tells whether the space-separated list holds name.
func lists(list, name string) bool {
	if list == "*" {
		return true
	}
	for s := range strings.FieldsSeq(list) {
		if s == name {
			return true
		}
	}
	return false
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func orRoot(path string) string {
	if path == "" {
		return "the resource"
	}
	return path
}

// firstNumber is the field number at the start of unknown bytes.
func firstNumber(b []byte) uint64 {
	var tag uint64
	for i, c := range b {
		if i == 10 {
			break
		}
		tag |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			break
		}
	}
	return tag >> 3
}
