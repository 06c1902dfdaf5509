package http1

import (
	"bytes"
	"unsafe"

	"weft.mesh/weft/proxy/stream"
)

// known names the fields that the codec deals with itself.
type known uint8

const (
	other known = iota
	fieldHost
	fieldTE
	fieldConnection
	fieldContentLength
	fieldTransferEncoding
	fieldUpgrade
	fieldKeepAlive // and Proxy-Connection: dropped
	fieldH2Settings
	fieldExpect
)

// lookup finds what a field name means to the codec; the length decides nearly always.
func lookup(name []byte) known {
	switch len(name) {
	case 2:
		return pick(name, "te", fieldTE)
	case 4:
		return pick(name, "host", fieldHost)
	case 6:
		return pick(name, "expect", fieldExpect)
	case 7:
		return pick(name, "upgrade", fieldUpgrade)
	case 10:
		if k := pick(name, "connection", fieldConnection); k != other {
			return k
		}
		return pick(name, "keep-alive", fieldKeepAlive)
	case 14:
		if k := pick(name, "content-length", fieldContentLength); k != other {
			return k
		}
		return pick(name, "http2-settings", fieldH2Settings) // one connection's, whether Connection names it or not (RFC 7540 section 3.2.1)
	case 16:
		return pick(name, "proxy-connection", fieldKeepAlive)
	case 17:
		return pick(name, "transfer-encoding", fieldTransferEncoding)
	}
	return other
}

func pick(name []byte, s string, k known) known {
	if stream.EqualFold(name, s) {
		return k
	}
	return other
}

// control is what the framing and connection fields of one head said.
type control struct {
	hosts         int
	host          []byte
	hasLength     bool
	length        int64
	chunked       bool
	close         bool
	keepAlive     bool
	upgradeListed bool
	upgrade       []byte
	h2Listed      bool // Connection names HTTP2-Settings
	h2Count       uint8
	h2Settings    []byte
	expect        bool // 100-continue
	badExpect     bool
	teTrailers    bool
	listed        bool   // Connection names further fields
	robs          bool   // Connection names a field that a client may not have removed
	bad           string // why the head must be refused, in response code details; empty if not
}

// Reasons, in the words of Envoy's response code details.
const (
	detailsCodec       = "http1.codec_error"
	detailsCharacters  = "http1.invalid_characters"
	detailsURL         = "http1.invalid_url"
	detailsTooLarge    = "http1.headers_too_large"
	detailsTooMany     = "http1.too_many_headers"
	detailsCLAndTE     = "http1.content_length_and_chunked_not_allowed"
	detailsLength      = "http1.content_length_not_allowed"
	detailsTE          = "http1.invalid_transfer_encoding"
	detailsMissingHost = "missing_host_header"
	detailsLowVersion  = "low_version"
	detailsExpect      = "http1.expectation_not_supported"
	detailsVersion     = "http1.version_not_supported"
	detailsConnection  = "http1.connection_header_rejected"
)

// parseFields parses the lines of a head or of trailers (each ends in CRLF) into f and ctl, up to and including
// the empty line: used is their length. Without an empty line used is 0, and f has the lines that are whole.
// memo, if there is one, saves looking at names byte by byte; strange counts the lines in which it did not help.
func parseFields(b []byte, f *stream.Fields, ctl *control, max int, memo *names) (used, strange int, err *protoError) {
	rest, at := b, 0
	for n := 0; ; n++ {
		if len(rest) >= 2 && rest[0] == '\r' && rest[1] == '\n' {
			return len(b) - len(rest) + 2, strange, nil
		}
		if name := memo.match(rest, &at); name != nil {
			if end := plainLine(rest, int(name.n)); end > 0 {
				if n >= max {
					return 0, strange, refuse(431, detailsTooMany)
				}
				if name.kind == other {
					f.AppendLine(rest[:end], int(name.n)-len(": "), true)
				} else if err := ctl.known(name.kind, rest[:name.n-2], rest[name.n:end-2], f); err != nil {
					return 0, strange, err
				}
				rest = rest[end:]
				continue
			}
		} else {
			strange++
		}
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return 0, strange, nil
		}
		if end < 1 || rest[end-1] != '\r' {
			return 0, strange, refuse(400, detailsCodec) // bare LF
		}
		if n >= max {
			return 0, strange, refuse(431, detailsTooMany)
		}
		if err := parseField(rest[:end-1], f, ctl); err != nil {
			return 0, strange, err
		}
		rest = rest[end+1:]
	}
}

// plainLine is the length of the line that b begins with, if its value begins at from, has no control characters and no spaces
// around it, and CRLF follows; else 0.
func plainLine(b []byte, from int) int {
	end := from + stream.PlainLen(b[from:])
	if end+2 > len(b) || b[end] != '\r' || b[end+1] != '\n' || end > from && (b[from] == ' ' || b[end-1] == ' ') {
		return 0
	}
	return end + 2
}

func parseField(line []byte, f *stream.Fields, ctl *control) *protoError {
	colon := stream.TokenLen(line)
	if colon == len(line) || bytes.IndexByte(line[colon:], ':') < 0 {
		return refuse(400, detailsCodec)
	}
	if colon == 0 || line[colon] != ':' { // a folded line, or a space before the colon
		return refuse(400, detailsCharacters)
	}
	name, value := line[:colon], trimOWS(line[colon+1:])
	if !stream.ValidValue(value) {
		return refuse(400, detailsCharacters)
	}
	k := lookup(name)
	switch {
	case k != other:
		return ctl.known(k, name, value, f)
	case colon+2+len(value) == len(line) && line[colon+1] == ' ':
		f.AppendLine(line[:len(line)+len("\r\n")], colon, true)
	default:
		f.AppendChecked(name, value)
	}
	return nil
}

// known deals with a field that means something to the codec.
func (c *control) known(k known, name, value []byte, f *stream.Fields) *protoError {
	if !c.take(k, value) {
		f.Append(name, value)
	}
	if c.bad != "" {
		return refuse(400, c.bad)
	}
	return nil
}

// take notes a field of the codec's own and tells whether it stays out of the message.
func (c *control) take(k known, v []byte) bool {
	switch k {
	case fieldHost:
		c.hosts++
		c.host = v
	case fieldContentLength:
		n := parseLength(v)
		if c.hasLength || n < 0 {
			c.bad = detailsLength
		}
		c.hasLength, c.length = true, n
		return false
	case fieldTransferEncoding:
		if c.chunked || !stream.EqualFold(v, "chunked") {
			c.bad = detailsTE
		}
		c.chunked = true
	case fieldConnection:
		c.connection(v)
	case fieldUpgrade:
		c.upgrade = v
	case fieldH2Settings:
		c.h2Count = min(c.h2Count+1, 2)
		c.h2Settings = v
	case fieldExpect:
		if stream.EqualFold(v, "100-continue") {
			c.expect = true
		} else {
			c.badExpect = true
		}
	case fieldTE:
		eachToken(v, func(t []byte) {
			if stream.EqualFold(t, "trailers") {
				c.teTrailers = true
			}
		})
	}
	return true
}

func (c *control) connection(v []byte) {
	for len(v) > 0 {
		var t []byte
		t, v = nextToken(v)
		switch {
		case len(t) == 0:
		case stream.EqualFold(t, "close"):
			c.close = true
		case stream.EqualFold(t, "keep-alive"):
			c.keepAlive = true
		case stream.EqualFold(t, "upgrade"):
			c.upgradeListed = true
		case lookup(t) == fieldH2Settings:
			c.h2Listed = true
		case protected(t):
			c.robs = true
		case lookup(t) == other:
			c.listed = true
		}
	}
}

// protected tells the fields by which upstreams know who asks and for what: a client that names them in
// Connection wants them gone (Envoy refuses that too).
func protected(name []byte) bool {
	const forwarded = "x-forwarded-"
	return lookup(name) == fieldHost || len(name) > len(forwarded) && stream.EqualFold(name[:len(forwarded)], forwarded)
}

// dropListed removes what Connection names (RFC 9110 section 7.6.1). Fields that
// frame the message are not in f or stay, whatever it says.
func dropListed(head []byte, f *stream.Fields) {
	for len(head) > 0 {
		end := bytes.IndexByte(head, '\n')
		line := head[:end-1]
		head = head[end+1:]
		colon := bytes.IndexByte(line, ':')
		if colon != len("connection") || lookup(line[:colon]) != fieldConnection {
			continue
		}
		v := line[colon+1:]
		for len(v) > 0 {
			var t []byte
			t, v = nextToken(v)
			if len(t) > 0 && lookup(t) == other {
				f.Del(unsafe.String(&t[0], len(t)))
			}
		}
	}
}

// nextToken splits a comma-separated list.
func nextToken(v []byte) (token, rest []byte) {
	if i := bytes.IndexByte(v, ','); i >= 0 {
		return trimOWS(v[:i]), v[i+1:]
	}
	return trimOWS(v), nil
}

func eachToken(v []byte, f func([]byte)) {
	for len(v) > 0 {
		var t []byte
		t, v = nextToken(v)
		f(t)
	}
}

// parseLength returns -1 if v is no content-length (RFC 9110 section 8.6: digits only).
func parseLength(v []byte) int64 {
	if len(v) == 0 || len(v) > 18 {
		return -1
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// parseTrailers parses trailer lines and drops what may not come late: framing, routing, connection fields.
func parseTrailers(b []byte, f *stream.Fields, max int) *protoError {
	f.Reset()
	var ctl control
	if _, _, err := parseFields(b, f, &ctl, max, nil); err != nil {
		return err
	}
	f.Del("content-length")
	f.Del("trailer")
	return nil
}

func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
