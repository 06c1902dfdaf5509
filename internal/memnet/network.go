package memnet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	firstEphemeral = 40000
	backlog        = 128 // connections that wait for Accept; more make the dialer wait
)

// Network is a set of listeners that can be dialed by address. The zero value is
// not usable; make it with [New]. Safe for concurrent use.
type Network struct {
	mu sync.Mutex
	// mu protects the following.
	link      Link // for destinations without one of their own
	links     map[netip.AddrPort]Link
	names     map[string]netip.Addr
	listeners map[netip.AddrPort]*Listener
	nextPort  uint16
}

// New returns an empty network whose connections have link l.
func New(l Link) *Network {
	return &Network{
		link:      l,
		links:     map[netip.AddrPort]Link{},
		names:     map[string]netip.Addr{"localhost": netip.AddrFrom4([4]byte{127, 0, 0, 1})},
		listeners: map[netip.AddrPort]*Listener{},
		nextPort:  firstEphemeral,
	}
}

// SetLink changes the link of connections made to one destination from now on.
func (n *Network) SetLink(to netip.AddrPort, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[to] = l
}

// SetHost makes name resolve to addr.
func (n *Network) SetHost(name string, addr netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[name] = addr
}

// Listen opens a listener at "host:port". An empty host or an unspecified address accepts for every address;
// port 0 takes a free one.
func (n *Network) Listen(address string) (*Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, err := n.resolve(address)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: err}
	}
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), n.port())
	}
	addr := net.TCPAddrFromAddrPort(at)
	if n.listeners[at] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: addr, Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	l := &Listener{network: n, at: at, queue: make(chan *Conn, backlog), closed: make(chan struct{})}
	n.listeners[at] = l
	return l, nil
}

// Dial connects to "host:port" from 127.0.0.1.
func (n *Network) Dial(address string) (*Conn, error) {
	return n.DialFrom(context.Background(), netip.Addr{}, address)
}

// DialContext has the shape that http.Transport and others want; network must be "tcp", "tcp4" or "tcp6".
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
	}
	c, err := n.DialFrom(ctx, netip.Addr{}, address)
	if err != nil {
		return nil, err // not c: a nil *Conn is no nil net.Conn
	}
	return c, nil
}

// DialFrom connects with the given source address; the invalid one means
// loopback. It waits for the latency, for room in the listener's queue and, when the link is a black hole, for ctx.
func (n *Network) DialFrom(ctx context.Context, source netip.Addr, address string) (*Conn, error) {
	n.mu.Lock()
	to, err := n.resolve(address)
	l, link := n.lookup(to)
	local := netip.AddrPortFrom(source, n.port())
	n.mu.Unlock()
	if !source.IsValid() {
		local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), local.Port())
	}
	fail := func(err error) (*Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Source: net.TCPAddrFromAddrPort(local), Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	if err != nil {
		return fail(err)
	}
	if link.Blackhole {
		<-ctx.Done()
		return fail(ctx.Err())
	}
	if err := wait(ctx, 2*link.Latency); err != nil {
		return fail(err)
	}
	if l == nil {
		return fail(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	client, server := pipe(link, local, to)
	if err := l.offer(ctx, server); err != nil {
		return fail(err)
	}
	return client, nil
}

// resolve turns "host:port" into an address. mu is held.
func (n *Network) resolve(address string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return netip.AddrPort{}, &net.AddrError{Err: "invalid port", Addr: address}
	}
	addr, ok := n.names[host]
	if host == "" {
		addr, ok = netip.IPv4Unspecified(), true
	}
	if !ok {
		if addr, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}

// lookup finds the listener and the link for a destination. mu is held.
func (n *Network) lookup(to netip.AddrPort) (*Listener, Link) {
	link, ok := n.links[to]
	if !ok {
		link = n.link
	}
	for _, at := range []netip.AddrPort{
		to,
		netip.AddrPortFrom(netip.IPv4Unspecified(), to.Port()),
		netip.AddrPortFrom(netip.IPv6Unspecified(), to.Port()),
	} {
		if l := n.listeners[at]; l != nil {
			return l, link
		}
	}
	return nil, link
}

// port returns the next port for a client or listener. mu is held.
func (n *Network) port() uint16 {
	p := n.nextPort
	if n.nextPort++; n.nextPort == 0 {
		n.nextPort = firstEphemeral
	}
	return p
}

func wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Listener accepts connections at one address of a [Network]. It is a [net.Listener].
type Listener struct {
	network *Network
	at      netip.AddrPort
	queue   chan *Conn
	closed  chan struct{}
	once    sync.Once
}

// offer queues a connection for Accept.
func (l *Listener) offer(ctx context.Context, c *Conn) error {
	select {
	case <-l.closed:
		return os.NewSyscallError("connect", syscall.ECONNREFUSED)
	default:
	}
	select {
	case l.queue <- c:
	case <-l.closed:
		return os.NewSyscallError("connect", syscall.ECONNREFUSED)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-l.closed:
		l.refuseQueued() // closed while we queued: nobody will accept
	default:
	}
	return nil
}

// Accept implements [net.Listener]; the connection is a [*Conn].
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, l.closedError("accept")
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, l.closedError("accept")
	}
}

// Close stops accepting; connections that wait for Accept are reset, accepted ones live on.
func (l *Listener) Close() error {
	err := l.closedError("close")
	l.once.Do(func() {
		err = nil
		l.network.mu.Lock()
		delete(l.network.listeners, l.at)
		l.network.mu.Unlock()
		close(l.closed)
	})
	l.refuseQueued()
	return err
}

func (l *Listener) refuseQueued() {
	for {
		select {
		case c := <-l.queue:
			_ = c.Reset()
		default:
			return
		}
	}
}

func (l *Listener) closedError(op string) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Addr implements [net.Listener]; the address is a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// AddrPort returns the listener's address.
func (l *Listener) AddrPort() netip.AddrPort { return l.at }
