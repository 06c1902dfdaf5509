package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"weft.mesh/weft/proxy/stream"
)

// resetBefore frames the details of a failure before a response, as Envoy words them.
func resetBefore(reason string) string {
	return "upstream_reset_before_response_started{" + reason + "}"
}

// Failures that need no details of their own. They are values, shared and read-only.
var (
	ErrNoHealthy = &stream.Error{Side: stream.Upstream, Op: "pick endpoint", Flag: stream.FlagNoHealthyUpstream, Details: "no_healthy_upstream",
		Unsent: true, Err: errors.New("no healthy upstream")}
	ErrOverflow = &stream.Error{Side: stream.Upstream, Op: "acquire connection", Flag: stream.FlagUpstreamOverflow, Details: resetBefore("overflow"),
		Unsent: true, Err: errors.New("circuit breaker is open")}
	errCancelled = &stream.Error{Side: stream.Downstream, Op: "acquire connection", Flag: stream.FlagDownstreamTermination,
		Details: "downstream_remote_disconnect", Unsent: true, Err: context.Canceled}
	errDeadline = &stream.Error{Side: stream.Upstream, Op: "acquire connection", Flag: stream.FlagUpstreamTimeout, Details: "response_timeout",
		Unsent: true, Timeout: true, Err: context.DeadlineExceeded}
)

// connectError says why a connection could not be made. Nothing was sent, so a retry is safe.
func connectError(c *Cluster, h *Host, err error) *stream.Error {
	if e, ok := stream.AsError(err); ok && e.Details != "" && e.Flag != 0 {
		if !e.Unsent { // a connection's error belongs to all its streams, of which some were sent
			mine := *e
			mine.Unsent = true
			e = &mine
		}
		return e
	}
	e := &stream.Error{Side: stream.Upstream, Op: "connect", Flag: stream.FlagUpstreamConnectFailure, Unsent: true,
		Err: fmt.Errorf("cluster %q: %v: %w", c.name, h.Addr(), err)}
	var timeout interface{ Timeout() bool }
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		e.Timeout = true
		e.Details = resetBefore("connection_timeout")
		return e
	}
	e.Details = resetBefore("remote_connection_failure|" + strings.ReplaceAll(transportReason(err), " ", "_"))
	return e
}

// transportReason words the cause as Envoy does where it has words for it.
func transportReason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.ECONNREFUSED:
			return "delayed connect error: Connection refused"
		case syscall.EHOSTUNREACH:
			return "delayed connect error: No route to host"
		case syscall.ENETUNREACH:
			return "immediate connect error: Network is unreachable"
		case syscall.ECONNRESET:
			return "connection reset by peer"
		}
	}
	s := err.Error()
	if i := strings.Index(s, "tls: "); i >= 0 {
		return "TLS_error:|" + s[i+len("tls: "):]
	}
	if i := strings.Index(s, "x509: "); i >= 0 {
		return "TLS_error:|" + s[i:]
	}
	return s
}
