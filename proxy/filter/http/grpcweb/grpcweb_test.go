package grpcweb

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

// fake is a codec that has a request body in pieces and remembers what is written.
type fake struct {
	stream.Server // nil: what is not faked is not called
	pieces        []string
	buffered      bool // all of it has arrived with the head

	head  stream.Response
	heads int
	body  bytes.Buffer
	end   bool
}

func (f *fake) HasBody() bool { return len(f.pieces) > 0 }

func (f *fake) BodyBuffered() ([]byte, bool) {
	if !f.buffered {
		return nil, false
	}
	return []byte(strings.Join(f.pieces, "")), true
}

func (f *fake) ReadBody() ([]byte, error) {
	if len(f.pieces) == 0 {
		return nil, io.EOF
	}
	p := f.pieces[0]
	f.pieces = f.pieces[1:]
	return []byte(p), nil
}

func (f *fake) WriteHead(r *stream.Response, end bool) error {
	f.head, f.end = *r, end
	f.heads++
	return nil
}

func (f *fake) WriteBody(p []byte, end bool) error {
	f.body.Write(p)
	f.end = end
	return nil
}

func (f *fake) WriteTrailers(*stream.Fields) error { panic("browsers see no trailers") }

// call passes a request of a type through the filter.
func call(t *testing.T, f *fake, header ...string) (*filter.Stream, stream.Server) {
	t.Helper()
	flt, err := New(&grpcwebv3.GrpcWeb{})
	if err != nil {
		t.Fatal(err)
	}
	s := &filter.Stream{Req: &stream.Request{Path: []byte("/pkg.Svc/Do"), ContentLength: 7}, Info: &stream.Info{GRPCCode: -1}}
	for i := 0; i+1 < len(header); i += 2 {
		s.Req.Fields.Add(header[i], header[i+1])
	}
	return s, flt.Transcode(s, f)
}

func all(t *testing.T, s stream.Server) (string, error) {
	t.Helper()
	var b strings.Builder
	for {
		p, err := s.ReadBody()
		if err == nil && len(p) == 0 {
			t.Fatal("an empty piece")
		}
		b.Write(p)
		if err != nil {
			return b.String(), err
		}
	}
}

func TestOnlyGRPCWebIsTaken(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/grpc-web": true, "application/grpc-web+proto": true, "application/grpc-web-text": true, "application/grpc-web-text+proto": true,
		"application/grpc": false, "application/grpc-web+json": false, "application/grpc-web; charset=utf-8": false, "text/plain": false, "": false,
	} {
		s, x := call(t, &fake{}, "content-type", contentType)
		if (x != nil) != want || s.Info.GRPC != want {
			t.Errorf("%q: taken %v, want %v", contentType, x != nil, want)
		}
	}
}

func TestTheHeadBecomesGRPCs(t *testing.T) {
	s, _ := call(t, &fake{pieces: []string{"x"}}, "content-type", "application/grpc-web+proto", "content-length", "7", "x-user-agent", "grpc-web-javascript/0.1")
	f := &s.Req.Fields
	if string(f.Get("content-type")) != "application/grpc" || f.Has("content-length") || s.Req.ContentLength != stream.UnknownLength || !s.Req.TETrailers ||
		string(f.Get("grpc-accept-encoding")) != "identity" || string(f.Get("x-user-agent")) != "grpc-web-javascript/0.1" {
		t.Errorf("%+v, %q", s.Req, f.All())
	}
	s, _ = call(t, &fake{pieces: []string{"x"}}, "content-type", "application/grpc-web", "grpc-accept-encoding", "gzip")
	if got := string(s.Req.Fields.Get("grpc-accept-encoding")); got != "gzip" {
		t.Errorf("grpc-accept-encoding became %q", got)
	}
}

func TestTextRequestsAreDecodedHoweverTheyArrive(t *testing.T) {
	data := strings.Repeat("\x00\x00\x00\x00\x03abc\xff", 50)
	parts := base64.StdEncoding.EncodeToString([]byte(data[:10])) + base64.StdEncoding.EncodeToString([]byte(data[10:21])) + base64.StdEncoding.EncodeToString([]byte(data[21:]))
	for name, text := range map[string]string{"in one": base64.StdEncoding.EncodeToString([]byte(data)), "joined from padded parts": parts} {
		for _, size := range []int{1, 2, 3, 4, 5, 7, 64, len(text)} {
			var pieces []string
			for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
				pieces = append(pieces, rest[:min(size, len(rest))])
			}
			_, x := call(t, &fake{pieces: pieces}, "content-type", "application/grpc-web-text")
			if got, err := all(t, x); err != io.EOF || got != data {
				t.Errorf("%s, %d bytes at a time: %q, %v", name, size, got, err)
			}
		}
		_, x := call(t, &fake{pieces: []string{text}, buffered: true}, "content-type", "application/grpc-web-text")
		for range 2 {
			if got, ok := x.BodyBuffered(); !ok || string(got) != data {
				t.Errorf("%s, buffered: %q, %v", name, got, ok)
			}
		}
	}
}

func TestBadTextIsRefused(t *testing.T) {
	for text, details := range map[string]string{
		"AAAA=": "grpc_base_64_decode_failed_bad_size", "A": "grpc_base_64_decode_failed_bad_size", "AAA": "grpc_base_64_decode_failed_bad_size",
		"A===": "grpc_base_64_decode_failed", "AA=A": "grpc_base_64_decode_failed", "AA-_": "grpc_base_64_decode_failed", "AAAA====": "grpc_base_64_decode_failed",
		"AB==": "grpc_base_64_decode_failed", "A\nAA": "grpc_base_64_decode_failed", "AAAA\r\n\r\n": "grpc_base_64_decode_failed", "    ": "grpc_base_64_decode_failed",
	} {
		for _, buffered := range []bool{false, true} {
			_, x := call(t, &fake{pieces: []string{text}, buffered: buffered}, "content-type", "application/grpc-web-text")
			if got, ok := x.BodyBuffered(); ok {
				t.Errorf("%q: buffered as %q", text, got)
			}
			_, err := all(t, x)
			if e, ok := stream.AsError(err); !ok || e.Status != 400 || e.Details != details || e.Side != stream.Downstream || e.Text == "" {
				t.Errorf("%q: %#v", text, err)
			}
		}
	}
}

func response(status int, header ...string) *stream.Response {
	r := &stream.Response{Status: status, ContentLength: 99}
	for i := 0; i+1 < len(header); i += 2 {
		r.Fields.Add(header[i], header[i+1])
	}
	return r
}

// frame is a message or trailers with their prefix.
func frame(flags byte, p string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(p)))) + p
}

func TestTrailersBecomeTheLastFrame(t *testing.T) {
	messages := frame(0, "hello") + frame(1, "") + frame(0, strings.Repeat("x", 1000))
	trailers := frame(0x80, "grpc-status:0\r\ngrpc-message:a b\r\nx-two:1\r\nx-two:2\r\n")
	for _, accept := range []string{"", "application/grpc-web-text", "application/grpc-web-text+proto", "application/grpc-web"} {
		for _, size := range []int{1, 2, 3, 4, 5, 6, 7, 100, len(messages)} {
			f := &fake{}
			s, x := call(t, f, "content-type", "application/grpc-web", "accept", accept)
			want, contentType := messages+trailers, "application/grpc-web+proto"
			if strings.Contains(accept, "text") {
				contentType = "application/grpc-web-text+proto"
			}
			r := response(200, "content-type", "application/grpc+proto", "content-length", "99")
			if err := x.WriteHead(r, false); err != nil {
				t.Fatal(err)
			}
			if got := string(f.head.Fields.Get("content-type")); got != contentType || f.head.Fields.Has("content-length") || f.head.ContentLength != stream.UnknownLength {
				t.Errorf("%q: head %+v %q", accept, f.head, f.head.Fields.All())
			}
			for rest := messages; rest != ""; rest = rest[min(size, len(rest)):] {
				if err := x.WriteBody([]byte(rest[:min(size, len(rest))]), false); err != nil {
					t.Fatal(err)
				}
			}
			var tr stream.Fields
			tr.Add("grpc-status", "0")
			tr.Add("Grpc-Message", "a b")
			tr.Add("x-two", "1")
			tr.Add("x-two", "2")
			if err := x.WriteTrailers(&tr); err != nil || !f.end {
				t.Fatal(err, f.end)
			}
			got := f.body.String()
			if strings.Contains(accept, "text") {
				got = decodeFrames(t, got)
			}
			if got != want {
				t.Errorf("accept %q, %d bytes at a time:\n%q\nwant\n%q", accept, size, got, want)
			}
			if s.Info.GRPCCode != -1 {
				t.Error("the filter has set the status of a gRPC answer")
			}
		}
	}
}

// decodeFrames decodes base64 that may be padded within.
func decodeFrames(t *testing.T, text string) string {
	t.Helper()
	var out []byte
	for i := 0; i < len(text); i += 4 {
		p, err := base64.StdEncoding.DecodeString(text[i : i+4])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p...)
	}
	return string(out)
}

func TestEachFrameOfTextIsWholeWhenItIsThere(t *testing.T) {
	f := &fake{}
	_, x := call(t, f, "content-type", "application/grpc-web-text", "accept", "application/grpc-web-text")
	_ = x.WriteHead(response(200, "content-type", "application/grpc"), false)
	for _, msg := range []string{"a", "bc", "def", ""} {
		f.body.Reset()
		_ = x.WriteBody([]byte(frame(0, msg)), false)
		if got := decodeFrames(t, f.body.String()); got != frame(0, msg) {
			t.Errorf("%q, want %q", got, frame(0, msg))
		}
	}
}

func TestAnAnswerThatIsNoGRPCBecomesAStatus(t *testing.T) {
	for name, tc := range map[string]struct {
		resp    *stream.Response
		body    []string
		code    int
		message string
	}{
		"a refusal":               {response(403, "content-type", "text/plain"), []string{"RBAC: ", "access denied"}, 7, "RBAC: access denied"},
		"no upstream":             {response(503), []string{"no healthy upstream"}, 14, "no healthy upstream"},
		"a page":                  {response(200, "content-type", "text/html"), []string{"<p>\n50%"}, 2, "<p>%0A50%25"},
		"gRPC with another code":  {response(502, "content-type", "application/grpc"), []string{"x"}, 14, "x"},
		"a type that looks like":  {response(200, "content-type", "application/grpcish"), []string{"x"}, 2, "x"},
		"a body of any size":      {response(404), []string{strings.Repeat("a", 20000), "b"}, 12, strings.Repeat("a", 16384)},
		"text in gRPC-Web's form": {response(200, "content-type", "application/grpc-web-text"), []string{"x"}, 2, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			s, x := call(t, f, "content-type", "application/grpc-web", "accept", "application/grpc-web-text")
			_ = x.WriteHead(tc.resp, false)
			for i, p := range tc.body {
				if f.heads > 0 {
					t.Fatal("the head went too early")
				}
				_ = x.WriteBody([]byte(p), i == len(tc.body)-1)
			}
			h := &f.head.Fields
			if f.heads != 1 || !f.end || f.body.Len() > 0 || string(h.Get("grpc-message")) != tc.message || s.Info.GRPCCode != tc.code ||
				string(h.Get("content-type")) != "application/grpc-web-text+proto" || f.head.ContentLength != 0 || f.head.Status != tc.resp.Status {
				t.Errorf("%d heads, %d %q, body %q, code %d", f.heads, f.head.Status, h.All(), f.body.String(), s.Info.GRPCCode)
			}
		})
	}
}

func TestAHeadAlonePasses(t *testing.T) {
	f := &fake{}
	_, x := call(t, f, "content-type", "application/grpc-web")
	_ = x.WriteHead(response(200, "content-type", "application/grpc", "grpc-status", "5", "grpc-message", "not here"), true)
	if h := &f.head.Fields; f.heads != 1 || !f.end || string(h.Get("grpc-status")) != "5" || string(h.Get("content-type")) != "application/grpc-web+proto" {
		t.Errorf("%+v %q", f.head, h.All())
	}
}

func TestABinaryAnswerOfGRPCWebPasses(t *testing.T) {
	f := &fake{}
	_, x := call(t, f, "content-type", "application/grpc-web")
	_ = x.WriteHead(response(200, "content-type", "Application/gRPC-Web+proto ; a=b"), false)
	_ = x.WriteBody([]byte("already"), true)
	if f.body.String() != "already" || !f.end {
		t.Errorf("%q", f.body.String())
	}
}

// FuzzDecoder: in whatever pieces it comes, text decodes as the standard library decodes each quantum, or is refused.
func FuzzDecoder(f *testing.F) {
	f.Add("AAAAAANhYmM=", uint8(3))
	f.Add("AA==AA==", uint8(1))
	f.Add("A\nAA", uint8(4))
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		var want []byte
		ok := len(text)%4 == 0
		for i := 0; ok && i < len(text); i += 4 {
			p, err := base64.StdEncoding.Strict().DecodeString(text[i : i+4])
			ok = err == nil && !strings.ContainsAny(text[i:i+4], "\r\n")
			want = append(want, p...)
		}
		var d decoder
		var got []byte
		var err error
		for rest := text; rest != "" && err == nil; rest = rest[min(int(size)+1, len(rest)):] {
			var p []byte
			p, err = d.add([]byte(rest[:min(int(size)+1, len(rest))]))
			got = append(got, p...)
		}
		if err == nil {
			err = d.end()
		}
		if (err == io.EOF) != ok || ok && !bytes.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q, %v", text, got, err, want, ok)
		}
	})
}
