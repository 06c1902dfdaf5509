package http1

import (
	"context"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// mayTurnH2C tells whether a request with HTTP2-Settings is one that RFC 7540 section 3.2 lets us switch on. A
// request with a body would have to be read whole before, and a draining connection should not begin anew: both stay HTTP/1.1.
func (x *exchange) mayTurnH2C() bool {
	c := &x.ctl
	return c.upgradeListed && c.h2Listed && string(c.upgrade) == "h2c" && x.req.Proto == stream.HTTP11 && x.req.Upgrade == nil &&
		string(x.req.Method) != "CONNECT" && x.body.done && !c.expect && !x.close && x.sc.c.TLSState() == nil && x.sc.draining.Load() == 0
}

// turnH2C answers 101 and gives the connection away, with what was read of it behind the request.
func (sc *serverConn) turnH2C(ctx context.Context, x *exchange, serve func(context.Context, *netio.Conn) error) error {
	x.w.str(statusLine(101))
	x.w.str("connection: upgrade\r\nupgrade: h2c\r\n\r\n")
	x.w.flush()
	if x.w.err != nil {
		return writeError("write", x.w.err)
	}
	sc.in.next()
	sc.c.Unread(&sc.in.head)
	sc.in.release()
	sc.setDue(noDeadline)
	return serve(ctx, sc.c)
}
