package listener

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/proxy/netio"
	"weft.mesh/weft/proxy/stream"
)

// conn is one accepted connection while it lives.
type conn struct {
	nc      atomic.Pointer[netio.Conn] // nil while it sleeps
	info    stream.ConnInfo            // written by its goroutine until ready
	id      uint64
	started time.Time
	ctx     stream.ConnContext
	chain   atomic.Pointer[chain] // nil while it is being inspected
	ready   atomic.Bool           // info is complete

	m   *Manager
	own *atomic.Int64 // connections of the listener that accepted it
	to  *atomic.Int64 // of the one that serves it, if it is another; written by its goroutine

	bed     atomic.Int32      // where it sleeps; 0: it does not
	again   func(*netio.Conn) // goes on when it wakes; of who has the connection
	in, out atomic.Uint64     // bytes before it slept last
}

// end is the last thing that happens to a connection.
func (c *conn) end() {
	c.cut()
	c.m.conns.remove(c)
	if c.to != nil {
		c.to.Add(-1)
	}
	c.own.Add(-1)
	c.m.total.Add(-1)
	c.m.work.Done()
}

// cut ends the connection now.
func (c *conn) cut() {
	c.ctx.Cancel() // first: who goes to sleep or wakes looks at it afterwards
	if nc := c.nc.Load(); nc != nil {
		_ = nc.Close()
	}
	c.drop()
}

// connections is the set of open connections.
type connections struct {
	mu sync.Mutex
	// mu protects the following.
	m    map[*conn]struct{}
	idle chan struct{} // made by a waiter, closed when m is empty
}

func (s *connections) add(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[*conn]struct{}{}
	}
	s.m[c] = struct{}{}
}

func (s *connections) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, c)
	if len(s.m) == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// cut ends the connections that which chooses and returns their number.
func (s *connections) cut(which func(*conn) bool) int {
	s.mu.Lock()
	var list []*conn
	for c := range s.m {
		if which(c) {
			list = append(list, c)
		}
	}
	s.mu.Unlock()
	for _, c := range list {
		c.cut()
	}
	return len(list)
}

// wait returns when there is no connection, or with ctx's error.
func (s *connections) wait(ctx context.Context) error {
	for {
		s.mu.Lock()
		if len(s.m) == 0 {
			s.mu.Unlock()
			return nil
		}
		if s.idle == nil {
			s.idle = make(chan struct{})
		}
		idle := s.idle
		s.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Connection describes an open connection, for the admin interface.
type Connection struct {
	Info    stream.ConnInfo // Met is left out
	Chain   string          // filter chain, "" while it is being inspected
	Started time.Time
	In, Out uint64 // bytes read and written so far, without what was spliced
}

// Connections lists open connections by ID.
func (m *Manager) Connections() []Connection {
	m.conns.mu.Lock()
	defer m.conns.mu.Unlock()
	out := make([]Connection, 0, len(m.conns.m))
	for c := range m.conns.m {
		e := Connection{Started: c.started, In: c.in.Load(), Out: c.out.Load()}
		if nc := c.nc.Load(); nc != nil {
			e.In, e.Out = e.In+nc.BytesRead(), e.Out+nc.BytesWritten()
		}
		e.Info.ID = c.id
		if c.ready.Load() {
			e.Chain = c.chain.Load().cfg.Name
			i := &c.info
			e.Info = stream.ConnInfo{
				ID: i.ID, Direction: i.Direction, Listener: i.Listener, Local: i.Local, Remote: i.Remote,
				SNI: i.SNI, ALPN: i.ALPN, TLS: i.TLS, PeerID: i.PeerID, LocalID: i.LocalID,
			}
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Connection) int { return cmp.Compare(a.Info.ID, b.Info.ID) })
	return out
}

// Stats are the listeners' counters since the start.
type Stats struct {
	Total        atomic.Uint64 // accepted connections
	Overflow     atomic.Uint64 // closed at once because of a bound
	NoChain      atomic.Uint64 // no filter chain matched
	SniffFailed  atomic.Uint64 // malformed or no answer in time
	TLSFailed    atomic.Uint64 // handshake failures
	Refused      atomic.Uint64 // by a network filter
	AcceptFailed atomic.Uint64
	Direct       atomic.Uint64 // to a capturing listener without redirection
	Inbound      atomic.Uint64 // from others to the workload, that were not refused
	TCP          atomic.Uint64 // of filter chains that are not HTTP, that were not refused
}

// Stats returns the counters. They go on counting.
func (m *Manager) Stats() *Stats { return &m.stats }

// Active is the number of open connections.
func (m *Manager) Active() int { return int(m.total.Load()) }
