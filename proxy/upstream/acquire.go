package upstream

import (
	"context"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/upstream/outlier"
)

// Request says what an exchange or TCP connection needs of its upstream.
type Request struct {
	Random    uint64           // fresh for each attempt
	Hash      uint64           // for consistent hashing, if Hashed
	Hashed    bool             //
	Conn      *stream.ConnInfo // downstream connection; original destination
	Proto     stream.Proto     // of the downstream request (use_downstream_protocol)
	Authority []byte           // for AutoSNI
	// Previous endpoints are avoided, as long as HostAttempts more picks find another one.
	Previous     []*Host
	HostAttempts uint32
	// Fresh asks for a new HTTP/1 connection instead of a pooled one.
	Fresh bool
	// On asks for this endpoint instead of picking one; with Fresh, after a stale connection.
	On *Host
	// Deadline bounds waiting and connecting; zero: only the connect time-out does.
	Deadline time.Time
	// Slow is the context for connecting and waiting. It is called only if
	// that is necessary; nil: the context given to Acquire.
	Slow func() context.Context
}

// Acquire picks an endpoint and begins an exchange on one of its connections.
// The exchange must be closed, and its outcome told to Host.Report. The host
// is returned also with an error, if one was picked. Errors are *[stream.Error].
// In the steady state Acquire neither blocks nor allocates.
func (c *Cluster) Acquire(ctx context.Context, r *Request) (stream.Client, *Host, error) {
	s := c.cur.Load()
	h := r.On
	if h == nil {
		if h = c.pick(s, r); h == nil {
			c.Stats.NoneHealthy.Add(1)
			return nil, nil, ErrNoHealthy
		}
	}
	if !c.beginRequest(s) {
		return nil, h, ErrOverflow
	}
	x, err := h.poolFor(r).acquire(ctx, s, r)
	if err != nil {
		c.requests.Add(-1)
		return nil, h, err
	}
	return x, h, nil
}

func (p *pool) acquire(ctx context.Context, s *state, r *Request) (stream.Client, error) {
	proto := protocol(s.cfg, r)
	if !r.Fresh {
		if c := p.take(r, proto); c != nil {
			if x, err := c.start(); err == nil {
				return x, nil
			}
			p.discard(c)
		}
	}
	cl := p.host.cluster
	if !cl.beginPending(s) {
		return nil, ErrOverflow
	}
	defer cl.pending.Add(-1)
	if r.Slow != nil {
		ctx = r.Slow()
	}
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	if !r.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, r.Deadline)
		defer cancel()
	}
	return p.await(ctx, s, r, proto)
}

// protocol of the connection to use.
func protocol(cfg *config.Cluster, r *Request) config.Protocol {
	if cfg.Protocol != config.ProtoDownstream {
		return cfg.Protocol
	}
	if r.Proto == stream.HTTP2 {
		return config.ProtoHTTP2
	}
	return config.ProtoHTTP1
}

// take takes a connection that can be used at once, and drops those that cannot be used any more.
func (p *pool) take(r *Request, proto config.Protocol) *conn {
	for {
		p.mu.Lock()
		c := p.ready(r, proto)
		p.mu.Unlock()
		if c == nil || c.fit() {
			return c
		}
		p.discard(c)
	}
}

// ready takes a connection that nobody else uses, or a shared one with room, in a draining pool too: a request that was
// on its way to it when its endpoint left is served. Whether it can still be used (conn.fit) is to be asked without the
// mutex: that is a system call, at whose end the kernel may take the processor away. mu is held.
func (p *pool) ready(r *Request, proto config.Protocol) *conn {
	var c *conn
	switch proto {
	case config.ProtoHTTP1:
		c = p.takeIdle(r)
	case config.ProtoHTTP2:
		c = p.takeMulti(r)
	default:
		if c = p.takeMulti(r); c == nil {
			c = p.takeIdle(r)
		}
	}
	if c != nil {
		c.uses++
	}
	return c
}

// discard drops a connection on which no exchange could begin.
func (p *pool) discard(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !c.Multiplexed() {
		p.drop(c)
		return
	}
	if c.Streams() == 0 {
		p.remove(c)
		p.drop(c)
	}
}

// maxLooks bounds how often a connection that others wait for may be taken by them.
const maxLooks = 100

// attempts bounds how often a new connection may turn out unusable before the request fails.
const attempts = 8

// await makes a connection or waits for one.
func (p *pool) await(ctx context.Context, s *state, r *Request, proto config.Protocol) (stream.Client, error) {
	var last error = ErrOverflow
	fresh := r.Fresh
	for tries, looks := 0, 0; tries < attempts && looks < maxLooks; looks++ {
		c, err := p.obtain(ctx, s, r, proto, fresh)
		if err != nil {
			return nil, p.failed(ctx, err)
		}
		if c == nil { // something changed: look again
			fresh = false // a shared connection that was just made will do
			continue
		}
		x, err := c.start()
		if err == nil {
			return x, nil
		}
		p.discard(c)
		last = err
		tries++
	}
	return nil, p.failed(ctx, last)
}

// failed words the error of a connection that could not be had.
func (p *pool) failed(ctx context.Context, err error) error {
	if e, ok := err.(*stream.Error); ok && (e == ErrOverflow || e == errCancelled || e == errDeadline) {
		return e
	}
	if ctx.Err() == context.Canceled {
		return errCancelled
	}
	e := connectError(p.host.cluster, p.host, err)
	p.host.Report(outlier.Result{Local: true, Timeout: e.Timeout})
	return e
}

// obtain returns a connection with one more use counted, or nil to look again.
func (p *pool) obtain(ctx context.Context, s *state, r *Request, proto config.Protocol, fresh bool) (*conn, error) {
	p.mu.Lock()
	if !fresh {
		if c := p.ready(r, proto); c != nil {
			p.mu.Unlock()
			if !c.fit() {
				p.discard(c)
				return nil, nil
			}
			return c, nil
		}
	}
	if f := p.flight; f != nil && proto != config.ProtoHTTP1 {
		f.waiting++
		p.mu.Unlock()
		return nil, p.wait(ctx, f)
	}
	if !p.host.cluster.beginConn(s, p.size == 0) {
		if p.makeWay(r) {
			p.mu.Unlock()
			return nil, nil
		}
		w := &waiter{make(chan *conn, 1), proto == config.ProtoHTTP2}
		p.waiters = append(p.waiters, w)
		p.mu.Unlock()
		return p.waitFor(ctx, w, r)
	}
	p.size++
	if proto == config.ProtoHTTP1 {
		p.mu.Unlock()
		c, err := p.connect(ctx, s, r, proto)
		if err != nil {
			return nil, err
		}
		c.uses = 1
		return c, nil
	}
	f := &flight{done: make(chan struct{}), waiting: 1}
	p.flight = f
	req := *r
	p.mu.Unlock()
	p.host.cluster.m.dials.Go(func() { p.fly(f, s, &req, proto) })
	return nil, p.wait(ctx, f)
}

// fly makes a connection that several exchanges may be waiting for, so it does not end with the one that began it.
func (p *pool) fly(f *flight, s *state, r *Request, proto config.Protocol) {
	c, err := p.connect(p.host.cluster.m.ctx, s, r, proto)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flight = nil
	f.err = err
	switch {
	case err != nil:
	case !c.Multiplexed():
		p.put(c)
	case p.draining && f.waiting == 0:
		p.drop(c) // nobody would ever close it
	default:
		p.multi = append(p.multi, c)
	}
	close(f.done)
	for p.wakeOne(nil) {
	}
}

func (p *pool) wait(ctx context.Context, f *flight) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		p.mu.Lock()
		f.waiting--
		p.mu.Unlock()
		return ended(ctx)
	}
}

func (p *pool) waitFor(ctx context.Context, w *waiter, r *Request) (*conn, error) {
	select {
	case c := <-w.ch:
		if c == nil {
			return nil, nil
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if !c.serves(r) {
			p.drop(c) // its place is what we need
			return nil, nil
		}
		c.uses++
		return c, nil
	case <-ctx.Done():
		p.giveUp(w)
		return nil, ended(ctx)
	}
}

func ended(ctx context.Context) error {
	if ctx.Err() == context.Canceled {
		return errCancelled
	}
	return errDeadline
}

// Dial picks an endpoint and makes a TCP connection of the caller's own to it.
// Host.Closed must be called when it has ended. The host is returned also
// with an error, if one was picked.
func (c *Cluster) Dial(ctx context.Context, r *Request) (*netio.Conn, *stream.ConnInfo, *Host, error) {
	s := c.cur.Load()
	h := r.On
	if h == nil {
		if h = c.pick(s, r); h == nil {
			c.Stats.NoneHealthy.Add(1)
			return nil, nil, nil, ErrNoHealthy
		}
	}
	if !enter(&c.conns, s.cfg.Breakers.MaxConnections) {
		c.Stats.CxOverflow.Add(1)
		return nil, nil, h, ErrOverflow
	}
	timeout := s.cfg.ConnectTimeout
	if timeout <= 0 {
		timeout = defaultConnect
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nc, info, err := c.m.set.Dialer.Dial(ctx, h.ep.Load(), s.cfg, h.tls, DialOptions{Downstream: r.Conn, ProxyProtocol: h.proxy})
	if err != nil {
		c.conns.Add(-1)
		h.Stats.CxConnectFail.Add(1)
		e := connectError(c, h, err)
		h.Report(outlier.Result{Local: true, Timeout: e.Timeout})
		return nil, nil, h, e
	}
	h.Stats.CxTotal.Add(1)
	h.Stats.CxActive.Add(1)
	return nc, info, h, nil
}
