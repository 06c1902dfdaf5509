package server

import (
	"context"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/hcm"
	"weft.mesh/weft/proxy/listener"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/tcp"
	"weft.mesh/weft/proxy/transport"
	"weft.mesh/weft/proxy/upstream"
	"weft.mesh/weft/proxy/upstream/outlier"
)

// dialer is transport as upstream.Dialer.
type dialer struct{ t *transport.Dialer }

// Dial implements [upstream.Dialer].
func (d dialer) Dial(ctx context.Context, ep *config.Endpoint, c *config.Cluster, tls *config.UpstreamTLS, o upstream.DialOptions) (*netio.Conn, *stream.ConnInfo, error) {
	t := transport.Target{
		Addr: ep.Addr, Source: c.BindSource, TLS: tls, SNI: o.SNI, ALPN: o.ALPN, Timeout: c.ConnectTimeout, Keepalive: c.TCPKeepalive,
		MetadataExchange: c.MetadataExchange, ProxyProtocol: o.ProxyProtocol,
	}
	if tls != nil && tls.Workload {
		t.Expect = ep.Identity
	}
	if o.Downstream != nil {
		t.From, t.To = o.Downstream.Remote, o.Downstream.Local
	}
	return d.t.Dial(ctx, t)
}

// upstreams is upstream.Manager as tcp.Upstreams.
type upstreams struct {
	m    *upstream.Manager
	seed maphash.Seed
}

// Dial implements [tcp.Upstreams].
func (u upstreams) Dial(ctx context.Context, name string, r tcp.Request) (*tcp.Upstream, error) {
	c := u.m.Cluster(name)
	if c == nil {
		return nil, &stream.Error{Side: stream.Ours, Op: "find cluster " + name, Flag: stream.FlagNoCluster, Details: "cluster_not_found", Unsent: true}
	}
	req := upstream.Request{Random: rand.Uint64(), Conn: r.Conn}
	if r.Hash {
		req.Hash, req.Hashed = u.hash(r.Conn.Remote.Addr()), true
	}
	conn, info, host, err := c.Dial(ctx, &req)
	up := &tcp.Upstream{Conn: conn, Info: info, Service: c.Config().Service}
	if host != nil {
		up.Addr, up.Workload = host.Endpoint().Addr, host.Workload()
	}
	if err != nil {
		return up, err
	}
	if info != nil && info.Remote.IsValid() {
		up.Addr = info.Remote
	}
	host.Report(outlier.Result{})
	up.Release = func(error) { host.Closed() }
	return up, nil
}

// hash of an address for consistent hashing. The seed is this process's: all
// that matters is that one client comes to one endpoint.
func (u upstreams) hash(a netip.Addr) uint64 {
	b := a.As16()
	return maphash.Bytes(u.seed, b[:])
}

// servers are hcm and tcp as the listener's servers.
type servers struct {
	deps hcm.Deps // without Drain, which is the chain's
	tcp  tcp.Deps

	mu       sync.Mutex
	managers map[managerKey]*hcm.Manager // mu protects it
}

// managerKey is a connection manager and the life of its chain.
type managerKey struct {
	cfg   *config.HTTPManager
	drain <-chan struct{}
}

// ServeHTTP implements listener.HTTPServer.
func (s *servers) ServeHTTP(ctx context.Context, cfg *config.HTTPManager, c *netio.Conn, info *stream.ConnInfo, o listener.Owner) {
	s.manager(cfg, stream.Draining(ctx)).Start(ctx, c, info, o)
}

// ServeTCP implements listener.TCPServer.
func (s *servers) ServeTCP(ctx context.Context, cfg *config.TCPProxy, c *netio.Conn, info *stream.ConnInfo) {
	tcp.Serve(ctx, cfg, c, info, s.tcp)
}

func (s *servers) manager(cfg *config.HTTPManager, drain <-chan struct{}) *hcm.Manager {
	k := managerKey{cfg, drain}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.managers[k]
	if m == nil {
		s.forgetDrained(cfg)
		d := s.deps
		d.Drain = drain
		m = hcm.New(cfg, d)
		s.managers[k] = m
	}
	return m
}

// forgetDrained forgets managers of a chain whose connections were told to end: what runs on them goes on. mu is held.
func (s *servers) forgetDrained(cfg *config.HTTPManager) {
	for k := range s.managers {
		if k.cfg != cfg {
			continue
		}
		select {
		case <-k.drain:
			delete(s.managers, k)
		default:
		}
	}
}

// retain forgets managers that no listener of v has; what runs on them goes on.
func (s *servers) retain(v *config.View) {
	keep := map[*config.HTTPManager]bool{}
	for _, l := range v.Listeners {
		for _, ch := range l.Chains {
			keep[ch.HTTP] = true
		}
		if l.Default != nil {
			keep[l.Default.HTTP] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.managers {
		if !keep[k.cfg] {
			delete(s.managers, k)
		}
	}
}

// each calls f for every manager.
func (s *servers) each(f func(cfg *config.HTTPManager, m *hcm.Manager)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, m := range s.managers {
		f(k.cfg, m)
	}
}
