package upstream

import "sync/atomic"

// enter counts one more in n unless that would exceed limit.
func enter(n *atomic.Int64, limit uint32) bool {
	if n.Add(1) > int64(limit) {
		n.Add(-1)
		return false
	}
	return true
}

// beginRequest asks the breaker for one more request.
func (c *Cluster) beginRequest(s *state) bool {
	if enter(&c.requests, s.cfg.Breakers.MaxRequests) {
		return true
	}
	c.Stats.RqOverflow.Add(1)
	return false
}

func (c *Cluster) beginPending(s *state) bool {
	if enter(&c.pending, s.cfg.Breakers.MaxPending) {
		return true
	}
	c.Stats.PendingOverflow.Add(1)
	return false
}

// beginConn asks for one more connection; an endpoint without any always gets one (Envoy).
func (c *Cluster) beginConn(s *state, first bool) bool {
	if enter(&c.conns, s.cfg.Breakers.MaxConnections) {
		return true
	}
	if first {
		c.conns.Add(1)
		return true
	}
	c.Stats.CxOverflow.Add(1)
	return false
}

// BeginRetry asks whether one more retry may run at the same time: by the
// retry budget, a share of the active requests, or by the maximum. If so
// EndRetry must be called when the retry has ended.
func (c *Cluster) BeginRetry() bool {
	b := &c.cur.Load().cfg.Breakers
	limit := b.MaxRetries
	if b.RetryBudgetPercent > 0 {
		active := c.requests.Load() + c.pending.Load()
		limit = max(b.RetryBudgetMin, uint32(b.RetryBudgetPercent*float64(active)/100))
	}
	if enter(&c.retries, limit) {
		return true
	}
	c.Stats.RetryOverflow.Add(1)
	return false
}

// EndRetry ends what BeginRetry allowed.
func (c *Cluster) EndRetry() { c.retries.Add(-1) }
