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
)

// admissionWait is how long a new stream waits for its turn before it is told to come back.
const admissionWait = 5 * time.Second

// gate lets streams in at a bounded rate, and out one by one: neither a herd
// that comes nor one that is sent away hits anybody at once. Safe for concurrent use.
type gate struct {
	limit *rate.Limiter

	mu      sync.Mutex // protects the following
	shut    bool
	streams map[*gated]context.CancelFunc
}

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
	return &gate{limit: limit, streams: map[*gated]context.CancelFunc{}}
}

func errLeaving() error {
	return status.Error(codes.Unavailable, "this control plane is going away: connect to another")
}

// intercept is a grpc.StreamServerInterceptor.
func (g *gate) intercept(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if g.closed() {
		return errLeaving()
	}
	wait, stop := context.WithTimeout(ss.Context(), admissionWait)
	err := g.limit.Wait(wait)
	stop()
	if err != nil {
		return status.Error(codes.Unavailable, "too many new streams at once: try again")
	}
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	x := &gated{ss, ctx}
	g.mu.Lock()
	if g.shut {
		g.mu.Unlock()
		return errLeaving()
	}
	g.streams[x] = cancel
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.streams, x)
		g.mu.Unlock()
	}()
	err = handler(srv, x)
	if ctx.Err() != nil && ss.Context().Err() == nil {
		return errLeaving()
	}
	return err
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
