package upstream

import (
	"net/netip"
	"sync"
	"time"

	"weft.mesh/weft/proxy/config"
)

// origin is the downstream connection that an upstream connection speaks for.
type origin struct{ from, to netip.AddrPort }

// origins are the pools of an endpoint whose connections begin with a PROXY header:
// the header names the client, so that only exchanges of the same downstream
// connection may share them (Envoy keeps such pools apart too). Their number follows
// that of downstream connections; each may have one connection beyond the
// cluster's max_connections, as any pool.
type origins struct {
	mu sync.Mutex
	// mu protects the following.
	m        map[origin]*pool
	draining bool
}

// originIdle is how long a connection that speaks for a downstream connection may idle, if
// the cluster does not say less: its client may be gone, and nobody else can use it.
const originIdle = 30 * time.Second

// poolFor is the pool for a request.
func (h *Host) poolFor(r *Request) *pool {
	if h.proxy == 0 {
		return &h.pool
	}
	var o origin
	if r.Conn != nil {
		o = origin{r.Conn.Remote, r.Conn.Local}
	}
	h.origins.mu.Lock()
	defer h.origins.mu.Unlock()
	p := h.origins.m[o]
	if p == nil {
		p = &pool{host: h, draining: h.origins.draining}
		if h.origins.m == nil {
			h.origins.m = map[origin]*pool{}
		}
		h.origins.m[o] = p
	}
	return p
}

// drain lets the endpoint's connections end: idle ones now, the others as they become idle.
func (h *Host) drain() {
	h.pool.drain()
	h.origins.mu.Lock()
	defer h.origins.mu.Unlock()
	h.origins.draining = true
	for _, p := range h.origins.m {
		p.drain()
	}
}

// clean closes connections that idled too long and forgets pools that have none left.
func (h *Host) clean(cfg *config.Cluster, now time.Time) {
	h.pool.clean(cfg, now, 0)
	h.origins.mu.Lock()
	defer h.origins.mu.Unlock()
	for o, p := range h.origins.m {
		p.clean(cfg, now, originIdle)
		if p.retire() {
			delete(h.origins.m, o)
		}
	}
}

// closeIdle closes connections that no exchange runs on.
func (h *Host) closeIdle() {
	h.pool.closeIdle()
	h.origins.mu.Lock()
	defer h.origins.mu.Unlock()
	for _, p := range h.origins.m {
		p.closeIdle()
	}
}

// retire makes a pool without connections one that keeps none: who found it a moment ago may still use it once.
func (p *pool) retire() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size > 0 || p.flight != nil || len(p.waiters) > 0 {
		return false
	}
	p.draining = true
	return true
}
