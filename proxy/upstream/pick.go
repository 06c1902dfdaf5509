package upstream

import (
	"net/netip"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/upstream/lb"
)

// overprovision is Envoy's factor: a priority level counts as whole while 1/1.4 (71 %) of it is healthy.
const overprovision = 140

// prioritise groups endpoints by priority, keeps those that may be picked, and
// spreads the requests over the levels by their health.
func prioritise(cfg *config.Cluster, list []*Host) []priority {
	var levels [][]*Host
	for _, h := range list {
		p := int(h.ep.Load().Priority)
		for len(levels) <= p && p < maxPriorities {
			levels = append(levels, nil)
		}
		if p < maxPriorities {
			levels[p] = append(levels[p], h)
		}
	}
	panicAt := cfg.PanicThreshold
	if cfg.Outlier != nil {
		panicAt = max(panicAt, cfg.Outlier.MinHealthPercent)
	}
	prios := make([]priority, len(levels))
	health, panics := make([]uint32, len(levels)), make([]bool, len(levels))
	var total uint32
	for i, l := range levels {
		prios[i].hosts, health[i], panics[i] = available(l, panicAt)
		total = min(total+health[i], 100)
	}
	shares(prios, health, total)
	for i := range prios {
		p := &prios[i]
		switch {
		case len(p.hosts) == 0:
		case cfg.LB.LocalityWeighted && !panics[i]:
			p.hosts, p.picker = byLocality(cfg, levels[i], p.hosts)
		default:
			p.picker = lb.New(cfg.LB, lbEndpoints(cfg, p.hosts), p.hosts)
		}
	}
	return prios
}

// maxPriorities bounds priority levels (Envoy: 128).
const maxPriorities = 128

// available is the healthy endpoints and the level's health in percent. In
// panic, when fewer than panicAt percent are healthy, it is all of them.
func available(level []*Host, panicAt uint32) (use hosts, health uint32, panics bool) {
	if len(level) == 0 {
		return nil, 0, false
	}
	ok := make(hosts, 0, len(level))
	for _, h := range level {
		if h.healthy() {
			ok = append(ok, h)
		}
	}
	percent := uint32(100 * len(ok) / len(level))
	if percent < panicAt {
		return level, min(max(percent*overprovision/100, 1), 100), true
	}
	return ok, min(uint32(overprovision*len(ok)/len(level)), 100), false
}

// byLocality orders the endpoints of a level by locality and makes a picker that gives
// each locality its share: its weight, and less when fewer than 71 % of it are healthy.
// There is no picker when no locality with a weight has a healthy endpoint.
func byLocality(cfg *config.Cluster, level, healthy hosts) (hosts, lb.Picker) {
	total := map[config.Locality]int{}
	for _, h := range level {
		total[h.ep.Load().Locality]++
	}
	at := map[config.Locality]int{}
	var groups []lb.Locality
	var members []hosts
	for _, h := range healthy {
		ep := h.ep.Load()
		i, ok := at[ep.Locality]
		if !ok {
			if ep.LocalityWeight == 0 {
				continue
			}
			i = len(groups)
			at[ep.Locality] = i
			groups, members = append(groups, lb.Locality{}), append(members, nil)
		}
		members[i] = append(members[i], h)
	}
	var all hosts
	for i, m := range members {
		ep := m[0].ep.Load()
		share := min(float64(overprovision*len(m))/float64(100*total[ep.Locality]), 1)
		groups[i] = lb.Locality{Weight: float64(ep.LocalityWeight) * share, Endpoints: lbEndpoints(cfg, m), Loads: m}
		all = append(all, m...)
	}
	return all, lb.NewLocalities(cfg.LB, groups)
}

// shares gives each level its part of the requests: as much of what is left as its health allows.
func shares(prios []priority, health []uint32, total uint32) {
	if total == 0 {
		return
	}
	sum := uint32(0)
	for i := range prios {
		sum = min(sum+(health[i]*100+total-1)/total, 100)
		prios[i].share = sum
	}
}

func lbEndpoints(cfg *config.Cluster, hs hosts) []lb.Endpoint {
	eps := make([]lb.Endpoint, len(hs))
	for i, h := range hs {
		ep := h.ep.Load()
		eps[i] = lb.Endpoint{Key: ep.Addr.String(), Weight: ep.Weight}
		if cfg.LB.UseHostname && ep.Hostname != "" {
			eps[i].Key = ep.Hostname
		}
	}
	return eps
}

// pick chooses an endpoint, nil if none can be used. Endpoints in r.Previous are avoided as long as r.HostAttempts allows.
func (c *Cluster) pick(s *state, r *Request) *Host {
	if passThrough(s.cfg) {
		return c.original(s, r)
	}
	p := s.level(r.Random)
	if p == nil {
		return nil
	}
	q := lb.Query{Hash: r.Hash, Hashed: r.Hashed, Random: r.Random}
	h := p.hosts[p.picker.Pick(q)]
	if len(r.Previous) == 0 {
		return h
	}
	for n := uint64(1); n <= uint64(max(r.HostAttempts, 1)) && contains(r.Previous, h); n++ {
		q.Attempt = n
		q.Random = q.Random*6364136223846793005 + 1442695040888963407
		h = p.hosts[p.picker.Pick(q)]
	}
	return h
}

func contains(hs []*Host, h *Host) bool {
	for _, x := range hs {
		if x == h {
			return true
		}
	}
	return false
}

func (s *state) level(random uint64) *priority {
	if len(s.prios) == 1 {
		if s.prios[0].picker == nil {
			return nil
		}
		return &s.prios[0]
	}
	at := uint32(random>>32) % 100
	for i := range s.prios {
		if p := &s.prios[i]; at < p.share && p.picker != nil {
			return p
		}
	}
	return nil
}

func passThrough(cfg *config.Cluster) bool {
	return cfg.Discovery == config.OriginalDst || cfg.PassThroughOriginal
}

// maxOriginals bounds the original destinations that a cluster remembers.
const maxOriginals = 16 << 10

// original finds or makes the host of the connection's original destination.
func (c *Cluster) original(s *state, r *Request) *Host {
	if r.Conn == nil || !r.Conn.Local.IsValid() {
		return nil
	}
	k := hostKey{addr: netip.AddrPortFrom(r.Conn.Local.Addr().Unmap(), r.Conn.Local.Port()), conn: s.key}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[k]
	if h == nil {
		if c.retired || len(c.hosts) >= maxOriginals {
			return nil
		}
		s = c.cur.Load()
		k.conn = s.key
		h = &Host{cluster: c, tls: s.cfg.TLS, proxy: s.cfg.ProxyProtocol}
		h.pool.host = h
		h.ep.Store(&config.Endpoint{Addr: k.addr, Weight: 1})
		c.hosts[k] = h
		list := append(append(make([]*Host, 0, len(s.all)+1), s.all...), h)
		if d := c.detector.Load(); d != nil {
			d.SetHosts(outlierHosts(list))
		}
		c.publish(s.cfg, list)
	}
	h.used.Store(now.Unix())
	if !h.healthy() {
		return nil
	}
	return h
}

// unusedAfter is how long an original destination without connections is remembered.
const unusedAfter = 10 * time.Second

func (h *Host) unused(now time.Time) bool {
	return h.Stats.CxActive.Load() == 0 && h.Stats.RqActive.Load() == 0 && now.Unix()-h.used.Load() > int64(unusedAfter/time.Second)
}
