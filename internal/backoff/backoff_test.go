package backoff

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const ms = time.Millisecond

func fixed(r float64) func() float64 { return func() float64 { return r } }

func TestNextFollowsThePolicy(t *testing.T) {
	tests := []struct {
		name   string
		policy Policy
		random float64
		want   []time.Duration
	}{
		{"doubles until max without jitter", Policy{Base: 10 * ms, Max: 50 * ms}, 0.9, []time.Duration{10 * ms, 20 * ms, 40 * ms, 50 * ms, 50 * ms}},
		{"grows by factor", Policy{Base: 10 * ms, Max: time.Second, Factor: 3}, 0, []time.Duration{10 * ms, 30 * ms, 90 * ms}},
		{"factor one is constant", Policy{Base: 10 * ms, Max: time.Second, Factor: 1}, 0, []time.Duration{10 * ms, 10 * ms}},
		{"full jitter can be nothing", Full(10*ms, time.Second), 0, []time.Duration{0, 0}},
		{"full jitter takes its share of each delay", Full(10*ms, time.Second), 0.5, []time.Duration{5 * ms, 10 * ms, 20 * ms}},
		{"half jitter keeps half", Policy{Base: 100 * ms, Max: time.Second, Jitter: 0.5}, 0, []time.Duration{50 * ms, 100 * ms}},
		{"jitter above one is full jitter", Policy{Base: 100 * ms, Max: time.Second, Jitter: 7}, 0.5, []time.Duration{50 * ms}},
		{"negative jitter is none", Policy{Base: 100 * ms, Max: time.Second, Jitter: -1}, 0.5, []time.Duration{100 * ms}},
		{"zero policy has the defaults", Policy{}, 0, []time.Duration{DefaultBase, 2 * DefaultBase}},
		{"max below base means base", Policy{Base: 10 * ms, Max: ms}, 0, []time.Duration{10 * ms, 10 * ms}},
		{"not a number falls back", Policy{Base: 10 * ms, Max: time.Second, Factor: math.NaN(), Jitter: math.NaN()}, 0, []time.Duration{10 * ms, 20 * ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := New(tt.policy, fixed(tt.random))
			var got []time.Duration
			for range tt.want {
				got = append(got, b.Next())
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("delays (-want +got):\n%s", d)
			}
		})
	}
}

func TestDelayStaysInBoundsForAnyRetry(t *testing.T) {
	p := Policy{Base: time.Second, Max: time.Hour, Factor: 10, Jitter: 0.3}
	for _, retry := range []int{math.MinInt, -1, 0, 1, 5, 1000, math.MaxInt} {
		for _, r := range []float64{0, 0.5, math.Nextafter(1, 0)} {
			d := p.Delay(retry, r)
			if d < 700*ms || d > time.Hour {
				t.Errorf("Delay(%d, %v) = %v, want between 0.7s and 1h", retry, r, d)
			}
		}
	}
}

func TestRealRandomnessSpreadsFullJitter(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		d := New(Full(time.Second, time.Second), nil).Next()
		if d < 0 || d >= time.Second {
			t.Fatalf("delay %v outside [0, 1s)", d)
		}
		seen[d] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different delays of 100, want them spread", len(seen))
	}
}

func TestResetStartsOver(t *testing.T) {
	b := New(Policy{Base: 10 * ms, Max: time.Second}, nil)
	b.Next()
	b.Next()
	if b.Retries() != 2 {
		t.Errorf("Retries() = %d, want 2", b.Retries())
	}
	b.Reset()
	if d := b.Next(); d != 10*ms {
		t.Errorf("first delay after Reset = %v, want 10ms", d)
	}
}

func TestWaitTakesExactlyTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Policy{Base: time.Second, Max: time.Minute}, nil)
		start := time.Now()
		for range 3 {
			if err := b.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(start); got != 7*time.Second {
			t.Errorf("three waits took %v, want 1s+2s+4s", got)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		b := New(Policy{Base: time.Minute, Max: time.Minute}, nil)
		start := time.Now()
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait = %v, want deadline exceeded", err)
		}
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("Wait returned after %v, want 3s", got)
		}
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait with an ended context = %v, want deadline exceeded", err)
		}
		if b.Retries() != 1 {
			t.Errorf("a Wait refused at once used up a delay: Retries() = %d, want 1", b.Retries())
		}
	})
}

func TestNextDoesNotAllocate(t *testing.T) {
	b := New(Full(ms, time.Second), nil)
	if n := testing.AllocsPerRun(1000, func() { b.Next() }); n != 0 {
		t.Errorf("allocs per Next = %v, want 0", n)
	}
}
