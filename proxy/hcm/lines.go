package hcm

import (
	"math/rand/v2"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// addLine adds a field in the form in which HTTP/1 sends it, behind what was added so before, so that all of them leave
// in one copy. name is a token, and none that a codec writes itself.
func (x *exchange) addLine(f *stream.Fields, name string, value []byte) {
	if !stream.ValidValue(value) {
		f.Append(stream.Bytes(name), value) // for the codec to refuse
		return
	}
	start := len(x.buf)
	x.buf = append(append(append(append(x.buf, name...), ": "...), value...), "\r\n"...)
	f.AppendLine(x.buf[start:], len(name), true)
}

// addNumber is addLine for a number.
func (x *exchange) addNumber(f *stream.Fields, name string, n uint64) {
	start := len(x.buf)
	x.buf = append(append(x.buf, name...), ": "...)
	x.buf = append(stream.AppendUint(x.buf, n), "\r\n"...)
	f.AppendLine(x.buf[start:], len(name), true)
}

// newcomer are the headers of a request that comes from no other proxy: nothing of what they say was there. Digits are filled in.
const newcomer = "x-forwarded-proto: https\r\n" +
	"x-request-id: 00000000-0000-4000-8000-000000000000\r\n" +
	"traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n" +
	"x-b3-traceid: 00000000000000000000000000000000\r\n" +
	"x-b3-spanid: 0000000000000000\r\n" +
	"x-b3-sampled: 0\r\n"

// Where the lines of newcomer begin, and where the values.
const (
	atID      = len("x-forwarded-proto: https\r\n")
	atParent  = atID + len("x-request-id: 00000000-0000-4000-8000-000000000000\r\n")
	atTrace   = atParent + len("traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n")
	atSpan    = atTrace + len("x-b3-traceid: 00000000000000000000000000000000\r\n")
	atSampled = atSpan + len("x-b3-spanid: 0000000000000000\r\n")

	idValue      = atID + len("x-request-id: ")
	parentTrace  = atParent + len("traceparent: 00-")
	parentSpan   = parentTrace + 32 + len("-")
	parentFlag   = parentSpan + 16 + len("-0")
	traceValue   = atTrace + len("x-b3-traceid: ")
	spanValue    = atSpan + len("x-b3-spanid: ")
	sampledValue = atSampled + len("x-b3-sampled: ")
)

// isNewcomer tells whether newcomer is all that is to be done to a request's head: it was not seen by another proxy,
// and the configuration asks for nothing unusual.
func (x *exchange) isNewcomer(cfg *config.HTTPManager) bool {
	h := &x.h
	return !h.envoy && h.xff == nil && h.proto == nil && h.requestID == nil && h.xfcc == nil && h.traceparent == nil && h.b3trace == nil && h.b3 == nil &&
		x.conn.xfcc == nil && !cfg.UseRemoteAddress && cfg.GenerateRequestID && cfg.Tracing != nil && cfg.Via == ""
}

// welcome sets newcomer's headers; they are those that requestHeaders would set one by one.
func (x *exchange) welcome(t *config.Tracing) {
	start := len(x.buf)
	x.buf = append(x.buf, newcomer...)
	b, first := x.buf[start:], 0
	if !x.conn.info.TLS { // one letter less
		first = 1
		copy(b[1:], "x-forwarded-proto: http\r\n")
	}
	putUUID((*[36]byte)(b[idValue:]))
	putHex64(b[parentTrace:], nonZero())
	putHex64(b[parentTrace+16:], rand.Uint64())
	putHex64(b[parentSpan:], nonZero())
	copy(b[traceValue:], b[parentTrace:parentTrace+32])
	copy(b[spanValue:], b[parentSpan:parentSpan+16])
	if sampled(t) {
		b[parentFlag], b[sampledValue] = '1', '1'
	}
	x.info.RequestID = b[idValue : idValue+36 : idValue+36]
	f := &x.req.Fields
	f.AppendLine(b[first:atID], len("x-forwarded-proto"), true)
	f.AppendLine(b[atID:atParent], len("x-request-id"), true)
	f.AppendLine(b[atParent:atTrace], len("traceparent"), true)
	f.AppendLine(b[atTrace:atSpan], len("x-b3-traceid"), true)
	f.AppendLine(b[atSpan:atSampled], len("x-b3-spanid"), true)
	f.AppendLine(b[atSampled:], len("x-b3-sampled"), true)
}
