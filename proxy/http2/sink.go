package http2

import (
	msg "weft.mesh/weft/proxy/stream"
)

// headSink collects the fields of one header block and checks them (RFC 9113 section 8).
type headSink struct {
	kind     blockKind
	req      *msg.Request
	resp     *msg.Response
	fields   *msg.Fields
	cookies  *[]byte // crumbs are joined here (RFC 9113 section 8.2.3)
	maxSize  int
	maxLines int

	size, lines int
	over        bool   // too large: fields are dropped
	bad         string // why the message is malformed; empty if it is not
	regular     bool   // a field that is no pseudo-header was seen
	seen        pseudo
	protocol    []byte
	host        []byte
	hasLength   bool
	expect      bool // 100-continue; the codec answers it
	length      int64
}

type blockKind uint8

const (
	blockRequest blockKind = iota
	blockResponse
	blockTrailers
	blockIgnored // decoded only to keep the table in step
)

type pseudo uint8

const (
	pseudoMethod pseudo = 1 << iota
	pseudoScheme
	pseudoPath
	pseudoAuthority
	pseudoProtocol
	pseudoStatus
)

func (k *headSink) malformed(why string) bool {
	if k.bad == "" {
		k.bad = why
	}
	return false
}

// field implements fieldSink.
func (k *headSink) field(name, value []byte) bool {
	if k.kind == blockIgnored || k.over || k.bad != "" {
		return false
	}
	k.size += len(name) + len(value) + entryOverhead
	k.lines++
	if k.size > k.maxSize || k.lines > k.maxLines+6 { // six pseudo-headers do not count
		k.over = true
		return false
	}
	if len(name) > 0 && name[0] == ':' {
		if k.regular {
			return k.malformed("pseudo-header after a field")
		}
		return k.pseudo(name, value)
	}
	k.regular = true
	if !lowerToken(name) || !validField(value) {
		return k.malformed("invalid field")
	}
	return k.ordinary(name, value)
}

func lowerToken(name []byte) bool {
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return msg.ValidToken(name)
}

// validField: RFC 9113 section 8.2.1.
func validField(v []byte) bool {
	if n := len(v); n > 0 && (v[0] == ' ' || v[0] == '\t' || v[n-1] == ' ' || v[n-1] == '\t') {
		return false
	}
	return msg.ValidValue(v)
}

func (k *headSink) pseudo(name, value []byte) bool {
	var p pseudo
	switch string(name) {
	case ":method":
		p = pseudoMethod
	case ":scheme":
		p = pseudoScheme
	case ":path":
		p = pseudoPath
	case ":authority":
		p = pseudoAuthority
	case ":protocol":
		p = pseudoProtocol
	case ":status":
		p = pseudoStatus
	}
	if p == 0 || k.seen&p != 0 || k.kind == blockTrailers || (p == pseudoStatus) != (k.kind == blockResponse) {
		return k.malformed("unexpected pseudo-header")
	}
	k.seen |= p
	ok := true
	switch p {
	case pseudoMethod:
		k.req.Method, ok = value, msg.ValidToken(value)
	case pseudoScheme:
		k.req.Scheme, ok = value, string(value) == "http" || string(value) == "https"
	case pseudoPath:
		k.req.Path, ok = value, msg.ValidTarget(value)
	case pseudoAuthority:
		k.req.Authority, ok = value, len(value) == 0 || msg.ValidHost(value)
	case pseudoProtocol:
		k.protocol, ok = value, msg.ValidProtocol(value)
	default:
		k.resp.Status, ok = status(value)
	}
	if !ok {
		return k.malformed("invalid pseudo-header")
	}
	return true
}

func status(v []byte) (int, bool) {
	if len(v) != 3 || v[0] < '1' || v[0] > '9' {
		return 0, false
	}
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// ordinary deals with fields that are no pseudo-headers.
func (k *headSink) ordinary(name, value []byte) bool {
	switch string(name) {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return k.malformed("connection-specific field")
	case "te":
		if !msg.EqualFold(value, "trailers") {
			return k.malformed("te other than trailers")
		}
		if k.req != nil {
			k.req.TETrailers = true
		}
		return false
	case "http2-settings":
		return false // of an upgrade from HTTP/1.1: one connection's, and done with
	case "trailer":
		if k.kind == blockTrailers {
			return false
		}
	case "host":
		if k.kind == blockTrailers {
			return false // too late to route by (RFC 9110 section 6.5.1)
		}
		if k.kind == blockRequest {
			if k.host != nil || !msg.ValidHost(value) {
				return k.malformed("invalid host")
			}
			k.host = value
			return true
		}
	case "content-length":
		n, ok := contentLength(value)
		if !ok || k.hasLength {
			return k.malformed("invalid content-length")
		}
		if k.kind == blockTrailers {
			return false
		}
		k.hasLength, k.length = true, n
	case "expect":
		if k.kind == blockRequest && msg.EqualFold(value, "100-continue") {
			k.expect = true
			return false
		}
	case "cookie":
		if k.kind == blockRequest {
			if len(*k.cookies) > 0 {
				*k.cookies = append(*k.cookies, "; "...)
			}
			*k.cookies = append(*k.cookies, value...)
			return false
		}
	default:
		k.fields.AppendChecked(name, value)
		return true
	}
	k.fields.Append(name, value)
	return true
}

func contentLength(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// finishRequest checks the head as a whole and completes k.req.
func (k *headSink) finishRequest(end bool) {
	r := k.req
	r.Proto = msg.HTTP2
	if k.host != nil {
		if k.seen&pseudoAuthority == 0 || len(r.Authority) == 0 {
			r.Authority = k.host
		} else if !msg.EqualFold(r.Authority, string(k.host)) {
			k.malformed("host differs from :authority")
		}
	}
	if len(*k.cookies) > 0 {
		r.Fields.Append(stringBytes("cookie"), *k.cookies)
	}
	r.ContentLength = k.bodyLength(end)
	connect := string(r.Method) == "CONNECT"
	switch {
	case k.seen&pseudoMethod == 0:
		k.malformed("no :method")
	case connect && k.protocol == nil:
		if k.seen&(pseudoScheme|pseudoPath) != 0 || len(r.Authority) == 0 {
			k.malformed("invalid CONNECT")
		}
	case k.seen&pseudoScheme == 0 || k.seen&pseudoPath == 0:
		k.malformed("no :scheme or :path")
	case r.Path[0] != '/' && !(string(r.Path) == "*" && string(r.Method) == "OPTIONS"):
		k.malformed("invalid :path")
	case k.protocol != nil && !connect:
		k.malformed(":protocol without CONNECT")
	case connect:
		r.Method, r.Upgrade = methodGET, k.protocol
	}
}

var methodGET = []byte("GET")

func (k *headSink) bodyLength(end bool) int64 {
	switch {
	case end && k.length > 0 && k.kind == blockRequest:
		k.malformed("content-length without a body")
	case end && k.kind == blockRequest:
		return 0
	case k.hasLength:
		return k.length
	case end:
		return 0
	}
	return msg.UnknownLength
}

func (k *headSink) finishResponse(end bool) {
	k.resp.Proto = msg.HTTP2
	if k.seen&pseudoStatus == 0 {
		k.malformed("no :status")
		return
	}
	if k.resp.Status == 101 {
		k.malformed("status 101")
	}
	k.resp.ContentLength = k.bodyLength(end)
}
