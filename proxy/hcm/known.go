package hcm

import (
	"weft.mesh/weft/proxy/stream"
)

// known holds the request headers that the connection manager cares for, found in one pass.
type known struct {
	contentType, grpcTimeout, xff, proto, requestID, xfcc []byte
	traceparent, b3, b3trace, b3span, b3sampled, b3flags  []byte
	envoy                                                 bool // there are x-envoy-* headers
	expect                                                bool // there is an expect header
	ownTrace, ownSpan                                     bool // traceparent and b3span may be overwritten
}

func (k *known) scan(f *stream.Fields) {
	all := f.All()
	for i := range all {
		l := &all[i]
		n := l.Name
		if len(n) > 8 && (n[0]|0x20) == 'x' && stream.EqualFold(n[:8], "x-envoy-") {
			k.envoy = true
			continue
		}
		switch len(n) {
		case 2:
			first(&k.b3, l, "b3")
		case 6:
			k.expect = k.expect || stream.EqualFold(n, "expect")
		case 10:
			first(&k.b3flags, l, "x-b3-flags")
		case 11:
			switch n[0] | 0x20 {
			case 't':
				if first(&k.traceparent, l, "traceparent") {
					k.ownTrace = l.Private()
				} else if k.ownTrace && stream.EqualFold(n, "traceparent") {
					k.ownTrace = false // several lines become one
				}
			case 'x':
				if first(&k.b3span, l, "x-b3-spanid") {
					k.ownSpan = l.Private()
				} else if k.ownSpan && stream.EqualFold(n, "x-b3-spanid") {
					k.ownSpan = false
				}
			}
		case 12:
			switch n[0] | 0x20 {
			case 'c':
				first(&k.contentType, l, "content-type")
			case 'g':
				first(&k.grpcTimeout, l, "grpc-timeout")
			case 'x':
				first(&k.requestID, l, "x-request-id")
				first(&k.b3trace, l, "x-b3-traceid")
				first(&k.b3sampled, l, "x-b3-sampled")
			}
		case 15:
			if stream.EqualFold(n, "x-forwarded-for") {
				if k.xff = l.Value; k.xff == nil { // the last line counts
					k.xff = empty
				}
			}
		case 17:
			first(&k.proto, l, "x-forwarded-proto")
		case 23:
			first(&k.xfcc, l, "x-forwarded-client-cert")
		}
	}
}

// first remembers a header's first line, and tells if this is it.
func first(to *[]byte, l *stream.Field, name string) bool {
	if *to != nil || !stream.EqualFold(l.Name, name) {
		return false
	}
	*to = l.Value
	if l.Value == nil {
		*to = empty
	}
	return true
}

var empty = []byte{}
