package upstream

import (
	"context"
	"slices"
	"sync"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// pool is the connections to one endpoint: HTTP/1 connections, of which the
// last used is taken first so that the others can time out, and HTTP/2
// connections, which exchanges share.
type pool struct {
	host *Host // set at creation

	mu sync.Mutex
	// mu protects the following.
	idle     []*conn // HTTP/1, not in use, last used last
	multi    []*conn // HTTP/2
	size     int     // connections that exist or are being made
	waiters  []*waiter
	flight   *flight // HTTP/2 connection attempt that others wait for
	draining bool
}

// conn is one pooled connection.
type conn struct {
	HTTPConn
	pool  *pool
	born  time.Time
	sni   string    // the name of the request that it was made for, if named
	named bool      // AutoSNI: only for requests with that name
	lease           // of HTTP/1 connections: only one exchange at a time
	last  time.Time // when it became idle; the pool's mutex
	uses  uint32
	gone  bool // taken out of the pool; the pool's mutex
}

// waiter is an exchange that waits for a connection of others. It gets a connection, or nil to try again.
type waiter struct {
	ch    chan *conn
	multi bool // only an HTTP/2 connection will do
}

// flight is an attempt to make an HTTP/2 connection.
type flight struct {
	done    chan struct{}
	err     error // set before done is closed
	waiting int   // the pool's mutex
}

// takeIdle pops the connection used last. mu is held.
func (p *pool) takeIdle(r *Request) *conn {
	for i := len(p.idle) - 1; i >= 0; i-- {
		if c := p.idle[i]; c.serves(r) {
			p.idle = slices.Delete(p.idle, i, i+1)
			return c
		}
	}
	return nil
}

// fit tells whether an exchange may begin on a connection that was just taken. An HTTP/1 connection must be open and
// silent, so it is looked at every time (one system call): a FIN that came a moment ago would cost a request that may
// not be sent twice, and bytes that nobody asked for would be taken for the answer to the next request, which may be another client's.
func (c *conn) fit() bool { return c.Multiplexed() || c.Usable() }

// serves tells whether the connection may carry a request. One that asked for a server by the name of a request
// is for that name only: the server has proved no other (RFC 9113 section 9.1.1).
func (c *conn) serves(r *Request) bool { return !c.named || string(hostPart(r.Authority)) == c.sni }

// makeWay closes a connection that idles for another name, when no more may be opened. mu is held.
func (p *pool) makeWay(r *Request) bool {
	for i, c := range p.idle {
		if !c.serves(r) {
			p.idle = slices.Delete(p.idle, i, i+1)
			p.drop(c)
			return true
		}
	}
	for i, c := range p.multi {
		if !c.serves(r) && c.Streams() == 0 {
			p.multi = slices.Delete(p.multi, i, i+1)
			p.drop(c)
			return true
		}
	}
	return false
}

// takeMulti finds a shared connection with room. mu is held.
func (p *pool) takeMulti(r *Request) *conn {
	for i := 0; i < len(p.multi); i++ {
		c := p.multi[i]
		if !c.Usable() {
			p.multi = append(p.multi[:i], p.multi[i+1:]...)
			i--
			if c.Streams() == 0 {
				p.drop(c)
			}
			continue
		}
		if c.CanTakeStream() && c.serves(r) {
			return c
		}
	}
	return nil
}

// drop closes a connection and gives its place back. mu is held.
func (p *pool) drop(c *conn) {
	if c.gone {
		return
	}
	c.gone = true
	p.size--
	p.host.Stats.CxActive.Add(-1)
	p.host.cluster.conns.Add(-1)
	c.HTTPConn.Close()
	p.wakeOne(nil)
}

// wakeOne hands c (or a chance to try again) to the one who waits longest. mu is held.
func (p *pool) wakeOne(c *conn) bool {
	if len(p.waiters) == 0 {
		return false
	}
	i := 0
	for c != nil && i < len(p.waiters) && p.waiters[i].multi {
		i++
	}
	if i == len(p.waiters) {
		return false
	}
	w := p.waiters[i]
	p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
	w.ch <- c // has room for one
	return true
}

// giveUp takes a waiter out of the queue; what it was handed meanwhile goes to the next.
func (p *pool) giveUp(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, x := range p.waiters {
		if x == w {
			p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
			return
		}
	}
	if c := <-w.ch; c != nil {
		p.put(c)
	} else {
		p.wakeOne(nil)
	}
}

// put makes an HTTP/1 connection available again. mu is held.
func (p *pool) put(c *conn) {
	if p.draining {
		p.drop(c)
		return
	}
	c.last = c.born.Add(time.Since(c.born)) // half the cost of time.Now
	if !p.wakeOne(c) {
		p.idle = append(p.idle, c)
	}
}

// release ends an exchange's use of its connection.
func (p *pool) release(c *conn) {
	cfg := p.host.cluster.cur.Load().cfg
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Multiplexed() {
		if c.gone {
			return
		}
		if c.Streams() == 0 {
			c.last = time.Now()
			if p.draining || !c.Usable() || worn(c, cfg) {
				p.remove(c)
				p.drop(c)
				return
			}
		}
		p.wakeOne(nil)
		return
	}
	if !c.Idle() || worn(c, cfg) {
		p.drop(c)
		return
	}
	p.put(c)
}

// worn tells whether a connection has served its number of requests or its time.
func worn(c *conn, cfg *config.Cluster) bool {
	return cfg.MaxRequestsPerConn > 0 && c.uses >= cfg.MaxRequestsPerConn ||
		cfg.MaxConnDuration > 0 && time.Since(c.born) >= cfg.MaxConnDuration
}

func (p *pool) remove(c *conn) {
	for i, x := range p.multi {
		if x == c {
			p.multi = append(p.multi[:i], p.multi[i+1:]...)
			return
		}
	}
}

// drain closes what idles now and everything else as it becomes idle.
func (p *pool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	p.dropIdle()
	for p.wakeOne(nil) {
	}
}

// closeIdle closes what idles now.
func (p *pool) closeIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropIdle()
}

// dropIdle closes what no exchange runs on. mu is held.
func (p *pool) dropIdle() {
	for _, c := range p.idle {
		p.drop(c)
	}
	p.idle = nil
	for i := 0; i < len(p.multi); i++ {
		if c := p.multi[i]; c.Streams() == 0 {
			p.multi = append(p.multi[:i], p.multi[i+1:]...)
			i--
			p.drop(c)
		}
	}
}

// defaultIdle is how long a connection may idle if the cluster does not say (Envoy).
const defaultIdle = time.Hour

// clean closes connections that idled too long or that the peer has closed.
// least, if not 0, is a shorter idle time than the cluster's.
func (p *pool) clean(cfg *config.Cluster, now time.Time, least time.Duration) {
	limit := cfg.IdleTimeout
	if limit <= 0 {
		limit = defaultIdle
	}
	if least > 0 {
		limit = min(limit, least)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	keep := p.idle[:0]
	for _, c := range p.idle {
		if now.Sub(c.last) >= limit || worn(c, cfg) || !c.Usable() {
			p.drop(c)
		} else {
			keep = append(keep, c)
		}
	}
	clear(p.idle[len(keep):])
	p.idle = keep
	for i := 0; i < len(p.multi); i++ {
		c := p.multi[i]
		if c.Streams() > 0 {
			c.last = now // it may be found idle before the end of its exchange has been noted
			continue
		}
		if now.Sub(c.last) >= limit || worn(c, cfg) || !c.Usable() {
			p.multi = append(p.multi[:i], p.multi[i+1:]...)
			i--
			p.drop(c)
		}
	}
}

// connect makes a connection whose place has been counted already, and gives the place back if that fails.
func (p *pool) connect(ctx context.Context, s *state, r *Request, proto config.Protocol) (*conn, error) {
	h := p.host
	timeout := s.cfg.ConnectTimeout
	if timeout <= 0 {
		timeout = defaultConnect
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	o := DialOptions{ALPN: alpnFor(h.tls, proto), Downstream: r.Conn, ProxyProtocol: h.proxy}
	named := h.tls != nil && h.tls.AutoSNI
	if named {
		o.SNI = string(hostPart(r.Authority))
	}
	hc, err := h.cluster.m.set.Connect.Connect(ctx, s.cfg, h.ep.Load(), h.tls, proto, o)
	if err != nil {
		h.Stats.CxConnectFail.Add(1)
		h.cluster.conns.Add(-1)
		p.mu.Lock()
		p.size--
		p.wakeOne(nil)
		p.mu.Unlock()
		return nil, err
	}
	h.Stats.CxTotal.Add(1)
	h.Stats.CxActive.Add(1)
	c := &conn{HTTPConn: hc, pool: p, born: time.Now(), named: named, sni: o.SNI}
	c.last = c.born
	return c, nil
}

// defaultConnect is the connect time-out if the cluster does not say.
const defaultConnect = 10 * time.Second

// hostPart is an authority without port, for SNI.
func hostPart(a []byte) []byte {
	for i := len(a) - 1; i >= 0; i-- {
		if a[i] == ':' {
			return a[:i]
		}
		if a[i] < '0' || a[i] > '9' {
			break
		}
	}
	return a
}

// lease is one exchange on a pooled connection; closing it returns the connection.
type lease struct {
	stream.Client
	conn *conn
}

// ReadReady implements [stream.Readier], as both codecs do: without it a response
// that has come in one segment would leave in three.
func (l *lease) ReadReady() bool {
	r, ok := l.Client.(stream.Readier)
	return ok && r.ReadReady()
}

// Join implements [stream.Awaiter], as the HTTP/2 codec does: false with HTTP/1.
func (l *lease) Join(s stream.Server) bool {
	a, ok := l.Client.(stream.Awaiter)
	return ok && a.Join(s)
}

// Await implements [stream.Awaiter]: false with HTTP/1.
func (l *lease) Await(resume func()) bool {
	a, ok := l.Client.(stream.Awaiter)
	return ok && a.Await(resume)
}

func (l *lease) Close() {
	x, c := l.Client, l.conn
	l.Client = nil
	if l != &c.lease {
		l.conn = nil // it goes with x to another exchange
	}
	x.Close()
	h := c.pool.host
	h.Stats.RqActive.Add(-1)
	h.cluster.requests.Add(-1)
	c.pool.release(c)
}

// leaseOf finds the lease that a stream of a shared connection had before, or makes one.
func leaseOf(x stream.Client) *lease {
	k, ok := x.(stream.Keeper)
	if !ok {
		return new(lease)
	}
	l, ok := k.Kept().(*lease)
	if !ok {
		l = new(lease)
		k.Keep(l)
	}
	return l
}

// start begins an exchange; the request has been counted already.
func (c *conn) start() (stream.Client, error) {
	x, err := c.HTTPConn.Start()
	if err != nil {
		return nil, err
	}
	c.pool.host.Stats.RqActive.Add(1)
	c.pool.host.Stats.RqTotal.Add(1)
	l := &c.lease
	if c.Multiplexed() {
		l = leaseOf(x)
	}
	l.Client, l.conn = x, c
	return l, nil
}
