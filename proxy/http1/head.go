package http1

import (
	"bytes"

	"weft.mesh/weft/proxy/stream"
)

// protoError is a message that the codec refuses.
type protoError struct {
	status  int
	details string
}

func (e *protoError) Error() string { return e.details }

func refuse(status int, details string) *protoError { return &protoError{status, details} }

// headEnd finds the end of a head: the length up to and including the empty
// line, or 0 if it is not all there. from is how many bytes were looked at before.
// What can never become a head is refused without waiting for more.
func headEnd(b []byte, from int) (int, *protoError) {
	if i := bytes.Index(b[max(from-3, 0):], []byte("\r\n\r\n")); i >= 0 {
		return max(from-3, 0) + i + 4, nil
	}
	for at := from; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0, nil
		}
		if at += i; at == 0 || b[at-1] != '\r' {
			return 0, refuse(400, detailsCodec)
		}
		at++
	}
}

// leadingCRLF is the length of empty lines before a request, which are ignored (RFC 9112 section 2.2).
func leadingCRLF(b []byte) int {
	n := 0
	for len(b)-n >= 2 && b[n] == '\r' && b[n+1] == '\n' {
		n += 2
	}
	return n
}

// parseRequest parses the head that b begins with in place and returns its length; 0 without an error: its end is not there.
func parseRequest(b []byte, r *stream.Request, ctl *control, maxFields int) (int, *protoError) {
	eol := bytes.IndexByte(b, '\n')
	if eol < 0 {
		return 0, nil
	}
	if eol < 1 || b[eol-1] != '\r' {
		return 0, refuse(400, detailsCodec)
	}
	if err := parseRequestLine(b[:eol-1], r); err != nil {
		return 0, err
	}
	lines := b[eol+1:]
	memo := requestNames.place(lines)
	n, strange, err := parseFields(lines, &r.Fields, ctl, maxFields, memo.Load())
	if err != nil || n == 0 {
		return 0, err
	}
	if strange > 0 {
		learn(memo, lines[:n])
	}
	if ctl.robs {
		return 0, refuse(400, detailsConnection)
	}
	if ctl.listed {
		dropListed(lines[:n-2], &r.Fields)
	}
	if err := requestHost(r, ctl); err != nil {
		return 0, err
	}
	r.Vouch()
	return eol + 1 + n, requestFraming(r, ctl)
}

func parseRequestLine(line []byte, r *stream.Request) *protoError {
	sp := bytes.IndexByte(line, ' ')
	if sp < 0 || !stream.ValidToken(line[:sp]) {
		return refuse(400, detailsCodec)
	}
	r.Method = line[:sp]
	rest := line[sp+1:]
	sp = bytes.IndexByte(rest, ' ')
	if sp < 0 {
		return refuse(400, detailsCodec) // HTTP/0.9
	}
	target, version := rest[:sp], rest[sp+1:]
	if len(version) != 8 || string(version[:5]) != "HTTP/" || version[6] != '.' || !digit(version[5]) || !digit(version[7]) {
		return refuse(400, detailsCodec)
	}
	switch string(version[5:]) {
	case "1.1":
		r.Proto = stream.HTTP11
	case "1.0":
		r.Proto = stream.HTTP10
	default:
		return refuse(505, detailsVersion)
	}
	if !stream.ValidTarget(target) {
		return refuse(400, detailsURL)
	}
	return parseTarget(target, r)
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// parseTarget takes the four forms of RFC 9112 section 3.2.
func parseTarget(t []byte, r *stream.Request) *protoError {
	connect := string(r.Method) == "CONNECT"
	switch {
	case connect:
		if i := bytes.LastIndexByte(t, ':'); i <= 0 || i == len(t)-1 || parseLength(t[i+1:]) < 0 || !stream.ValidHost(t) {
			return refuse(400, detailsURL)
		}
		r.Authority = t
	case t[0] == '/':
		r.Path = t
	case len(t) == 1 && t[0] == '*' && string(r.Method) == "OPTIONS":
		r.Path = t
	default:
		return parseAbsolute(t, r)
	}
	return nil
}

var (
	rootPath = []byte("/")
	asterisk = []byte("*")
	http     = []byte("http")
	https    = []byte("https")
)

func parseAbsolute(t []byte, r *stream.Request) *protoError {
	i := bytes.Index(t, []byte("://"))
	if i < 0 {
		return refuse(400, detailsURL)
	}
	switch scheme := t[:i]; {
	case stream.EqualFold(scheme, "http"):
		r.Scheme = http
	case stream.EqualFold(scheme, "https"):
		r.Scheme = https
	default:
		return refuse(400, "http1.invalid_scheme")
	}
	t = t[i+3:]
	end := bytes.IndexAny(t, "/?")
	if end < 0 {
		end = len(t)
	}
	r.Authority, r.Path = t[:end], t[end:]
	if !stream.ValidHost(r.Authority) || bytes.IndexByte(r.Authority, '%') >= 0 {
		return refuse(400, detailsURL) // an escaped name is legal (RFC 3986 section 3.2.2), but whoever decodes it sees another host than we do
	}
	switch {
	case len(r.Path) == 0 && string(r.Method) == "OPTIONS":
		r.Path = asterisk
	case len(r.Path) == 0:
		r.Path = rootPath
	case r.Path[0] == '?':
		return refuse(400, detailsURL) // "http://host?query": legal, but aliases nothing we could forward
	}
	return nil
}

// requestHost: exactly one Host in HTTP/1.1, at most one in 1.0. A target in absolute or
// authority form wins (RFC 9112 section 3.2.2).
func requestHost(r *stream.Request, ctl *control) *protoError {
	if ctl.hosts > 1 || ctl.hosts == 0 && r.Proto == stream.HTTP11 {
		return refuse(400, detailsMissingHost)
	}
	if len(ctl.host) > 0 && !stream.ValidHost(ctl.host) {
		return refuse(400, detailsCharacters)
	}
	if r.Authority == nil {
		r.Authority = ctl.host
	}
	return nil
}

func requestFraming(r *stream.Request, ctl *control) *protoError {
	switch {
	case ctl.chunked && ctl.hasLength:
		return refuse(400, detailsCLAndTE)
	case ctl.chunked && r.Proto == stream.HTTP10:
		return refuse(400, detailsTE)
	case ctl.chunked:
		r.ContentLength = stream.UnknownLength
	default:
		r.ContentLength = ctl.length
	}
	if ctl.badExpect && r.Proto == stream.HTTP11 {
		return refuse(417, detailsExpect)
	}
	if string(r.Method) == "CONNECT" && r.ContentLength != 0 {
		return refuse(400, detailsLength)
	}
	r.TETrailers = ctl.teTrailers
	if ctl.upgradeListed && len(ctl.upgrade) > 0 && r.ContentLength == 0 && r.Proto == stream.HTTP11 &&
		string(r.Method) != "CONNECT" && !stream.EqualFold(ctl.upgrade, "h2c") {
		r.Upgrade = ctl.upgrade
	}
	return nil
}

// parseResponse is parseRequest for a response.
func parseResponse(b []byte, r *stream.Response, ctl *control, maxFields int) (int, *protoError) {
	eol := bytes.IndexByte(b, '\n')
	if eol < 0 {
		return 0, nil
	}
	if err := parseStatusLine(b[:eol], r); err != nil {
		return 0, err
	}
	lines := b[eol+1:]
	memo := responseNames.place(lines)
	n, strange, err := parseFields(lines, &r.Fields, ctl, maxFields, memo.Load())
	if err != nil || n == 0 {
		return 0, err
	}
	if strange > 0 {
		learn(memo, lines[:n])
	}
	if ctl.listed {
		dropListed(lines[:n-2], &r.Fields)
	}
	return eol + 1 + n, responseFraming(r, ctl)
}

// parseStatusLine parses "HTTP/1.1 200 OK" CR.
func parseStatusLine(line []byte, r *stream.Response) *protoError {
	if len(line) < 1 || line[len(line)-1] != '\r' {
		return refuse(502, detailsCodec)
	}
	line = line[:len(line)-1]
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' || !stream.ValidValue(line) {
		return refuse(502, detailsCodec)
	}
	switch line[7] {
	case '1':
		r.Proto = stream.HTTP11
	case '0':
		r.Proto = stream.HTTP10
	default:
		return refuse(502, detailsVersion)
	}
	for _, c := range line[9:12] {
		if !digit(c) {
			return refuse(502, detailsCodec)
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 {
		return refuse(502, detailsCodec)
	}
	return nil
}

func responseFraming(r *stream.Response, ctl *control) *protoError {
	switch {
	case ctl.chunked && ctl.hasLength:
		return refuse(502, detailsCLAndTE)
	case ctl.chunked && r.Proto == stream.HTTP10:
		return refuse(502, detailsTE)
	case ctl.hasLength:
		r.ContentLength = ctl.length
	default:
		r.ContentLength = stream.UnknownLength
	}
	if ctl.upgradeListed {
		r.Upgrade = ctl.upgrade
	}
	return nil
}
