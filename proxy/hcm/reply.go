package hcm

import (
	"strconv"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// Replies of our own that never change; texts and details as Envoy words them.
var (
	replyNoRoute      = filter.Reply{Status: 404, Details: "route_not_found", Flags: stream.FlagNoRoute}
	replyNoCluster    = filter.Reply{Status: 503, Details: "cluster_not_found", Flags: stream.FlagNoCluster}
	replyNoCluster404 = filter.Reply{Status: 404, Details: "cluster_not_found", Flags: stream.FlagNoCluster}
	replyNoCluster500 = filter.Reply{Status: 500, Details: "cluster_not_found", Flags: stream.FlagNoCluster}
	replyLowVersion   = filter.Reply{Status: 426, Details: "low_version"}
	replyNoHost       = filter.Reply{Status: 400, Details: "missing_host_header"}
	replyBadHost      = filter.Reply{Status: 400, Details: "invalid_authority", Flags: stream.FlagDownstreamProtocolErr}
	replyBadMethod    = filter.Reply{Status: 400, Details: "http1.codec_error", Flags: stream.FlagDownstreamProtocolErr}
	replyBadPath      = filter.Reply{Status: 400, Details: "path_normalization_failed"}
	replyNoPath       = filter.Reply{Status: 404, Details: "missing_path_rejected"}
	replyAbsolute     = filter.Reply{Status: 404, Details: "absolute_path_rejected"}
	replyUpgrade      = filter.Reply{Status: 403, Details: "upgrade_failed"}
	replyTimeout      = filter.Reply{Status: 504, Body: []byte("upstream request timeout"), Details: "response_timeout", Flags: stream.FlagUpstreamTimeout}
	replyTryTimeout   = filter.Reply{Status: 504, Body: []byte("upstream request timeout"), Details: "upstream_per_try_timeout", Flags: stream.FlagUpstreamTimeout}
	replyIdle         = filter.Reply{Status: 504, Body: []byte("stream timeout"), Details: "stream_idle_timeout", Flags: stream.FlagStreamIdleTimeout}
	replyDuration     = filter.Reply{Status: 504, Body: []byte("downstream duration timeout"), Details: "max_duration_timeout", Flags: stream.FlagDurationTimeout, GRPCCode: grpcDeadlineExceeded}
	// of a request that is not whole
	replyIdleRequest     = filter.Reply{Status: 408, Body: replyIdle.Body, Details: replyIdle.Details, Flags: replyIdle.Flags}
	replyDurationRequest = filter.Reply{Status: 408, Body: replyDuration.Body, Details: replyDuration.Details, Flags: replyDuration.Flags, GRPCCode: grpcDeadlineExceeded}
	replyNoHealthy       = filter.Reply{Status: 503, Body: []byte("no healthy upstream"), Details: "no_healthy_upstream", Flags: stream.FlagNoHealthyUpstream}
)

// noCluster is the reply of a route whose cluster does not exist.
func noCluster(f *route.Forward) *filter.Reply {
	switch f.NotFound {
	case 404:
		return &replyNoCluster404
	case 500:
		return &replyNoCluster500
	}
	return &replyNoCluster
}

// reply ends the exchange with a response of our own: plain text, or for gRPC
// requests a status in the head (a "trailers-only" response).
func (x *exchange) reply(r *filter.Reply) {
	x.info.Details = r.Details
	x.info.Flags |= r.Flags
	if x.headSent { // too late for anything but the truth
		x.srv.Abort()
		return
	}
	resp := &x.local
	resp.Reset()
	resp.Proto = x.req.Proto
	body := r.Body
	if x.info.GRPC && !x.transcoded && r.Status != 426 {
		x.grpcReply(resp, r)
		body = nil
	} else {
		resp.Status = r.Status
		resp.ContentLength = int64(len(body))
		if len(body) > 0 && !hasHeader(r.Headers, "content-type") {
			resp.Fields.Add("content-type", "text/plain")
		}
	}
	if len(body) == 0 && resp.Proto == stream.HTTP2 {
		resp.ContentLength = -1 // the head's flag ends the stream
	}
	for _, h := range r.Headers {
		resp.Fields.Add(h.Name, h.Value)
	}
	x.fs.Direct = true
	if r.Bare {
		x.finishFilters(resp)
	} else {
		x.finishHead(resp)
	}
	x.sendLocal(resp, body)
}

func hasHeader(hs []filter.Header, name string) bool {
	for _, h := range hs {
		if stream.EqualFold(stream.Bytes(h.Name), name) {
			return true
		}
	}
	return false
}

// Status codes of gRPC.
const (
	grpcDeadlineExceeded = 4
	grpcUnavailable      = 14
)

// callerGaveUp tells whether the deadline of a gRPC call is over. The server, which has the same, may have ended the call for it; UNAVAILABLE would
// tell the caller, or the sidecar before us, to try again.
func (x *exchange) callerGaveUp() bool {
	d, ok := grpcTimeout(x.h.grpcTimeout)
	return ok && now().Sub(x.info.Start) >= d
}

func (x *exchange) grpcReply(resp *stream.Response, r *filter.Reply) {
	code := r.GRPCCode
	if code == 0 {
		code = filter.GRPCStatus(r.Status)
		if code == grpcUnavailable && x.callerGaveUp() {
			code = grpcDeadlineExceeded
		}
	}
	x.info.GRPCCode = code
	resp.Status = 200
	resp.Fields.Add("content-type", "application/grpc")
	start := len(x.buf)
	x.buf = strconv.AppendInt(x.buf, int64(code), 10)
	resp.Fields.Append(stream.Bytes("grpc-status"), x.buf[start:len(x.buf):len(x.buf)])
	if len(r.Body) > 0 {
		start := len(x.buf)
		x.buf = filter.AppendGRPCMessage(x.buf, r.Body)
		resp.Fields.Append(stream.Bytes("grpc-message"), x.buf[start:len(x.buf):len(x.buf)])
	}
}

func (x *exchange) sendLocal(resp *stream.Response, body []byte) {
	x.headSent = true
	x.info.Status = resp.Status
	end := len(body) == 0 || string(x.req.Method) == "HEAD"
	err := x.srv.WriteHead(resp, end)
	if err == nil && !end {
		err = x.srv.WriteBody(body, true)
		x.info.BytesOut += uint64(len(body))
	}
	if err == nil {
		err = x.srv.Flush()
	}
	if err != nil {
		x.info.Flags |= stream.FlagDownstreamTermination
	}
}

// finishHead runs what every final response passes: route's header operations, filters, our own headers.
func (x *exchange) finishHead(resp *stream.Response) {
	x.responseOps(resp)
	x.finishFilters(resp)
}

// finishFilters is finishHead without the route's header operations.
func (x *exchange) finishFilters(resp *stream.Response) {
	x.fs.Resp = resp
	fs := x.m.cfg.Filters
	for i := len(fs) - 1; i >= 0; i-- {
		fs[i].Response(&x.fs)
	}
	x.responseHeaders(resp)
}
