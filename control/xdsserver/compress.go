package xdsserver

import (
	"compress/gzip"
	"io"
	"sync"

	"google.golang.org/grpc/encoding"
	grpcgzip "google.golang.org/grpc/encoding/gzip"
)

const gzipName = grpcgzip.Name

// compressor is gRPC's gzip, but that it passes on what is compressed already, and stores what is
// not: a message for one client costs more processor time to compress than to send, one for a
// thousand is compressed once. What clients send is read by gRPC's own.
type compressor struct{ encoding.Compressor }

// gRPC has no other way to choose a compressor than its registry, which may only
// be changed during initialization. Importing grpcgzip puts it there before us.
func init() { encoding.RegisterCompressor(compressor{encoding.GetCompressor(gzipName)}) }

// ours tells that the registry still has our compressor, without which a message would be compressed twice.
func ours() bool {
	_, ok := encoding.GetCompressor(gzipName).(compressor)
	return ok
}

// Compress implements encoding.Compressor.
func (compressor) Compress(w io.Writer) (io.WriteCloser, error) { return &packer{out: w}, nil }

// zipper is both ways of writing gzip, kept for the next message.
type zipper struct{ fast, store *gzip.Writer }

var writers = sync.Pool{New: func() any {
	z := &zipper{}
	z.fast, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // both levels exist
	z.store, _ = gzip.NewWriterLevel(nil, gzip.NoCompression)
	return z
}}

// packer writes one message.
type packer struct {
	out    io.Writer
	z      *zipper
	began  bool
	passes bool // it is compressed already
}

// Write implements io.Writer. No encoded message begins as gzip does: 0x1f is a field of a type that there is not.
func (p *packer) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if !p.began {
		p.began = true
		if p.passes = len(b) > 1 && b[0] == 0x1f && b[1] == 0x8b; !p.passes {
			p.z = writers.Get().(*zipper)
			p.z.store.Reset(p.out)
		}
	}
	if p.passes {
		return p.out.Write(b)
	}
	return p.z.store.Write(b)
}

// Close implements io.Closer.
func (p *packer) Close() error {
	if p.z == nil {
		return nil
	}
	defer writers.Put(p.z)
	return p.z.store.Close()
}
