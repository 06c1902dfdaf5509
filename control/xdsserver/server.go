// Package xdsserver speaks the xDS transport protocol: incremental (delta) and
// state-of-the-world ADS. It knows resources as name, version and bytes only;
// what they mean is translate's, what a node may ask for is the Snapshot's.
//
// Two goroutines take turns with a stream and its [session]: one handles what the client
// says, the other what there is to tell it.
// Pushes are coalesced for each stream: whatever happened while a client was
// busy becomes one round. Every queue holds one element.
package xdsserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	MaxEntering    int           // new streams that are brought up to date at once, others wait; default 64
	EntryTime      time.Duration // a new stream counts as such for at most, default 3 s
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
	def(&l.MaxEntering, 64)
	if l.EntryTime == 0 {
		l.EntryTime = 3 * time.Second
	}
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

// Observer hears of streams. Calls must not block.
type Observer interface {
	// Connected returns who hears of everything else that happens on the stream.
	Connected(stream uint64, n *xds.Node, id spiffe.ID) Witness
	// Disconnected is the end of a stream, whether it was said to be connected or not.
	Disconnected(stream uint64)
}

// Witness hears of everything that happens on one stream, one call after the other. Calls must not block.
type Witness interface {
	Subscribed(typeURL string, held int)
	Sent(typeURL, version string, resources int, bytes int)
	Acked(typeURL, version string)
	Nacked(typeURL, version, reason string)
	// Settled tells that the client has answered everything up to a snapshot.
	Settled(snapshot string)
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
	Meter     Meter // nil: nobody wants to know
	Log       *slog.Logger
}

// Server serves AggregatedDiscoveryService.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	set      Settings
	hub      *hub
	snap     atomic.Pointer[holder]
	ids      atomic.Uint64
	entering chan struct{} // new streams that are brought up to date
	first    sync.Once
	serving  chan struct{} // closed with the first Publish
	mu       sync.Mutex    // protects the following
	streams  map[uint64]waker
	peers    map[spiffe.ID]int // streams by identity
	pushes   pushes
	overdue  overdue
}

// New makes a server that has nothing to serve before the first Publish:
// streams wait for it.
func New(set Settings) *Server {
	set.Limits = set.Limits.withDefaults()
	if set.Meter == nil {
		set.Meter = unmetered{}
	}
	return &Server{set: set, hub: newHub(), serving: make(chan struct{}), entering: make(chan struct{}, set.Limits.MaxEntering), streams: map[uint64]waker{}, peers: map[spiffe.ID]int{}}
}

// Register adds the service to a gRPC server.
func (s *Server) Register(g *grpc.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// Publish makes snap the one that streams are brought to. Calls come one after the other.
func (s *Server) Publish(snap xds.Snapshot) {
	s.snap.Store(s.snap.Load().after(snap, time.Now()))
	s.first.Do(func() { close(s.serving) })
	s.hub.shares.clear()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.streams {
		w.wake()
	}
}

// Streams is the number of connected clients.
func (s *Server) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// Entering is the number of new clients that are brought up to date now, as many as [Limits] allow at once.
func (s *Server) Entering() int { return len(s.entering) }

// open lets a stream in, if there is room for one more of a peer. It is not woken before it is awake.
func (s *Server) open(peer spiffe.ID) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) >= s.set.Limits.MaxStreams {
		return 0, status.Errorf(codes.ResourceExhausted, "xds: %d streams are open, the limit", len(s.streams))
	}
	if n := s.peers[peer]; !peer.IsZero() && n >= s.set.Limits.MaxPerIdentity {
		return 0, status.Errorf(codes.ResourceExhausted, "xds: %d streams of %s are open, the limit", n, peer)
	}
	s.peers[peer]++
	id := s.ids.Add(1)
	s.streams[id] = asleep{}
	return id, nil
}

// awake has a stream woken from now on.
func (s *Server) awake(id uint64, w waker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[id] = w
}

// waker wakes a stream, without waiting.
type waker interface {
	wake()
	// look does so if the stream waits for its client for too long, and tells whether it waits.
	look(now time.Time) bool
}

// asleep is a stream that is not awake yet.
type asleep struct{}

func (asleep) wake()               {}
func (asleep) look(time.Time) bool { return false }

// alarm wakes the goroutine that serves a stream.
type alarm struct {
	*stream
	c chan struct{}
}

func (a *alarm) wake() {
	select {
	case a.c <- struct{}{}:
	default: // already awake
	}
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

// stream is one connected client. Its requests are handled by the goroutine that receives them, snapshots
// and deadlines by the one that serves: whoever has mu goes on with the session and sends.
type stream struct {
	id   uint64
	srv  *Server
	wake waker
	// entered lets the next new stream begin.
	entered func()

	mu      sync.Mutex // protects the following, and sending
	sess    *session
	witness Witness // nil until the client has said who it is
	far     progress
	has     string // the snapshot that was told to be settled last
	settled bool   // it has entered
	closed  bool
	timer   *time.Timer  // wakes at armed; nil before the first deadline
	due     atomic.Int64 // unix nanoseconds: when overdue is to wake it; 0: it need not
	armed   time.Time
}

// serve runs a stream until the client or the server ends it.
func serve[Req any](ctx context.Context, s *Server, p protocol[Req], delta bool) error {
	peer, err := s.set.Authenticate(ctx)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	id, err := s.open(peer)
	if err != nil {
		return err
	}
	defer s.close(id, peer)
	awake := &alarm{&stream{id: id, srv: s, sess: newSession(delta, s.set.Limits, s.hub)}, make(chan struct{}, 1)}
	st := awake.stream
	st.wake = awake
	s.awake(id, awake)
	entered, err := s.admit(ctx)
	if err != nil {
		return err
	}
	defer entered()
	st.entered = entered
	defer st.end()
	failed := make(chan error, 1)
	introduce := time.AfterFunc(s.set.Limits.Introduction, func() {
		if err := st.introduced(); err != nil {
			select {
			case failed <- err:
			default: // it is ending for another reason
			}
		}
	})
	defer introduce.Stop()
	go receive(st, p, peer, failed)
	for {
		select {
		case err := <-failed:
			if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
				return nil
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-awake.c:
		}
		if err := st.proceed(p.send, nil); err != nil {
			return err
		}
	}
}

// admit waits for the turn of a new stream. What clients say they have, and what they get first, is most of what
// they ever cost: a thousand that come back at once must not have that at the same time. A turn ends
// when the client has everything, or has had its time. entered may be called more than once.
func (s *Server) admit(ctx context.Context) (entered func(), err error) {
	select {
	case <-s.serving: // before, it could only wait
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case s.entering <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	leave := sync.OnceFunc(func() { <-s.entering })
	late := time.AfterFunc(s.set.Limits.EntryTime, leave)
	return func() {
		late.Stop()
		leave()
	}, nil
}

// receive handles requests on a goroutine that ends with the stream's context:
// gRPC makes recv fail when serve has returned.
func receive[Req any](st *stream, p protocol[Req], peer spiffe.ID, failed chan<- error) {
	fail := func(err error) {
		select {
		case failed <- err:
		default: // it is ending for another reason
		}
	}
	for first := true; ; first = false {
		r, err := p.recv()
		if err != nil {
			fail(err)
			return
		}
		var n *xds.Node
		if first {
			if n, err = st.srv.identify(peer, func() (*xds.Node, error) { return p.node(r) }); err != nil {
				fail(err)
				return
			}
		}
		err = st.proceed(p.send, func(now time.Time) ([]*message, error) {
			st.introduce(n, peer)
			return p.handle(st, r, now)
		})
		if err != nil {
			fail(err)
			return
		}
	}
}

// proceed does something to the session, if do is not nil, goes on with its round, and sends what comes of both.
func (st *stream) proceed(send func(*message) (int, error), do func(now time.Time) ([]*message, error)) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed {
		return io.EOF
	}
	now := time.Now()
	h := st.srv.snap.Load()
	if h != nil {
		st.sess.publish(h.s)
		st.far.turn(h, now, st.srv.set.Meter)
	}
	if do != nil {
		if err := st.send(send, &now, do); err != nil {
			return err
		}
	}
	if st.sess.node == nil {
		return nil
	}
	if err := st.send(send, &now, st.sess.advance); err != nil {
		return err
	}
	if v, ok := st.sess.settled(); ok && v != st.has {
		st.has = v
		st.witness.Settled(v)
		st.far.settled(h, now, st.srv.set.Meter)
		if !st.settled {
			st.settled = true
			st.entered()
		}
	}
	st.arm(now)
	return nil
}

// introduced is an error if the client has not said who it is.
func (st *stream) introduced() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.sess.node != nil {
		return nil
	}
	return status.Errorf(codes.DeadlineExceeded, "xds: no request within %s", st.srv.set.Limits.Introduction)
}

// end waits for the receiver to let go of the session, and keeps it from sending.
func (st *stream) end() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.closed = true
	if st.timer != nil {
		st.timer.Stop()
	}
}

// arm has the stream woken at the session's next deadline: soon after it, if that is far.
func (st *stream) arm(now time.Time) {
	d := st.sess.deadline()
	if d.IsZero() || d.Sub(now) > st.srv.set.Limits.EndpointGrace {
		due := int64(0)
		if !d.IsZero() {
			due = d.UnixNano()
			st.srv.overdue.begin(st.srv)
		}
		st.due.Store(due)
		return // an armed timer wakes once for nothing
	}
	if st.timer == nil {
		st.timer = time.AfterFunc(d.Sub(now), st.wake.wake)
	} else if !d.Equal(st.armed) {
		st.timer.Reset(d.Sub(now))
	}
	st.armed = d
}

// overdue looks for streams whose client has not answered in time, as long as there are some that wait: a timer for each of them would
// be set a thousand times for each change, and next to never fire.
type overdue struct{ on atomic.Bool }

// begin has it look, soon after the first of those that wait now are late.
func (o *overdue) begin(s *Server) {
	if !o.on.Load() && o.on.CompareAndSwap(false, true) {
		time.AfterFunc(s.set.Limits.AckTimeout/8, func() { o.look(s, time.Now()) })
	}
}

func (o *overdue) look(s *Server, now time.Time) {
	o.on.Store(false) // before: who begins to wait from here on is looked at again
	waits := false
	s.mu.Lock()
	for _, w := range s.streams {
		waits = w.look(now) || waits
	}
	s.mu.Unlock()
	if waits {
		o.begin(s)
	}
}

// look wakes the stream if it is late, and tells whether it waits.
func (st *stream) look(now time.Time) bool {
	due := st.due.Load()
	if due != 0 && due <= now.UnixNano() {
		st.wake.wake()
	}
	return due != 0
}

// identify takes the node of the first request and checks who says it. That may wait for others, so nothing is locked.
func (s *Server) identify(peer spiffe.ID, node func() (*xds.Node, error)) (*xds.Node, error) {
	n, err := node()
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := s.set.Authorize(peer, n); err != nil {
		return nil, status.Errorf(codes.PermissionDenied, "node %q: %v", n.ID, err)
	}
	n.Verified = !peer.IsZero()
	return n, nil
}

// introduce lets the session know whose it is; nil: it knows.
func (st *stream) introduce(n *xds.Node, peer spiffe.ID) {
	if n != nil {
		st.sess.node = n
		st.witness = st.srv.set.Observer.Connected(st.id, n, peer)
	}
}

// send computes messages, from now on, and sends them; now is then when the last was sent.
func (st *stream) send(send func(*message) (int, error), now *time.Time, compute func(now time.Time) ([]*message, error)) error {
	ms, err := compute(*now)
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
		st.witness.Sent(m.typeURL, m.version, m.total, n)
		sent := time.Now()
		st.srv.set.Meter.Pushed(m.typeURL, sent.Sub(*now), n)
		st.far.told, *now = true, sent
	}
	clear(ms)
	return nil
}

// settle handles the nonce of a request: an acknowledgement or a refusal.
func (st *stream) settle(w *watch, nonce, refusal string, refused bool, now time.Time) {
	version, ok := st.sess.acknowledge(w, nonce, now, refused)
	if !ok {
		return
	}
	if refused {
		st.witness.Nacked(w.typeURL, version, refusal)
		st.srv.set.Log.Warn("xds: proxy refused config", "node", st.sess.node.ID, "type", xds.ShortName(w.typeURL), "version", version, "reason", refusal)
	} else {
		st.witness.Acked(w.typeURL, version)
	}
}
