package convert

import (
	"math"
	"reflect"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type kind uint8

const (
	kindObject kind = iota
	kindList
	kindMap
	kindString
	kindBool
	kindInt
	kindFloat
	kindDuration // Go's syntax, as Istio takes it
	kindEnum
	kindBytes // base64
	kindQuantity
	kindIntOrString
	kindTime
	kindAny
)

// schema is the shape of a value, made from a protobuf descriptor or a Go type.
type schema struct {
	kind   kind
	name   string            // of the message or struct, for messages
	fields map[string]*field // kindObject
	elem   *schema           // kindList, kindMap
	intKey bool              // kindMap with numbers for keys
	min    float64           // kindInt
	max    float64
	enum   []string // kindEnum
}

type field struct {
	schema  *schema
	oneof   string   // at most one field of the same oneof may be set
	refused *refusal // known but not to be used
	server  bool     // written by servers only: dropped with a warning
}

func (s *schema) names() []string {
	out := make([]string, 0, len(s.fields))
	for n, f := range s.fields {
		if f.refused == nil && !f.server {
			out = append(out, n)
		}
	}
	return out
}

// builder makes schemas once for each type, so that recursive types end.
type builder struct {
	open   bool // allow-lists of Kubernetes types do not count
	protos map[protoreflect.FullName]*schema
	types  map[reflect.Type]*schema
}

func newBuilder() *builder {
	return &builder{protos: map[protoreflect.FullName]*schema{}, types: map[reflect.Type]*schema{}}
}

func intSchema(lo, hi float64) *schema { return &schema{kind: kindInt, min: lo, max: hi} }

// message makes the schema of a protobuf message.
func (b *builder) message(d protoreflect.MessageDescriptor) *schema {
	switch d.FullName() {
	case "google.protobuf.Duration":
		return &schema{kind: kindDuration}
	case "google.protobuf.Struct", "google.protobuf.Value":
		return &schema{kind: kindAny}
	case "google.protobuf.BoolValue", "google.protobuf.UInt32Value", "google.protobuf.UInt64Value", "google.protobuf.Int32Value",
		"google.protobuf.Int64Value", "google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.StringValue":
		return b.single(d.Fields().ByName("value"))
	}
	if s := b.protos[d.FullName()]; s != nil {
		return s
	}
	s := &schema{kind: kindObject, name: string(d.Name()), fields: map[string]*field{}}
	b.protos[d.FullName()] = s
	allowed := istioSupport(string(d.FullName()))
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		f := &field{schema: b.protoField(fd)}
		if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
			f.oneof = string(o.Name())
		}
		f.refused = allowed.check(fd.JSONName())
		s.fields[fd.JSONName()] = f
	}
	return s
}

func (b *builder) protoField(fd protoreflect.FieldDescriptor) *schema {
	switch {
	case fd.IsMap():
		return &schema{kind: kindMap, elem: b.single(fd.MapValue()), intKey: fd.MapKey().Kind() != protoreflect.StringKind}
	case fd.IsList():
		return &schema{kind: kindList, elem: b.single(fd)}
	}
	return b.single(fd)
}

func (b *builder) single(fd protoreflect.FieldDescriptor) *schema {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return b.message(fd.Message())
	case protoreflect.BoolKind:
		return &schema{kind: kindBool}
	case protoreflect.EnumKind:
		s := &schema{kind: kindEnum, name: string(fd.Enum().Name())}
		for i := range fd.Enum().Values().Len() {
			s.enum = append(s.enum, string(fd.Enum().Values().Get(i).Name()))
		}
		return s
	case protoreflect.BytesKind:
		return &schema{kind: kindBytes}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return &schema{kind: kindFloat}
	case protoreflect.StringKind:
		return &schema{kind: kindString}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return intSchema(0, math.MaxUint32)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return intSchema(0, math.MaxUint64)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return intSchema(math.MinInt64, math.MaxInt64)
	}
	return intSchema(math.MinInt32, math.MaxInt32)
}

// special are Go types with a JSON form of their own.
func special(t reflect.Type) *schema {
	switch t {
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime](), reflect.TypeFor[time.Time]():
		return &schema{kind: kindTime}
	case reflect.TypeFor[resource.Quantity]():
		return &schema{kind: kindQuantity}
	case reflect.TypeFor[intstr.IntOrString]():
		return &schema{kind: kindIntOrString}
	case reflect.TypeFor[metav1.FieldsV1](), reflect.TypeFor[runtime.RawExtension]():
		return &schema{kind: kindAny}
	}
	return nil
}

// goType makes the schema of a Kubernetes API type from its JSON tags.
func (b *builder) goType(t reflect.Type) *schema {
	if t.Kind() == reflect.Pointer {
		return b.goType(t.Elem())
	}
	if s := special(t); s != nil {
		return s
	}
	switch t.Kind() {
	case reflect.Struct:
		return b.goStruct(t)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return &schema{kind: kindBytes}
		}
		return &schema{kind: kindList, elem: b.goType(t.Elem())}
	case reflect.Map:
		return &schema{kind: kindMap, elem: b.goType(t.Elem())}
	case reflect.String:
		return &schema{kind: kindString}
	case reflect.Bool:
		return &schema{kind: kindBool}
	case reflect.Float32, reflect.Float64:
		return &schema{kind: kindFloat}
	case reflect.Int32:
		return intSchema(math.MinInt32, math.MaxInt32)
	case reflect.Int, reflect.Int64:
		return intSchema(math.MinInt64, math.MaxInt64)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return intSchema(0, math.MaxUint32)
	}
	return &schema{kind: kindAny}
}

func (b *builder) goStruct(t reflect.Type) *schema {
	if s := b.types[t]; s != nil {
		return s
	}
	s := &schema{kind: kindObject, name: t.Name(), fields: map[string]*field{}}
	b.types[t] = s
	allowed := support{all: true}
	if !b.open {
		var ok bool
		if allowed, ok = gatewayAPISupport(t); !ok {
			allowed = kubeSupport(t)
		}
	}
	for i := range t.NumField() {
		sf := t.Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if name == "-" || !sf.IsExported() {
			continue
		}
		fs := b.goType(sf.Type)
		if name == "" {
			if fs.kind == kindObject { // inlined
				for n, f := range fs.fields {
					s.fields[n] = f
				}
			}
			continue
		}
		s.fields[name] = &field{schema: fs, refused: allowed.check(name), server: allowed.server(name)}
	}
	return s
}
