package grpcstream_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"weft.mesh/weft/control/grpcstream"
)

// FuzzFrames sends anything after the beginning of a call. The connection must end when the client has said all, what the server
// says must be HTTP/2 as x/net reads it, and what the stream echoes must be what x/net finds in it, from the beginning.
func FuzzFrames(f *testing.F) {
	frames := func(write func(fr *http2.Framer)) []byte {
		var b bytes.Buffer
		write(http2.NewFramer(&b, nil))
		return b.Bytes()
	}
	f.Add(frames(func(fr *http2.Framer) {
		fr.WriteSettingsAck()
		fr.WriteData(1, false, message([]byte("hello")))
		fr.WriteDataPadded(1, false, message([]byte("padded"))[:4], make([]byte, 3))
		fr.WriteData(1, true, message([]byte("padded"))[4:])
	}))
	f.Add(frames(func(fr *http2.Framer) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: call()[:9], Priority: http2.PriorityParam{Weight: 1}})
		fr.WriteContinuation(3, true, call()[9:])
		fr.WriteData(3, false, message(bytes.Repeat([]byte("x"), 9000)))
		fr.WriteWindowUpdate(0, 1<<20)
		fr.WriteWindowUpdate(3, 1<<20)
		fr.WriteRSTStream(3, http2.ErrCodeCancel)
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3})
		fr.WriteData(1, false, message([]byte("fail there")))
	}))
	f.Add(frames(func(fr *http2.Framer) {
		fr.WritePing(false, [8]byte{1})
		fr.WriteGoAway(0, http2.ErrCodeNo, nil)
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 5, BlockFragment: block(":method", "POST", ":path", "/another"), EndHeaders: true})
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block("trailer", "x"), EndHeaders: true, EndStream: true})
	}))
	beginning := append([]byte(http2.ClientPreface), frames(func(fr *http2.Framer) {
		fr.WriteSettings()
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: call(), EndHeaders: true})
	})...)
	at := serveSocket(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), 256<<10)] // more says nothing new
		c, err := net.Dial("unix", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			_, _ = c.Write(append(beginning[:len(beginning):len(beginning)], b...)) // fails if the server has heard enough
			c.(*net.UnixConn).CloseWrite()
		}()
		said, err := io.ReadAll(c)
		var waited net.Error
		if errors.As(err, &waited) && waited.Timeout() {
			t.Fatalf("the connection does not end; the server said %x", said)
		}
		echoed := heard(t, said)
		if want := spoken(b); !bytes.HasPrefix(want, echoed) {
			t.Errorf("stream 1 echoed %x; it was told %x", echoed, want)
		}
	})
}

// serveSocket serves echoes on a socket of the file system, which uses up no ports.
func serveSocket(f *testing.F) string {
	f.Helper()
	l, err := net.Listen("unix", filepath.Join(f.TempDir(), "s"))
	if err != nil {
		f.Fatal(err)
	}
	others := grpcstream.NewOthers(l.Addr())
	server := grpcstream.New(grpcstream.Settings{Method: method, Others: others, MaxMessage: 1 << 20,
		Accept: func(_ context.Context, s *grpcstream.Stream) (grpcstream.Receiver, error) {
			return &echo{s: s, closed: make(chan struct{})}, nil
		}})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(ctx, l); err != nil {
			f.Error(err)
		}
	})
	f.Cleanup(func() { cancel(); others.Close(); wg.Wait() })
	return l.Addr().String()
}

// heard reads what a server said, and returns stream 1's data.
func heard(t *testing.T, said []byte) (data []byte) {
	t.Helper()
	fr := http2.NewFramer(io.Discard, bytes.NewReader(said))
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := fr.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return data
		}
		if err != nil {
			t.Fatalf("the server says what is no HTTP/2: %v\n%x", err, said)
		}
		if d, ok := f.(*http2.DataFrame); ok && d.StreamID == 1 {
			data = append(data, d.Data()...)
		}
	}
}

// spoken are stream 1's messages, as far as x/net reads the frames and they are not compressed.
func spoken(b []byte) []byte {
	fr := http2.NewFramer(io.Discard, bytes.NewReader(b))
	var data, whole []byte
	for end := false; !end; {
		f, err := fr.ReadFrame()
		if err != nil {
			break
		}
		if d, ok := f.(*http2.DataFrame); ok && d.StreamID == 1 {
			data = append(data, d.Data()...)
			end = d.StreamEnded()
		}
	}
	for len(data) >= grpcstream.PrefixSize && data[0] == 0 {
		n := grpcstream.PrefixSize + int(binary.BigEndian.Uint32(data[1:]))
		if n > len(data) {
			break
		}
		whole, data = append(whole, data[:n]...), data[n:]
	}
	return whole
}
