package hcm

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// trace passes the trace context on: a new span id that is a child of the
// caller's, in each of the formats the caller used (W3C trace context, B3 in one
// or several headers). A request without a context begins a trace, in W3C and B3 form;
// whether it is sampled is decided by chance.
func (x *exchange) trace(t *config.Tracing) {
	start := len(x.buf)
	x.buf = appendHex64(x.buf, nonZero())
	span := x.buf[start:len(x.buf):len(x.buf)]
	found := x.traceW3C(span)
	found = x.traceB3Multi(span, t) || found
	found = x.traceB3Single(span) || found
	if !found {
		x.newTrace(span, sampled(t))
	}
}

// traceW3C rewrites "00-<trace>-<parent>-<flags>" (W3C Trace Context section 3.2). A malformed header is dropped.
func (x *exchange) traceW3C(span []byte) bool {
	v := x.h.traceparent
	if v == nil {
		return false
	}
	if !validTraceparent(v) {
		x.req.Fields.Del("traceparent")
		x.req.Fields.Del("tracestate")
		return false
	}
	if x.h.ownTrace {
		copy(v[36:52], span)
		if len(v) == 55 { // what a later version has behind is dropped
			return true
		}
	}
	start := len(x.buf)
	x.buf = append(x.buf, v[:36]...)
	x.buf = append(x.buf, span...)
	x.buf = append(x.buf, v[52:55]...)
	x.req.Fields.SetBytes("traceparent", x.buf[start:len(x.buf):len(x.buf)])
	return true
}

func validTraceparent(v []byte) bool {
	return len(v) >= 55 && v[2] == '-' && v[35] == '-' && v[52] == '-' && isHex(v[0]) && isHex(v[1]) && string(v[:2]) != "ff" &&
		(len(v) == 55 || v[55] == '-' && string(v[:2]) != "00") && allHex(v[3:35]) && allHex(v[36:52]) && allHex(v[53:55]) &&
		!allZero(v[3:35]) && !allZero(v[36:52])
}

// traceB3Multi makes the caller's span the parent.
func (x *exchange) traceB3Multi(span []byte, t *config.Tracing) bool {
	h, f := &x.h, &x.req.Fields
	if n := len(h.b3trace); n != 32 && n != 16 || !allHex(h.b3trace) {
		return false
	}
	if len(h.b3span) == 16 && allHex(h.b3span) {
		if f.Has("x-b3-parentspanid") {
			f.SetBytes("x-b3-parentspanid", x.copied(h.b3span))
		} else {
			x.addLine(f, "x-b3-parentspanid", h.b3span)
		}
	}
	if h.ownSpan && len(h.b3span) == len(span) {
		copy(h.b3span, span)
	} else {
		f.SetBytes("x-b3-spanid", span)
	}
	if h.b3sampled == nil && h.b3flags == nil {
		f.Add("x-b3-sampled", bit(sampled(t)))
	}
	return true
}

// copied is a copy of b that lasts as long as the exchange.
func (x *exchange) copied(b []byte) []byte {
	start := len(x.buf)
	x.buf = append(x.buf, b...)
	return x.buf[start:len(x.buf):len(x.buf)]
}

// traceB3Single rewrites "<trace>-<span>[-<sampled>[-<parent>]]"; the forms "0", "1" and "d" stay as they are.
func (x *exchange) traceB3Single(span []byte) bool {
	v := x.h.b3
	if v == nil {
		return false
	}
	id, rest, ok := bytes.Cut(v, []byte{'-'})
	if !ok || len(id) != 32 && len(id) != 16 || !allHex(id) || len(rest) < 16 || !allHex(rest[:16]) {
		return len(v) == 1
	}
	old, flag := rest[:16], []byte(nil)
	if len(rest) >= 18 && rest[16] == '-' {
		flag, _, _ = bytes.Cut(rest[17:], []byte{'-'})
	}
	start := len(x.buf)
	x.buf = append(append(append(x.buf, id...), '-'), span...)
	if len(flag) == 1 {
		x.buf = append(append(append(x.buf, '-'), flag...), '-')
		x.buf = append(x.buf, old...)
	}
	x.req.Fields.SetBytes("b3", x.buf[start:len(x.buf):len(x.buf)])
	return true
}

func (x *exchange) newTrace(span []byte, sampled bool) {
	var v [55]byte // 00-<trace>-<span>-0<sampled>
	copy(v[:], "00-")
	putHex64(v[3:19], nonZero())
	putHex64(v[19:35], rand.Uint64())
	v[35] = '-'
	copy(v[36:52], span)
	copy(v[52:], "-0")
	v[54] = bit(sampled)[0]
	start := len(x.buf)
	x.buf = append(x.buf, v[:]...)
	f := &x.req.Fields
	f.Append(nameTraceparent, x.buf[start:len(x.buf):len(x.buf)])
	f.Append(nameB3Trace, x.buf[start+3:start+35:start+35])
	f.Append(nameB3Span, span)
	f.Append(nameB3Sampled, stream.Bytes(bit(sampled)))
}

var (
	nameTraceparent = []byte("traceparent")
	nameB3Trace     = []byte("x-b3-traceid")
	nameB3Span      = []byte("x-b3-spanid")
	nameB3Sampled   = []byte("x-b3-sampled")
)

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func sampled(t *config.Tracing) bool {
	return rand.Float64()*100 < t.RandomSampling && rand.Float64()*100 < t.OverallSampling
}

func nonZero() uint64 {
	for {
		if v := rand.Uint64(); v != 0 {
			return v
		}
	}
}

func appendHex64(b []byte, v uint64) []byte {
	var x [16]byte
	putHex64(x[:], v)
	return append(b, x[:]...)
}

// putHex64 writes 16 hexadecimal digits.
func putHex64(b []byte, v uint64) {
	_ = b[15]
	for i := 14; i >= 0; i -= 2 {
		p := hexPairs[byte(v)]
		b[i], b[i+1] = byte(p>>8), byte(p)
		v >>= 8
	}
}

// hexPairs are the two digits of each byte, the first in the upper half.
var hexPairs = func() (t [256]uint16) {
	const digits = "0123456789abcdef"
	for i := range t {
		t[i] = uint16(digits[i>>4])<<8 | uint16(digits[i&15])
	}
	return t
}()

func allHex(b []byte) bool {
	for len(b) >= 8 && hex8(binary.LittleEndian.Uint64(b)) {
		b = b[8:]
	}
	for _, c := range b {
		if !isHex(c) {
			return false
		}
	}
	return true
}

// hex8 is true only if all of eight bytes are digits of hexadecimal numbers in lower case.
func hex8(x uint64) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	high := x | highs // so that nothing is borrowed from the byte above
	digits := (high - '0'*ones) & (('9'*ones | highs) - x)
	letters := (high - 'a'*ones) & (('f'*ones | highs) - x)
	return x&highs == 0 && (digits|letters)&highs == highs
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != '0' {
			return false
		}
	}
	return true
}
