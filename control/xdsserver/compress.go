package xdsserver

import (
	"compress/gzip"
	"io"
	"slices"
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

// Writers are kept for the next message; those that compress are ten times as large as those that store.
var (
	fast  = writersOf(gzip.BestSpeed)
	store = writersOf(gzip.NoCompression)
)

func writersOf(level int) *sync.Pool {
	return &sync.Pool{New: func() any {
		z, err := gzip.NewWriterLevel(nil, level)
		if err != nil {
			panic(err) // both levels exist
		}
		return z
	}}
}

// chunk is what is passed on at once: gRPC rounds each buffer up.
const chunk = 32 << 10

// packer writes one message.
type packer struct {
	out    io.Writer
	z      *gzip.Writer
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
			p.z = store.Get().(*gzip.Writer)
			p.z.Reset(p.out)
		}
	}
	if !p.passes {
		return p.z.Write(b)
	}
	for part := range slices.Chunk(b, chunk) {
		if _, err := p.out.Write(part); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// Close implements io.Closer.
func (p *packer) Close() error {
	if p.z == nil {
		return nil
	}
	defer store.Put(p.z)
	return p.z.Close()
}
