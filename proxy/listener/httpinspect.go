package listener

import "bytes"

// ALPN names that the HTTP inspector reports (Envoy's http_inspector).
const (
	inspectH2C    = "h2c"
	inspectHTTP11 = "http/1.1"
	inspectHTTP10 = "http/1.0"
)

// http2Preface begins every HTTP/2 connection (RFC 9113 section 3.4).
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	maxMethod      = 32
	maxRequestLine = 8 << 10 // of an unknown method; beyond it the bytes are not taken for HTTP
)

// inspectHTTP says which HTTP the first bytes speak: "" none. more: it cannot tell yet.
// A connection that does not begin with a token and a space is known not
// to be HTTP from its first bytes; else the request line decides by its version.
func inspectHTTP(b []byte) (alpn string, more bool) {
	b, half := skipEmptyLines(b)
	if half {
		return "", true
	}
	if len(b) < len(http2Preface) && bytes.HasPrefix([]byte(http2Preface), b) {
		return "", true
	}
	if bytes.HasPrefix(b, []byte(http2Preface)) {
		return inspectH2C, false
	}
	sp := -1
	for i, c := range b {
		if c == ' ' {
			sp = i
			break
		}
		if i >= maxMethod || !isToken(c) {
			return "", false
		}
	}
	if sp == 0 {
		return "", false
	}
	if sp < 0 {
		return "", true
	}
	line, _, whole := bytes.Cut(b, []byte("\n"))
	if !whole {
		return inspectOpenLine(b, sp)
	}
	return version(bytes.TrimSuffix(line, []byte("\r"))), false
}

// inspectOpenLine judges a request line whose end has not come.
func inspectOpenLine(b []byte, sp int) (string, bool) {
	if len(b) < maxRequestLine {
		return "", !hasControl(b[sp+1:])
	}
	if knownMethod(b[:sp]) && !hasControl(b[:maxRequestLine]) { // a very long path: the codec answers 414 or takes it
		return inspectHTTP11, false
	}
	return "", false
}

// hasControl finds control characters, of which a request line has none. CR is left to the codec.
func hasControl(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\r' {
			return true
		}
	}
	return false
}

func version(line []byte) string {
	i := bytes.LastIndexByte(line, ' ')
	switch {
	case i < 0 || hasControl(line):
		return ""
	case string(line[i+1:]) == "HTTP/1.1":
		return inspectHTTP11
	case string(line[i+1:]) == "HTTP/1.0":
		return inspectHTTP10
	}
	return ""
}

// skipEmptyLines drops what a server should ignore before a request line (RFC 9112 section 2.2).
// half: what is left may be the first half of one.
func skipEmptyLines(b []byte) (rest []byte, half bool) {
	for range 2 {
		if string(b) == "\r" {
			return b, true
		}
		b = bytes.TrimPrefix(b, []byte("\r\n"))
	}
	return b, false
}

func knownMethod(m []byte) bool {
	switch string(m) {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return true
	}
	return false
}

// isToken tells whether c may be in a method (RFC 9110 section 5.6.2).
func isToken(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}
