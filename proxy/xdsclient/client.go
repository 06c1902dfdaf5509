package xdsclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // control planes may compress what they send to many proxies
	"google.golang.org/grpc/keepalive"

	"weft.mesh/weft/internal/backoff"
	"weft.mesh/weft/xds"
)

const (
	maxMessage = 64 << 20 // bytes of one response
	queue      = 16       // responses read ahead; the stream's flow control holds back the rest

	// window of a stream and of its connection. A fixed one spares the control plane a ping for each response, by which gRPC would find out
	// what the window should be: one of a thousand proxies, each of which gets a response at once.
	window = 1 << 20

	keepaliveTime    = 30 * time.Second // Istio's; servers must permit it
	keepaliveTimeout = 10 * time.Second

	// settledAfter is how long a stream must have lived for the next back-off to begin anew.
	settledAfter = 5 * time.Second
	saveDelay    = time.Second // quiet time before the last-good file is written
	saveAtMost   = 10 * time.Second
)

// Settings of a [Client].
type Settings struct {
	Address     string // host:port of the control plane
	Node        *corev3.Node
	Credentials credentials.TransportCredentials
	// Dial opens the TCP connection (socket mark); nil: an ordinary dial.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Sink takes the resources.
	Sink Sink
	// Names subscribes to the mesh's name table too ([xds.NameTableType]), whose resource the Sink gets last.
	Names bool
	// File keeps the last good resources; "": nothing is kept.
	File string
	// Backoff between streams; the zero value is 100 ms to 10 s with full jitter.
	Backoff backoff.Policy
	Log     *slog.Logger
}

// Status is what the client did so far.
type Status struct {
	Connected bool
	Since     time.Time // of the current state
	Streams   uint64    // opened so far
	LastError string
	Updates   uint64 // responses
	NACKs     uint64
	LastNACK  string
	FromDisk  bool // what serves came from the last-good file, nothing from the server yet
}

// Client runs one ADS stream after another. Make it with [New].
type Client struct {
	set     Settings
	log     *slog.Logger
	session *session // Run's goroutine only
	dirty   time.Time
	saveAt  time.Time
	flush   chan chan struct{} // asks Run to write the last-good file; see Flush
	retired atomic.Bool        // set by Retire

	mu     sync.Mutex
	status Status // mu protects it
}

// New returns a client that has not connected yet.
func New(s Settings) (*Client, error) {
	if _, _, err := net.SplitHostPort(s.Address); err != nil {
		return nil, fmt.Errorf("xds: control plane address %q: %w", s.Address, err)
	}
	if s.Sink == nil || s.Node.GetId() == "" || s.Credentials == nil {
		return nil, errors.New("xds: client needs a sink, a node with an id, and credentials")
	}
	if s.Backoff == (backoff.Policy{}) {
		s.Backoff = backoff.Full(100*time.Millisecond, 10*time.Second)
	}
	c := &Client{set: s, log: s.Log, flush: make(chan chan struct{})}
	order := xds.PushOrder
	if s.Names {
		order = append(slices.Clone(order), xds.NameTableType)
	}
	c.session = newSession(s.Node, order, c.accepted)
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Status tells what the client did so far. Safe for concurrent use.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *Client) note(f func(*Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.status)
}

// accepted is an accepted resource; nil if there is none of that name.
func (c *Client) accepted(typeURL, name string) *xds.Resource {
	for _, r := range c.set.Sink.Accepted(typeURL) {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// Load takes what the last-good file holds, so that the proxy serves before,
// or without, a control plane. It tells whether there was anything. A file
// that cannot be used is logged and ignored. Call it before Run.
func (c *Client) Load() bool {
	if c.set.File == "" {
		return false
	}
	rs, err := loadFile(c.set.File, c.set.Node.GetId())
	if err != nil {
		c.log.Warn("last-good configuration ignored", "file", c.set.File, "cause", err)
		return false
	}
	if len(rs) == 0 {
		return false
	}
	for _, t := range c.session.order {
		var set []*xds.Resource
		for _, r := range rs {
			if r.TypeURL == t {
				set = append(set, r)
			}
		}
		if len(set) == 0 {
			continue
		}
		refused, why := c.set.Sink.Apply(Update{TypeURL: t, Set: set})
		if len(refused) > 0 {
			c.log.Warn("last-good configuration: resources refused", "type", xds.ShortName(t), "cause", why)
		}
		c.session.held(slices.DeleteFunc(set, func(r *xds.Resource) bool { return slices.Contains(refused, r.Name) }))
	}
	for _, t := range c.session.order {
		if !wildcard(t) {
			c.session.Step(wanted{t, c.set.Sink.Wanted(t)})
		}
	}
	c.set.Sink.Commit()
	c.note(func(s *Status) { s.FromDisk = true })
	return true
}

// Run keeps a stream open until ctx ends, then writes the last-good file if it is out of date.
func (c *Client) Run(ctx context.Context) error {
	b := backoff.New(c.set.Backoff, nil)
	for ctx.Err() == nil {
		began := time.Now()
		err := c.stream(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) >= settledAfter {
			b.Reset()
		}
		c.note(func(s *Status) {
			if s.Connected {
				s.Connected, s.Since = false, time.Now()
			}
			s.LastError = err.Error()
		})
		c.log.Warn("control plane stream ended", "address", c.set.Address, "cause", err, "retries", b.Retries())
		if !c.waitSaving(ctx, b.Next()) {
			break
		}
	}
	c.save()
	return nil
}

// waitSaving waits for d and writes the last-good file when that is due. false: ctx ended.
func (c *Client) waitSaving(ctx context.Context, d time.Duration) bool {
	end := time.NewTimer(d)
	defer end.Stop()
	save := time.NewTimer(c.untilSave())
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-end.C:
			return true
		case <-save.C:
			c.save()
		case done := <-c.flush:
			c.save()
			close(done)
		}
	}
}

// stream runs one ADS stream to its end.
func (c *Client) stream(ctx context.Context) error {
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(c.set.Credentials), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithReadBufferSize(16 << 10), grpc.WithWriteBufferSize(xds.WriteBuffer),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
	}
	if c.set.Dial != nil {
		opts = append(opts, grpc.WithContextDialer(c.set.Dial))
	}
	// A connection for each stream: the only back-off is ours, and a new one takes the current certificate.
	conn, err := grpc.NewClient("passthrough:///"+c.set.Address, opts...)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	in := make(chan *discoveryv3.DeltaDiscoveryResponse, queue)
	failed := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { failed <- receive(ctx, g, in) })
	for _, a := range c.session.Step(opened{}) {
		if err := c.do(g, a); err != nil {
			return streamError(g, err)
		}
	}
	return c.loop(ctx, g, in, failed)
}

type adsStream = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

// receive hands responses on; the stream's flow control bounds what waits.
func receive(ctx context.Context, g adsStream, in chan<- *discoveryv3.DeltaDiscoveryResponse) error {
	for {
		r, err := g.Recv()
		if err != nil {
			return err
		}
		select {
		case in <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// streamError prefers the server's word over the io.EOF that sending returns.
func streamError(g adsStream, err error) error {
	if _, e := g.Recv(); e != nil {
		return e
	}
	return err
}

func (c *Client) loop(ctx context.Context, g adsStream, in <-chan *discoveryv3.DeltaDiscoveryResponse, failed <-chan error) error {
	c.note(func(s *Status) {
		s.Connected, s.Since, s.LastError = true, time.Now(), ""
		s.Streams++
	})
	c.log.Info("control plane connected", "address", c.set.Address)
	save := time.NewTimer(c.untilSave())
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case <-save.C:
			c.save()
		case done := <-c.flush:
			c.save()
			close(done)
		case r := <-in:
			if err := c.batch(g, r, in); err != nil {
				return err
			}
			save.Reset(c.untilSave())
		}
	}
}

// batch applies a response and those that have arrived with it, in order, and commits once.
func (c *Client) batch(g adsStream, r *discoveryv3.DeltaDiscoveryResponse, in <-chan *discoveryv3.DeltaDiscoveryResponse) error {
	rs := []*discoveryv3.DeltaDiscoveryResponse{r}
	for more := true; more && len(rs) < queue; {
		select {
		case r := <-in:
			rs = append(rs, r)
		default:
			more = false
		}
	}
	slices.SortStableFunc(rs, func(a, b *discoveryv3.DeltaDiscoveryResponse) int {
		return order(a.GetTypeUrl()) - order(b.GetTypeUrl())
	})
	var updates []pendingUpdate
	for _, r := range rs {
		for _, a := range c.session.Step(received{r}) {
			if u, ok := a.(apply); ok {
				updates = append(updates, u.update)
			} else if err := c.do(g, a); err != nil {
				return err
			}
		}
	}
	acts := c.apply(updates)
	c.set.Sink.Commit()
	for _, a := range acts {
		if err := c.do(g, a); err != nil {
			return err
		}
	}
	c.changed()
	return nil
}

// apply hands updates to the Sink: all that is added or changed first, removals of clusters last.
func (c *Client) apply(updates []pendingUpdate) []action {
	var acts []action
	var gone []string
	for _, u := range updates {
		now := u.Update
		if now.TypeURL == xds.ClusterType && len(updates) > 1 {
			// Names that a later response of the batch brings back must not go.
			gone = append(slices.DeleteFunc(gone, func(n string) bool { return sets(u.Set, n) }), now.Removed...)
			now.Removed = nil
		}
		refused, why := c.set.Sink.Apply(now)
		c.note(func(s *Status) {
			s.Updates++
			s.FromDisk = false
			if len(refused) > 0 || u.why != "" {
				s.NACKs++
				s.LastNACK = joinText(why, u.why)
			}
		})
		if len(refused) > 0 || u.why != "" {
			c.log.Error("configuration refused", "type", xds.ShortName(u.TypeURL), "cause", joinText(why, u.why))
		}
		acts = append(acts, c.session.Step(settled{update: u, refused: refused, reason: why})...)
	}
	if len(gone) > 0 {
		c.set.Sink.Apply(Update{TypeURL: xds.ClusterType, Removed: gone})
	}
	for _, t := range c.session.order {
		if !wildcard(t) {
			acts = append(acts, c.session.Step(wanted{t, c.set.Sink.Wanted(t)})...)
		}
	}
	return acts
}

func sets(rs []*xds.Resource, name string) bool {
	return slices.ContainsFunc(rs, func(r *xds.Resource) bool { return r.Name == name })
}

func (c *Client) do(g adsStream, a action) error {
	s, ok := a.(send)
	if !ok {
		panic(fmt.Sprintf("xdsclient: action %T cannot be sent", a))
	}
	if err := g.Send(s.request); err != nil {
		return fmt.Errorf("send %s request: %w", xds.ShortName(s.request.GetTypeUrl()), err)
	}
	return nil
}
