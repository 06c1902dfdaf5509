package grpcweb

import (
	"encoding/base64"
	"errors"
	"io"

	"weft.mesh/weft/proxy/stream"
)

// Why a request in text form is refused, as Envoy words it.
const (
	textInvalid    = "Bad gRPC-web request, invalid base64 data."
	detailsBadSize = "grpc_base_64_decode_failed_bad_size"
	detailsBadData = "grpc_base_64_decode_failed"
)

var errBase64 = errors.New(textInvalid)

func invalid(details string) error {
	return &stream.Error{Side: stream.Downstream, Op: "read body", Details: details, Status: 400, Text: textInvalid, Err: errBase64}
}

// decoder turns base64 into bytes as it comes. Padding may end each quantum: clients join what they have encoded in pieces.
type decoder struct {
	on   bool    // the request is in text form
	left [4]byte // of a quantum that is not whole
	n    int
	out  []byte
	err  error
}

// add decodes what is whole of p; the result is valid until the next call.
func (d *decoder) add(p []byte) ([]byte, error) {
	d.out = d.out[:0]
	if d.n > 0 {
		k := copy(d.left[d.n:], p)
		d.n += k
		p = p[k:]
		if d.n < len(d.left) {
			return nil, nil
		}
		d.n = 0
		if err := d.quanta(d.left[:]); err != nil {
			return nil, err
		}
	}
	whole := len(p) &^ 3
	if err := d.quanta(p[:whole]); err != nil {
		return nil, err
	}
	d.n = copy(d.left[:], p[whole:])
	return d.out, nil
}

// quanta decodes a multiple of four characters.
func (d *decoder) quanta(p []byte) error {
	for len(p) > 0 {
		n := untilPadding(p)
		start := len(d.out)
		d.out = append(d.out, make([]byte, n/4*3)...)
		k, err := base64.StdEncoding.Strict().Decode(d.out[start:], p[:n])
		if err != nil || breaksLine(p[:n]) {
			return invalid(detailsBadData)
		}
		d.out = d.out[:start+k]
		p = p[n:]
	}
	return nil
}

// untilPadding is the length of the quanta up to and including the first that ends in padding.
func untilPadding(p []byte) int {
	for i := 3; i < len(p); i += 4 {
		if p[i] == '=' {
			return i + 1
		}
	}
	return len(p)
}

// breaksLine: line breaks are in no alphabet, though encoding/base64 skips them.
func breaksLine(p []byte) bool {
	for _, c := range p {
		if c == '\r' || c == '\n' {
			return true
		}
	}
	return false
}

// end tells whether the text may end here.
func (d *decoder) end() error {
	if d.n > 0 {
		return invalid(detailsBadSize)
	}
	return io.EOF
}

// BodyBuffered implements [stream.Server].
func (x *exchange) BodyBuffered() ([]byte, bool) {
	p, ok := x.Server.BodyBuffered()
	if !ok || !x.in.on {
		return p, ok
	}
	if x.whole == nil {
		x.whole = []byte{} // decoded only once
		out, err := x.in.add(p)
		if err == nil {
			err = x.in.end()
		}
		if err != io.EOF {
			x.in.err = err
		} else {
			x.whole = out
		}
	}
	return x.whole, x.in.err == nil
}

// ReadBody implements [stream.Server].
func (x *exchange) ReadBody() ([]byte, error) {
	if !x.in.on {
		return x.Server.ReadBody()
	}
	for x.in.err == nil {
		p, err := x.Server.ReadBody()
		if err == io.EOF {
			err = x.in.end()
		} else if err == nil {
			p, err = x.in.add(p)
		}
		if err == nil && len(p) > 0 {
			return p, nil
		}
		x.in.err = err
	}
	return nil, x.in.err
}
