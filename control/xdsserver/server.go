// Package xdsserver speaks the xDS transport protocol: incremental (delta) and
// state-of-the-world ADS. It knows resources as name, version and bytes only;
// what they mean is translate's, what a node may ask for is the Snapshot's.
//
// One goroutine owns a stream and its [session]; a second one only receives.
// Pushes are coalesced for each stream: whatever happened while a client was
// busy becomes one round. Every queue holds one element.
package xdsserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// Limits bound what one client can cost.
type Limits struct {
	MaxStreams     int           // connected clients, default 10,000
	MaxPerIdentity int           // of them with one SPIFFE ID, default 1,000
	Introduction   time.Duration // a stream must say its node within, default 10 s
	MaxNames       int           // subscribed names of one type on one stream, default 50,000
	MaxOutstanding int           // unacknowledged responses of one type, default 64
	AckTimeout     time.Duration // a round goes on without the acknowledgement, default 10 s
	EndpointGrace  time.Duration // after new clusters: time for the client to ask for endpoints, default 100 ms
}

func (l Limits) withDefaults() Limits {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&l.MaxStreams, 10_000)
	def(&l.MaxPerIdentity, 1000)
	def(&l.MaxNames, 50_000)
	def(&l.MaxOutstanding, 64)
	if l.Introduction == 0 {
		l.Introduction = 10 * time.Second
	}
	if l.AckTimeout == 0 {
		l.AckTimeout = 10 * time.Second
	}
	if l.EndpointGrace == 0 {
		l.EndpointGrace = 100 * time.Millisecond
	}
	return l
}

// Observer hears of everything that happens on streams. Calls must not block.
type Observer interface {
	Connected(stream uint64, n *xds.Node, id spiffe.ID)
	Disconnected(stream uint64)
	Subscribed(stream uint64, typeURL string, held int)
	Sent(stream uint64, typeURL, version string, resources int, bytes int)
	Acked(stream uint64, typeURL, version string)
	Nacked(stream uint64, typeURL, version, reason string)
	// Settled tells that the client has answered everything up to a snapshot.
	Settled(stream uint64, snapshot string)
}

// Settings of a server.
type Settings struct {
	Limits Limits
	// Authenticate returns the identity that the stream's peer proved. An
	// error refuses the stream.
	Authenticate func(ctx context.Context) (spiffe.ID, error)
	// Authorize checks the identity against the node that the client says it is.
	Authorize func(id spiffe.ID, n *xds.Node) error
	Observer  Observer
	Log       *slog.Logger
}

// Server serves AggregatedDiscoveryService.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	set     Settings
	hub     *hub
	snap    atomic.Pointer[holder]
	ids     atomic.Uint64
	build   chan struct{} // bounds how many streams compute at once
	mu      sync.Mutex    // protects the following
	streams map[uint64]chan struct{}
	peers   map[spiffe.ID]int // streams by identity
}

type holder struct{ s xds.Snapshot }

// New makes a server that has nothing to serve before the first Publish:
// streams wait for it.
func New(set Settings) *Server {
	set.Limits = set.Limits.withDefaults()
	return &Server{set: set, hub: newHub(), streams: map[uint64]chan struct{}{}, peers: map[spiffe.ID]int{}, build: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))}
}

// Register adds the service to a gRPC server.
func (s *Server) Register(g *grpc.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// Publish makes snap the one that streams are brought to.
func (s *Server) Publish(snap xds.Snapshot) {
	s.snap.Store(&holder{snap})
	s.hub.shares.clear()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, wake := range s.streams {
		select {
		case wake <- struct{}{}:
		default: // already awake
		}
	}
}

// Streams is the number of connected clients.
func (s *Server) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

func (s *Server) open(peer spiffe.ID) (uint64, chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) >= s.set.Limits.MaxStreams {
		return 0, nil, status.Errorf(codes.ResourceExhausted, "xds: %d streams are open, the limit", len(s.streams))
	}
	if n := s.peers[peer]; !peer.IsZero() && n >= s.set.Limits.MaxPerIdentity {
		return 0, nil, status.Errorf(codes.ResourceExhausted, "xds: %d streams of %s are open, the limit", n, peer)
	}
	s.peers[peer]++
	id := s.ids.Add(1)
	wake := make(chan struct{}, 1)
	s.streams[id] = wake
	return id, wake, nil
}

func (s *Server) close(id uint64, peer spiffe.ID) {
	s.mu.Lock()
	delete(s.streams, id)
	if s.peers[peer]--; s.peers[peer] <= 0 {
		delete(s.peers, peer)
	}
	s.mu.Unlock()
	s.set.Observer.Disconnected(id)
}

// protocol is what differs between delta and state of the world.
type protocol[Req any] interface {
	recv() (Req, error)
	// handle puts a request into the session and returns responses to send at once.
	handle(st *stream, r Req, now time.Time) ([]*message, error)
	send(m *message) (bytes int, err error)
	node(r Req) (*xds.Node, error)
}

// stream is one connected client.
type stream struct {
	id   uint64
	srv  *Server
	sess *session
}

// serve runs a stream until the client or the server ends it.
func serve[Req any](ctx context.Context, s *Server, p protocol[Req], delta bool) error {
	peer, err := s.set.Authenticate(ctx)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	id, wake, err := s.open(peer)
	if err != nil {
		return err
	}
	defer s.close(id, peer)
	st := &stream{id: id, srv: s, sess: newSession(delta, s.set.Limits, s.hub)}

	reqs, recvErr := receive(ctx, p)
	var timer *time.Timer
	introduce := time.NewTimer(s.set.Limits.Introduction)
	defer introduce.Stop()
	for {
		tick, stop := st.timer(&timer)
		select {
		case <-ctx.Done():
			stop()
			return ctx.Err()
		case err := <-recvErr:
			stop()
			if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
				return nil
			}
			return err
		case r := <-reqs:
			stop()
			if st.sess.node == nil {
				if err := st.introduce(peer, func() (*xds.Node, error) { return p.node(r) }); err != nil {
					return err
				}
			}
			if err := st.step(func() ([]*message, error) { return p.handle(st, r, time.Now()) }, p.send); err != nil {
				return err
			}
		case <-introduce.C:
			stop()
			if st.sess.node == nil {
				return status.Errorf(codes.DeadlineExceeded, "xds: no request within %s", s.set.Limits.Introduction)
			}
		case <-wake:
			stop()
		case <-tick:
		}
		if h := s.snap.Load(); h != nil {
			st.sess.publish(h.s)
		}
		if st.sess.node == nil {
			continue
		}
		if err := st.step(func() ([]*message, error) { return st.sess.advance(time.Now()) }, p.send); err != nil {
			return err
		}
		if v, ok := st.sess.settled(); ok {
			s.set.Observer.Settled(st.id, v)
		}
	}
}

// receive reads requests on a goroutine that ends with the stream's context:
// gRPC makes recv fail when serve has returned.
func receive[Req any](ctx context.Context, p protocol[Req]) (<-chan Req, <-chan error) {
	reqs, errs := make(chan Req), make(chan error, 1)
	go func() {
		for {
			r, err := p.recv()
			if err != nil {
				errs <- err
				return
			}
			select {
			case reqs <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	return reqs, errs
}

// timer arms the session's next deadline.
func (st *stream) timer(t **time.Timer) (<-chan time.Time, func()) {
	d := st.sess.deadline()
	if d.IsZero() {
		return nil, func() {}
	}
	if *t == nil {
		*t = time.NewTimer(time.Until(d))
	} else {
		(*t).Reset(time.Until(d))
	}
	return (*t).C, func() { (*t).Stop() }
}

// introduce takes the node of the first request and checks who says it.
func (st *stream) introduce(peer spiffe.ID, node func() (*xds.Node, error)) error {
	n, err := node()
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := st.srv.set.Authorize(peer, n); err != nil {
		return status.Errorf(codes.PermissionDenied, "node %q: %v", n.ID, err)
	}
	n.Verified = !peer.IsZero()
	st.sess.node = n
	st.srv.set.Observer.Connected(st.id, n, peer)
	return nil
}

// step computes messages under the server's bound on concurrent work, and sends them.
func (st *stream) step(compute func() ([]*message, error), send func(*message) (int, error)) error {
	st.srv.build <- struct{}{}
	ms, err := compute()
	<-st.srv.build
	if err != nil {
		st.srv.set.Log.Error("xds: resources for a node", "node", st.sess.node.ID, "error", err)
		if _, isStatus := status.FromError(err); isStatus {
			return err
		}
		return status.Errorf(codes.Internal, "resources for node %q: %v", st.sess.node.ID, err)
	}
	for _, m := range ms {
		n, err := send(m)
		if err != nil {
			return fmt.Errorf("xds: send %s to %s: %w", xds.ShortName(m.typeURL), st.sess.node.ID, err)
		}
		st.srv.set.Observer.Sent(st.id, m.typeURL, m.version, m.total, n)
	}
	return nil
}

// settle handles the nonce of a request: an acknowledgement or a refusal.
func (st *stream) settle(w *watch, nonce, refusal string, refused bool, now time.Time) {
	version, ok := st.sess.acknowledge(w, nonce, now, refused)
	if !ok {
		return
	}
	if refused {
		st.srv.set.Observer.Nacked(st.id, w.typeURL, version, refusal)
		st.srv.set.Log.Warn("xds: proxy refused config", "node", st.sess.node.ID, "type", xds.ShortName(w.typeURL), "version", version, "reason", refusal)
	} else {
		st.srv.set.Observer.Acked(st.id, w.typeURL, version)
	}
}
