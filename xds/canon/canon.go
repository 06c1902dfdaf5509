// Package canon is the canonical text form of xDS resources: YAML of their
// protobuf JSON with sorted keys, one document for each resource, so that golden files
// are deterministic and can be reviewed as code.
//
// Messages inside an Any are shown by their fields, so their types must be linked
// into the program that calls this. It reads and writes text only.
package canon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"weft.mesh/weft/xds"
)

// Message formats one message. Keys are sorted, names are those of the .proto files.
func Message(m proto.Message) ([]byte, error) {
	j, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("canon: %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return fromJSON(j)
}

// fromJSON turns JSON into YAML with sorted keys. Numbers keep their digits.
func fromJSON(j []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(j))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("canon: %w", err)
	}
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(plain(v)); err != nil { // maps are sorted by the encoder
		return nil, fmt.Errorf("canon: %w", err)
	}
	return b.Bytes(), e.Close()
}

// plain replaces json.Number by numbers that YAML prints without quotes.
func plain(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			x[k] = plain(e)
		}
	case []any:
		for i, e := range x {
			x[i] = plain(e)
		}
	case json.Number:
		if n, err := x.Int64(); err == nil {
			return n
		}
		f, err := x.Float64()
		if err == nil {
			return f
		}
	}
	return v
}

// Format prints resources as YAML documents in the order given, each with its "@type".
func Format(rs []*xds.Resource) ([]byte, error) {
	var b bytes.Buffer
	for i, r := range rs {
		if i > 0 {
			b.WriteString("---\n")
		}
		y, err := Message(&anypb.Any{TypeUrl: r.TypeURL, Value: r.Body})
		if err != nil {
			return nil, fmt.Errorf("canon: %s %q: %w", xds.ShortName(r.TypeURL), r.Name, err)
		}
		b.Write(y)
	}
	return b.Bytes(), nil
}

// Parse reads what [Format] writes: YAML documents, each one resource with an
// "@type" or a list of such. JSON is YAML too. Names come from the
// resource's name field (cluster_name for endpoints).
func Parse(text []byte) ([]*xds.Resource, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var out []*xds.Resource
	for n := 0; ; n++ {
		var doc any
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("canon: document %d: %w", n, err)
		}
		list, ok := doc.([]any)
		if !ok {
			list = []any{doc}
		}
		for _, v := range list {
			if v == nil {
				continue
			}
			r, err := resource(v)
			if err != nil {
				return nil, fmt.Errorf("canon: document %d: %w", n, err)
			}
			out = append(out, r)
		}
	}
}

func resource(v any) (*xds.Resource, error) {
	j, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var a anypb.Any
	if err := protojson.Unmarshal(j, &a); err != nil {
		return nil, err
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		return nil, err
	}
	return Resource(m)
}

// Resource encodes a message deterministically as a resource.
func Resource(m proto.Message) (*xds.Resource, error) {
	d := m.ProtoReflect()
	f := d.Descriptor().Fields().ByName("name")
	if f == nil {
		f = d.Descriptor().Fields().ByName("cluster_name")
	}
	if f == nil || f.Kind() != protoreflect.StringKind {
		return nil, fmt.Errorf("%s: no name field", d.Descriptor().FullName())
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	return xds.NewResource("type.googleapis.com/"+string(d.Descriptor().FullName()), d.Get(f).String(), b), nil
}
