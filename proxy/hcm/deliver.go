package hcm

import (
	"io"
	"strconv"

	"weft.mesh/weft/proxy/stream"
)

// deliver passes the response on.
func (x *exchange) deliver(resp *stream.Response) {
	if x.info.Upgrade {
		if r := x.accepted(resp); r != nil {
			x.dropClient()
			x.reply(r)
			return
		}
		if resp.Status == 101 || resp.Status/100 == 2 {
			x.watch.waiting.Store(false) // in a tunnel each side may end before the other
		}
	}
	x.info.Details = "via_upstream"
	x.tryDone()
	x.grpcStatus(&resp.Fields)
	x.upstreamHeaders(resp)
	x.finishHead(resp)
	x.headSent = true
	x.watch.answering.Store(true)
	x.info.Status = resp.Status
	c := x.up.client
	first, err := []byte(nil), error(nil)
	bodyless := resp.Status == 204 || resp.Status == 304 || string(x.req.Method) == "HEAD" || resp.ContentLength == 0
	if bodyless && resp.Upgrade == nil && resp.Status != 101 {
		first, err = c.ReadBody() // the end, at once
		if err == io.EOF && c.Trailers() == nil {
			x.sent(x.srv.WriteHead(resp, true))
			return
		}
	}
	if werr := x.srv.WriteHead(resp, false); werr != nil {
		x.sent(werr)
		return
	}
	x.stream(resp, c, first, err)
}

// upstreamHeaders sets what the router owns in a response.
func (x *exchange) upstreamHeaders(resp *stream.Response) {
	f := &resp.Fields
	if anyEnvoyHeader(f) {
		f.Del("x-envoy-upstream-service-time")
		if x.conn.info.Direction != stream.Inbound {
			f.Del("x-envoy-decorator-operation")
		}
	}
	if !x.info.Upgrade { // which is not over when its head is here
		x.addNumber(f, "x-envoy-upstream-service-time", uint64(max(x.info.ServiceTime, 0).Milliseconds()))
	}
	if x.up.cookie != nil {
		f.Append(nameSetCookie, x.up.cookie)
	}
}

func anyEnvoyHeader(f *stream.Fields) bool {
	all := f.All()
	for i := range all {
		if n := all[i].Name; len(n) > 8 && n[0]|0x20 == 'x' && isEnvoyHeader(all[i]) {
			return true
		}
	}
	return false
}

var nameSetCookie = []byte("set-cookie")

// stream copies the body and the trailers. p and err are a first result of ReadBody, if it was read already.
func (x *exchange) stream(resp *stream.Response, c stream.Client, p []byte, err error) {
	ready, _ := c.(stream.Readier)
	left := int64(stream.UnknownLength)
	if resp.Proto != stream.HTTP2 && resp.Status != 101 && resp.Upgrade == nil && resp.ContentLength > 0 {
		left = resp.ContentLength // the end is known without asking for it
	}
	if p == nil && err == nil {
		if x.hold(ready, left) {
			p, err = c.ReadBody()
		} else if err = x.srv.Flush(); err != nil {
			x.sent(err)
			return
		} else {
			p, err = c.ReadBody()
		}
	}
	for ; err == nil; p, err = c.ReadBody() {
		x.watch.progress.Add(1)
		x.info.BytesOut += uint64(len(p))
		for _, w := range x.watches {
			w.ResponseBody(p)
		}
		last := false
		if left > 0 {
			left -= int64(len(p))
			last = left == 0
		}
		werr := x.srv.WriteBody(p, last)
		if werr == nil && !last && !x.hold(ready, left) {
			werr = x.srv.Flush()
		}
		if werr != nil {
			x.sent(werr)
			return
		}
		if last {
			_, err = c.ReadBody() // lets the codec see the end
			if err != nil && err != io.EOF {
				err = io.EOF
			}
			return
		}
	}
	if err != io.EOF {
		x.broken(err)
		return
	}
	x.sent(x.endBody(c))
}

// hold tells whether a flush can be put off because more comes at once. Without a way
// to know, only a body whose end is near is waited for: it comes with its head nearly always.
func (x *exchange) hold(r stream.Readier, left int64) bool {
	if r != nil {
		return r.ReadReady()
	}
	return left > 0 && left <= maxCollect
}

func (x *exchange) endBody(c stream.Client) error {
	if t := c.Trailers(); t != nil && t.Len() > 0 {
		x.grpcStatus(t)
		if err := x.srv.WriteTrailers(t); err != nil {
			return err
		}
	} else if err := x.srv.WriteBody(nil, true); err != nil {
		return err
	}
	return x.srv.Flush()
}

// sent records a client that went away before it had all of the response.
func (x *exchange) sent(err error) {
	if err == nil {
		return
	}
	if why := x.cutReason(); why == cutIdle || why == cutDuration {
		x.broken(err)
		return
	}
	x.info.Flags |= stream.FlagDownstreamTermination
	x.info.Details = "downstream_remote_disconnect"
	if e, ok := stream.AsError(err); ok && e.Side == stream.Ours && e.Details != "" {
		x.info.Details, x.info.Flags = e.Details, x.info.Flags&^stream.FlagDownstreamTermination|stream.FlagUpstreamProtocolErr
	}
	x.srv.Abort()
}

// broken ends a response whose upstream failed in the middle: the client must be able to tell.
func (x *exchange) broken(err error) {
	switch x.cutReason() {
	case cutGone:
		x.clientGone()
		return
	case cutIdle:
		x.info.Flags |= stream.FlagStreamIdleTimeout
		x.info.Details = "stream_idle_timeout"
	case cutDuration:
		x.info.Flags |= stream.FlagDurationTimeout
		x.info.Details = "max_duration_timeout"
	default:
		e := failed(err).err
		x.info.Flags |= e.Flag
		x.info.Details = e.Details
	}
	x.srv.Abort()
}

// grpcStatus records the status of a gRPC call.
func (x *exchange) grpcStatus(f *stream.Fields) {
	if !x.info.GRPC {
		return
	}
	if v := f.Get("grpc-status"); v != nil {
		if n, err := strconv.Atoi(string(v)); err == nil && n >= 0 {
			x.info.GRPCCode = n
		}
	}
}
