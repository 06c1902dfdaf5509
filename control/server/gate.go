package server

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"weft.mesh/weft/control/grpcstream"
)

// admissionWait is how long a new stream waits for its turn before it is told to come back.
const admissionWait = 5 * time.Second

// gate lets streams in at a bounded rate, and out one by one: neither a herd
// that comes nor one that is sent away hits anybody at once. Safe for concurrent use.
type gate struct {
	limit *rate.Limiter

	mu      sync.Mutex // protects the following
	shut    bool
	streams map[*pass]context.CancelFunc
}

// pass is that of one stream.
type pass struct{ _ byte }

// gated is a stream with a context that the gate can end.
type gated struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (g *gated) Context() context.Context { return g.ctx }

// newGate makes a gate; 0 streams a second is any number.
func newGate(perSecond float64) *gate {
	limit := rate.NewLimiter(rate.Inf, 0)
	if perSecond > 0 {
		limit = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond)))
	}
	return &gate{limit: limit, streams: map[*pass]context.CancelFunc{}}
}

func errLeaving() error {
	return status.Error(codes.Unavailable, "this control plane is going away: connect to another")
}

// enter lets a stream in when it is its turn. The context that it gets ends also when it is sent away; leave must be called after.
func (g *gate) enter(ctx context.Context) (inside context.Context, leave func(), err error) {
	if g.closed() {
		return nil, nil, errLeaving()
	}
	wait, stop := context.WithTimeout(ctx, admissionWait)
	err = g.limit.Wait(wait)
	stop()
	if err != nil {
		return nil, nil, status.Error(codes.Unavailable, "too many new streams at once: try again")
	}
	inside, cancel := context.WithCancel(ctx)
	x := new(pass)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		cancel()
		return nil, nil, errLeaving()
	}
	g.streams[x] = cancel
	return inside, func() {
		cancel()
		g.mu.Lock()
		delete(g.streams, x)
		g.mu.Unlock()
	}, nil
}

// intercept is a grpc.StreamServerInterceptor.
func (g *gate) intercept(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, leave, err := g.enter(ss.Context())
	if err != nil {
		return err
	}
	defer leave()
	err = handler(srv, &gated{ss, ctx})
	if ctx.Err() != nil && ss.Context().Err() == nil {
		return errLeaving()
	}
	return err
}

// accept is what intercept does, for streams that gRPC does not carry.
func (g *gate) accept(ctx context.Context, s *grpcstream.Stream, next func(context.Context, *grpcstream.Stream) (grpcstream.Receiver, error)) (grpcstream.Receiver, error) {
	inside, leave, err := g.enter(ctx)
	if err != nil {
		return nil, err
	}
	r, err := next(inside, s)
	if err != nil {
		sentAway := inside.Err() != nil && ctx.Err() == nil
		if leave(); sentAway {
			err = errLeaving()
		}
		return nil, err
	}
	context.AfterFunc(ctx, leave) // it ends with the stream
	context.AfterFunc(inside, func() { s.End(errLeaving()) })
	return r, nil
}

// closed tells that nobody is let in any more.
func (g *gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

// drain lets nobody in, and ends the streams that there are one by one, in
// random order, spread over a time. It returns when all were told, or ctx ends.
func (g *gate) drain(ctx context.Context, over time.Duration) {
	g.mu.Lock()
	g.shut = true
	cancels := make([]context.CancelFunc, 0, len(g.streams))
	for _, c := range g.streams {
		cancels = append(cancels, c)
	}
	g.mu.Unlock()
	if over <= 0 || len(cancels) == 0 {
		return
	}
	rand.Shuffle(len(cancels), func(i, j int) { cancels[i], cancels[j] = cancels[j], cancels[i] })
	tick := time.NewTicker(max(over/time.Duration(len(cancels)), time.Microsecond))
	defer tick.Stop()
	for _, cancel := range cancels {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			cancel()
		}
	}
}
