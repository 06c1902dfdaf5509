package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"weft.mesh/weft/internal/version"
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/hotrestart"
	"weft.mesh/weft/proxy/listener"
)

const (
	readyPoll = 10 * time.Millisecond // between looks at what a child waits for
	dnsWait   = 5 * time.Second       // for the first answers to a child's DNS clusters
	flushWait = 2 * time.Second       // for the last-good file before a child reads it
)

// hot is a server's part in hot restarts, as the child at its start, as the parent at its end.
type hot struct {
	lineage hotrestart.Lineage // set by New
	gentle  atomic.Int64       // nanoseconds that connections may be ended in; 0: at once
	handed  chan hotrestart.Terms

	mu    sync.Mutex
	child *hotrestart.Child // guarded by mu; nil: not taking over (any more)
}

func (h *hot) begin(now time.Time) {
	h.lineage.Started = now
	h.handed = make(chan hotrestart.Terms, 1)
}

// drainTime implements the DrainTime of hcm.Deps.
func (h *hot) drainTime() time.Duration { return time.Duration(h.gentle.Load()) }

// leave ends the conversation with the parent: whatever was not finished stays with it.
func (h *hot) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.child != nil {
		h.child.Close()
		h.child = nil
	}
}

// take asks the parent for a socket; nil without an error: bind it.
func (h *hot) take(k hotrestart.Key) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.child == nil {
		return nil, nil
	}
	return h.child.Take(context.Background(), k) // bounded by itself
}

// peer is how we introduce ourselves.
func (s *Server) peer() (hotrestart.Peer, error) {
	ns, err := hotrestart.NetNS()
	return hotrestart.Peer{Node: s.set.nodeID(), Role: string(s.set.Role), NetNS: ns, Software: version.Get().Version, PID: os.Getpid()}, err
}

// meetParent finds the proxy that runs with our state directory.
func (s *Server) meetParent() error {
	if s.set.StateDir == "" {
		return nil
	}
	path := hotrestart.SocketPath(s.set.StateDir)
	if !s.set.HotRestart {
		if pid, ok := hotrestart.Running(path); ok {
			return fmt.Errorf("state directory %s: process %d serves from it: end it first, or take over from it with --hot-restart", s.set.StateDir, pid)
		}
		return nil
	}
	self, err := s.peer()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.set.HotRestartTimeout)
	defer cancel()
	c, err := hotrestart.Connect(ctx, path, self)
	if errors.Is(err, hotrestart.ErrNone) {
		s.set.Log.Info("no running proxy to take over from: starting as usual", "state_directory", s.set.StateDir)
		return nil
	}
	if err != nil {
		return err
	}
	s.hot.child, s.hot.lineage = c, c.Lineage
	s.set.Log.Info("hot restart: taking over", "pid", c.Parent.PID, "version", c.Parent.Software, "restart_epoch", c.Lineage.Epoch)
	return s.inheritFromParent(c)
}

// inheritFromParent takes the sockets that the parent was started with and we were not.
func (s *Server) inheritFromParent(c *hotrestart.Child) error {
	s.set.Inherited = maps.Clone(s.set.Inherited)
	if s.set.Inherited == nil {
		s.set.Inherited = map[uint16]net.Listener{}
	}
	for _, port := range c.Inherited {
		if s.set.Inherited[port] != nil {
			continue
		}
		ln, err := s.hot.take(hotrestart.Key{Kind: hotrestart.Inherited, Address: strconv.Itoa(int(port))})
		if err != nil {
			return err
		}
		if ln != nil {
			s.set.Inherited[port] = ln
		}
	}
	return nil
}

// listen opens the sockets of listeners, or takes them from the parent.
func (s *Server) listen() func(netip.AddrPort) (net.Listener, error) {
	if s.hot.child == nil {
		return nil
	}
	return func(a netip.AddrPort) (net.Listener, error) {
		ln, err := s.hot.take(hotrestart.Key{Kind: hotrestart.Listener, Address: a.String()})
		if ln != nil || err != nil {
			return ln, err
		}
		return listener.ListenTCP(a)
	}
}

// listenAdmin is listen for our own interfaces.
func (s *Server) listenAdmin() func(network, address string) (net.Listener, error) {
	if s.hot.child == nil {
		return nil
	}
	return func(network, address string) (net.Listener, error) {
		ln, err := s.hot.take(hotrestart.Key{Kind: hotrestart.Admin, Address: address})
		if ln != nil || err != nil {
			return ln, err
		}
		return net.Listen(network, address)
	}
}

// awaitReady waits, in a hot restart, until we can serve as well as the parent does.
func (s *Server) awaitReady(ctx context.Context, failed <-chan error) error {
	if s.hot.child == nil {
		return nil
	}
	began := time.Now()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		ok, why := s.Ready()
		if ok && (s.resolved() || time.Since(began) >= dnsWait) {
			return nil
		}
		var err error
		select {
		case <-tick.C:
			if time.Since(began) < s.set.HotRestartTimeout {
				continue
			}
			err = fmt.Errorf("not ready after %v: %s", s.set.HotRestartTimeout, why)
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-s.quit:
			err = errors.New("asked to quit")
		case err = <-failed:
		}
		s.hot.leave()
		s.admin.Close()
		s.listeners.HandOver() // our copies
		return fmt.Errorf("hot restart: %w; the running proxy goes on", err)
	}
}

// resolved tells whether each DNS cluster has had an answer: without, requests would fail that the parent serves.
func (s *Server) resolved() bool {
	for _, c := range s.upstreams.Snapshot() {
		if d := c.Config.Discovery; (d == config.StrictDNS || d == config.LogicalDNS) && len(c.Hosts) == 0 {
			return false
		}
	}
	return true
}

// hotRestart ends the parent's service if there is a parent, and then offers ours.
func (s *Server) hotRestart(ctx context.Context) error {
	if err := s.relieve(ctx); err != nil {
		return err
	}
	if s.set.StateDir == "" {
		return nil
	}
	self, err := s.peer()
	if err != nil {
		return err
	}
	p, err := hotrestart.Offer(hotrestart.Settings{
		Path: hotrestart.SocketPath(s.set.StateDir), Self: self, Lineage: s.hot.lineage, Inherited: slices.Sorted(maps.Keys(s.set.Inherited)),
		Socket: s.socket, Prepare: s.prepare, HandOver: s.handOver, UID: -1, Log: s.set.Log,
	})
	if err != nil { // it serves all the same
		s.set.Log.Error("no hot restart is possible from this process", "cause", err)
		return nil
	}
	if t, ok := p.Run(ctx); ok {
		s.hot.handed <- t
	}
	return nil
}

// tellServing tells whoever started us when we are ready: at once after a hot restart.
func (s *Server) tellServing(ctx context.Context) error {
	pause := readyPoll
	t := time.NewTimer(0)
	defer t.Stop()
	for ; ; t.Reset(pause) {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		pause = min(pause*5/4, time.Second) // it may wait for a control plane for long
		s.hot.mu.Lock()
		alone := s.hot.child == nil
		s.hot.mu.Unlock()
		if ok, _ := s.Ready(); ok && alone {
			s.set.Serving()
			return nil
		}
	}
}

// relieve tells the parent that we serve. We do, whatever it answers, unless it refuses.
func (s *Server) relieve(ctx context.Context) error {
	s.hot.mu.Lock() // whoever wants a socket meanwhile opens one afterwards
	defer s.hot.mu.Unlock()
	c := s.hot.child
	if c == nil {
		return nil
	}
	defer c.Close()
	err := c.Serving(ctx, hotrestart.Terms{Drain: s.set.ParentDrain, Shutdown: s.set.ParentShutdown})
	if refused := (*hotrestart.RefusedError)(nil); errors.As(err, &refused) {
		return err
	}
	s.hot.child = nil
	switch {
	case err != nil:
		s.set.Log.Error("hot restart: the process before did not answer, it may still accept connections", "pid", c.Parent.PID, "cause", err)
	case c.Gone():
		s.set.Log.Warn("hot restart: the process before has ended meanwhile", "pid", c.Parent.PID)
	default:
		s.set.Log.Info("hot restart: serving, the process before drains", "pid", c.Parent.PID, "drain", s.set.ParentDrain, "shutdown", s.set.ParentShutdown)
	}
	return nil
}

// socket finds what a child asks for.
func (s *Server) socket(k hotrestart.Key) syscall.Conn {
	switch k.Kind {
	case hotrestart.Admin:
		return s.admin.Socket(k.Address)
	case hotrestart.Listener:
		if a, err := netip.ParseAddrPort(k.Address); err == nil {
			return s.listeners.Socket(a)
		}
	case hotrestart.Inherited:
		if port, err := strconv.ParseUint(k.Address, 10, 16); err == nil {
			c, _ := s.set.Inherited[uint16(port)].(syscall.Conn)
			return c
		}
	}
	return nil
}

// prepare brings up to date what a child reads from disk.
func (s *Server) prepare() {
	ctx, cancel := context.WithTimeout(context.Background(), flushWait)
	defer cancel()
	s.xds.Flush(ctx)
}

// handOver stops accepting: the child does.
func (s *Server) handOver(t hotrestart.Terms) {
	s.hot.gentle.Store(int64(t.Drain))
	s.xds.Retire()
	s.listeners.HandOver()
	s.admin.HandOver()
}

// endAsParent drains after a hot restart. The end of ctx (SIGTERM) leaves it no more than the ordinary drain time.
func (s *Server) endAsParent(ctx, run context.Context, t hotrestart.Terms) {
	s.set.Log.Info("draining after a hot restart", "connections", s.listeners.Active()) // and as ready as before to who asked before
	limit, cancel := context.WithTimeoutCause(run, t.Shutdown, errors.New("the parent shutdown duration is over"))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(s.set.Drain, cancel) })()
	began := time.Now()
	err := s.listeners.Drain(limit)
	s.set.Log.Info("drained after a hot restart", "after", time.Since(began).Round(time.Millisecond), "cause", err)
}

func (s *Server) hotRestartVersion() string {
	if s.set.StateDir == "" {
		return "disabled"
	}
	return fmt.Sprintf("weft.%d", hotrestart.MaxVersion)
}
