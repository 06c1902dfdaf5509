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
)

// wire is the encoding of a message that goes to many clients: made once, and compressed once
// for those that take it. Safe for concurrent use.
type wire struct {
	once   sync.Once
	bytes  int
	zip    sync.Once
	zipped []byte
	raw    sync.Once
	text   []byte
}

// size is the bytes of the resources.
func (w *wire) size(m *message) int {
	w.once.Do(func() {
		for _, r := range m.resources {
			_, body := m.body(r)
			w.bytes += len(body)
		}
	})
	return w.bytes
}

// response is a message that is encoded as it is: everything it holds is in its unknown fields.
func (w *wire) response(m *message, zip bool) *discovery.DeltaDiscoveryResponse {
	r := &discovery.DeltaDiscoveryResponse{}
	if zip {
		w.zip.Do(func() { w.zipped = zipped(m) })
		r.ProtoReflect().SetUnknown(w.zipped)
		return r
	}
	w.raw.Do(func() { w.text = encodeDelta(nil, m) })
	r.ProtoReflect().SetUnknown(w.text)
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

// deflate compresses what many clients get.
func deflate(b []byte) []byte {
	out := scratch.Get().(*bytes.Buffer)
	defer scratch.Put(out)
	out.Reset()
	z := fast.Get().(*gzip.Writer)
	defer fast.Put(z)
	z.Reset(out)
	z.Write(b) // to memory
	z.Close()
	return bytes.Clone(out.Bytes()) // it is kept, and no larger than it must be
}
