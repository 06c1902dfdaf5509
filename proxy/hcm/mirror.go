package hcm

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream"
	"weft.mesh/weft/proxy/upstream/outlier"
)

// mirrors runs copies of requests, whose answers nobody waits for.
type mirrors struct {
	limit  int64
	active atomic.Int64
	wg     sync.WaitGroup
}

func newMirrors(limit int64) *mirrors { return &mirrors{limit: limit} }

// Wait returns when no mirrored request is running.
func (m *Manager) Wait() { m.mirrors.wg.Wait() }

// mirrorTimeout bounds a mirrored request if its route has no time-out.
const mirrorTimeout = 15 * time.Second

// mirror makes copies of the request. They leave when the body is whole: now, or from its pump.
func (x *exchange) mirror(f *route.Forward) {
	b := &x.up.body
	for i := range f.Mirrors {
		mi := &f.Mirrors[i]
		if mi.Fraction != nil && !mi.Fraction.Hit(fresh()) {
			continue
		}
		c := x.m.deps.Upstreams.Cluster(mi.Cluster)
		if c == nil || x.req.Upgrade != nil || x.req.ContentLength > maxReplay {
			x.m.Stats.MirrorDropped.Add(1)
			continue
		}
		s := x.shadow(mi, c)
		if b.all {
			s.start(x.m, b.whole)
		} else {
			x.up.shadows = append(x.up.shadows, s)
		}
	}
}

// mirrorPumped is called by the pump at the end of the body; whole tells whether body is all of it.
func (x *exchange) mirrorPumped(body []byte, whole bool) {
	for _, s := range x.up.shadows {
		if whole {
			s.start(x.m, body)
		} else {
			x.m.Stats.MirrorDropped.Add(1)
		}
	}
}

// shadow is a copy of a request; it owns its memory.
type shadow struct {
	cluster *upstream.Cluster
	req     stream.Request
	body    []byte
	conn    *stream.ConnInfo
	timeout time.Duration
	hash    uint64
	hashed  bool
}

func (x *exchange) shadow(mi *route.Mirror, c *upstream.Cluster) *shadow {
	s := &shadow{cluster: c, conn: x.conn.info, timeout: x.up.timeout, hash: x.up.req.Hash, hashed: x.up.req.Hashed}
	if s.timeout <= 0 {
		s.timeout = mirrorTimeout
	}
	from, to := x.req, &s.req
	to.Proto, to.TETrailers = from.Proto, from.TETrailers
	to.Method, to.Scheme, to.Path = bytes.Clone(from.Method), bytes.Clone(from.Scheme), bytes.Clone(from.Path)
	to.Authority = bytes.Clone(from.Authority)
	if !mi.DisableShadow {
		to.Authority = shadowHost(to.Authority)
	}
	for _, l := range from.Fields.All() {
		if !stream.EqualFold(l.Name, "expect") && !stream.EqualFold(l.Name, "content-length") {
			to.Fields.Append(bytes.Clone(l.Name), bytes.Clone(l.Value))
		}
	}
	x.shadowForwardedFor(to)
	return s
}

// shadowHost puts -shadow behind the host, before the port.
func shadowHost(a []byte) []byte {
	host := stripPort(a)
	return append(append(bytes.Clone(host), "-shadow"...), a[len(host):]...)
}

// shadowForwardedFor appends our own address, as Envoy does for requests that it makes itself.
func (x *exchange) shadowForwardedFor(r *stream.Request) {
	own := x.conn.info.Local.Addr()
	if x.conn.info.Direction == stream.Outbound { // Local is where the client wanted to go
		own = x.conn.info.Remote.Addr()
	}
	if !own.IsValid() {
		return
	}
	v := own.Unmap().String()
	if old := r.Fields.Get("x-forwarded-for"); len(old) > 0 {
		v = string(old) + "," + v
	}
	r.Fields.Set("x-forwarded-for", v)
}

// start sends a copy on a goroutine of its own, if there are not too many already.
func (s *shadow) start(m *Manager, body []byte) {
	ms := m.mirrors
	if ms.active.Add(1) > ms.limit {
		ms.active.Add(-1)
		m.Stats.MirrorDropped.Add(1)
		return
	}
	m.Stats.MirrorTotal.Add(1)
	s.body = bytes.Clone(body)
	s.req.ContentLength = int64(len(body))
	ms.wg.Go(func() {
		defer ms.active.Add(-1)
		s.send(m)
	})
}

func (s *shadow) send(m *Manager) {
	deadline := time.Now().Add(s.timeout)
	r := upstream.Request{Random: fresh(), Hash: s.hash, Hashed: s.hashed, Conn: s.conn, Proto: s.req.Proto, Authority: s.req.Authority, Deadline: deadline}
	c, host, err := s.cluster.Acquire(context.Background(), &r)
	if err != nil {
		return // nobody waits for it; the pools have counted it
	}
	defer c.Close()
	c.SetDeadline(deadline)
	s.introduce(m, c.Conn())
	status, err := s.exchange(c)
	switch e, ok := stream.AsError(err); {
	case err == nil:
		host.Report(outlier.Result{Status: status})
	case ok && e.Timeout:
		host.Report(outlier.Result{Local: true, Timeout: true})
	default:
		host.Report(outlier.Result{Status: 503})
	}
}

// introduce lets filters that look at the upstream connection change the copy, as they do the request.
func (s *shadow) introduce(m *Manager, c *stream.ConnInfo) {
	if c == nil || len(m.upstreams) == 0 {
		return
	}
	fs := filter.Stream{Conn: s.conn, Req: &s.req, Info: &stream.Info{Conn: s.conn, Req: &s.req}}
	for _, f := range m.upstreams {
		f.Upstream(&fs, c)
	}
}

func (s *shadow) exchange(c stream.Client) (status int, err error) {
	err = c.WriteHead(&s.req, len(s.body) == 0)
	if err == nil && len(s.body) > 0 {
		err = c.WriteBody(s.body, true)
	}
	for err == nil && status < 200 {
		var resp *stream.Response
		if resp, err = c.ReadHead(); err == nil {
			status = resp.Status
		}
	}
	if err != nil {
		return 0, err
	}
	for {
		if _, err := c.ReadBody(); err != nil {
			if err == stream.EOF {
				return status, nil
			}
			return 0, err
		}
	}
}
