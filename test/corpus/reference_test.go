package corpus

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// request is a request as the reference parser reads it.
type request struct {
	method, target, host, framing, body string
}

func (r request) String() string {
	return fmt.Sprintf("%s %s %s %s %q", r.method, r.target, r.host, r.framing, r.body)
}

// errPart: the bytes are the beginning of a request.
var errPart = errors.New("incomplete")

// The grammar of RFC 9110 and 9112 for what a proxy may send, with no leniency that a recipient is allowed.
var (
	requestLine = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21\x22\x24-\x7e]+) HTTP/1\\.1$")
	fieldLine   = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\\x00-\\x08\\x0a-\\x1f\\x7f]*)$")
	hostValue   = regexp.MustCompile(`^([A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?$`)
	chunkLine   = regexp.MustCompile(`^[0-9a-fA-F]{1,15}$`)
	digits      = regexp.MustCompile(`^[0-9]{1,18}$`)
)

// cutLine cuts a line that ends in CRLF off.
func cutLine(b []byte) (line string, rest []byte, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return "", nil, errPart
	}
	if i == 0 || b[i-1] != '\r' {
		return "", nil, fmt.Errorf("a line of %q ends in a bare LF", b)
	}
	return string(b[:i-1]), b[i+1:], nil
}

// cutFields cuts lines of fields and the empty line after them off.
func cutFields(b []byte, each func(name, value string) error) ([]byte, error) {
	for {
		line, rest, err := cutLine(b)
		if err != nil || line == "" {
			return rest, err
		}
		b = rest
		m := fieldLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("field line %q", line)
		}
		if err := each(strings.ToLower(m[1]), strings.Trim(m[2], " \t")); err != nil {
			return nil, err
		}
	}
}

// cutHead cuts a head off.
func cutHead(b []byte) (r request, length int, rest []byte, err error) {
	line, rest, err := cutLine(b)
	if err != nil {
		return r, 0, nil, err
	}
	m := requestLine.FindStringSubmatch(line)
	if m == nil {
		return r, 0, nil, fmt.Errorf("request line %q", line)
	}
	r = request{method: m[1], target: m[2], framing: "none"}
	seen := map[string]int{}
	rest, err = cutFields(rest, func(name, v string) error {
		switch seen[name]++; name {
		case "host":
			r.host = v
			if !hostValue.MatchString(v) {
				return fmt.Errorf("host %q", v)
			}
		case "transfer-encoding":
			r.framing = "chunked"
			if v != "chunked" {
				return fmt.Errorf("transfer-encoding %q", v)
			}
		case "content-length":
			r.framing = "length"
			if !digits.MatchString(v) {
				return fmt.Errorf("content-length %q", v)
			}
			length, _ = strconv.Atoi(v)
		}
		return nil
	})
	switch {
	case err != nil:
	case seen["host"] != 1:
		err = fmt.Errorf("%d host lines", seen["host"])
	case seen["transfer-encoding"]+seen["content-length"] > 1:
		err = fmt.Errorf("more than one line frames the body")
	}
	return r, length, rest, err
}

// cutRequest cuts one whole request off.
func cutRequest(b []byte) (r request, rest []byte, err error) {
	r, length, rest, err := cutHead(b)
	if err != nil {
		return r, nil, err
	}
	switch r.framing {
	case "length":
		if len(rest) < length {
			return r, nil, errPart
		}
		r.body, rest = string(rest[:length]), rest[length:]
	case "chunked":
		r.body, rest, err = cutChunks(rest)
	}
	return r, rest, err
}

func cutChunks(b []byte) (body string, rest []byte, err error) {
	for {
		line, rest, err := cutLine(b)
		if err != nil {
			return "", nil, err
		}
		if !chunkLine.MatchString(line) {
			return "", nil, fmt.Errorf("chunk size line %q", line)
		}
		n, _ := strconv.ParseUint(line, 16, 64)
		if n == 0 {
			rest, err = cutFields(rest, func(name, _ string) error {
				switch name {
				case "content-length", "transfer-encoding", "host", "connection", "te", "trailer", "upgrade", "expect", "content-encoding":
					return fmt.Errorf("trailer %s", name)
				}
				return nil
			})
			return body, rest, err
		}
		if uint64(len(rest)) < n+2 {
			return "", nil, errPart
		}
		if string(rest[n:n+2]) != "\r\n" {
			return "", nil, fmt.Errorf("chunk %q does not end in CRLF", rest[:n+2])
		}
		body += string(rest[:n])
		b = rest[n+2:]
	}
}

// cutAll reads everything that reached the upstream on one connection: whole requests, and whether
// the beginning of another one is left.
func cutAll(b []byte) (whole []request, part bool, err error) {
	for len(b) > 0 {
		r, rest, err := cutRequest(b)
		if err == errPart {
			return whole, true, nil
		}
		if err != nil {
			return whole, false, err
		}
		whole, b = append(whole, r), rest
	}
	return whole, false, nil
}

// agrees tells whether net/http reads the same requests from b.
func agrees(b []byte, want []request) error {
	r := bufio.NewReader(bytes.NewReader(b))
	for i, w := range want {
		q, err := http.ReadRequest(r)
		if err != nil {
			return fmt.Errorf("net/http cannot read request %d: %w", i+1, err)
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return fmt.Errorf("net/http cannot read the body of request %d: %w", i+1, err)
		}
		if q.Method != w.method || q.RequestURI != w.target || q.Host != w.host || string(body) != w.body {
			return fmt.Errorf("net/http reads request %d as %s %s %s %q, the reference as %v", i+1, q.Method, q.RequestURI, q.Host, body, w)
		}
	}
	return nil
}
