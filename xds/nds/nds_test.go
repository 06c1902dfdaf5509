package nds

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// descriptor is the message as the .proto file in the package comment has it, for protobuf's own codec.
func descriptor(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	field := func(name string, n int32, repeated bool, message string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: proto.String(name), Number: proto.Int32(n),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()}
		if repeated {
			f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}
		if message != "" {
			f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String(".istio.networking.nds.v1.NameTable."+message)
		}
		return f
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("nds.proto"), Package: proto.String("istio.networking.nds.v1"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name:  proto.String("NameTable"),
			Field: []*descriptorpb.FieldDescriptorProto{field("table", 1, true, "TableEntry"), field("name_info", 2, false, "NameInfo")},
			NestedType: []*descriptorpb.DescriptorProto{
				{Name: proto.String("NameInfo"), Field: []*descriptorpb.FieldDescriptorProto{field("ips", 1, true, ""), field("registry", 2, false, ""),
					field("shortname", 3, false, ""), field("namespace", 4, false, ""), field("alt_hosts", 5, true, "")}},
				{Name: proto.String("TableEntry"), Field: []*descriptorpb.FieldDescriptorProto{field("key", 1, false, ""), field("value", 2, false, "NameInfo")},
					Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}},
			},
		}},
	}
	f, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f.Messages().Get(0)
}

// reference reads a table with protobuf's own codec.
func reference(d protoreflect.MessageDescriptor, b []byte) (map[string]Info, error) {
	m := dynamicpb.NewMessage(d)
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, err
	}
	out := map[string]Info{}
	m.Get(d.Fields().ByName("table")).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		x, info := v.Message(), Info{}
		f := x.Descriptor().Fields()
		ips := x.Get(f.ByName("ips")).List()
		for i := range ips.Len() {
			info.IPs = append(info.IPs, ips.Get(i).String())
		}
		info.Registry, info.Shortname, info.Namespace = x.Get(f.ByName("registry")).String(), x.Get(f.ByName("shortname")).String(), x.Get(f.ByName("namespace")).String()
		out[k.String()] = info
		return true
	})
	return out, nil
}

var sample = map[string]Info{
	"reviews.default.svc.cluster.local": {IPs: []string{"10.96.0.7"}, Registry: Kubernetes, Shortname: "reviews", Namespace: "default"},
	"db.data.svc.cluster.local":         {IPs: []string{"10.244.0.4", "10.244.1.5"}, Registry: Kubernetes, Shortname: "db", Namespace: "data"},
	"api.example.com":                   {IPs: []string{"240.240.0.1"}, Registry: External},
	"*.example.net":                     {IPs: []string{"240.240.0.2"}},
	"empty.example":                     {},
}

// What a real Istio agent would read is what was written.
func TestProtobufReadsWhatEncodeWrites(t *testing.T) {
	got, err := reference(descriptor(t), Encode(sample))
	if d := cmp.Diff(sample, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	back, err := Decode(Encode(sample))
	if d := cmp.Diff(sample, back); d != "" || err != nil {
		t.Errorf("our own: %v\n%s", err, d)
	}
	if !bytes.Equal(Encode(sample), Encode(back)) {
		t.Error("the same table has other bytes")
	}
	if b := Encode(nil); len(b) != 0 {
		t.Errorf("an empty table has %d bytes", len(b))
	}
}

func TestDecodeRefuses(t *testing.T) {
	long := Encode(map[string]Info{strings.Repeat("x", maxText+1): {}})
	many := Info{}
	for i := range MaxIPs + 1 {
		many.IPs = append(many.IPs, fmt.Sprint(i))
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"half a message", Encode(sample)[:20], "unexpected EOF"},
		{"a name that is too long", long, "at most 1024"},
		{"a text that is none", Encode(map[string]Info{"a\xff": {}}), "no UTF-8"},
		{"too many addresses", Encode(map[string]Info{"a": many}), "more than 10000 addresses"},
		{"no message", []byte{0x07}, "name table: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Decode(tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// Fields that another version has are passed by.
func TestDecodePassesUnknownFieldsBy(t *testing.T) {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 9, protowire.VarintType), 7)
	b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), []byte{0x0a, 1, 'x'})
	got, err := Decode(append(b, Encode(sample)...))
	if d := cmp.Diff(sample, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
}

// Whatever we take, protobuf takes too and reads the same from it; what protobuf refuses, we refuse.
func FuzzNameTable(f *testing.F) {
	d := descriptor(f)
	f.Add(Encode(sample))
	for _, s := range []string{"", "0a00", "0a060a0161120131", "0a050a0161120008", "12030a0178", "0a0a0a016112050a0131120161"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Decode(b)
		want, refErr := reference(d, b)
		if err != nil {
			return // bounds, or a field that is no text where protobuf would pass it by
		}
		if refErr != nil {
			// Texts that we do not read (alt_hosts, name_info) need not be well formed for us.
			return
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%x reads otherwise (-protobuf +ours):\n%s", b, diff)
		}
		back, err := Decode(Encode(got))
		if diff := cmp.Diff(got, back); err != nil || diff != "" {
			t.Fatalf("written again: %v\n%s", err, diff)
		}
	})
}
