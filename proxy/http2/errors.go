package http2

import (
	"errors"
	"os"

	msg "weft.mesh/weft/proxy/stream"
)

var (
	// errOrder: a head was written twice, or a body before the head or after the end.
	errOrder = errors.New("head, body and end were written out of order")
	// errLength: the body does not have the length that the head announced.
	errLength = errors.New("body does not have the announced content-length")
	// errInjection is what a field that would break a message further on causes.
	errInjection = errors.New("field name or value has characters that HTTP cannot carry")
	// errFull: the upstream allows no further stream now.
	errFull = errors.New("connection takes no further stream")
	// errNoConnect: the upstream does not announce SETTINGS_ENABLE_CONNECT_PROTOCOL.
	errNoConnect = errors.New("upstream does not support extended CONNECT (RFC 8441), which an upgrade over HTTP/2 needs")
)

// details are Envoy's words for what ended a stream early.
const (
	detailsHTTP2    = "http2.protocol_error"
	detailsTooLarge = "http2.headers_too_large"
	detailsTooMany  = "http2.too_many_headers"
	detailsReset    = "http2.remote_reset"
	detailsHeader   = "http2.invalid.header.field"
	// of streams that are reset with REFUSED_STREAM
	detailsTooManyStreams = "http2.too_many_streams"
	detailsGoingAway      = "http2.going_away"
)

// downstream says what cause means on a server's stream.
func downstream(op string, cause error) error {
	if cause == nil {
		return nil
	}
	e := &msg.Error{Side: msg.Downstream, Op: op, Flag: msg.FlagDownstreamTermination, Reset: true,
		Details: "downstream_remote_disconnect", Err: cause}
	var re *resetError
	var ce *connError
	switch {
	case cause == errOrder || cause == errInjection || cause == errLength:
		e.Side, e.Flag, e.Reset, e.Details = msg.Ours, msg.FlagLocalReset, false, detailsHeader
	case errors.As(cause, &re) && re.by == byPeer:
		e.Details = detailsReset
	case errors.As(cause, &re) && re.code == codeProtocol, errors.As(cause, &ce):
		e.Flag, e.Details, e.Status = msg.FlagDownstreamProtocolErr, detailsHTTP2, 400
	case errors.As(cause, &re):
		e.Side, e.Flag, e.Details = msg.Ours, msg.FlagLocalReset, "downstream_local_disconnect"
	}
	return e
}

// upstreamError says what cause means on a client's stream. started: a final head has come; refused: by
// an upstream that is there; unsent: the connection was at its end before.
func upstreamError(op string, cause error, started, refused, unsent bool) error {
	when := "upstream_reset_before_response_started{"
	if started {
		when = "upstream_reset_after_response_started{"
	}
	e := &msg.Error{Side: msg.Upstream, Op: op, Flag: msg.FlagUpstreamTermination, Reset: true, Err: cause}
	why := "connection_termination"
	var re *resetError
	var ce *connError
	switch {
	case cause == errOrder || cause == errInjection || cause == errLength:
		e.Side, e.Flag, e.Reset, why = msg.Ours, msg.FlagLocalReset, false, "local_reset"
		e.Unsent = cause == errInjection && op == "write head"
	case cause == errNoConnect || cause == errFull:
		e.Reset, e.Unsent, why = false, true, "connection_failure"
		e.Flag = msg.FlagUpstreamConnectFailure
	case errors.Is(cause, os.ErrDeadlineExceeded):
		e.Timeout, e.Reset, e.Flag = true, false, msg.FlagUpstreamTimeout
		e.Details = "response_timeout"
		return e
	case unsent:
		e.Unsent = true
	case refused:
		e.Unsent, e.Refused, e.Flag, why = true, true, msg.FlagUpstreamReset, "remote_refused_stream_reset"
	case errors.As(cause, &re) && re.by == byPeer:
		e.Flag, why = msg.FlagUpstreamReset, "remote_reset"
	case errors.As(cause, &re) && re.code == codeProtocol, errors.As(cause, &ce):
		e.Flag, why = msg.FlagUpstreamProtocolErr, "protocol_error"
	case errors.As(cause, &re):
		e.Side, e.Flag, why = msg.Ours, msg.FlagLocalReset, "local_reset"
	}
	e.Details = when + why + "}"
	return e
}

const byPeer = "peer"
