// Package grpcstream serves one method of gRPC, of streams both ways that live for days and say little, on an HTTP/2
// of its own (RFC 9113), and gives every other call to a gRPC server.
//
// It is for thousands of clients that are told the same at the same moment. Connections have no goroutines: what they say is read and
// handled by one for all of them, see poller, and sending is done by whoever has something to tell: it wakes nobody and
// never waits. What a client does not take waits as references to messages, which others have too. Memory that is only
// needed while something is under way is not a connection's own.
//
// The connection is the gRPC server's if its first call is another one, with all that was read of it. Another call on a connection
// of ours gets GOAWAY: clients make it again on a new connection, and streams that there are go on.
package grpcstream

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// Settings of a server. Only Method, Accept and Others must be set.
type Settings struct {
	Method string // the path of the one method
	// Accept takes a new stream, on a goroutine of its own: it may wait, and what the client sends waits in the kernel
	// meanwhile, but for a few kilobytes. The context ends with the stream, and has the peer as gRPC has it. An error ends the stream.
	Accept func(ctx context.Context, s *Stream) (Receiver, error)
	Others *Others     // takes connections with other calls
	TLS    *tls.Config // nil: plaintext
	// MaxMessage bounds a message that is received, also unpacked; default 16 MB.
	MaxMessage int
	// MaxStreams bounds streams of one connection, default 100.
	MaxStreams int
	// KeepAlive is after how long a silent client is asked whether it is there, default 30 s; Answer how long it has to say so, default 10 s.
	KeepAlive, Answer time.Duration
	// MaxAge ends connections, give or take a tenth, 0: never; streams on them have AgeGrace to end by themselves, default 10 s.
	MaxAge, AgeGrace time.Duration
	// Youth is how long after its newest stream was opened a connection has goroutines of its own, default 10 s.
	Youth time.Duration
	Log   *slog.Logger // default: discard
}

// Receiver has what a client says. Calls for one stream never overlap, but for Closed.
type Receiver interface {
	// Message is told each message, valid during the call. An error ends the stream. It may wait in the first call, and while the
	// connection is young; later others wait with it.
	Message(b []byte) error
	// Drained is told that the client has taken what kept [Stream.Full] from being false.
	Drained()
	// Closed is told once that the stream has ended.
	Closed()
}

// Times that nobody needs to set.
const (
	handshakeTime = 20 * time.Second // until the first call
	stallTime     = 20 * time.Second // while a client takes nothing of what the kernel should send
	lookEvery     = time.Second      // at connections; more often if KeepAlive or MaxAge are shorter
)

func (s Settings) withDefaults() Settings {
	if s.MaxMessage == 0 {
		s.MaxMessage = 16 << 20
	}
	if s.MaxStreams == 0 {
		s.MaxStreams = 100
	}
	if s.KeepAlive == 0 {
		s.KeepAlive = 30 * time.Second
	}
	if s.Answer == 0 {
		s.Answer = 10 * time.Second
	}
	if s.Youth == 0 {
		s.Youth = 10 * time.Second
	}
	if s.AgeGrace == 0 {
		s.AgeGrace = 10 * time.Second
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	return s
}

// Server serves connections.
type Server struct {
	set    Settings
	ctx    context.Context // of Serve
	wg     sync.WaitGroup  // everything that runs for connections
	poller *poller         // of Serve
	mu     sync.Mutex      // protects conns
	conns  map[*conn]struct{}
}

// New makes a server.
func New(set Settings) *Server {
	return &Server{set: set.withDefaults(), conns: map[*conn]struct{}{}}
}

// Serve serves until ctx ends, or the listener fails. It returns when everything of it has ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	p, err := newPoller(s.wg.Go)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	s.ctx, s.poller = ctx, p
	failed := make(chan error, 1)
	s.wg.Go(func() {
		if err := p.run(); err != nil {
			failed <- err
			cancel()
		}
	})
	s.wg.Go(func() {
		<-ctx.Done()
		l.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.abort()
		}
		p.stop()
	})
	s.wg.Go(s.keep)
	for {
		nc, err := l.Accept()
		var again interface{ Temporary() bool }
		switch {
		case err == nil:
		case ctx.Err() != nil:
			select {
			case err := <-failed:
				return err
			default:
				return nil
			}
		case errors.As(err, &again) && again.Temporary(): // out of file descriptors
			s.set.Log.Warn("accept", "address", l.Addr().String(), "error", err)
			time.Sleep(10 * time.Millisecond)
			continue
		default:
			return err
		}
		s.wg.Go(func() { s.serve(nc) })
	}
}

// add takes a connection; false if the server has ended.
func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// serve serves one connection from its first byte.
func (s *Server) serve(nc net.Conn) {
	nc.SetDeadline(time.Now().Add(handshakeTime))
	c := newConn(s, newSock(nc))
	if !s.add(c) {
		nc.Close()
		return
	}
	info, err := s.handshake(c)
	if err != nil {
		c.close()
		return
	}
	first, err := c.begin()
	nc.SetDeadline(time.Time{})
	if err != nil || first == s.set.Method {
		c.run(info, err)
		return
	}
	if !s.set.Others.give(&handed{Conn: c.nc, before: c.taken(), info: info}) {
		c.abort()
	}
	s.remove(c)
}

// handshake is TLS'.
func (s *Server) handshake(c *conn) (credentials.AuthInfo, error) {
	if s.set.TLS == nil {
		return nil, nil
	}
	t := tls.Server(c.sock, s.set.TLS)
	c.nc = t
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTime)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	state := t.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		return nil, errors.New("the client does not offer h2")
	}
	return credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

// age is when a connection is told to end; zero: never.
func (s *Server) age() time.Time {
	if s.set.MaxAge <= 0 {
		return time.Time{}
	}
	spread := int64(s.set.MaxAge / 10)
	return time.Now().Add(s.set.MaxAge + time.Duration(rand.Int64N(2*spread+1)-spread))
}

// keep asks silent clients whether they are there, and ends connections that are too old.
func (s *Server) keep() {
	every := min(lookEvery, s.set.KeepAlive)
	if s.set.MaxAge > 0 {
		every = min(every, s.set.MaxAge)
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-t.C:
			s.mu.Lock()
			all := make([]*conn, 0, len(s.conns))
			for c := range s.conns {
				all = append(all, c)
			}
			s.mu.Unlock()
			for _, c := range all {
				c.look(now)
			}
		}
	}
}
