// Package backoff says how long to wait before trying again.
//
// It computes jittered, exponentially growing delays with an upper bound and
// can wait for them. It does not run the operation, count attempts against a
// limit or log. A [Policy] is a plain value that may be shared; a [Backoff] has
// one owner and is not safe for concurrent use. Nothing starts a goroutine.
package backoff

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// Values used for the fields of a [Policy] that are zero or make no sense.
const (
	DefaultBase   = 100 * time.Millisecond
	DefaultMax    = 30 * time.Second
	DefaultFactor = 2.0
)

// Policy describes a series of delays: Base, Base·Factor, Base·Factor², … up to Max.
type Policy struct {
	// Base is the delay before the first retry, before jitter. Zero or less means [DefaultBase].
	Base time.Duration
	// Max bounds every delay, before jitter. Zero or less means [DefaultMax]; a Max below Base means Base.
	Max time.Duration
	// Factor is the growth from one delay to the next. Less than 1 (and zero) means [DefaultFactor].
	Factor float64
	// Jitter is the share of the delay that is random, from 0 (none) to 1 (full
	// jitter: anything from nothing to the whole delay). Values outside are clamped.
	// A delay d becomes d·(1-Jitter) + d·Jitter·r with r in [0,1), so jitter only
	// ever shortens a delay and Max holds.
	Jitter float64
}

// Full returns a policy with full jitter and factor 2, the right choice when
// many clients of one server start to retry at the same moment.
func Full(base, max time.Duration) Policy {
	return Policy{Base: base, Max: max, Jitter: 1}
}

// Delay returns the delay before the given retry. The first retry is 0, and a
// negative one counts as 0. r is the random number in [0,1) that places the
// delay within its jitter. Delay has no state and is safe for concurrent use.
func (p Policy) Delay(retry int, r float64) time.Duration {
	p = p.normal()
	d := float64(p.Base) * math.Pow(p.Factor, float64(max(retry, 0)))
	if d > float64(p.Max) { // also true for +Inf
		d = float64(p.Max)
	}
	return time.Duration(d*(1-p.Jitter) + d*p.Jitter*r)
}

// normal returns p with defaults filled in.
func (p Policy) normal() Policy {
	if p.Base <= 0 {
		p.Base = DefaultBase
	}
	if p.Max <= 0 {
		p.Max = DefaultMax
	}
	p.Max = max(p.Max, p.Base)
	if !(p.Factor >= 1) { // also catches NaN
		p.Factor = DefaultFactor
	}
	if !(p.Jitter >= 0) {
		p.Jitter = 0
	}
	p.Jitter = min(p.Jitter, 1)
	return p
}

// Backoff walks through the delays of one policy.
type Backoff struct {
	policy Policy         // set at creation
	random func() float64 // set at creation
	retry  int
}

// New returns a Backoff that starts with the first delay of p. random returns
// numbers in [0,1); nil means math/rand/v2, tests pass a fixed one.
func New(p Policy, random func() float64) *Backoff {
	if random == nil {
		random = rand.Float64
	}
	return &Backoff{policy: p, random: random}
}

// Next returns the next delay and advances.
func (b *Backoff) Next() time.Duration {
	d := b.policy.Delay(b.retry, b.random())
	if b.retry < math.MaxInt {
		b.retry++
	}
	return d
}

// Retries returns how many delays were handed out since the start or the last Reset.
func (b *Backoff) Retries() int { return b.retry }

// Reset makes the next delay the first one again. Call it after a success; when a
// success can be very short (a stream that opens and breaks at once), call
// it only after the success has lasted for a while.
func (b *Backoff) Reset() { b.retry = 0 }

// Wait blocks for the next delay. It returns the context's error as soon as ctx
// ends, also when it had ended before, and nil once the delay has passed.
func (b *Backoff) Wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
