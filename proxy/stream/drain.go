package stream

import "context"

type drainKey struct{}

// WithDrain returns a context that carries a connection's drain signal: ch is
// closed when the connection should end after what it is doing
// (Connection: close, GOAWAY), because the proxy or its filter chain goes away.
// When time is up, the context itself ends.
func WithDrain(ctx context.Context, ch <-chan struct{}) context.Context {
	return context.WithValue(ctx, drainKey{}, ch)
}

// Draining returns the signal of [WithDrain], nil (never closed) if there is none.
func Draining(ctx context.Context) <-chan struct{} {
	ch, _ := ctx.Value(drainKey{}).(<-chan struct{})
	return ch
}
