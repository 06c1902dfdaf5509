package stream

import "context"

type drainKey struct{}

// Draining returns the drain signal of the connection that ctx belongs to ([ConnContext.SetDrain]), nil (never closed) if there is none.
func Draining(ctx context.Context) <-chan struct{} {
	ch, _ := ctx.Value(drainKey{}).(<-chan struct{})
	return ch
}
