package upstream

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft.mesh/weft/proxy/config"
)

const (
	defaultRefresh = 5 * time.Second // Envoy's dns_refresh_rate
	dnsTimeout     = 5 * time.Second
)

// endpoints is the list that cfg stands for: as configured, or with names replaced by their addresses. mu is held.
func (c *Cluster) endpoints(cfg *config.Cluster) []*config.Endpoint {
	if !byDNS(cfg) {
		return cfg.Endpoints
	}
	var out []*config.Endpoint
	for _, t := range dnsTemplates(cfg) {
		if t.Addr.Addr().IsValid() {
			out = append(out, t)
			continue
		}
		addrs := c.resolved[t.Hostname]
		if cfg.Discovery == config.LogicalDNS && len(addrs) > 1 {
			addrs = addrs[:1]
		}
		for _, a := range addrs {
			ep := *t
			ep.Addr = netip.AddrPortFrom(a, t.Addr.Port())
			out = append(out, &ep)
		}
	}
	return out
}

func byDNS(cfg *config.Cluster) bool {
	return cfg.Discovery == config.StrictDNS || cfg.Discovery == config.LogicalDNS
}

// dnsTemplates are the endpoints of a DNS cluster before resolution: those
// without an address have a host name and a port.
func dnsTemplates(cfg *config.Cluster) []*config.Endpoint {
	if len(cfg.Endpoints) > 0 || cfg.DNSHost == "" {
		return cfg.Endpoints
	}
	return []*config.Endpoint{{Addr: netip.AddrPortFrom(netip.Addr{}, cfg.DNSPort), Hostname: cfg.DNSHost, Weight: 1}}
}

// resolvers are the running DNS loops, one for each DNS cluster.
type resolvers struct {
	wg      sync.WaitGroup
	running map[*Cluster]context.CancelFunc
}

// reconcile starts and ends loops so that they fit the clusters.
func (r *resolvers) reconcile(ctx context.Context, m *Manager) {
	if r.running == nil {
		r.running = make(map[*Cluster]context.CancelFunc)
	}
	want := make(map[*Cluster]bool)
	for _, c := range *m.clusters.Load() {
		if !byDNS(c.Config()) {
			continue
		}
		want[c] = true
		if r.running[c] == nil {
			loop, cancel := context.WithCancel(ctx)
			r.running[c] = cancel
			r.wg.Go(func() { c.resolve(loop) })
		}
	}
	for c, cancel := range r.running {
		if !want[c] {
			cancel()
			delete(r.running, c)
		}
	}
}

func (r *resolvers) stop() {
	for _, cancel := range r.running {
		cancel()
	}
	r.wg.Wait()
}

// resolve looks the cluster's names up again and again. A failed lookup keeps the last answer.
func (c *Cluster) resolve(ctx context.Context) {
	for {
		cfg := c.Config()
		for _, t := range dnsTemplates(cfg) {
			if t.Hostname != "" && !t.Addr.Addr().IsValid() {
				c.lookup(ctx, t.Hostname)
			}
		}
		refresh := cfg.DNSRefresh
		if refresh <= 0 {
			refresh = defaultRefresh
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(refresh):
		}
	}
}

// preferIPv4 leaves IPv6 addresses out if there are others (Envoy's V4_PREFERRED).
func preferIPv4(addrs []netip.Addr) []netip.Addr {
	if v4 := slices.DeleteFunc(slices.Clone(addrs), netip.Addr.Is6); len(v4) > 0 {
		return v4
	}
	return addrs
}

func (c *Cluster) lookup(ctx context.Context, host string) {
	ctx, cancel := context.WithTimeout(ctx, dnsTimeout)
	defer cancel()
	addrs, err := c.m.set.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addrs) == 0 {
		return
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	addrs = preferIPv4(addrs)
	if c.Config().Discovery == config.StrictDNS {
		slices.SortFunc(addrs, netip.Addr.Compare)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(c.resolved[host], addrs) {
		return
	}
	if c.resolved == nil {
		c.resolved = make(map[string][]netip.Addr)
	}
	c.resolved[host] = addrs
	c.update(c.cur.Load().cfg)
}
