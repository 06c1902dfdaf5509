package hcm

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// requestHeaders sets what the connection manager owns in a request, before routing.
func (x *exchange) requestHeaders() {
	cfg := x.m.cfg
	if x.isNewcomer(cfg) {
		x.welcome(cfg.Tracing)
		return
	}
	edge := x.forwardedFor(cfg)
	x.forwardedProto(cfg)
	x.envoyHeaders(edge)
	x.requestID(cfg, edge)
	x.clientCert(cfg)
	if cfg.Tracing != nil {
		x.trace(cfg.Tracing)
	}
	if cfg.Via != "" {
		x.req.Fields.Add("via", cfg.Via)
	}
}

// forwardedFor finds the client's address and keeps x-forwarded-for. It tells
// whether the request comes from outside, as every request at an edge
// (UseRemoteAddress) does: no address is trusted for being private or loopback
// (Envoy's default without internal_address_config).
func (x *exchange) forwardedFor(cfg *config.HTTPManager) (external bool) {
	remote := x.conn.info.Remote
	if !cfg.UseRemoteAddress {
		if a, ok := lastForwarded(x.h.xff, cfg.XFFTrustedHops); ok {
			x.info.Client = netip.AddrPortFrom(a, 0)
		}
		return false
	}
	if cfg.XFFTrustedHops > 0 {
		if a, ok := lastForwarded(x.h.xff, cfg.XFFTrustedHops-1); ok {
			x.info.Client = netip.AddrPortFrom(a, 0)
		}
	}
	if !cfg.SkipXFFAppend && remote.IsValid() {
		x.appendForwardedFor(remote.Addr().Unmap())
	}
	return true
}

// appendForwardedFor makes one line of all x-forwarded-for lines and the
// address: an application that reads only the first line must not take what
// the client wrote there for all there is.
func (x *exchange) appendForwardedFor(a netip.Addr) {
	start := len(x.buf)
	for _, l := range x.req.Fields.All() {
		if len(l.Value) > 0 && stream.EqualFold(l.Name, "x-forwarded-for") {
			x.buf = append(append(x.buf, l.Value...), ',')
		}
	}
	x.buf = a.AppendTo(x.buf)
	x.req.Fields.SetBytes("x-forwarded-for", x.buf[start:len(x.buf):len(x.buf)])
}

// lastForwarded is the address that stands skip places before the last one.
func lastForwarded(xff []byte, skip uint32) (netip.Addr, bool) {
	for ; len(xff) > 0; skip-- {
		item := xff
		i := bytes.LastIndexByte(xff, ',')
		if i >= 0 {
			item, xff = xff[i+1:], xff[:i]
		} else {
			xff = nil
		}
		if skip == 0 {
			return parseAddr(bytes.TrimSpace(item))
		}
	}
	return netip.Addr{}, false
}

func parseAddr(b []byte) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(string(b)); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if ap, err := netip.ParseAddrPort(string(b)); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}

func (x *exchange) forwardedProto(cfg *config.HTTPManager) {
	if x.h.proto != nil && !(cfg.UseRemoteAddress && cfg.XFFTrustedHops == 0) {
		return
	}
	v := "http"
	if x.conn.info.TLS {
		v = "https"
	}
	if x.h.proto == nil {
		x.req.Fields.Add("x-forwarded-proto", v)
	} else {
		x.req.Fields.Set("x-forwarded-proto", v)
	}
}

// envoyHeaders sees to it that a caller cannot steer the proxy: its
// x-envoy-* settings have no effect here and do not reach the next hop; from outside nothing of
// the kind passes.
func (x *exchange) envoyHeaders(external bool) {
	f := &x.req.Fields
	if x.h.envoy {
		if external {
			f.DelFunc(isEnvoyHeader)
		} else {
			f.DelFunc(isEnvoySetting)
		}
	}
	if !external {
		return
	}
	start := len(x.buf)
	a := x.conn.info.Remote.Addr().Unmap()
	if x.info.Client.IsValid() {
		a = x.info.Client.Addr()
	}
	x.buf = a.AppendTo(x.buf)
	f.Append(stream.Bytes("x-envoy-external-address"), x.buf[start:len(x.buf):len(x.buf)])
}

func isEnvoyHeader(l stream.Field) bool {
	return len(l.Name) > 8 && stream.EqualFold(l.Name[:8], "x-envoy-")
}

// isEnvoySetting tells the headers by which Envoy's router takes orders.
func isEnvoySetting(l stream.Field) bool {
	if len(l.Name) >= len(settingsOf) || settingsOf[len(l.Name)] == nil || !isEnvoyHeader(l) {
		return false
	}
	for _, n := range settingsOf[len(l.Name)] {
		if stream.EqualFold(l.Name, n) {
			return true
		}
	}
	return false
}

// settingsOf is envoySettings by their length.
var settingsOf = func() (by [48][]string) {
	for _, n := range envoySettings {
		by[len(n)] = append(by[len(n)], n)
	}
	return by
}()

var envoySettings = [...]string{
	"x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-retry-on",
	"x-envoy-retry-grpc-on", "x-envoy-max-retries", "x-envoy-retriable-status-codes", "x-envoy-retriable-header-names",
	"x-envoy-hedge-on-per-try-timeout", "x-envoy-upstream-alt-stat-name", "x-envoy-upstream-rq-timeout-alt-response",
	"x-envoy-decorator-operation", "x-envoy-original-path", "x-envoy-expected-rq-timeout-ms", "x-envoy-internal", "x-envoy-force-trace", "x-envoy-ip-tags",
}

// requestID keeps the caller's id, except from outside where it is made anew.
func (x *exchange) requestID(cfg *config.HTTPManager, external bool) {
	id := x.h.requestID
	if cfg.GenerateRequestID && (len(id) == 0 || external && !cfg.PreserveRequestID) {
		start := len(x.buf)
		x.buf = appendUUID(x.buf)
		fresh := x.buf[start:len(x.buf):len(x.buf)]
		if id == nil {
			x.req.Fields.AppendChecked(nameRequestID, fresh)
		} else {
			x.req.Fields.SetBytes("x-request-id", fresh)
		}
		id = fresh
	}
	x.info.RequestID = id
}

var nameRequestID = []byte("x-request-id")

// appendUUID appends a random UUID (RFC 9562 version 4).
func appendUUID(b []byte) []byte {
	var u [36]byte
	putUUID(&u)
	return append(b, u[:]...)
}

func putUUID(u *[36]byte) {
	hi, lo := rand.Uint64()&^0xf000|0x4000, rand.Uint64()&^(3<<62)|2<<62
	var x [32]byte
	putHex64(x[:16], hi)
	putHex64(x[16:], lo)
	*(*[8]byte)(u[0:]) = [8]byte(x[0:])
	u[8] = '-'
	*(*[4]byte)(u[9:]) = [4]byte(x[8:])
	u[13] = '-'
	*(*[4]byte)(u[14:]) = [4]byte(x[12:])
	u[18] = '-'
	*(*[4]byte)(u[19:]) = [4]byte(x[16:])
	u[23] = '-'
	*(*[12]byte)(u[24:]) = [12]byte(x[20:])
}

// clientCert treats x-forwarded-client-cert. What a caller says of itself counts only on an authenticated connection.
func (x *exchange) clientCert(cfg *config.HTTPManager) {
	f, own := &x.req.Fields, x.conn.xfcc
	mode := cfg.ForwardClientCert
	if mode == config.XFCCAlwaysForwardOnly {
		return
	}
	if mode == config.XFCCSanitize || own == nil {
		if x.h.xfcc != nil && (mode == config.XFCCSanitize || !x.conn.info.MutualTLS()) {
			f.Del("x-forwarded-client-cert")
		}
		return
	}
	switch {
	case mode == config.XFCCForwardOnly:
	case mode == config.XFCCAppendForward && len(x.h.xfcc) > 0:
		start := len(x.buf)
		x.buf = append(append(append(x.buf, x.h.xfcc...), ','), own...)
		f.SetBytes("x-forwarded-client-cert", x.buf[start:len(x.buf):len(x.buf)])
	case x.h.xfcc != nil:
		f.SetBytes("x-forwarded-client-cert", own)
	default:
		x.addLine(f, "x-forwarded-client-cert", own)
	}
}

// requestOps carries out the route's header operations on the request, most specific level first.
func (x *exchange) requestOps() {
	r := x.route
	ops := [4]*route.Ops{nil, &r.Headers.Request, &r.VirtualHost.Headers.Request, &x.table.Headers.Request}
	if x.choice != nil {
		ops[0] = &x.choice.Headers.Request
	}
	x.applyOps(&ops, &x.req.Fields, nil)
}

func (x *exchange) responseOps(resp *stream.Response) {
	if x.route == nil {
		return
	}
	r := x.route
	ops := [4]*route.Ops{nil, &r.Headers.Response, &r.VirtualHost.Headers.Response, &x.table.Headers.Response}
	if x.choice != nil {
		ops[0] = &x.choice.Headers.Response
	}
	x.applyOps(&ops, &resp.Fields, resp)
}

func (x *exchange) applyOps(ops *[4]*route.Ops, f *stream.Fields, resp *stream.Response) {
	for _, o := range ops {
		if o == nil || o.Empty() {
			continue
		}
		x.env = route.Env{Info: &x.info, Req: x.req, Resp: resp, Buf: x.buf}
		o.Apply(f, &x.env)
		x.buf = x.env.Buf
	}
}

// responseHeaders sets what the connection manager owns in a final response.
func (x *exchange) responseHeaders(resp *stream.Response) {
	cfg := x.m.cfg
	f := &resp.Fields
	server := f.Index("server")
	switch {
	case cfg.ServerPass && !x.fs.Direct, cfg.ServerName == "":
	case x.m.serverLine == nil:
		f.Set("server", cfg.ServerName) // for the codec to refuse
	case server < 0:
		f.AppendLine(x.m.serverLine, len("server"), false)
	case !cfg.ServerAppend && !cfg.ServerPass:
		f.SetLine(server, x.m.serverLine, len("server"))
	}
	if !f.Has("date") {
		f.AppendLine(x.date(), len("date"), false)
	}
	if cfg.AlwaysSetRequestID && len(x.info.RequestID) > 0 {
		resp.Fields.SetBytes("x-request-id", x.info.RequestID)
	}
	if cfg.Via != "" {
		resp.Fields.Add("via", cfg.Via)
	}
}

// date is the date header's line for the current time, formatted once a second.
func (x *exchange) date() []byte {
	now := x.info.Start // the clock was read for the service time, if there was any time to speak of
	if x.info.ServiceTime > 0 {
		now = now.Add(x.info.ServiceTime)
	}
	if d := lastDate.Load(); d != nil && d.second == now.Unix() {
		return d.line
	}
	d := &dateLine{now.Unix(), now.UTC().AppendFormat(nil, "date: Mon, 02 Jan 2006 15:04:05 GMT\r\n")}
	lastDate.Store(d)
	return d.line
}

type dateLine struct {
	second int64
	line   []byte
}

// lastDate is shared by all managers: the time is the same for all.
var lastDate atomic.Pointer[dateLine]
