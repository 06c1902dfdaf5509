package telemetry

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft.mesh/weft/proxy/stream"
)

type valueFunc = func(b []byte, i *stream.Info) ([]byte, bool)

// operators without arguments. Those not here, and not in [operator], are refused.
var operators = map[string]op{
	"PROTOCOL":      {value: protocolOf},
	"RESPONSE_CODE": {value: func(b []byte, i *stream.Info) ([]byte, bool) { return strconv.AppendInt(b, int64(i.Status), 10), true }, number: true},
	"RESPONSE_CODE_DETAILS": {value: func(b []byte, i *stream.Info) ([]byte, bool) {
		return appendUnder(b, i.Details), i.Details != ""
	}, foreign: true},
	"CONNECTION_TERMINATION_DETAILS":    str(func(i *stream.Info) string { return i.Termination }),
	"UPSTREAM_TRANSPORT_FAILURE_REASON": {value: func(b []byte, i *stream.Info) ([]byte, bool) { return appendUnder(b, i.UpFailure), i.UpFailure != "" }, foreign: true},
	"RESPONSE_FLAGS":                    {value: func(b []byte, i *stream.Info) ([]byte, bool) { return i.Flags.AppendTo(b), true }},
	"BYTES_RECEIVED":                    {value: func(b []byte, i *stream.Info) ([]byte, bool) { return strconv.AppendUint(b, i.BytesIn, 10), true }, number: true},
	"BYTES_SENT":                        {value: func(b []byte, i *stream.Info) ([]byte, bool) { return strconv.AppendUint(b, i.BytesOut, 10), true }, number: true},
	"DURATION": {value: func(b []byte, i *stream.Info) ([]byte, bool) {
		return strconv.AppendInt(b, int64(i.Duration/time.Millisecond), 10), true
	}, number: true},
	"ROUTE_NAME":                             str(func(i *stream.Info) string { return i.RouteName }),
	"UPSTREAM_CLUSTER":                       str(func(i *stream.Info) string { return i.Cluster }),
	"UPSTREAM_CLUSTER_RAW":                   str(func(i *stream.Info) string { return i.Cluster }),
	"UPSTREAM_HOST":                          addr(func(i *stream.Info) netip.AddrPort { return i.Upstream }),
	"UPSTREAM_REMOTE_ADDRESS":                addr(func(i *stream.Info) netip.AddrPort { return i.Upstream }),
	"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":   ip(func(i *stream.Info) netip.AddrPort { return i.Upstream }),
	"UPSTREAM_REMOTE_PORT":                   port(func(i *stream.Info) netip.AddrPort { return i.Upstream }),
	"UPSTREAM_LOCAL_ADDRESS":                 addr(func(i *stream.Info) netip.AddrPort { return i.UpLocal }),
	"UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":    ip(func(i *stream.Info) netip.AddrPort { return i.UpLocal }),
	"UPSTREAM_LOCAL_PORT":                    port(func(i *stream.Info) netip.AddrPort { return i.UpLocal }),
	"DOWNSTREAM_LOCAL_ADDRESS":               addr(connLocal),
	"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":  ip(connLocal),
	"DOWNSTREAM_LOCAL_PORT":                  port(connLocal),
	"DOWNSTREAM_REMOTE_ADDRESS":              addr(connRemote),
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": ip(connRemote),
	"DOWNSTREAM_REMOTE_PORT":                 port(connRemote),
	"REQUESTED_SERVER_NAME":                  {value: strOf(func(i *stream.Info) string { return conn(i).SNI }), foreign: true},
	"CONNECTION_ID": {value: func(b []byte, i *stream.Info) ([]byte, bool) {
		return strconv.AppendUint(b, conn(i).ID, 10), i.Conn != nil
	}, number: true},
	"DOWNSTREAM_PEER_URI_SAN":  str(func(i *stream.Info) string { return conn(i).PeerID.String() }),
	"DOWNSTREAM_LOCAL_URI_SAN": str(func(i *stream.Info) string { return conn(i).LocalID.String() }),
	"UPSTREAM_PEER_URI_SAN":    str(func(i *stream.Info) string { return i.UpstreamID.String() }),
	"UPSTREAM_REQUEST_ATTEMPT_COUNT": {value: func(b []byte, i *stream.Info) ([]byte, bool) {
		return strconv.AppendInt(b, int64(i.Attempts), 10), true
	}, number: true},
	"GRPC_STATUS": {value: grpcName},
	"GRPC_STATUS_NUMBER": {value: func(b []byte, i *stream.Info) ([]byte, bool) {
		return strconv.AppendInt(b, int64(i.GRPCCode), 10), i.GRPC && i.GRPCCode >= 0
	}, number: true},
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":              addr(connDirect),
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": ip(connDirect),
}

// operator makes the value of an operator.
func operator(name, args string, hasArgs bool) (op, error) {
	switch name {
	case "REQ":
		return header(args, requestField)
	case "RESP":
		if strings.EqualFold(args, serviceTimeHeader) {
			return op{foreign: true, value: serviceTime}, nil
		}
		return header(args, responseField)
	case "REQ_WITHOUT_QUERY":
		return header(args, func(i *stream.Info, name string) []byte {
			v, _, _ := bytes.Cut(requestField(i, name), []byte("?"))
			return v
		})
	case "START_TIME":
		return startTime(args)
	case "HOSTNAME":
		host, err := os.Hostname()
		if err != nil {
			return op{}, err
		}
		return op{literal: host}, nil
	case "GRPC_STATUS":
		switch args {
		case "", "CAMEL_STRING":
			return operators[name], nil
		case "NUMBER":
			return operators["GRPC_STATUS_NUMBER"], nil
		}
		return op{}, fmt.Errorf("GRPC_STATUS(%s) is not supported; want CAMEL_STRING or NUMBER", args)
	}
	o, ok := operators[name]
	if !ok {
		return op{}, fmt.Errorf("operator %q is not supported; supported are %s", name, strings.Join(SupportedOperators(), ", "))
	}
	if hasArgs {
		return op{}, fmt.Errorf("operator %q takes no arguments", name)
	}
	return o, nil
}

// SupportedOperators lists the names that formats may use.
func SupportedOperators() []string {
	out := append(slices.Collect(maps.Keys(operators)), "REQ", "RESP", "REQ_WITHOUT_QUERY", "START_TIME", "HOSTNAME")
	slices.Sort(out)
	return out
}

func str(f func(*stream.Info) string) op { return op{value: strOf(f), foreign: true} }

func strOf(f func(*stream.Info) string) valueFunc {
	return func(b []byte, i *stream.Info) ([]byte, bool) {
		s := f(i)
		return append(b, s...), s != ""
	}
}

func addr(f func(*stream.Info) netip.AddrPort) op {
	return op{value: func(b []byte, i *stream.Info) ([]byte, bool) {
		a := f(i)
		if !a.IsValid() {
			return b, false
		}
		return a.AppendTo(b), true
	}}
}

func ip(f func(*stream.Info) netip.AddrPort) op {
	return op{value: func(b []byte, i *stream.Info) ([]byte, bool) {
		a := f(i)
		if !a.IsValid() {
			return b, false
		}
		return a.Addr().AppendTo(b), true
	}}
}

func port(f func(*stream.Info) netip.AddrPort) op {
	return op{value: func(b []byte, i *stream.Info) ([]byte, bool) {
		a := f(i)
		return strconv.AppendUint(b, uint64(a.Port()), 10), a.IsValid()
	}, number: true}
}

var noConn stream.ConnInfo

// conn is the connection, never nil.
func conn(i *stream.Info) *stream.ConnInfo {
	if i.Conn == nil {
		return &noConn
	}
	return i.Conn
}

func connLocal(i *stream.Info) netip.AddrPort  { return conn(i).Local }
func connRemote(i *stream.Info) netip.AddrPort { return conn(i).Remote }
func connDirect(i *stream.Info) netip.AddrPort { return conn(i).DirectRemote() }

func protocolOf(b []byte, i *stream.Info) ([]byte, bool) {
	if i.Req == nil || i.Req.Proto == 0 {
		return b, false
	}
	return append(b, i.Req.Proto.String()...), true
}

// appendUnder appends s with spaces as underscores, as Envoy logs reasons.
func appendUnder(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if c == ' ' {
			c = '_'
		}
		b = append(b, c)
	}
	return b
}

var grpcNames = [...]string{"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
	"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated"}

func grpcName(b []byte, i *stream.Info) ([]byte, bool) {
	if !i.GRPC || i.GRPCCode < 0 {
		return b, false
	}
	if i.GRPCCode >= len(grpcNames) {
		return strconv.AppendInt(b, int64(i.GRPCCode), 10), true
	}
	return append(b, grpcNames[i.GRPCCode]...), true
}

// header reads X, X?Y (Y if X is absent).
func header(args string, get func(*stream.Info, string) []byte) (op, error) {
	main, alt, _ := strings.Cut(strings.ToLower(args), "?")
	if main == "" || strings.ContainsAny(args, " \t\r\n") {
		return op{}, fmt.Errorf("want a header name, or NAME?ALTERNATIVE")
	}
	return op{foreign: true, value: func(b []byte, i *stream.Info) ([]byte, bool) {
		v := get(i, main)
		if v == nil && alt != "" {
			v = get(i, alt)
		}
		return append(b, v...), v != nil
	}}, nil
}

// requestField finds a header or pseudo-header. name is lower case.
func requestField(i *stream.Info, name string) []byte {
	r := i.Req
	if r == nil {
		return nil
	}
	switch name {
	case ":method":
		return r.Method
	case ":path":
		return r.Path
	case ":authority", "host":
		return r.Authority
	case ":scheme":
		return r.Scheme
	}
	if v := r.Fields.Get(name); v != nil {
		return v
	}
	switch name {
	case "x-envoy-original-path":
		if len(i.OrigPath) > 0 && !bytes.Equal(i.OrigPath, r.Path) {
			return i.OrigPath
		}
	case "x-request-id":
		return i.RequestID
	}
	return nil
}

const serviceTimeHeader = "x-envoy-upstream-service-time"

// serviceTime is the response's header, or the time measured if the header is not passed on.
func serviceTime(b []byte, i *stream.Info) ([]byte, bool) {
	if v := responseField(i, serviceTimeHeader); v != nil {
		return append(b, v...), true
	}
	if i.ServiceTime < 0 || i.Req == nil || !i.Upstream.IsValid() {
		return b, false
	}
	return strconv.AppendInt(b, int64(i.ServiceTime/time.Millisecond), 10), true
}

func responseField(i *stream.Info, name string) []byte {
	if i.Resp == nil {
		return nil
	}
	return i.Resp.Fields.Get(name)
}
