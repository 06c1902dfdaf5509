package main

import (
	"bytes"
	"hash/maphash"
	"io"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
)

// The control plane sends the same bytes to many proxies; a real proxy unpacks and reads them on a
// machine of its own. Here each is unpacked and read once, so that what is measured is not this process.
func init() { encoding.RegisterCompressor(unpacker{encoding.GetCompressor(gzip.Name)}) }

// unpacker is gRPC's gzip for what comes; see [gzip].
type unpacker struct{ encoding.Compressor }

// once keeps answers by content.
type once[V any] struct {
	mu sync.Mutex // protects m
	m  map[uint64]V
}

var hashSeed = maphash.MakeSeed()

// maxKept bounds what is kept; messages for one proxy alone come once.
const maxKept = 512

func (o *once[V]) of(b []byte, make func() (V, error)) (V, error) {
	k := maphash.Bytes(hashSeed, b)
	o.mu.Lock()
	v, ok := o.m[k]
	o.mu.Unlock()
	if ok {
		return v, nil
	}
	v, err := make()
	if err != nil {
		return v, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.m == nil || len(o.m) >= maxKept {
		o.m = map[uint64]V{}
	}
	o.m[k] = v
	return v, nil
}

var (
	unpacked once[[]byte]
	parsed   once[*response]
)

// Decompress implements encoding.Compressor.
func (u unpacker) Decompress(r io.Reader) (io.Reader, error) {
	packed, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	text, err := unpacked.of(packed, func() ([]byte, error) {
		z, err := u.Compressor.Decompress(bytes.NewReader(packed))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(z)
	})
	return bytes.NewReader(text), err
}
