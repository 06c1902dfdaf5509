package telemetry

import (
	"fmt"
	"strconv"
	"strings"

	"weft.mesh/weft/proxy/stream"
)

// DefaultText is Istio's default access log format.
const DefaultText = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% " +
	"%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% " +
	"%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" " +
	"\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% " +
	"%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"

// DefaultJSON is Istio's default JSON access log.
func DefaultJSON() map[string]any {
	return map[string]any{
		"start_time": "%START_TIME%", "route_name": "%ROUTE_NAME%", "method": "%REQ(:METHOD)%",
		"path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "protocol": "%PROTOCOL%", "response_code": "%RESPONSE_CODE%",
		"response_flags": "%RESPONSE_FLAGS%", "response_code_details": "%RESPONSE_CODE_DETAILS%",
		"connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%", "bytes_received": "%BYTES_RECEIVED%",
		"bytes_sent": "%BYTES_SENT%", "duration": "%DURATION%", "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
		"x_forwarded_for": "%REQ(X-FORWARDED-FOR)%", "user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%",
		"authority": "%REQ(:AUTHORITY)%", "upstream_host": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
		"upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%", "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
		"downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%", "requested_server_name": "%REQUESTED_SERVER_NAME%",
		"upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	}
}

// maxFormat bounds a format string, in bytes.
const maxFormat = 64 << 10

// op appends one value of an exchange; ok is false, and nothing is appended, if there is none.
type op struct {
	literal string // if value is nil
	value   func(b []byte, i *stream.Info) (out []byte, ok bool)
	number  bool // the value is a JSON number
	// foreign: the value comes from the peer and is escaped.
	foreign bool
	max     int // bytes kept; 0: all
}

// Format is a compiled format string. Immutable.
type Format struct{ ops []op }

// ParseFormat compiles an Envoy format string. An operator that is not supported is refused by name.
func ParseFormat(s string) (*Format, error) {
	if len(s) > maxFormat {
		return nil, fmt.Errorf("access log format: %d bytes, at most %d", len(s), maxFormat)
	}
	f := &Format{}
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			f.text(s)
			break
		}
		f.text(s[:i])
		s = s[i+1:]
		if strings.HasPrefix(s, "%") {
			f.text("%")
			s = s[1:]
			continue
		}
		end := closing(s)
		if end < 0 {
			return nil, fmt.Errorf("access log format: %%%s: no closing %%", clip(s))
		}
		o, err := parseOperator(s[:end])
		if err != nil {
			return nil, fmt.Errorf("access log format: %%%s%%: %w", clip(s[:end]), err)
		}
		f.ops = append(f.ops, o)
		s = s[end+1:]
	}
	return f, nil
}

// closing finds the % that ends an operator: one inside parentheses (a time format) does not.
func closing(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
		case '%':
			if depth <= 0 {
				return i
			}
		}
	}
	return -1
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

func (f *Format) text(s string) {
	if s == "" {
		return
	}
	if n := len(f.ops); n > 0 && f.ops[n-1].value == nil {
		f.ops[n-1].literal += s
		return
	}
	f.ops = append(f.ops, op{literal: s})
}

// Append appends one line; a value that is missing is "-".
func (f *Format) Append(b []byte, i *stream.Info) []byte { return f.append(b, i, "-") }

func (f *Format) append(b []byte, i *stream.Info, missing string) []byte {
	for k := range f.ops {
		o := &f.ops[k]
		if o.value == nil {
			b = append(b, o.literal...)
			continue
		}
		start := len(b)
		out, ok := o.value(b, i)
		if b = out; !ok {
			b = append(b[:start], missing...)
			continue
		}
		if o.max > 0 && len(b)-start > o.max {
			b = b[:start+o.max]
		}
		if o.foreign {
			b = escapeText(b, start)
		}
	}
	return b
}

// escapeText escapes control characters, quotes and backslashes in b[start:], so
// that a value can neither end its line nor its quotes.
func escapeText(b []byte, start int) []byte {
	for i := start; i < len(b); i++ {
		if c := b[i]; c < ' ' || c == 0x7f || c == '"' || c == '\\' {
			return escapeSlow(b, i)
		}
	}
	return b
}

func escapeSlow(b []byte, start int) []byte {
	raw := string(b[start:])
	b = b[:start]
	for i := range len(raw) {
		switch c := raw[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'x', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}

// parseOperator reads NAME, NAME(args) and NAME(args):max.
func parseOperator(s string) (op, error) {
	name, rest, paren := strings.Cut(s, "(")
	args, tail := "", ""
	if paren {
		i := strings.LastIndexByte(rest, ')')
		if i < 0 {
			return op{}, fmt.Errorf("no closing parenthesis")
		}
		args, tail = rest[:i], rest[i+1:]
	} else if n, m, ok := strings.Cut(s, ":"); ok {
		name, tail = n, ":"+m
	}
	limit := 0
	if tail != "" {
		n, err := strconv.Atoi(strings.TrimPrefix(tail, ":"))
		if err != nil || tail[0] != ':' || n <= 0 {
			return op{}, fmt.Errorf("%q after the operator: want :LENGTH", tail)
		}
		limit = n
	}
	o, err := operator(name, args, paren)
	o.max = limit
	return o, err
}
