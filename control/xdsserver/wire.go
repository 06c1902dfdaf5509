package xdsserver

import (
	"bytes"
	"compress/gzip"
	"context"
	"slices"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"weft.mesh/weft/control/grpcstream"
)

// wire is the encoding of a message that goes to many clients: made once, and compressed once
// for those that take it. Safe for concurrent use.
type wire struct {
	once   sync.Once
	bytes  int
	zip    sync.Once
	zipped []byte // with the prefix that gRPC has before each message
	raw    sync.Once
	text   []byte // too
}

// size is the bytes of the resources.
func (w *wire) size(m *message) int {
	w.once.Do(func() { w.bytes = m.size() })
	return w.bytes
}

// size is the bytes of the resources.
func (m *message) size() int {
	n := 0
	for _, r := range m.resources {
		_, body := m.body(r)
		n += len(body)
	}
	return n
}

// framed is the message with its prefix.
func (w *wire) framed(m *message, zip bool) []byte {
	if zip {
		w.zip.Do(func() { w.zipped = zipped(m) })
		return w.zipped
	}
	w.raw.Do(func() {
		w.text = encodeDelta(grpcstream.AppendPrefix(nil), m)
		grpcstream.SetPrefix(w.text, false)
	})
	return w.text
}

// response is a message that is encoded as it is, and compressed if zip is set: everything it holds is in its unknown fields.
func (w *wire) response(m *message, zip bool) *discovery.DeltaDiscoveryResponse {
	r := &discovery.DeltaDiscoveryResponse{}
	r.ProtoReflect().SetUnknown(w.framed(m, zip)[grpcstream.PrefixSize:])
	return r
}

// Field numbers of DeltaDiscoveryResponse, Resource and Any.
const (
	fieldVersionInfo, fieldResources, fieldTypeURL, fieldNonce, fieldRemoved = 1, 2, 4, 5, 6
	fieldVersion, fieldResource, fieldName                                   = 1, 2, 3
	fieldAnyType, fieldAnyValue                                              = 1, 2
)

// texts are buffers of encodings that are compressed and not kept. They are a megabyte or two.
var texts = sync.Pool{New: func() any { return new([]byte) }}

// zipped encodes and compresses a message.
func zipped(m *message) []byte {
	b := texts.Get().(*[]byte)
	defer texts.Put(b)
	*b = encodeDelta((*b)[:0], m)
	return deflate(*b)
}

// encodeDelta appends a message as the response that it is.
func encodeDelta(to []byte, m *message) []byte {
	str := func(b []byte, n protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
	}
	size := 256
	for _, r := range m.resources {
		typeURL, body := m.body(r)
		size += len(body) + len(r.Name) + len(r.Version) + len(typeURL) + 32
	}
	b := str(slices.Grow(to, size), fieldVersionInfo, m.version)
	for _, r := range m.resources {
		typeURL, body := m.body(r)
		value := protowire.SizeTag(fieldAnyValue) + protowire.SizeBytes(len(body))
		wrapped := protowire.SizeTag(fieldAnyType) + protowire.SizeBytes(len(typeURL)) + value
		whole := protowire.SizeTag(fieldVersion) + protowire.SizeBytes(len(r.Version)) + protowire.SizeTag(fieldResource) + protowire.SizeBytes(wrapped) +
			protowire.SizeTag(fieldName) + protowire.SizeBytes(len(r.Name))
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldResources, protowire.BytesType), uint64(whole))
		b = str(b, fieldVersion, r.Version)
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldResource, protowire.BytesType), uint64(wrapped))
		b = str(b, fieldAnyType, typeURL)
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldAnyValue, protowire.BytesType), body)
		b = str(b, fieldName, r.Name)
	}
	b = str(b, fieldTypeURL, m.typeURL)
	b = str(b, fieldNonce, m.nonce)
	for _, n := range m.removed {
		b = str(b, fieldRemoved, n)
	}
	return b
}

// compressed chooses compression for a stream whose client takes it, and tells whether it does.
func compressed(ctx context.Context) bool {
	names, err := grpc.ClientSupportedCompressors(ctx)
	if err != nil || !slices.Contains(names, gzipName) || !ours() {
		return false
	}
	return grpc.SetSendCompressor(ctx, gzipName) == nil
}

var scratch = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// deflate compresses what many clients get, and gives it a prefix.
func deflate(b []byte) []byte {
	out := scratch.Get().(*bytes.Buffer)
	defer scratch.Put(out)
	out.Reset()
	out.Write(grpcstream.AppendPrefix(out.AvailableBuffer()))
	z := fast.Get().(*gzip.Writer)
	defer fast.Put(z)
	z.Reset(out)
	z.Write(b)                         // to memory
	z.Close()                          // too
	packed := bytes.Clone(out.Bytes()) // it is kept, and no larger than it must be
	grpcstream.SetPrefix(packed, true)
	return packed
}
