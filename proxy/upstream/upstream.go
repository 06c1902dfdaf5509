// Package upstream holds clusters at run time: which endpoint a request goes
// to, the connections to it, and how it has behaved.
//
// A [Manager] follows the configuration: [Manager.Apply] reconciles it with a
// View. Clusters are kept by name and their endpoints by address and
// connection settings, so a changed weight, policy or limit keeps warm
// connections, ejections and counters. An endpoint that left finishes the
// exchanges that run on it and closes its idle connections.
//
// It owns balancing (package lb), priorities, circuit breakers, outlier
// detection (package outlier), HTTP/1 and HTTP/2 connection pools, original
// destination and DNS endpoints. It does not dial (that is a [Dialer]), retry,
// or know routes and filters. Active health checks, zone-aware balancing and
// slow start are not done here.
//
// All methods are safe for concurrent use. Nothing runs in the background
// before [Manager.Run].
package upstream

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// Dialer makes connections; package transport has the real one.
type Dialer interface {
	// Dial connects to ep, with TLS if tls is not nil. ctx carries the connect time-out,
	// which covers the TLS handshake.
	Dial(ctx context.Context, ep *config.Endpoint, c *config.Cluster, tls *config.UpstreamTLS, o DialOptions) (*netio.Conn, *stream.ConnInfo, error)
}

// DialOptions is what a single connection needs beyond its cluster's settings.
type DialOptions struct {
	ALPN []string // replaces tls.ALPN if not nil
	SNI  string   // replaces tls.SNI if not empty (AutoSNI)
	// Downstream is the connection on whose behalf this is; nil if shared.
	Downstream *stream.ConnInfo
	// ProxyProtocol is the version of the PROXY header about Downstream that comes first; 0: none.
	ProxyProtocol uint8
}

// Resolver finds addresses; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Settings of a Manager.
type Settings struct {
	Dialer Dialer
	// Connect makes HTTP connections; nil: the codecs over Dialer.
	Connect Connector
	// Resolver of DNS clusters; nil: net.DefaultResolver.
	Resolver Resolver
	// MaxHeaderBytes and MaxHeaders bound response heads; 0: 60 KiB, 100.
	MaxHeaderBytes, MaxHeaders int
}

// Manager holds all clusters.
type Manager struct {
	set   Settings        // set at creation
	ctx   context.Context // of background connection attempts; ends with Run
	stop  context.CancelFunc
	dials sync.WaitGroup
	wake  chan struct{} // tells Run that there is something new

	clusters atomic.Pointer[map[string]*Cluster]

	mu sync.Mutex // serialises Apply
}

// NewManager makes a manager without clusters.
func NewManager(s Settings) *Manager {
	if s.Resolver == nil {
		s.Resolver = net.DefaultResolver
	}
	if s.Connect == nil {
		s.Connect = codecs{s}
	}
	m := &Manager{set: s, wake: make(chan struct{}, 1)}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.clusters.Store(&map[string]*Cluster{})
	return m
}

// Cluster finds a cluster, nil if there is none of that name.
func (m *Manager) Cluster(name string) *Cluster { return (*m.clusters.Load())[name] }

// Apply makes the clusters those of v.
func (m *Manager) Apply(v *config.View) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.clusters.Load()
	next := make(map[string]*Cluster, len(v.Clusters))
	for name, cfg := range v.Clusters {
		c := old[name]
		if c == nil {
			c = newCluster(m, cfg)
		} else {
			c.configure(cfg)
		}
		next[name] = c
	}
	m.clusters.Store(&next)
	for name, c := range old {
		if next[name] == nil {
			c.retire()
		}
	}
	m.signal()
}

func (m *Manager) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// housekeeping is how often idle connections and unused original destinations are looked at.
const housekeeping = 5 * time.Second

// Run owns all timers: outlier detection intervals, idle connections, DNS. It
// returns when ctx ends, with all connections closed that are not in use.
func (m *Manager) Run(ctx context.Context) error {
	var dns resolvers
	defer m.shut()
	defer dns.stop()
	clean := time.Now().Add(housekeeping)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case <-timer.C:
		}
		now := time.Now()
		dns.reconcile(ctx, m)
		if !now.Before(clean) {
			m.clean(now)
			clean = now.Add(housekeeping)
		}
		timer.Reset(max(min(m.tick(now), clean.Sub(now)), time.Millisecond))
	}
}

// tick runs outlier detection where its interval is over and returns the time until the next one.
func (m *Manager) tick(now time.Time) time.Duration {
	next := housekeeping
	for _, c := range *m.clusters.Load() {
		if d, ok := c.tick(now); ok {
			next = min(next, d)
		}
	}
	return next
}

func (m *Manager) clean(now time.Time) {
	for _, c := range *m.clusters.Load() {
		c.clean(now)
	}
}

// CloseIdle closes connections that no exchange runs on. It is for when memory is short.
func (m *Manager) CloseIdle() {
	for _, c := range *m.clusters.Load() {
		c.closeIdle()
	}
}

func (m *Manager) shut() {
	m.stop()
	m.dials.Wait()
	for _, c := range *m.clusters.Load() {
		c.retire()
	}
}
