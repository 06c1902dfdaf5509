package route

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"weft.mesh/weft/proxy/stream"
)

// Template is a compiled header value with Envoy's %COMMAND% operators.
type Template struct{ parts []part }

// part is a literal text or an operator.
type part struct {
	text string
	op   func(dst []byte, e *Env) []byte
}

// ParseTemplate compiles a header value. A value without operators yields nil;
// %% stands for one percent sign. Operators that are not supported are refused
// by name. An operator without a value yields "-", as in Envoy, except REQ and
// RESP of an absent header, which yield nothing.
func ParseTemplate(s string) (*Template, error) {
	if !strings.Contains(s, "%") {
		return nil, nil
	}
	t := &Template{}
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			t.literal(s)
			break
		}
		t.literal(s[:i])
		s = s[i+1:]
		end := strings.IndexByte(s, '%')
		switch {
		case end < 0:
			return nil, fmt.Errorf("value: a single %% must be written %%%%")
		case end == 0:
			t.literal("%")
		default:
			op, err := operator(s[:end])
			if err != nil {
				return nil, err
			}
			t.parts = append(t.parts, part{op: op})
		}
		s = s[end+1:]
	}
	return t, nil
}

func (t *Template) literal(s string) {
	if s != "" {
		t.parts = append(t.parts, part{text: s})
	}
}

func (t *Template) value(e *Env) []byte {
	start := len(e.Buf)
	e.Buf = t.Append(e.Buf, e)
	return e.Buf[start:len(e.Buf):len(e.Buf)]
}

// Append appends the value for one exchange.
func (t *Template) Append(dst []byte, e *Env) []byte {
	for i := range t.parts {
		if p := &t.parts[i]; p.op != nil {
			dst = p.op(dst, e)
		} else {
			dst = append(dst, p.text...)
		}
	}
	return dst
}

func operator(cmd string) (func([]byte, *Env) []byte, error) {
	name, arg := cmd, ""
	if i := strings.IndexByte(cmd, '('); i >= 0 && strings.HasSuffix(cmd, ")") {
		name, arg = cmd[:i], cmd[i+1:len(cmd)-1]
	}
	if name == "REQ" || name == "RESP" {
		return headerOperator(name, arg)
	}
	if op := operators[cmd]; op != nil {
		return op, nil
	}
	return nil, fmt.Errorf("value: operator %%%s%% is not supported; supported are REQ, RESP, PROTOCOL, addresses, cluster, route, status and peer operators", cmd)
}

// headerOperator is %REQ(X?Y)% or %RESP(X?Y)%: the first of the two that is there.
func headerOperator(name, arg string) (func([]byte, *Env) []byte, error) {
	first, second, _ := strings.Cut(arg, "?")
	if first == "" {
		return nil, fmt.Errorf("value: %%%s(%s)%%: no header name", name, arg)
	}
	first, second = strings.ToLower(first), strings.ToLower(second)
	if name == "RESP" {
		return func(dst []byte, e *Env) []byte {
			if e.Resp == nil {
				return dst
			}
			v := e.Resp.Fields.Get(first)
			if v == nil && second != "" {
				v = e.Resp.Fields.Get(second)
			}
			return append(dst, v...)
		}, nil
	}
	return func(dst []byte, e *Env) []byte {
		v := requestValue(e.Req, first)
		if v == nil && second != "" {
			v = requestValue(e.Req, second)
		}
		return append(dst, v...)
	}, nil
}

func requestValue(r *stream.Request, name string) []byte {
	if v, ok := pseudo(r, name); ok {
		return v
	}
	return r.Fields.Get(name)
}

// operators are those without an argument.
var operators = map[string]func([]byte, *Env) []byte{
	"DOWNSTREAM_REMOTE_ADDRESS":                     func(d []byte, e *Env) []byte { return addrPort(d, client(e)) },
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":        func(d []byte, e *Env) []byte { return addr(d, client(e)) },
	"DOWNSTREAM_REMOTE_PORT":                        func(d []byte, e *Env) []byte { return port(d, client(e)) },
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":              func(d []byte, e *Env) []byte { return addrPort(d, e.Info.Conn.Remote) },
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": func(d []byte, e *Env) []byte { return addr(d, e.Info.Conn.Remote) },
	"DOWNSTREAM_LOCAL_ADDRESS":                      func(d []byte, e *Env) []byte { return addrPort(d, e.Info.Conn.Local) },
	"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":         func(d []byte, e *Env) []byte { return addr(d, e.Info.Conn.Local) },
	"DOWNSTREAM_LOCAL_PORT":                         func(d []byte, e *Env) []byte { return port(d, e.Info.Conn.Local) },
	"DOWNSTREAM_PEER_URI_SAN":                       func(d []byte, e *Env) []byte { return text(d, e.Info.Conn.PeerID.String()) },
	"DOWNSTREAM_LOCAL_URI_SAN":                      func(d []byte, e *Env) []byte { return text(d, e.Info.Conn.LocalID.String()) },
	"UPSTREAM_HOST":                                 func(d []byte, e *Env) []byte { return addrPort(d, e.Info.Upstream) },
	"UPSTREAM_REMOTE_ADDRESS":                       func(d []byte, e *Env) []byte { return addrPort(d, e.Info.Upstream) },
	"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":          func(d []byte, e *Env) []byte { return addr(d, e.Info.Upstream) },
	"UPSTREAM_CLUSTER":                              func(d []byte, e *Env) []byte { return text(d, e.Info.Cluster) },
	"ROUTE_NAME":                                    func(d []byte, e *Env) []byte { return text(d, e.Info.RouteName) },
	"REQUESTED_SERVER_NAME":                         func(d []byte, e *Env) []byte { return text(d, e.Info.Conn.SNI) },
	"PROTOCOL":                                      func(d []byte, e *Env) []byte { return append(d, e.Req.Proto.String()...) },
	"RESPONSE_FLAGS":                                func(d []byte, e *Env) []byte { return e.Info.Flags.AppendTo(d) },
	"RESPONSE_CODE_DETAILS":                         func(d []byte, e *Env) []byte { return text(d, e.Info.Details) },
	"RESPONSE_CODE": func(d []byte, e *Env) []byte {
		if e.Resp == nil {
			return append(d, '0')
		}
		return strconv.AppendInt(d, int64(e.Resp.Status), 10)
	},
	"START_TIME": func(d []byte, e *Env) []byte {
		return e.Info.Start.UTC().AppendFormat(d, "2006-01-02T15:04:05.000Z")
	},
}

func client(e *Env) netip.AddrPort {
	if e.Info.Client.IsValid() {
		return e.Info.Client
	}
	return e.Info.Conn.Remote
}

func text(d []byte, s string) []byte {
	if s == "" {
		return append(d, '-')
	}
	return append(d, s...)
}

func addrPort(d []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(d, '-')
	}
	return a.AppendTo(d)
}

func addr(d []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(d, '-')
	}
	return a.Addr().AppendTo(d)
}

func port(d []byte, a netip.AddrPort) []byte {
	return strconv.AppendUint(d, uint64(a.Port()), 10)
}
