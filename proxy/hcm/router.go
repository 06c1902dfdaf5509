package hcm

import (
	"io"
	"math"
	"strconv"
	"time"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream"
	"weft.mesh/weft/proxy/upstream/outlier"
)

// upstreamSide is the state of forwarding.
type upstreamSide struct {
	cluster *upstream.Cluster
	forward *route.Forward
	host    *upstream.Host
	client  stream.Client
	req     upstream.Request
	tried   []*upstream.Host
	timeout time.Duration // of the whole exchange, from the end of the request
	body    body
	retries uint32
	stale   bool // the free retry after a stale connection was used
	holding bool // a retry is counted in the cluster's breaker
	cookie  []byte
	shake   handshake
	shadows []*shadow // mirrors that wait for the end of the body
	count   [10]byte  // x-envoy-attempt-count
}

func (u *upstreamSide) clear() {
	tried, mem := u.tried, u.body.mem
	clear(tried)
	if cap(mem) > maxKeptBody {
		mem = nil
	}
	*u = upstreamSide{tried: tried[:0]}
	u.body.mem = mem[:0]
}

// aim notes where the request is bound for. It comes before the filters, so
// that what they refuse, delay or abort is told under the destination's name too.
func (x *exchange) aim(f *route.Forward) {
	name := f.Cluster
	if x.choice != nil {
		name = x.choice.Cluster
	}
	x.info.Cluster = name
	if x.up.cluster = x.m.deps.Upstreams.Cluster(name); x.up.cluster != nil {
		x.info.Service = x.up.cluster.Service()
	}
}

// forward sends the request to its cluster and the response back, as run does.
func (x *exchange) forward(f *route.Forward) (done bool) {
	u := &x.up
	u.forward = f
	if u.cluster == nil {
		x.reply(noCluster(f))
		return true
	}
	if u := x.wantsUpgrade(); u != nil {
		if !listed(f.Upgrades, u) && !listed(x.m.cfg.Upgrades, u) {
			x.reply(&replyUpgrade)
			return true
		}
		x.info.Upgrade = true
	}
	x.requestOps()
	x.rewrite(f)
	if x.info.Upgrade {
		x.offer()
	}
	x.decorate()
	u.timeout = x.timeout(f)
	set(&x.watch.idle, int64(f.IdleTimeout))
	set(&x.watch.longest, int64(f.MaxStreamDuration))
	u.req.Hash, u.req.Hashed = 0, false
	if len(f.Hash) > 0 {
		u.req.Hash, u.req.Hashed = x.hash(f.Hash)
	}
	x.startWatch()
	for _, w := range x.m.watchers {
		if bw := w.Watch(&x.fs); bw != nil {
			x.watches = append(x.watches, bw)
		}
	}
	if !x.prepareBody() {
		return true
	}
	if x.req.Proto == stream.HTTP2 && x.srv.Gone() { // reset already: not worth an upstream's work (CVE-2023-44487)
		x.clientGone()
		return true
	}
	x.mirror(f)
	return x.attempts()
}

// decorate tells the next hop how the operation is called in traces.
func (x *exchange) decorate() {
	if x.m.cfg.Tracing != nil && x.route.Operation != "" && x.conn.info.Direction != stream.Inbound {
		if f := &x.req.Fields; f.Has("x-envoy-decorator-operation") {
			f.Set("x-envoy-decorator-operation", x.route.Operation)
		} else {
			x.addLine(f, "x-envoy-decorator-operation", stream.Bytes(x.route.Operation))
		}
	}
}

// connectUpgrade is what configuration calls a plain CONNECT in its lists of upgrades (Envoy).
var connectUpgrade = []byte("connect")

// wantsUpgrade is the protocol that the request asks to switch to, nil if none.
func (x *exchange) wantsUpgrade() []byte {
	if x.req.Upgrade == nil && string(x.req.Method) == "CONNECT" {
		return connectUpgrade
	}
	return x.req.Upgrade
}

func listed(list []string, v []byte) bool {
	for _, s := range list {
		if stream.EqualFold(v, s) {
			return true
		}
	}
	return false
}

// timeout is the route's, or for gRPC the caller's within the route's bound.
func (x *exchange) timeout(f *route.Forward) time.Duration {
	t := f.Timeout
	if f.UseGRPC && x.info.GRPC && x.h.grpcTimeout != nil {
		if d, ok := grpcTimeout(x.h.grpcTimeout); ok {
			t = d
			if f.MaxGRPC > 0 && (d == 0 || d > f.MaxGRPC) {
				t = f.MaxGRPC
			}
		}
	}
	x.expectWithin(f, t)
	if x.info.Upgrade {
		return 0 // an upgraded stream has no end to wait for
	}
	return t
}

// expectWithin tells the upstream how long an answer is waited for: a try's
// time if there is one, else the whole's.
func (x *exchange) expectWithin(f *route.Forward, t time.Duration) {
	if r := f.Retry; r != nil && r.PerTryTimeout > 0 && (t == 0 || r.PerTryTimeout < t) {
		t = r.PerTryTimeout
	}
	if t <= 0 {
		return
	}
	ms := t.Milliseconds()
	if t%time.Millisecond > 0 {
		ms++ // who is told less than there is gives up too early, and with 0 at once
	}
	start := len(x.buf)
	x.buf = strconv.AppendInt(x.buf, ms, 10)
	end := len(x.buf)
	x.req.Fields.SetBytes("x-envoy-expected-rq-timeout-ms", x.buf[start:end:end])
	if x.info.GRPC && f.UseGRPC && t < 1e8*time.Second {
		if ms < 1e8 { // 8 digits: gRPC over HTTP/2, TimeoutValue
			x.buf = append(append(x.buf, x.buf[start:end]...), 'm')
		} else {
			x.buf = append(strconv.AppendInt(x.buf, ms/1000, 10), 'S')
		}
		x.req.Fields.SetBytes("grpc-timeout", x.buf[end:len(x.buf):len(x.buf)])
	}
}

// grpcTimeout parses 1 to 8 digits and a unit (gRPC over HTTP/2, Timeout). What no Duration can hold is the longest there is.
func grpcTimeout(v []byte) (time.Duration, bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(v[:len(v)-1]), 10, 32)
	if err != nil {
		return 0, false
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if time.Duration(n) > math.MaxInt64/unit {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, true
}

// outcome of one attempt: a response head, or an error.
type outcome struct {
	resp *stream.Response
	err  *stream.Error
}

// attempts tries until there is something to tell the client, as run does.
func (x *exchange) attempts() (done bool) {
	for {
		client, out := x.attempt(x.info.Attempts + 1)
		if client != nil {
			err := x.dispatch(client)
			if err == nil && x.awaits(client) {
				return false
			}
			out = x.answer(err)
		}
		if x.settle(out) {
			return true
		}
	}
}

// settle deals with the outcome of an attempt; false: there is to be another one.
func (x *exchange) settle(out outcome) (done bool) {
	switch {
	case x.cutReason() != notCut:
		x.dropClient()
		x.gone()
	case x.again(&out):
		return !x.backOff()
	case out.err != nil:
		x.fail(out.err)
	default:
		x.deliver(out.resp)
	}
	return true
}

// attempt begins an exchange with an upstream; nil if none could be had.
func (x *exchange) attempt(n int) (stream.Client, outcome) {
	u, q := &x.up, &x.up.req
	x.info.Attempts = n
	q.Random, q.Conn, q.Proto, q.Authority, q.Slow = fresh(), x.conn.info, x.req.Proto, x.req.Authority, x.contextFn
	q.Deadline, q.Previous, q.HostAttempts = x.deadline(), nil, 0
	if r := u.forward.Retry; r != nil && r.AvoidPrevious {
		q.Previous, q.HostAttempts = u.tried, r.HostAttempts
	}
	client, host, err := u.cluster.Acquire(x.conn.ctx, q)
	q.Fresh, q.On = false, nil
	u.host = host
	if host != nil {
		x.info.Upstream = host.Addr()
		if x.conn.info.Direction != stream.Inbound {
			x.info.Peer = host.Workload()
		}
		u.tried = append(u.tried, host)
	}
	if err != nil {
		return nil, failed(err)
	}
	u.client = client
	x.setClient(client)
	x.introduce(client, n)
	x.setDeadline()
	return client, outcome{}
}

// dispatch sends the request. The goroutine may be a codec's reader only as long as nothing is waited for.
func (x *exchange) dispatch(c stream.Client) error {
	if a, ok := c.(stream.Awaiter); !ok || !x.up.body.all || !a.Join(x.codec) {
		x.block()
	}
	return x.send(c)
}

// awaits lets the upstream's codec call resume, if it can.
func (x *exchange) awaits(c stream.Client) bool {
	a, ok := c.(stream.Awaiter)
	if !ok || !x.up.body.all {
		return false
	}
	if a.Await(x.resumeFn) {
		return true
	}
	x.block()
	return false
}

// answer waits for the response's head. err is what sending ended with.
func (x *exchange) answer(err error) outcome {
	resp, rerr := x.readHead(x.up.client)
	if rerr != nil {
		if err == nil {
			err = rerr
		} else if e, ok := stream.AsError(rerr); ok && !e.Reset {
			err = rerr
		}
		return x.judge(err)
	}
	x.info.ServiceTime = x.serviceTime()
	x.up.host.Report(outlier.Result{Status: healthStatus(resp)})
	return outcome{resp: resp}
}

// introduce records the connection and lets filters and headers know of it.
func (x *exchange) introduce(client stream.Client, n int) {
	u := &x.up
	c := client.Conn()
	if x.fs.Upstream = c; c != nil {
		x.info.UpLocal, x.info.UpstreamID = c.Local, c.PeerID
		for _, f := range x.m.upstreams {
			f.Upstream(&x.fs, c)
		}
	}
	if x.route.VirtualHost.IncludeAttemptCount {
		if f := &x.req.Fields; f.Has("x-envoy-attempt-count") {
			f.SetBytes("x-envoy-attempt-count", strconv.AppendInt(u.count[:0], int64(n), 10))
		} else {
			x.addNumber(f, "x-envoy-attempt-count", uint64(n))
		}
	}
}

// readHead waits for the final head and passes informational ones on.
func (x *exchange) readHead(c stream.Client) (*stream.Response, error) {
	for {
		resp, err := c.ReadHead()
		x.watch.progress.Add(1)
		if err != nil {
			return nil, err
		}
		if resp.Status >= 200 || resp.Status == 101 {
			return resp, nil
		}
		if x.req.Proto == stream.HTTP10 {
			continue
		}
		if err := x.srv.WriteHead(resp, false); err == nil {
			_ = x.srv.Flush() // an error shows again with the final head
		}
	}
}

func failed(err error) outcome {
	if e, ok := stream.AsError(err); ok {
		return outcome{err: e}
	}
	e := &stream.Error{Side: stream.Upstream, Op: "exchange", Flag: stream.FlagUpstreamTermination, Reset: true,
		Details: "upstream_reset_before_response_started{connection_termination}", Err: err}
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		e.Err = io.ErrUnexpectedEOF
	}
	return outcome{err: e}
}

// judge reports a failed try to the endpoint's outlier detection.
func (x *exchange) judge(err error) outcome {
	out := failed(err)
	switch e := out.err; {
	case e.Side != stream.Upstream || x.cutReason() != notCut:
	case e.Timeout:
		x.up.host.Report(outlier.Result{Local: true, Timeout: true})
	default:
		x.up.host.Report(outlier.Result{Status: 503})
	}
	return out
}

// healthStatus is what outlier detection sees of a response: for gRPC the status mapped to HTTP.
func healthStatus(r *stream.Response) int {
	v := r.Fields.Get("grpc-status")
	if v == nil || r.Status != 200 {
		return r.Status
	}
	switch string(v) {
	case "0":
		return 200
	case "14":
		return 503
	case "4":
		return 504
	case "2", "13", "15":
		return 500
	}
	return 200
}

// dropClient abandons the upstream exchange.
func (x *exchange) dropClient() {
	x.up.body.detach(x)
	x.closeClient()
}

// closeClient gives the upstream exchange back; an incomplete one is reset.
func (x *exchange) closeClient() {
	u := &x.up
	if c := u.client; c != nil {
		x.setClient(nil)
		u.client = nil
		c.Close()
	}
	x.endRetry()
}

func (x *exchange) endRetry() {
	if u := &x.up; u.holding {
		u.holding = false
		u.cluster.EndRetry()
	}
}

// fail answers for an upstream that did not.
func (x *exchange) fail(e *stream.Error) {
	switch {
	case e.Side == stream.Downstream:
		x.clientGone()
	case e == upstream.ErrNoHealthy:
		x.reply(&replyNoHealthy)
	case e.Flag == stream.FlagUpstreamTimeout && x.tryTimedOut():
		x.reply(&replyTryTimeout)
	case e.Flag == stream.FlagUpstreamTimeout:
		x.reply(&replyTimeout)
	default:
		x.reply(resetReply(e, &x.info, x.up.retries > 0))
	}
}

// resetReply words a failure before the response as Envoy does.
func resetReply(e *stream.Error, info *stream.Info, retried bool) *filter.Reply {
	const before = "upstream_reset_before_response_started{"
	r := &filter.Reply{Status: 503, Details: e.Details, Flags: e.Flag}
	if e.Flag == stream.FlagUpstreamProtocolErr {
		r.Status = 502
	}
	if e.Flag == stream.FlagUpstreamOverflow {
		r.Headers = []filter.Header{{Name: "x-envoy-overloaded", Value: "true"}}
	}
	reason, transport := resetReason(e.Details, before)
	if transport != "" { // for the log only: it tells strangers about our network
		info.UpFailure = transport
	}
	text := "upstream connect error or disconnect/reset before headers. "
	if retried {
		text += "retried and the latest "
	}
	r.Body = []byte(text + "reset reason: " + reason)
	return r
}
