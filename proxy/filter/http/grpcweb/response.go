package grpcweb

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"strconv"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

const (
	maxMessage   = 16 << 10 // of a body that becomes grpc-message, before it is escaped
	trailersFlag = 0x80     // of the frame that holds trailers
	prefix       = 5        // bytes before each message: flags and length
)

// exchange is a call of gRPC-Web as the rest of the proxy sees it: gRPC. Reading and writing may be on two goroutines.
type exchange struct {
	stream.Server
	s *filter.Stream

	// reader only
	in    decoder
	whole []byte

	// writer only
	textOut bool
	text    encoder
	foreign *stream.Response // the head of an answer that is no gRPC, held back until its body is here
	message []byte           // its body
	frame   []byte           // of trailers
}

// WriteHead implements [stream.Server].
func (x *exchange) WriteHead(r *stream.Response, end bool) error {
	if r.Status < 200 {
		return x.Server.WriteHead(r, end)
	}
	foreign := !end && !isGRPC(r)
	r.Fields.Del("content-length")
	r.ContentLength = stream.UnknownLength
	if x.textOut {
		r.Fields.Set("content-type", typeTextProto)
	} else {
		r.Fields.Set("content-type", typeWebProto)
	}
	if foreign {
		x.foreign = r
		return nil
	}
	return x.Server.WriteHead(r, end)
}

// isGRPC tells a gRPC answer, or one in gRPC-Web's binary form already.
func isGRPC(r *stream.Response) bool {
	if r.Status != 200 {
		return false
	}
	t := r.Fields.Get("content-type")
	if i := bytes.IndexByte(t, ';'); i >= 0 {
		t = t[:i]
	}
	t = bytes.TrimRight(t, " \t")
	if stream.EqualFold(t, typeWeb) || stream.EqualFold(t, typeWebProto) {
		return true
	}
	rest, ok := bytes.CutPrefix(t, []byte(typeGRPC))
	return ok && (len(rest) == 0 || rest[0] == '+')
}

// WriteBody implements [stream.Server].
func (x *exchange) WriteBody(p []byte, end bool) error {
	switch {
	case x.foreign != nil:
		x.message = append(x.message, p[:min(len(p), maxMessage-len(x.message))]...)
		if !end {
			return nil
		}
		return x.explain()
	case !x.textOut:
		return x.Server.WriteBody(p, end)
	}
	out := x.text.add(p)
	if end {
		out = x.text.finish(out)
	}
	if len(out) == 0 && !end {
		return nil
	}
	return x.Server.WriteBody(out, end)
}

// explain sends a head alone that says what an answer that is no gRPC meant.
func (x *exchange) explain() error {
	r := x.foreign
	x.foreign = nil
	code := filter.GRPCStatus(r.Status)
	if r.Status == 200 {
		code = 2 // UNKNOWN: not a success, as nothing says so
	}
	x.s.Info.GRPCCode = code
	r.Fields.Set("grpc-status", strconv.Itoa(code))
	r.Fields.SetBytes("grpc-message", filter.AppendGRPCMessage(nil, x.message))
	r.ContentLength = 0
	return x.Server.WriteHead(r, true)
}

// WriteTrailers implements [stream.Server]: they become the last frame of the body.
func (x *exchange) WriteTrailers(t *stream.Fields) error {
	if x.foreign != nil {
		return x.explain()
	}
	x.frame = append(x.frame[:0], trailersFlag, 0, 0, 0, 0)
	for _, l := range t.All() {
		x.frame = append(append(append(append(x.frame, lower(l.Name)...), ':'), l.Value...), '\r', '\n')
	}
	binary.BigEndian.PutUint32(x.frame[1:], uint32(len(x.frame)-prefix)) // trailers have a bound far below 4 GB
	return x.WriteBody(x.frame, true)
}

// lower is a name as gRPC-Web wants it. An upstream over HTTP/2 sends no other.
func lower(name []byte) []byte {
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			return bytes.ToLower(name)
		}
	}
	return name
}

// encoder turns gRPC frames into base64, each on its own, so that a browser can take every one when it
// is there. It needs no whole frame: up to two bytes wait for a third, or for the end of their frame.
type encoder struct {
	head [prefix]byte
	have int    // of head
	left uint64 // bytes of the frame still to come
	wait [3]byte
	n    int // of wait
	out  []byte
}

// add encodes p; the result is valid until the next call.
func (e *encoder) add(p []byte) []byte {
	e.out = e.out[:0]
	for len(p) > 0 {
		n := 0
		if e.have < prefix {
			n = copy(e.head[e.have:], p)
			if e.have += n; e.have == prefix {
				e.left = uint64(binary.BigEndian.Uint32(e.head[1:]))
			}
		} else {
			n = int(min(e.left, uint64(len(p))))
			e.left -= uint64(n)
		}
		e.bytes(p[:n])
		p = p[n:]
		if e.have == prefix && e.left == 0 {
			e.have = 0
			e.out = e.finish(e.out)
		}
	}
	return e.out
}

// bytes encodes as much as makes whole quanta.
func (e *encoder) bytes(p []byte) {
	if e.n > 0 {
		k := copy(e.wait[e.n:], p)
		e.n += k
		p = p[k:]
		if e.n < len(e.wait) {
			return
		}
		e.out = base64.StdEncoding.AppendEncode(e.out, e.wait[:])
	}
	whole := len(p) / 3 * 3
	e.out = base64.StdEncoding.AppendEncode(e.out, p[:whole])
	e.n = copy(e.wait[:], p[whole:])
}

// finish appends what waits, padded.
func (e *encoder) finish(out []byte) []byte {
	out = base64.StdEncoding.AppendEncode(out, e.wait[:e.n])
	e.n = 0
	return out
}
