package hcm

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream"
)

// Back-off between retries where the route does not say (Envoy).
const defaultBackOff = 25 * time.Millisecond

// again decides whether the request is sent once more, and abandons the try if so.
func (x *exchange) again(out *outcome) bool {
	u := &x.up
	if out.err == nil && out.resp.Status < 400 && !x.info.GRPC {
		return false
	}
	if !u.body.replayable() {
		return false
	}
	if x.staleConnection(out.err) {
		u.stale = true
		u.req.Fresh, u.req.On = true, u.host
		x.dropClient()
		return true
	}
	r := u.forward.Retry
	if r == nil || x.info.Upgrade || !x.retriable(r, out) {
		return false
	}
	if u.retries >= r.Attempts {
		if r.Attempts > 0 {
			x.info.Flags |= stream.FlagUpstreamRetryLimit
		}
		return false
	}
	if x.overdue() {
		return false
	}
	x.endRetry()
	if !u.cluster.BeginRetry() {
		x.info.Flags |= stream.FlagUpstreamOverflow
		return false
	}
	x.dropClient() // ends nothing in the breaker: holding is not set yet
	u.holding = true
	u.retries++
	x.m.Stats.Retries.Add(1)
	return true
}

// staleConnection tells whether a pooled connection had been closed by the
// upstream before it saw the request: then the request is sent again on a
// fresh connection, once, whatever the policy says. If bytes were sent, only a
// request that may be repeated is (RFC 9110 section 9.2.2).
func (x *exchange) staleConnection(e *stream.Error) bool {
	u := &x.up
	if e == nil || u.client == nil || u.stale || u.client.Fresh() || e.Side != stream.Upstream || e.Timeout {
		return false
	}
	if e.Refused {
		return false // by an upstream that is there: it is the policy's to decide
	}
	return e.Unsent || e.Reset && e.Op == "read head" && idempotent(x.req.Method)
}

func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE":
		return true
	}
	return false
}

func (x *exchange) retriable(r *route.Retry, out *outcome) bool {
	if out.err != nil {
		return x.retriableError(r, out.err)
	}
	return x.retriableResponse(r, out.resp)
}

// retriableError: a failure without a response counts as 5xx and gateway error.
func (x *exchange) retriableError(r *route.Retry, e *stream.Error) bool {
	switch {
	case e.Side != stream.Upstream, e == upstream.ErrNoHealthy, e.Flag == stream.FlagUpstreamOverflow:
		return false
	case e.Flag == stream.FlagUpstreamTimeout && !x.tryTimedOut():
		return false // the time of the whole exchange is over
	case r.On&(route.Retry5xx|route.RetryGatewayError|route.RetryReset) != 0:
		return true
	case r.On&route.RetryConnectFailure != 0 && e.Flag == stream.FlagUpstreamConnectFailure:
		return true
	case r.On&route.RetryRefusedStream != 0 && e.Refused:
		return true
	}
	return r.On&route.RetryResetBeforeRequest != 0 && e.Unsent
}

func (x *exchange) retriableResponse(r *route.Retry, resp *stream.Response) bool {
	f, s := &resp.Fields, resp.Status
	if f.Has("x-envoy-overloaded") {
		return false
	}
	if r.On&route.RetryEnvoyRateLimited == 0 && f.Has("x-envoy-ratelimited") {
		return false
	}
	switch {
	case r.On&route.Retry5xx != 0 && s >= 500 && s < 600,
		r.On&route.RetryGatewayError != 0 && s >= 502 && s <= 504,
		r.On&route.RetryRetriable4xx != 0 && s == 409,
		r.On&route.RetryRetriableStatusCodes != 0 && slices.Contains(r.StatusCodes, s),
		r.On&route.RetryEnvoyRateLimited != 0 && f.Has("x-envoy-ratelimited"):
		return true
	}
	const grpc = route.RetryGRPCCancelled | route.RetryGRPCDeadlineExceeded | route.RetryGRPCInternal | route.RetryGRPCResourceExhausted | route.RetryGRPCUnavailable
	if r.On&grpc == 0 || !x.info.GRPC {
		return false
	}
	switch string(f.Get("grpc-status")) {
	case "1":
		return r.On&route.RetryGRPCCancelled != 0
	case "4":
		return r.On&route.RetryGRPCDeadlineExceeded != 0
	case "8":
		return r.On&route.RetryGRPCResourceExhausted != 0
	case "13":
		return r.On&route.RetryGRPCInternal != 0
	case "14":
		return r.On&route.RetryGRPCUnavailable != 0
	}
	return false
}

// backOff waits before a retry: a random time up to base × (2ⁿ−1), bounded. It
// answers and returns false if the exchange ends meanwhile.
func (x *exchange) backOff() bool {
	u := &x.up
	if u.req.Fresh { // after a stale connection: at once
		return true
	}
	d := rand.N(backOffRange(u.forward.Retry, u.retries))
	if t := x.deadline(); !t.IsZero() {
		d = min(d, time.Until(t))
	}
	if d > 0 && !x.sleep(d) {
		x.gone()
		return false
	}
	if x.overdue() {
		x.reply(&replyTimeout)
		return false
	}
	return true
}

func backOffRange(r *route.Retry, n uint32) time.Duration {
	base := r.BaseInterval
	if base <= 0 {
		base = defaultBackOff
	}
	most := r.MaxInterval
	if most <= 0 {
		most = 10 * base
	}
	return min(base*time.Duration(uint64(1)<<min(n, 16)-1), max(most, base))
}

// resetReason takes the words out of response code details: "x{reason|transport}".
func resetReason(details, before string) (reason, transport string) {
	s, ok := strings.CutPrefix(details, before)
	if !ok {
		return details, ""
	}
	reason, transport, _ = strings.Cut(strings.TrimSuffix(s, "}"), "|")
	if strings.HasPrefix(transport, "TLS_error:") {
		return strings.ReplaceAll(reason, "_", " "), "TLS_error:" + strings.ReplaceAll(transport[len("TLS_error:"):], "_", " ")
	}
	return strings.ReplaceAll(reason, "_", " "), strings.ReplaceAll(transport, "_", " ")
}
