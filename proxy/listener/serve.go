package listener

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"weft.mesh/weft/internal/backoff"
	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// acceptLoop takes connections off one of a socket's listeners until it is closed.
func (m *Manager) acceptLoop(ctx context.Context, s *socket, ln net.Listener) {
	// Out of descriptors and the like: wait and try again, the socket is fine.
	retry := backoff.New(backoff.Policy{Base: 5 * time.Millisecond, Max: time.Second, Jitter: 0.5}, nil)
	for {
		nc, err := ln.Accept()
		if err != nil {
			if s.closed.Load() || errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			m.stats.AcceptFailed.Add(1)
			m.set.Log.Warn("accept failed", "address", s.addr.String(), "cause", err)
			if retry.Wait(ctx) != nil {
				return
			}
			continue
		}
		retry.Reset()
		m.accept(ctx, nc, s.cur.Load())
	}
}

// accept counts a connection against the bounds and starts serving it.
func (m *Manager) accept(ctx context.Context, nc net.Conn, l *compiled) {
	m.stats.Total.Add(1)
	total, own := m.total.Add(1), l.count.Add(1)
	if m.set.Refuse != nil && m.set.Refuse() || (m.set.MaxConnections > 0 && total > int64(m.set.MaxConnections)) ||
		(l.cfg.MaxConnections > 0 && own > int64(l.cfg.MaxConnections)) {
		m.stats.Overflow.Add(1)
		m.total.Add(-1)
		l.count.Add(-1)
		_ = nc.Close()
		return
	}
	if t, ok := nc.(*net.TCPConn); ok {
		m.keepAlive(t)
	}
	c := &conn{id: m.ids.Add(1), started: time.Now(), m: m, own: l.count}
	c.nc.Store(netio.New(nc))
	c.ctx.Init(ctx)
	m.conns.add(c)
	if ctx.Err() != nil { // Run has cut the others already, or does
		c.cut()
	}
	m.work.Add(1)
	go func() {
		if !m.serve(&c.ctx, nc, c, l) {
			c.end()
		}
	}()
}

// keepAlive sets how dead peers are found. TCP_NODELAY is Go's default.
func (m *Manager) keepAlive(t *net.TCPConn) {
	if m.set.Keepalive != (net.KeepAliveConfig{}) {
		_ = t.SetKeepAliveConfig(m.set.Keepalive)
	}
}

// serve takes one connection through its listener. It returns true if somebody else ends the connection.
func (m *Manager) serve(ctx context.Context, nc net.Conn, c *conn, l *compiled) bool {
	info := &c.info
	info.ID, info.Listener, info.Direction = c.id, l.cfg.Name, l.cfg.Direction
	info.Local, info.Remote = addrPort(nc.LocalAddr()), addrPort(nc.RemoteAddr())
	if l.cfg.UseOriginalDst || l.cfg.OriginalDst {
		if !m.redirected(nc, info) {
			return false
		}
		if l.cfg.UseOriginalDst {
			to := m.target(l, info)
			if to != l {
				c.to = to.count
				if n := to.count.Add(1); to.cfg.MaxConnections > 0 && n > int64(to.cfg.MaxConnections) {
					m.stats.Overflow.Add(1)
					return false
				}
			}
			l = to
		}
	}
	f := &facts{local: info.Local, remote: info.Remote}
	if err := m.sniff(c.nc.Load(), &l.cfg.Inspect, l.cfg.Direction, f, info); err != nil {
		if f.transport != "" && (errors.Is(err, errHello) || errors.Is(err, errProxy) || errors.Is(err, errSniffTimeout)) {
			m.stats.SniffFailed.Add(1)
		}
		return false
	}
	fc := l.match.find(f)
	if fc == nil {
		fc = l.cfg.Default
	}
	if fc == nil {
		m.refuseNoChain(c, l, info)
		return false
	}
	ch := l.chains[fc]
	c.chain.Store(ch)
	return m.serveChain(ctx, c, ch, info)
}

// redirected finds the original destination. It returns false for a connection to
// the listener itself, which must not be served.
func (m *Manager) redirected(nc net.Conn, info *stream.ConnInfo) bool {
	dst, ok := m.set.OriginalDst(nc)
	if ok && dst != info.Local {
		info.Local = dst
		return true
	}
	if m.set.AllowDirect {
		return true
	}
	m.stats.Direct.Add(1)
	return false
}

// target is the listener for the original destination: exact, then any address with that port, then l itself.
func (m *Manager) target(l *compiled, info *stream.ConnInfo) *compiled {
	t := m.cur.Load()
	to := t.exact[info.Local]
	if to == nil || to.cfg.BindToPort {
		to = t.ports[info.Local.Port()]
	}
	if to == nil || to == l {
		return l
	}
	info.Listener, info.Direction = to.cfg.Name, to.cfg.Direction
	return to
}

// refuseNoChain logs and closes.
func (m *Manager) refuseNoChain(c *conn, l *compiled, info *stream.ConnInfo) {
	m.stats.NoChain.Add(1)
	rec := noChain(info)
	rec.Start, rec.Duration = c.started, time.Since(c.started)
	logAll(l.cfg.AccessLogs, rec)
}

// serveChain terminates TLS, asks the network filters and hands over; see serve.
func (m *Manager) serveChain(ctx context.Context, c *conn, ch *chain, info *stream.ConnInfo) bool {
	fc, nc := ch.cfg, c.nc.Load()
	if fc.TLS != nil {
		if err := m.set.TLS.Handshake(ctx, nc, fc.TLS, fc.HandshakeTimeout, info); err != nil {
			m.stats.TLSFailed.Add(1)
			m.set.Log.Debug("tls handshake failed", "listener", info.Listener, "remote", info.Remote.String(), "cause", err)
			return false
		}
	}
	c.ready.Store(true)
	for _, f := range fc.Network {
		if ok, details := f.Connection(info); !ok {
			m.refuseFilter(c, fc, info, details)
			return false
		}
	}
	c.ctx.SetDrain(ch.draining())
	if info.Direction == stream.Inbound {
		m.stats.Inbound.Add(1)
	}
	if fc.HTTP != nil {
		m.set.HTTP.ServeHTTP(ctx, fc.HTTP, nc, info, c)
		return true
	}
	m.stats.TCP.Add(1)
	m.set.TCP.ServeTCP(ctx, fc.TCP, nc, info)
	return false
}

// refuseFilter records a connection that a network filter turned away, and closes
// it. It has no response flag, as with Envoy's RBAC filter: the details tell.
func (m *Manager) refuseFilter(c *conn, fc *config.FilterChain, info *stream.ConnInfo, details string) {
	m.stats.Refused.Add(1)
	rec := &stream.Info{
		Conn: info, Start: c.started, Duration: time.Since(c.started), Termination: details, GRPCCode: -1, ServiceTime: -1,
	}
	if fc.HTTP != nil {
		logAll(fc.HTTP.AccessLogs, rec)
		return
	}
	rec.Cluster = fc.TCP.Cluster
	for _, stage := range []stream.Report{stream.ReportOpen, stream.ReportEnd} {
		rec.Report = stage
		for _, end := range fc.TCP.Ends {
			end(rec)
		}
	}
	logAll(fc.TCP.AccessLogs, rec)
}

func logAll(logs []*config.AccessLog, rec *stream.Info) {
	for _, l := range logs {
		l.Log(rec)
	}
}

// Addresses returns the bound addresses by listener name, for tests and the admin interface.
func (m *Manager) Addresses() map[string]netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]netip.AddrPort{}
	for _, s := range m.sockets {
		if l := s.cur.Load(); l != nil {
			out[l.cfg.Name] = addrPort(s.listeners()[0].Addr())
		}
	}
	return out
}
