package hcm

import (
	"bytes"
	"context"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/http1"
	"weft.mesh/weft/proxy/http2"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// writeStall is how long a client may take nothing of what is sent to it.
const writeStall = 5 * time.Minute

// serve runs the codec that the connection speaks; see [Manager.Start].
func (c *connection) serve(nc *netio.Conn, drain <-chan struct{}, done func(error)) {
	h2, err := c.speaksHTTP2(nc, drain)
	switch {
	case err != nil:
		done(err)
	case h2:
		done(c.serveHTTP2(nc, drain, nil))
	default:
		c.serveHTTP1(nc, drain, http1.Rest{}, done)
	}
}

func (c *connection) serveHTTP1(nc *netio.Conn, drain <-chan struct{}, rest http1.Rest, done func(error)) {
	cfg := c.m.cfg
	o := http1.ServerOptions{
		MaxHeaderBytes: cfg.MaxHeaderBytes, MaxHeaders: cfg.MaxHeaders,
		IdleTimeout: cfg.IdleTimeout, HeaderTimeout: cfg.RequestHeadersTimeout, RequestTimeout: cfg.RequestTimeout,
		WriteStallTimeout: writeStall, MaxRequests: cfg.MaxRequestsPerConn, AllowHTTP10: cfg.AllowHTTP10, DrainTime: c.m.deps.DrainTime, DrainIdle: c.m.deps.DrainIdle,
		Drain: drain, OnProtocolError: c.protocolError,
	}
	if cfg.Codec == config.CodecAuto {
		o.H2C = func(r *stream.Request, settings []byte) func(context.Context, *netio.Conn) error {
			return c.turnsH2C(r, settings, drain)
		}
	}
	if lot := c.m.deps.Lot; lot != nil {
		o.Park = lot.Park
		if cfg.MaxConnectionDuration <= 0 { // else a timer is its connection's
			o.Sleep = c.sleep
		}
	}
	http1.ServeOn(c.ctx, nc, o, rest, c.handle, done)
}

// turnsH2C takes a client's offer to go on with HTTP/2, unless a proxy before us has let it through: that one
// thinks that it still sees requests of HTTP/1.1, and what comes then would pass it unseen.
func (c *connection) turnsH2C(r *stream.Request, settings []byte, drain <-chan struct{}) func(context.Context, *netio.Conn) error {
	for _, l := range r.Fields.All() {
		if listed(signsOfProxies, l.Name) {
			return nil
		}
	}
	up := http2.NewUpgrade(r, settings)
	if up == nil {
		return nil
	}
	return func(_ context.Context, nc *netio.Conn) error { return c.serveHTTP2(nc, drain, up) }
}

// signsOfProxies are what proxies add to requests.
var signsOfProxies = []string{"via", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "x-envoy-external-address"}

// speaksHTTP2 decides by configuration, by what TLS negotiated, or by the first bytes.
func (c *connection) speaksHTTP2(nc *netio.Conn, drain <-chan struct{}) (bool, error) {
	switch c.m.cfg.Codec {
	case config.CodecHTTP1:
		return false, nil
	case config.CodecHTTP2:
		return true, nil
	}
	switch c.info.ALPN {
	case "h2", "istio-h2":
		return true, nil
	case "http/1.1", "http/1.0", "istio-http/1.1", "istio-http/1.0":
		return false, nil
	}
	p, err := c.peek(nc, drain)
	return bytes.HasPrefix(p, []byte(prefaceStart)), err
}

// peek waits for the first bytes, for as long as an idle or a draining connection may, or until it is cut.
// No HTTP/1 request is shorter than the beginning of the preface, and none begins so.
func (c *connection) peek(nc *netio.Conn, drain <-chan struct{}) ([]byte, error) {
	w := &waiting{nc: nc}
	begin := time.Now()
	if idle := c.m.cfg.IdleTimeout; idle > 0 {
		w.until(time.Now().Add(idle))
	}
	defer stream.AfterFunc(c.ctx, func() { w.until(past) })()
	if drain != nil {
		defer netio.OnClose(drain, func() { w.until(time.Now().Add(max(c.m.drainIdle(), http1.FirstRequestGrace-time.Since(begin)))) })()
	}
	p, err := nc.Peek(len(prefaceStart))
	if err == nil {
		err = w.over()
	}
	return p, err
}

func (c *connection) serveHTTP2(nc *netio.Conn, drain <-chan struct{}, up *http2.Upgrade) error {
	cfg := c.m.cfg
	return http2.ServeConn(c.ctx, nc, http2.ServerOptions{
		MaxHeaderBytes: cfg.MaxHeaderBytes, MaxHeaders: cfg.MaxHeaders, MaxConcurrentStreams: cfg.MaxConcurrentStreams, DrainTime: c.m.deps.DrainTime,
		StreamWindow: cfg.InitialStreamWindow, ConnWindow: cfg.InitialConnWindow, IdleTimeout: cfg.IdleTimeout,
		HeaderTimeout: cfg.RequestHeadersTimeout, WriteStallTimeout: writeStall, MaxRequests: cfg.MaxRequestsPerConn,
		Drain: drain, OnProtocolError: c.protocolError, Upgrade: up,
	}, c.handle)
}

// prefaceStart begins the HTTP/2 preface (RFC 9113 section 3.4).
const prefaceStart = "PRI "
