// Package exchange is Istio's metadata exchange for TCP: with ALPN istio-peer-exchange
// both sides of a TLS connection begin with a preamble that tells who they are.
//
// A preamble is the magic number 0x3D230467 and the length of what follows, both big
// endian in 4 bytes, then a google.protobuf.Any of a google.protobuf.Struct with the fields
// x-envoy-peer-metadata (the node's metadata) and x-envoy-peer-metadata-id (the node's ID).
//
// What a peer says here is for metrics and logs only; who it is, its certificate proves.
package exchange

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/proxy/stream"
)

const (
	magic      = 0x3D230467
	headerSize = 8
	// MaxSize bounds the metadata of a peer, in bytes.
	MaxSize = 64 << 10

	fieldMetadata = "x-envoy-peer-metadata"
	fieldID       = "x-envoy-peer-metadata-id"
)

// Node is our own side. Immutable.
type Node struct{ preamble []byte }

// NewNode encodes our own metadata once.
func NewNode(id string, w *stream.Workload) (*Node, error) {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{
		fieldMetadata: structpb.NewStructValue(Metadata(w)),
		fieldID:       structpb.NewStringValue(id),
	}}
	any, err := anypb.New(s)
	if err != nil {
		return nil, fmt.Errorf("metadata exchange: encode: %w", err)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(any)
	if err != nil {
		return nil, fmt.Errorf("metadata exchange: encode: %w", err)
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("metadata exchange: our metadata has %d bytes, at most %d", len(data), MaxSize)
	}
	p := binary.BigEndian.AppendUint32(nil, magic)
	p = binary.BigEndian.AppendUint32(p, uint32(len(data)))
	return &Node{append(p, data...)}, nil
}

// Preamble is what we send. Read-only.
func (n *Node) Preamble() []byte { return n.preamble }

// Read takes the peer's preamble off r.
func Read(r io.Reader) (*stream.Workload, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("preamble: %w", err)
	}
	if m := binary.BigEndian.Uint32(head[:4]); m != magic {
		return nil, fmt.Errorf("preamble: begins with %#x, want %#x", m, uint32(magic))
	}
	n := binary.BigEndian.Uint32(head[4:])
	if n > MaxSize {
		return nil, fmt.Errorf("preamble: %d bytes, at most %d", n, MaxSize)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("preamble: %w", err)
	}
	return parse(data)
}

func parse(data []byte) (*stream.Workload, error) {
	var any anypb.Any
	if err := proto.Unmarshal(data, &any); err != nil {
		return nil, fmt.Errorf("preamble: %w", err)
	}
	var s structpb.Struct
	if err := any.UnmarshalTo(&s); err != nil {
		return nil, fmt.Errorf("preamble: %w", err)
	}
	return Workload(s.GetFields()[fieldMetadata].GetStructValue()), nil
}

// Metadata is a workload in the form of a node's metadata.
func Metadata(w *stream.Workload) *structpb.Struct {
	labels := map[string]*structpb.Value{}
	put := func(m map[string]*structpb.Value, k, v string) {
		if v != "" {
			m[k] = structpb.NewStringValue(v)
		}
	}
	put(labels, "app", w.App)
	put(labels, "version", w.Version)
	put(labels, "service.istio.io/canonical-name", w.CanonicalName)
	put(labels, "service.istio.io/canonical-revision", w.CanonicalRevision)
	fields := map[string]*structpb.Value{"LABELS": structpb.NewStructValue(&structpb.Struct{Fields: labels})}
	put(fields, "WORKLOAD_NAME", w.Name)
	put(fields, "NAMESPACE", w.Namespace)
	put(fields, "CLUSTER_ID", w.Cluster)
	return &structpb.Struct{Fields: fields}
}

// maxValue bounds one value taken from a peer: labels of metrics and logs come from it.
const maxValue = 256

// Workload reads a node's metadata; nil if there is none.
func Workload(s *structpb.Struct) *stream.Workload {
	f := s.GetFields()
	if len(f) == 0 {
		return nil
	}
	labels := f["LABELS"].GetStructValue().GetFields()
	w := &stream.Workload{
		Name: value(f, "WORKLOAD_NAME"), Namespace: value(f, "NAMESPACE"), Cluster: value(f, "CLUSTER_ID"),
		App: value(labels, "app"), Version: value(labels, "version"),
		CanonicalName:     value(labels, "service.istio.io/canonical-name"),
		CanonicalRevision: value(labels, "service.istio.io/canonical-revision"),
	}
	return w
}

func value(m map[string]*structpb.Value, key string) string {
	v := m[key].GetStringValue()
	if len(v) > maxValue {
		v = strings.ToValidUTF8(v[:maxValue], "")
	}
	return v
}
