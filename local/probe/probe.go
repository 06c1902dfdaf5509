// Package probe checks the health of containers as Kubernetes' kubelet does:
// HTTP, TCP, gRPC and command checks on a schedule, with thresholds.
//
// One thing is quicker than a kubelet: until a readiness or startup probe has
// succeeded once, it runs every [EagerPeriod], so that a pod does not stay out
// of service for a whole period because its first check came too early.
// Failures still count once for each period only.
package probe

import (
	"context"
	"time"

	"weft.mesh/weft/local/podspec"
)

// EagerPeriod is the time between checks until the first success, if the
// probe's own period is not shorter.
const EagerPeriod = 100 * time.Millisecond

// Result is what the checks so far amount to.
type Result int

// Results. A probe begins Unknown, which counts as not ready and as alive.
const (
	Unknown Result = iota
	Success
	Failure
)

// Tracker applies the thresholds to single checks. It has one owner.
type Tracker struct {
	SuccessThreshold, FailureThreshold int

	result Result
	last   bool
	run    int // equal checks in a row
}

// Add counts one check and returns the result.
func (t *Tracker) Add(ok bool) Result {
	if t.run == 0 || ok != t.last {
		t.last, t.run = ok, 0
	}
	t.run++
	switch {
	case ok && t.run >= max(t.SuccessThreshold, 1):
		t.result = Success
	case !ok && t.run >= max(t.FailureThreshold, 1):
		t.result = Failure
	}
	return t.result
}

// Run checks on p's schedule until ctx ends or report returns false. report is
// called after each check with the result so far and the check's error.
func Run(ctx context.Context, p *podspec.Probe, eager bool, check func(context.Context) error, report func(Result, error) bool) {
	if !sleep(ctx, p.InitialDelay) {
		return
	}
	t := Tracker{SuccessThreshold: p.SuccessThreshold, FailureThreshold: p.FailureThreshold}
	var result Result
	var counted time.Time // when a failure was last counted
	for {
		began := time.Now()
		err := runOne(ctx, p.Timeout, check)
		if ctx.Err() != nil {
			return
		}
		if err == nil || !eager || began.Sub(counted) >= p.Period {
			result = t.Add(err == nil)
			if err != nil {
				counted = began
			}
		}
		if !report(result, err) {
			return
		}
		if result == Success {
			eager = false
		}
		wait := p.Period
		if eager {
			wait = min(wait, EagerPeriod)
		}
		if !sleep(ctx, wait-time.Since(began)) {
			return
		}
	}
}

func runOne(ctx context.Context, timeout time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return check(ctx)
}

// sleep waits for d and says whether ctx is still good.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
