package traffic

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// families are the metrics that are read.
var families = map[string]field{
	"istio_requests_total":                       fieldRequests,
	"istio_request_duration_milliseconds_bucket": fieldBucket,
	"istio_tcp_sent_bytes_total":                 fieldSent,
	"istio_tcp_received_bytes_total":             fieldReceived,
	"istio_tcp_connections_opened_total":         fieldOpened,
	"istio_tcp_connections_closed_total":         fieldClosed,
}

// split cuts a line of the text format into name, labels without braces, and
// value. ok is false for comments, lines without labels and metrics of no interest.
func split(line []byte) (f field, labels []byte, value float64, ok bool) {
	if !bytes.HasPrefix(line, []byte("istio_")) {
		return 0, nil, 0, false
	}
	open := bytes.IndexByte(line, '{')
	end := bytes.LastIndexByte(line, '}')
	if open < 0 || end < open {
		return 0, nil, 0, false
	}
	f, ok = families[string(line[:open])]
	if !ok {
		return 0, nil, 0, false
	}
	rest := bytes.TrimSpace(line[end+1:])
	if i := bytes.IndexByte(rest, ' '); i >= 0 {
		rest = rest[:i] // a time stamp follows
	}
	value, err := strconv.ParseFloat(string(rest), 64)
	if err != nil || value < 0 {
		return 0, nil, 0, false
	}
	return f, line[open+1 : end], value, true
}

// readLabels calls fn for each label.
func readLabels(b []byte, fn func(name, value string)) error {
	for len(b) > 0 {
		eq := bytes.IndexByte(b, '=')
		if eq < 0 || eq+1 >= len(b) || b[eq+1] != '"' {
			return fmt.Errorf("labels: want name=\"value\" at %q", b)
		}
		name := strings.TrimSpace(string(b[:eq]))
		value, n, ok := unquote(b[eq+2:])
		if !ok {
			return fmt.Errorf("labels: %s: no closing quote", name)
		}
		fn(name, value)
		b = bytes.TrimLeft(b[eq+2+n:], ", ")
	}
	return nil
}

// unquote reads up to the closing quote and past it.
func unquote(b []byte) (value string, n int, ok bool) {
	var out strings.Builder
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			return out.String(), i + 1, true
		case '\\':
			i++
			if i == len(b) {
				return "", 0, false
			}
			if b[i] == 'n' {
				out.WriteByte('\n')
			} else {
				out.WriteByte(b[i])
			}
		default:
			out.WriteByte(b[i])
		}
	}
	return "", 0, false
}

// newSeries reads what a line is about. Lines of no interest (a waypoint's
// view, say) have no field.
func newSeries(f field, labels []byte) (s series, e Edge, err error) {
	s.field = f
	var code, grpc string
	var reporter string
	err = readLabels(labels, func(name, v string) {
		switch name {
		case "reporter":
			reporter = v
		case "source_workload":
			e.Source.Name = v
		case "source_workload_namespace":
			e.Source.Namespace = v
		case "source_canonical_service":
			e.Source.App = v
		case "source_canonical_revision":
			e.Source.Version = v
		case "destination_workload":
			e.Dest.Name = v
		case "destination_workload_namespace":
			e.Dest.Namespace = v
		case "destination_canonical_service":
			e.Dest.App = v
		case "destination_canonical_revision":
			e.Dest.Version = v
		case "destination_service":
			e.Service.Host = v
		case "destination_service_name":
			e.Service.Name = v
		case "destination_service_namespace":
			e.Service.Namespace = v
		case "request_protocol":
			e.Protocol = v
		case "response_code":
			code = v
		case "grpc_response_status":
			grpc = v
		case "connection_security_policy":
			s.mtls = v == "mutual_tls"
		case "le":
			var b float64
			if b, err = strconv.ParseFloat(v, 64); err == nil {
				s.bucket = uint8(slot(b))
			}
		}
	})
	switch reporter {
	case "destination":
		s.called = true
	case "source":
	default:
		s.field = fieldNone
	}
	s.failed, s.refused = verdict(e.Protocol, code, grpc)
	return s, e, err
}

// verdict judges an answer. Of gRPC's statuses those are failures that are the
// server's fault, as OpenTelemetry's conventions have it: UNKNOWN,
// DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
func verdict(protocol, code, grpc string) (failed, refused bool) {
	if protocol == "grpc" && code == "200" {
		switch grpc {
		case "0", "":
			return false, false
		case "2", "4", "12", "13", "14", "15", Unknown:
			return true, false
		default:
			return false, true
		}
	}
	return strings.HasPrefix(code, "5") || code == "0", strings.HasPrefix(code, "4")
}
