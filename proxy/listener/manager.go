package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// HTTPServer serves a connection whose chain ends in an HTTP connection manager,
// until it ends. It closes c, and tells o once then, which may be after it has returned.
// [stream.Draining] of ctx tells when to end after what is running; when ctx ends, c has been closed.
type HTTPServer interface {
	ServeHTTP(ctx context.Context, cfg *config.HTTPManager, c *netio.Conn, info *stream.ConnInfo, o Owner)
}

// TCPServer serves a connection whose chain ends in a TCP proxy, until it ends, and closes it. The context is as HTTPServer's.
type TCPServer interface {
	ServeTCP(ctx context.Context, cfg *config.TCPProxy, c *netio.Conn, info *stream.ConnInfo)
}

// TLSServer terminates TLS and fills in info.
type TLSServer interface {
	Handshake(ctx context.Context, c *netio.Conn, cfg *config.DownstreamTLS, timeout time.Duration, info *stream.ConnInfo) error
}

// Defaults of [Settings].
const (
	DefaultSniffTimeout = 15 * time.Second
	DefaultDrainTime    = 45 * time.Second // Istio's drainDuration
)

// Settings of a [Manager].
type Settings struct {
	HTTP HTTPServer
	TCP  TCPServer
	TLS  TLSServer // nil: chains with TLS are refused at Apply
	// Inherited are sockets that were bound before, by port, mostly in another
	// network namespace: a listener on any address with that port accepts from it and from
	// a socket of its own here. If the port is taken here, which it is when the inherited
	// socket is of this namespace, the inherited one is all. They are never closed.
	Inherited map[uint16]net.Listener
	// MaxConnections bounds all listeners together; 0: no bound.
	MaxConnections int
	// Refuse tells that no new connection is to be taken now; nil: it never is.
	Refuse func() bool
	// SniffTimeout bounds sniffing where the listener sets none and its clients are
	// strangers (gateways, PROXY protocol); zero: [DefaultSniffTimeout].
	SniffTimeout time.Duration
	// DrainTime is how long connections of a removed listener or chain may go on; zero: [DefaultDrainTime].
	DrainTime time.Duration
	// AcceptWhileDraining keeps accepting during Drain, so that no client is
	// refused before the others stop sending (Envoy's graceful drain).
	AcceptWhileDraining bool
	// MinDrain is how long a drain that accepts lasts at least, also if there is no
	// connection left: others may not know yet that this proxy goes away.
	MinDrain time.Duration
	// AllowDirect serves connections to a capturing listener (original
	// destination) that were not redirected. Without it they are closed: forwarding them to their own
	// destination, which is the listener itself, would never end.
	AllowDirect bool
	// Lot is where connections of HTTP/1 that idle sleep; nil: they do not. Its Run must be running.
	Lot *netio.Lot
	// DrainIdle is how long a connection that is told to end while it sleeps may still ask something, as the HTTPServer has it for
	// others. It is asked then; nil: not at all.
	DrainIdle func() time.Duration
	// Keepalive of accepted sockets; the zero value means Go's defaults (15 s).
	Keepalive net.KeepAliveConfig
	// Listen and OriginalDst replace the kernel's, for tests in memory.
	Listen      func(netip.AddrPort) (net.Listener, error)
	OriginalDst func(net.Conn) (netip.AddrPort, bool)
	// Log gets failures to accept; nil: nothing is logged.
	Log *slog.Logger
}

// Manager owns the sockets of one proxy. Make it with [New].
type Manager struct {
	set   Settings
	stats Stats
	cur   atomic.Pointer[table]
	total atomic.Int64 // open connections
	ids   atomic.Uint64
	conns connections

	draining  chan struct{} // closed by Drain
	drainOnce sync.Once

	mu sync.Mutex
	// mu protects the following.
	sockets map[netip.AddrPort]*socket
	run     context.Context // nil before Run
	work    sync.WaitGroup  // accept loops and connections
	stopped bool
	handed  bool // the sockets are another process's
}

// New makes a manager without sockets.
func New(set Settings) *Manager {
	if set.SniffTimeout <= 0 {
		set.SniffTimeout = DefaultSniffTimeout
	}
	if set.DrainIdle == nil {
		set.DrainIdle = func() time.Duration { return 0 }
	}
	if set.DrainTime <= 0 {
		set.DrainTime = DefaultDrainTime
	}
	if set.Listen == nil {
		set.Listen = ListenTCP
	}
	if set.OriginalDst == nil {
		set.OriginalDst = originalDst
	}
	if set.Log == nil {
		set.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{set: set, sockets: map[netip.AddrPort]*socket{}, draining: make(chan struct{})}
	m.cur.Store(&table{})
	return m
}

// ListenTCP is the usual Listen of [Settings].
func ListenTCP(a netip.AddrPort) (net.Listener, error) {
	network := "tcp4"
	if a.Addr().Is6() {
		network = "tcp6" // IPV6_V6ONLY: [::] and 0.0.0.0 are two listeners (Envoy's ipv4_compat is off)
	}
	return net.Listen(network, a.String())
}

// table is the set of compiled listeners, swapped whole.
type table struct {
	byName map[string]*compiled
	exact  map[netip.AddrPort]*compiled
	ports  map[uint16]*compiled // 0.0.0.0:port or [::]:port, not bound
}

// end tells all connections to drain.
func (t *table) end() {
	for _, l := range t.byName {
		for _, ch := range l.chains {
			ch.end()
		}
	}
}

// compiled is a listener with its matcher and what lives as long as it.
type compiled struct {
	cfg    *config.Listener
	match  *matcher
	count  *atomic.Int64 // open connections, shared by successors of the same name
	chains map[*config.FilterChain]*chain
}

// chain is a filter chain and its life.
type chain struct {
	cfg *config.FilterChain
	*life
}

// life ends when no View has the chain any more. Chains of one origin share it: new secrets are for
// new connections (Envoy's SDS), and those that there are go on.
type life struct {
	mu sync.Mutex
	// mu protects the following.
	drain chan struct{} // closed when it was removed, the proxy drains or relieves; one for many connections, so that watching it is cheap
	ended bool
}

func (c *life) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.ended = true
		close(c.drain)
	}
}

// turn tells the connections of now to end after what runs on them; those that come stay.
func (c *life) turn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		close(c.drain)
		c.drain = make(chan struct{})
	}
}

// draining is what a new connection watches.
func (c *life) draining() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drain
}

// socket is one bound address.
type socket struct {
	addr      netip.AddrPort
	own       net.Listener // nil if there is only the inherited one
	inherited net.Listener // nil for most
	cur       atomic.Pointer[compiled]
	closed    atomic.Bool
}

// listeners are those that there are, the own one first.
func (s *socket) listeners() []net.Listener {
	var out []net.Listener
	for _, ln := range []net.Listener{s.own, s.inherited} {
		if ln != nil {
			out = append(out, ln)
		}
	}
	return out
}

// Apply makes a View's listeners current. On an error nothing has changed.
func (m *Manager) Apply(v *config.View) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return errors.New("listener: manager has stopped")
	}
	if m.handed {
		return errors.New("listener: another process serves instead of this one")
	}
	old := m.cur.Load()
	next, err := m.compile(v, old)
	if err != nil {
		return err
	}
	bound, err := m.bind(next)
	if err != nil {
		return err
	}
	m.cur.Store(next)
	keep := map[netip.AddrPort]bool{}
	for _, c := range next.byName {
		if !c.cfg.BindToPort {
			continue
		}
		keep[c.cfg.Address] = true
		if s := bound[c.cfg.Address]; s != nil {
			s.cur.Store(c)
			m.sockets[s.addr] = s
			m.start(s)
		} else {
			m.sockets[c.cfg.Address].cur.Store(c)
		}
	}
	for addr, s := range m.sockets {
		if !keep[addr] {
			s.close()
			delete(m.sockets, addr)
		}
	}
	m.retire(old, next)
	if m.Draining() {
		next.end()
	}
	return nil
}

// compile builds the next table. Listeners that did not change are taken over.
func (m *Manager) compile(v *config.View, old *table) (*table, error) {
	t := &table{byName: map[string]*compiled{}, exact: map[netip.AddrPort]*compiled{}, ports: map[uint16]*compiled{}}
	for _, name := range slices.Sorted(maps.Keys(v.Listeners)) {
		cfg := v.Listeners[name]
		prev := old.byName[name]
		c := prev
		if prev == nil || prev.cfg != cfg {
			var err error
			if c, err = m.compileOne(cfg, prev); err != nil {
				return nil, fmt.Errorf("listener %q: %w", name, err)
			}
		}
		t.byName[name] = c
		if other := t.exact[cfg.Address]; other != nil {
			return nil, fmt.Errorf("listener %q: listener %q has the same address %s", name, other.cfg.Name, cfg.Address)
		}
		t.exact[cfg.Address] = c
		if !cfg.BindToPort && cfg.Address.Addr().IsUnspecified() {
			t.ports[cfg.Address.Port()] = c
		}
	}
	return t, nil
}

func (m *Manager) compileOne(cfg *config.Listener, prev *compiled) (*compiled, error) {
	match, err := newMatcher(cfg.Chains)
	if err != nil {
		return nil, err
	}
	c := &compiled{cfg: cfg, match: match, count: new(atomic.Int64), chains: map[*config.FilterChain]*chain{}}
	if prev != nil {
		c.count = prev.count
	}
	all := cfg.Chains
	if cfg.Default != nil {
		all = append(slices.Clip(all), cfg.Default)
	}
	for _, fc := range all {
		if err := m.checkChain(fc); err != nil {
			return nil, fmt.Errorf("filter chain %q: %w", fc.Name, err)
		}
		if prev != nil && prev.chains[fc] != nil {
			c.chains[fc] = prev.chains[fc]
			continue
		}
		c.chains[fc] = &chain{cfg: fc, life: lifeOf(fc, prev)}
	}
	return c, nil
}

// lifeOf is that of the chain's predecessor with other secrets, or a new one.
func lifeOf(fc *config.FilterChain, prev *compiled) *life {
	if prev != nil && fc.Origin != nil {
		for was, ch := range prev.chains {
			if was.Origin == fc.Origin {
				return ch.life
			}
		}
	}
	return &life{drain: make(chan struct{})}
}

func (m *Manager) checkChain(fc *config.FilterChain) error {
	switch {
	case (fc.HTTP == nil) == (fc.TCP == nil):
		return errors.New("want exactly one of an HTTP connection manager and a TCP proxy")
	case fc.HTTP != nil && m.set.HTTP == nil, fc.TCP != nil && m.set.TCP == nil:
		return errors.New("this proxy has no server for its last filter")
	case fc.TLS != nil && m.set.TLS == nil:
		return errors.New("this proxy cannot terminate TLS")
	}
	return nil
}

// bind opens the sockets that are not open yet, all or none.
func (m *Manager) bind(t *table) (map[netip.AddrPort]*socket, error) {
	bound := map[netip.AddrPort]*socket{}
	for _, name := range slices.Sorted(maps.Keys(t.byName)) {
		c := t.byName[name]
		if !c.cfg.BindToPort || m.sockets[c.cfg.Address] != nil {
			continue
		}
		s, err := m.open(c.cfg.Address)
		if err != nil {
			for _, b := range bound {
				b.close()
			}
			return nil, fmt.Errorf("listener %q: %w", name, err)
		}
		bound[c.cfg.Address] = s
	}
	return bound, nil
}

func (m *Manager) open(addr netip.AddrPort) (*socket, error) {
	s := &socket{addr: addr}
	if ln := m.set.Inherited[addr.Port()]; ln != nil && (addr.Addr().IsUnspecified() || addrPort(ln.Addr()) == unmapped(addr)) {
		if d, ok := ln.(interface{ SetDeadline(time.Time) error }); ok {
			if err := d.SetDeadline(time.Time{}); err != nil { // a socket that was let go before
				return nil, err
			}
		}
		s.inherited = ln
	}
	own, err := m.set.Listen(addr)
	switch {
	case err == nil:
		s.own = own
	case s.inherited != nil && errors.Is(err, syscall.EADDRINUSE):
		m.set.Log.Debug("the port is taken here: only its inherited socket serves", "address", addr.String())
	default:
		return nil, err
	}
	return s, nil
}

// close stops accepting. An inherited socket stays open: its connections wait for the next listener there.
func (s *socket) close() {
	if s.closed.Swap(true) {
		return
	}
	if d, ok := s.inherited.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(time.Unix(1, 0))
	}
	if s.own != nil {
		_ = s.own.Close()
	}
}

// retire tells connections whose chain is gone to drain, and cuts them when their time is over.
func (m *Manager) retire(old, next *table) {
	var gone []*life
	for name, o := range old.byName {
		stay := map[*life]bool{}
		if n := next.byName[name]; n != nil {
			for _, ch := range n.chains {
				stay[ch.life] = true
			}
		}
		for _, ch := range o.chains {
			if !stay[ch.life] {
				gone = append(gone, ch.life)
			}
		}
	}
	if len(gone) == 0 {
		return
	}
	for _, ch := range gone {
		ch.end()
	}
	m.drainSleepers()
	if m.run == nil {
		return
	}
	ctx := m.run
	m.work.Go(func() {
		t := time.NewTimer(m.set.DrainTime)
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
			m.conns.cut(func(c *conn) bool { ch := c.chain.Load(); return ch != nil && slices.Contains(gone, ch.life) })
		}
	})
}

// Run accepts until ctx ends, then closes the sockets and all connections and
// waits for them. It may be called once.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.mu.Lock()
	if m.run != nil {
		m.mu.Unlock()
		return errors.New("listener: Run was called twice")
	}
	m.run = ctx
	for _, s := range m.sockets {
		m.start(s)
	}
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	m.stopped = true
	m.closeSockets()
	m.mu.Unlock()
	m.conns.cut(func(*conn) bool { return true })
	m.work.Wait()
	return nil
}

func (m *Manager) closeSockets() {
	for _, s := range m.sockets {
		s.close()
	}
}

// start begins accepting on s if the manager runs; mu is held.
func (m *Manager) start(s *socket) {
	if m.run == nil || m.stopped {
		return
	}
	ctx := m.run
	for _, ln := range s.listeners() {
		m.work.Go(func() { m.acceptLoop(ctx, s, ln) })
	}
}

// Drain tells every connection to end after what it is doing and waits until
// none is left. When ctx ends first, the rest is cut. Unless AcceptWhileDraining is
// set, nothing is accepted any more; sockets close at the latest when Drain returns.
func (m *Manager) Drain(ctx context.Context) error {
	m.StartDrain()
	if m.set.AcceptWhileDraining && m.set.MinDrain > 0 && !m.handedOver() {
		t := time.NewTimer(m.set.MinDrain)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	_ = m.conns.wait(ctx) // for ever longer ones the next wait tells
	m.mu.Lock()
	m.closeSockets()
	m.mu.Unlock()
	err := m.conns.wait(ctx) // for those that came until the sockets closed
	if n := m.conns.cut(func(*conn) bool { return true }); n > 0 {
		return fmt.Errorf("listener: drain: cut %d connections: %w", n, err)
	}
	return nil
}

// StartDrain is the beginning of Drain: it returns at once.
func (m *Manager) StartDrain() {
	m.drainOnce.Do(func() { close(m.draining) })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cur.Load().end()
	m.drainSleepers()
	if !m.set.AcceptWhileDraining {
		m.closeSockets()
	}
}

// Relieve asks every connection to end after what runs on it, idle ones at once; new
// ones are taken as before. It is for when memory is short. TCP connections stay.
func (m *Manager) Relieve() {
	for _, l := range m.cur.Load().byName {
		for _, ch := range l.chains {
			ch.turn()
		}
	}
	m.drainSleepers()
}

// Draining tells whether Drain was called.
func (m *Manager) Draining() bool {
	select {
	case <-m.draining:
		return true
	default:
		return false
	}
}
